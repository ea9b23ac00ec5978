/** One kernel from its spec: recorded, checked, printed as a C file that stands alone. */
import { PlanError } from '../schemas/error.ts';
import { check } from './ir/check.ts';
import { printFunction } from './ir/print.ts';
import type { Param, Program } from './ir/record.ts';
import { Recorder } from './ir/record.ts';
import type { VectorWord } from './ir/words.ts';
import { isaOf } from './isa/index.ts';
import type { Isa } from './isa/isa.ts';
import { kernels } from './kernels/index.ts';
import type { KernelFamily } from './kernels/kernel.ts';
import type { KernelSpec } from './name.ts';
import { format } from './name.ts';
import { packings } from './packings/index.ts';
import type { Packing } from './packings/packing.ts';

/** The kernel family of a spec. */
export function familyOf(spec: KernelSpec): KernelFamily {
  const found = (kernels as Record<string, KernelFamily>)[spec.op];
  if (!found) throw new PlanError(`unknown kernel '${spec.op}'; known kernels: ${Object.keys(kernels).join(', ')}`);
  return found;
}

/** Words that the kernel needs and the ISA lacks; empty when the kernel can be generated. */
export function missingWords(spec: KernelSpec, isa: Isa): VectorWord[] {
  const packing = Object.values<Packing>(packings).find((p) => p.token === spec.weight);
  return [...familyOf(spec).needs, ...(packing?.needs ?? [])].filter((word) => !isa.words[word]);
}

/** Records and checks one kernel. @throws PlanError with the reason when the tile does not fit */
export function programOf(spec: KernelSpec): Program {
  const isa = isaOf(spec.isa);
  const missing = missingWords(spec, isa);
  if (missing.length) throw new PlanError(`${format(spec)}: ${isa.name} has no word '${missing[0]}'`);
  const recorder = new Recorder();
  familyOf(spec).record(recorder, spec, isa);
  const program = recorder.program(format(spec));
  const problems = check(program, isa);
  if (problems.length) throw new PlanError(`${program.name}: ${problems[0]}`);
  return program;
}

function describe(p: Param): string {
  if (p.kind === 'long') return `${p.name}: ${p.doc}, ${p.min} <= ${p.name} <= ${p.max}`;
  return `${p.name}: ${p.doc}${p.kind === 'pointer' && p.bound !== undefined ? `, values <= ${p.bound}` : ''}`;
}

/** The helpers that a text calls, directly or through each other. */
function helpersFor(text: string, isa: Isa): string {
  let all = text;
  const used: string[] = [];
  for (const [name, helper] of Object.entries(isa.helpers).reverse()) {
    if (!all.includes(`${name}(`)) continue;
    used.unshift(helper);
    all += helper;
  }
  return used.map((helper) => `\n${helper}\n`).join('');
}

/** The C file of a kernel: banner, prelude, function. */
export function kernelSource(spec: KernelSpec): { name: string; program: Program; text: string } {
  const program = programOf(spec);
  const isa = isaOf(spec.isa);
  const banner = [
    `bn_${program.name}`,
    '',
    familyOf(spec).formula,
    ...program.params.map((p) => `  ${describe(p)}`),
    '',
    `Generated from codegen/kernels for ${isa.name}; tile ${spec.tile.join(' x ')}. Buffers must not overlap.`,
  ];
  const code = printFunction(program, isa);
  const text = `/*\n${banner.map((line) => ` * ${line}`.trimEnd()).join('\n')}\n */
#include <stdint.h>
${isa.include}
${helpersFor(code, isa)}
/* Preconditions; checked where BN_DEBUG is defined. */
#ifdef BN_DEBUG
#define BN_ASSERT(condition) ((condition) ? (void)0 : __builtin_trap())
#else
#define BN_ASSERT(condition) ((void)0)
#endif

${code}`;
  return { name: program.name, program, text };
}
