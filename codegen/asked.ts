/** Kernels that are asked for by name or by operation (`--kernel`), and what is said when there is no such. */
import { PlanError } from '../schemas/error.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';
import { problems } from './graph.ts';
import { isaOf } from './isa/index.ts';
import { kernels } from './kernels/index.ts';
import type { KernelFamily } from './kernels/kernel.ts';
import { parse } from './name.ts';
import { packingsFor } from './packings/index.ts';
import { candidates } from './space.ts';

/** The kernel that is asked for, by size of the matrix. @throws PlanError when it is none of this model and target */
export function askedKernels(shape: ModelShape, cpu: CpuProfile, asked: readonly string[]) {
  const isName = (text: string) => text.includes('__');
  const decoding = Object.entries<KernelFamily>(kernels).flatMap(([op, { product }]) => (product ? [op] : []));
  const sizes = problems(shape);
  for (const text of asked) {
    const { op, isa, shape: size } = isName(text) ? parse(text) : { op: text, isa: cpu.isa, shape: undefined };
    if (!decoding.includes(op))
      throw new PlanError(`'${op}' is no decode kernel; there are ${decoding.join(', ')}, or a whole kernel name`);
    if (isa !== cpu.isa) throw new PlanError(`kernel '${text}' is for ${isa}, and the target is ${cpu.isa}`);
    if (size && !sizes.some(({ n, k }) => n === size.n && k === size.k))
      throw new PlanError(
        `kernel '${text}' is for a ${size.n} x ${size.k} matrix; ${shape.name} has ${sizes.map(({ n, k }) => `${n} x ${k}`).join(', ')}`,
      );
  }
  return (n: number, k: number): string | undefined =>
    asked.find((text) => isName(text) && parse(text).shape.n === n && parse(text).shape.k === k) ??
    asked.find((text) => !isName(text));
}

/** Why there is no plan for a matrix, and what there is. */
export function nothingFor(cpu: CpuProfile, n: number, k: number, packing?: string, kernel?: string): string {
  const those = packingsFor(isaOf(cpu.isa));
  const offered = [
    ...new Set(
      those.flatMap((p) => candidates(cpu, p, n, k, kernel !== undefined)).map((s) => `${s.op} over ${s.weight}`),
    ),
  ];
  const asked = [kernel && `kernel '${kernel}'`, packing && `packing '${packing}'`].filter(Boolean).join(' with ');
  return `no ${asked || 'kernel'} for a ${n} x ${k} matrix on ${cpu.name}; there are ${offered.join(', ') || 'none'}`;
}
