/**
 * The space of legal kernels for a ternary product: what every registered family offers for a packing, each family's preferred
 * spec first. The plan takes the first legal one; the tuner measures them.
 */
import { PlanError } from '../schemas/error.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { neededFeatures, programOf } from './generate.ts';
import type { Program } from './ir/record.ts';
import { isaOf } from './isa/index.ts';
import { kernels, kernelsFor } from './kernels/index.ts';
import type { KernelFamily, Target } from './kernels/kernel.ts';
import { offsetsSpec } from './kernels/table-offsets.ts';
import { resultsSpec } from './kernels/table-results.ts';
import { roomOf } from './kernels/tables.ts';
import { productStride } from './kernels/ternary.ts';
import type { KernelSpec } from './name.ts';
import { packingOf } from './packings/index.ts';
import type { Packing } from './packings/packing.ts';
import { linesOf } from './packings/packing.ts';

/**
 * All specs for y[n] = W[n][k] . x over one packing, that this CPU's features allow.
 * @param asked are those that are not exact wanted, too?
 */
export function candidates(cpu: CpuProfile, p: Packing, n: number, k: number, asked = false): KernelSpec[] {
  return Object.values<KernelFamily>(kernels)
    .flatMap(({ product }) => (product && (asked || product.exact !== false) ? product.candidates(cpu, p, n, k) : []))
    .filter((spec) => neededFeatures(spec).every((feature) => cpu.features.includes(feature)));
}

/** All specs for several tokens at once, those for fewer first, for each number the preferred one first. */
export const batchCandidates = (cpu: Target, p: Packing, n: number, k: number): KernelSpec[] =>
  kernelsFor(isaOf(cpu.isa))
    .flatMap(([, family]) => family.batch?.(cpu, p, n, k) ?? [])
    .sort((a, b) => a.tile[0]! - b.tile[0]!);

/** Of specs by rising number of tokens the first for each. */
export const firstOfEach = (specs: readonly KernelSpec[]): KernelSpec[] =>
  specs.filter((spec, i, all) => spec.tile[0] !== all[i - 1]?.tile[0]);

/** The kernels for several tokens, by rising number: for each number the preferred one. */
export const batches = (cpu: Target, p: Packing, n: number, k: number): KernelSpec[] =>
  firstOfEach(batchCandidates(cpu, p, n, k));

/** All specs for sums by tables, the preferred one first. */
export const tableCandidates = (cpu: CpuProfile, p: Packing, k: number): KernelSpec[] =>
  kernelsFor(isaOf(cpu.isa)).flatMap(([, family]) => family.tables?.(cpu, p, k) ?? []);

/** The steps of products by tables; `last` for lines that are left over by blocks of lines. */
export interface TableSteps {
  readonly offsets: KernelSpec;
  readonly sums: KernelSpec;
  readonly results: KernelSpec;
  readonly last?: { readonly offsets: KernelSpec; readonly sums: KernelSpec };
}

/** All steps around the sums of a matrix with n rows. @param stored k of its row tiles: of a panel, or all */
export function tableSteps(sums: KernelSpec, n: number, stored = sums.shape.k!): TableSteps {
  const p = packingOf(sums.weight);
  const lines = sums.tile[2]! / p.lineK;
  const left = linesOf(p, sums.shape.k!) % lines;
  const block = (count: number) => ({
    offsets: offsetsSpec(p, sums.isa, stored, count, roomOf(sums)),
    sums: { ...sums, tile: sums.tile.with(2, count * p.lineK) },
  });
  return {
    ...block(lines),
    results: resultsSpec(sums.isa, productStride(p, n), roomOf(sums)),
    ...(left ? { last: block(left) } : {}),
  };
}

/** Every kernel of products by tables. */
export const kernelsOfTables = ({ last, ...steps }: TableSteps): KernelSpec[] => [
  ...Object.values(steps),
  ...(last ? Object.values(last) : []),
];

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
