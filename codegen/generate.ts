/** One kernel from its spec: recorded, checked, printed as a C file that stands alone. */
import { PlanError } from '../schemas/error.ts';
import { analyse, check } from './ir/check.ts';
import { hotLoopCost } from './ir/cost.ts';
import { helpersOf, printFunction } from './ir/print.ts';
import type { Param, Program } from './ir/record.ts';
import { Recorder } from './ir/record.ts';
import type { VectorWord } from './ir/words.ts';
import { words as vocabulary } from './ir/words.ts';
import { isaOf } from './isa/index.ts';
import type { Isa } from './isa/isa.ts';
import { kernels } from './kernels/index.ts';
import type { KernelFamily } from './kernels/kernel.ts';
import type { KernelSpec } from './name.ts';
import { format } from './name.ts';
import { findOrdered, packings } from './packings/index.ts';
import type { Packing } from './packings/packing.ts';

/** The kernel family of a spec. */
export function familyOf(spec: KernelSpec): KernelFamily {
  const found = Object.hasOwn(kernels, spec.op) && (kernels as Record<string, KernelFamily>)[spec.op];
  if (!found) throw new PlanError(`unknown kernel '${spec.op}'; known kernels: ${Object.keys(kernels).join(', ')}`);
  return found;
}

/** The words that a kernel needs. */
function neededWords(spec: KernelSpec): VectorWord[] {
  const packing =
    findOrdered(spec.weight)?.coding ?? Object.values<Packing>(packings).find((p) => p.token === spec.weight);
  return [...familyOf(spec).needs, ...(packing?.needs ?? [])];
}

/** Words that the kernel needs and the ISA lacks; empty when the kernel can be generated. */
export const missingWords = (spec: KernelSpec, isa: Isa): VectorWord[] =>
  neededWords(spec).filter((word) => !isa.words[word]);

/** Optional features of its ISA without which the kernel does not run. */
export const neededFeatures = (spec: KernelSpec): string[] => {
  const gated = isaOf(spec.isa).gated ?? {};
  return [...new Set(neededWords(spec).flatMap((word) => gated[word] ?? []))];
};

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

const plural = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`;

/** Banner lines on bounds and cost. */
function numbers(program: Program, isa: Isa): string[] {
  const { largestSum, largestCode } = analyse(program, isa);
  const { words, loaded, live } = hotLoopCost(program, isa);
  const counted = Object.entries({
    dot_next: 'dot step',
    mat_next: 'matrix step',
    fma: 'multiply-add',
    broadcast4: 'broadcast',
    field: 'field',
  })
    .filter(([word]) => words[word])
    .map(([word, what]) => plural(words[word]!, what));
  const cost = `Innermost loop: ${[`${plural(loaded, 'byte')} loaded`, ...counted].join(', ')}; ${live} live vector values${Number.isFinite(isa.registers) ? ` of ${isa.registers} registers` : ''}.`;
  if (!largestSum) return [cost];
  const [step, products] = words.mat_next
    ? (['matrix step', vocabulary.mat_next.products()] as const)
    : (['dot step', vocabulary.dot_next.products(isa)] as const);
  return [
    `Partial sums: at most ${plural(largestSum / (products * largestCode * 127), step)} x ${products} products x ${largestCode} x 127 = ${largestSum} <= ${isa.dot.limit}.`,
    cost,
  ];
}

/** The helpers that a text calls, directly or through each other. */
function helpersFor(text: string, isa: Isa): string {
  let all = text;
  const used: string[] = [];
  for (const [name, helper] of Object.entries(helpersOf(isa)).reverse()) {
    if (!all.includes(`${name}(`)) continue;
    used.unshift(helper);
    all += helper;
  }
  return used.map((helper) => `\n${helper}\n`).join('');
}

/** A C file that stands alone: a comment with these lines, prelude, function. */
export function fileOf(program: Program, isa: Isa, banner: readonly string[]): string {
  const code = printFunction(program, isa);
  return `/*\n${banner.map((line) => ` * ${line}`.trimEnd()).join('\n')}\n */
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
}

/** A kernel's program, and its C file. */
export function kernelSource(spec: KernelSpec): { name: string; program: Program; text: string } {
  const program = programOf(spec);
  const isa = isaOf(spec.isa);
  const banner = [
    `bn_${program.name}`,
    '',
    familyOf(spec).formula,
    ...program.params.map((p) => `  ${describe(p)}`),
    '',
    ...numbers(program, isa),
    'Buffers must not overlap.',
    '',
    `Generated by bitnet-gen from codegen/kernels/${familyOf(spec).source} for ${isa.name}, tile ${spec.tile.join(' x ')}.`,
  ];
  return { name: program.name, program, text: fileOf(program, isa, banner) };
}
