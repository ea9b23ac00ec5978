/**
 * The space of legal kernels for a ternary product: what every registered family offers for a packing, each family's preferred
 * spec first. The plan takes the first legal one; the tuner measures them.
 */
import { PlanError } from '../schemas/error.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { neededFeatures, programOf } from './generate.ts';
import type { Program } from './ir/record.ts';
import type { Isa } from './isa/isa.ts';
import { kernels, kernelsFor } from './kernels/index.ts';
import type { KernelFamily } from './kernels/kernel.ts';
import type { KernelSpec } from './name.ts';
import type { Packing } from './packings/packing.ts';

/** All specs for y[n] = W[n][k] . x over one packing, that this CPU's features allow. */
export function candidates(cpu: CpuProfile, p: Packing, n: number, k: number): KernelSpec[] {
  return Object.values<KernelFamily>(kernels)
    .flatMap(({ product }) => product?.candidates(cpu, p, n, k) ?? [])
    .filter((spec) => neededFeatures(spec).every((feature) => cpu.features.includes(feature)));
}

/** The kernels for several tokens, by rising number: for each number the first legal one. */
export function batches(isa: Isa, p: Packing, n: number, k: number): KernelSpec[] {
  const offered = kernelsFor(isa)
    .flatMap(([, family]) => family.batch?.(isa, p, n, k) ?? [])
    .filter((spec) => !refusal(spec));
  const first = new Map(offered.reverse().map((spec) => [spec.tile[0]!, spec]));
  return [...first.values()].sort((a, b) => a.tile[0]! - b.tile[0]!);
}

/** The program of a kernel, or why it cannot be generated. */
export function attempt(spec: KernelSpec): Program | string {
  try {
    return programOf(spec);
  } catch (error) {
    if (error instanceof PlanError) return error.message;
    throw error;
  }
}

/** Why this kernel cannot be generated; undefined when it can. */
export function refusal(spec: KernelSpec): string | undefined {
  const program = attempt(spec);
  return typeof program === 'string' ? program : undefined;
}

/** The first candidate that can be generated, or the reason why none can. */
export function firstLegal(specs: readonly KernelSpec[]): KernelSpec | string {
  let reason = 'there is no candidate';
  for (const spec of specs) {
    const refused = refusal(spec);
    if (!refused) return spec;
    reason = refused;
  }
  return reason;
}
