/** What is raced in each phase: a matrix, for a number of tokens. */
import type { CpuProfile, ModelShape } from '../../schemas/types.ts';
import type { MatrixSlot } from '../graph.ts';
import { inputs, problems } from '../graph.ts';
import { LANES } from '../kernels/kernel.ts';
import { BATCH, LEAST_ROWS } from '../kernels/tables.ts';
import type { KernelSpec } from '../name.ts';
import { packingOf } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import type { MatrixPlan, Plan, PlanOptions } from '../plan.ts';
import { planOf } from '../plan.ts';
import type { Phase, TuningKey } from '../wisdom.ts';

/** The plan in row tiles: what is raced reads every weight, as for inputs without zeros. */
export const inTiles = (shape: ModelShape, cpu: CpuProfile, options: PlanOptions = {}): Plan =>
  planOf(shape, cpu, { ...options, sparse: false });

/** y[tokens][n] = W[n][k] . x[tokens][k] */
export interface Contest {
  readonly phase: Phase;
  readonly tokens: number;
  readonly n: number;
  readonly k: number;
  /** A matrix of this size, or one of those that are W together. */
  readonly slot: MatrixSlot;
}

/** Does a key speak of this contest? */
export const isAbout = (key: TuningKey, { phase, tokens, n, k }: Contest): boolean =>
  key.phase === phase && key.tokens === tokens && key.n === n && key.k === k;

/** Have so many threads rows enough of a matrix, each, for products by tables? */
export const sharesTables = (p: Packing, n: number, threads: number): boolean =>
  Math.floor(n / Math.max(LANES, p.rows) / threads) * Math.max(LANES, p.rows) >= LEAST_ROWS;

/** The kernel that stands for how a plan does it: the only one, or the sums by tables; undefined where its packing has none. */
export function kernelOf(
  { gemv, gemm, tables, packing }: MatrixPlan,
  { phase, tokens, n }: Contest,
  threads: number,
): KernelSpec | undefined {
  if (phase === 'decode') return gemv;
  if (phase === 'batch') return gemm.find((spec) => spec.tile[0] === tokens);
  return (sharesTables(packingOf(packing), n, threads) ? tables?.sums : undefined) ?? gemm.at(-1) ?? gemv;
}

/**
 * The contests of some phases. Decoding: each distinct matrix. Batches: the same for each number of tokens that the plan has a kernel
 * for. Prompts: all matrices with the same input as one, since they share tables, and 128 tokens, as they pass through the layers.
 */
export function contestsOf(plan: Plan, phases: readonly Phase[]): Contest[] {
  const shape: ModelShape = plan.shape;
  const distinct = problems(shape).map(({ n, k, slots }) => ({ n, k, slot: slots[0]! }));
  const whole = inputs(shape).map(({ n, k, slots }) => ({ n, k, slot: slots[0]! }));
  const all: Readonly<Record<Phase, () => Contest[]>> = {
    decode: () => distinct.map((size) => ({ phase: 'decode', tokens: 1, ...size })),
    batch: () =>
      distinct.flatMap((size) =>
        plan.matrices[size.slot].gemm.map((spec) => ({ phase: 'batch', tokens: spec.tile[0]!, ...size })),
      ),
    prefill: () =>
      whole
        .filter(({ n, k }, i) => whole.findIndex((other) => other.n === n && other.k === k) === i)
        .map((size) => ({ phase: 'prefill', tokens: BATCH, ...size })),
  };
  return phases.flatMap((phase) => all[phase]());
}
