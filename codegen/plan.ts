/**
 * The plan: which packing and which kernels serve each part of the model on this CPU. Frozen plain data, printed by
 * `bitnet-gen --dump plan`; everything that is generated follows from it.
 */
import { PlanError } from '../schemas/error.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';
import { familyOf, programOf } from './generate.ts';
import type { MatrixSlot } from './graph.ts';
import { hasScreen, matrixSlots, problems } from './graph.ts';
import { decodeCycles } from './ir/cost.ts';
import { isaOf } from './isa/index.ts';
import { attentionTile } from './kernels/attention-blocks.ts';
import { combineTile } from './kernels/combine.ts';
import { elementTile } from './kernels/elementwise.ts';
import { headTile } from './kernels/head.ts';
import { LANES } from './kernels/kernel.ts';
import { qattentionTile } from './kernels/qattention.ts';
import { quantiseTile } from './kernels/quantise.ts';
import { screenSpec } from './kernels/screen-rows.ts';
import { offsetsSpec } from './kernels/table-offsets.ts';
import { resultsSpec } from './kernels/table-results.ts';
import { sumsSpec } from './kernels/table-sums.ts';
import { BLOCK_LINES } from './kernels/tables.ts';
import { productStride, tablePackings } from './kernels/ternary.ts';
import type { KernelSpec } from './name.ts';
import { format } from './name.ts';
import { packings, packingsFor } from './packings/index.ts';
import type { Packing } from './packings/packing.ts';
import { bytesOf, linesOf } from './packings/packing.ts';
import { isBlocks, kernelType } from './rows.ts';
import { batches, candidates, firstLegal, refusal } from './space.ts';
import type { Advice } from './wisdom.ts';

/** How one ternary matrix is stored and computed. */
export interface MatrixPlan {
  /** Token of the packing. */
  readonly packing: string;
  /** Kernels over the same bytes: for one token; for several, by rising number; for many, by tables. */
  readonly gemv: KernelSpec;
  /** Makes what `gemv` takes in place of activations. */
  readonly tabulate?: KernelSpec;
  readonly gemm: readonly KernelSpec[];
  readonly tables?: TablesPlan;
  /** The reason for the choice, for people. */
  readonly why: string;
}

/** The steps of products by tables; `last` for a line that is left over by blocks of lines. */
export interface TablesPlan {
  readonly offsets: KernelSpec;
  readonly sums: KernelSpec;
  readonly results: KernelSpec;
  readonly last?: { readonly offsets: KernelSpec; readonly sums: KernelSpec };
}

export interface Plan {
  readonly shape: ModelShape;
  readonly cpu: CpuProfile;
  /** Tokens of a prompt that pass through the layers at once. */
  readonly batch: number;
  readonly matrices: Readonly<Record<MatrixSlot, MatrixPlan>>;
  /** The float kernels by the name under which templates/forward.c calls them (without `bn_`). */
  readonly kernels: Readonly<Record<string, KernelSpec>>;
}

/** Tokens of a prompt that pass through the layers at once: four vectors of 32 tokens for products by tables. */
const BATCH = 128;
/** Tokens that the head multiplies at once for a batch. */
const HEAD_TOKENS = 4;

function chooseMatrix(
  cpu: CpuProfile,
  n: number,
  k: number,
  advice: Advice | undefined,
  packing: string | undefined,
): MatrixPlan {
  let best: (MatrixPlan & { cycles: number }) | undefined;
  const refused: string[] = [];
  const advised = advice?.kernel('decode', n, k);
  for (const p of packingsFor(isaOf(cpu.isa))) {
    if (packing && !p.token.startsWith(packing)) continue;
    const offered = candidates(cpu, p, n, k);
    const measured = offered.find((spec) => format(spec) === advised);
    const gemv = firstLegal(measured ? [measured, ...offered] : offered);
    if (typeof gemv === 'string') {
      refused.push(gemv);
      continue;
    }
    const tabulate = familyOf(gemv).product!.tabulate?.(gemv);
    const gemm = batches(isaOf(cpu.isa), p, n, k);
    // A kernel for one token that takes tables cannot serve the last token of a batch.
    const missing =
      tabulate && (refusal(tabulate) ?? (gemm.length ? undefined : `${p.token} has no kernel for batches`));
    if (missing) {
      refused.push(missing);
      continue;
    }
    const bytes = bytesOf(p, n, k) / (n * k);
    const cycles = gemv === measured ? 0 : decodeCycles(programOf(gemv), isaOf(cpu.isa), bytes);
    if (!best || cycles < best.cycles)
      best = {
        packing: p.token,
        gemv,
        ...(tabulate ? { tabulate } : {}),
        gemm,
        ...tablesFor(cpu, p, n, k),
        cycles,
        why: `${p.token}, ${(8 * bytes).toFixed(2)} bit/weight: ${gemv === measured ? 'decode kernel measured fastest here' : Number.isFinite(cycles) ? 'least time a weight by estimate' : 'as asked for'}`,
      };
  }
  if (!best)
    throw new PlanError(
      `no packing has kernels for a ${n} x ${k} matrix on ${cpu.name}: ${
        refused.join('; ') ||
        `'${packing}' needs instructions that it lacks; try ${packingsFor(isaOf(cpu.isa))
          .map((p) => p.token)
          .join(', ')}`
      }`,
    );
  const { cycles: _, ...plan } = best;
  return plan;
}

/** Rows that products by tables take at once: their sums for a whole batch fill half of the second-level cache. */
export const tableRows = (cpu: CpuProfile): number =>
  Math.max(256, Math.min(2048, Math.floor(cpu.cache.l2 / 2 / (2 * BATCH) / 256) * 256));

/** An ISA with vectors sums by tables; a vector of one lane gains nothing. */
function tablesFor(cpu: CpuProfile, p: Packing, n: number, k: number): { tables?: TablesPlan } {
  const isa = isaOf(cpu.isa);
  if (isa.lanes === 1 || !tablePackings(isa).includes(p)) return {};
  const rows = tableRows(cpu);
  const steps = (lines: number) => ({
    offsets: offsetsSpec(p, isa.name, k, lines, rows),
    sums: sumsSpec(p, isa.name, k, lines, rows),
  });
  const tables = {
    ...steps(BLOCK_LINES),
    results: resultsSpec(isa.name, productStride(p, n), rows),
    ...(linesOf(p, k) % BLOCK_LINES ? { last: steps(1) } : {}),
  };
  return kernelsOfTables(tables).some(refusal) ? {} : { tables };
}

/** Every kernel of products by tables. */
export const kernelsOfTables = ({ last, ...steps }: TablesPlan): KernelSpec[] => [
  ...Object.values(steps),
  ...(last ? Object.values(last) : []),
];

function floatKernels(shape: ModelShape, isaName: string): Record<string, KernelSpec> {
  const isa = isaOf(isaName);
  const spec = (
    op: string,
    act: string,
    weight: string,
    out: string,
    sizes: Record<string, number>,
    tile: readonly number[],
  ): KernelSpec => ({
    op,
    act,
    weight,
    out,
    shape: sizes,
    tile,
    isa: isaName,
  });
  const lanes = [1, 1, LANES];
  const pair = [1, 1, elementTile(isa)];
  const attended = shape.heads * shape.headSize;
  const group = { g: shape.heads / shape.kvHeads, d: shape.headSize };
  const sub = shape.subNorms ? 'f32' : 'none';
  const headOf = (tile: readonly number[]) =>
    spec('head', 'f32', kernelType(shape.headType), 'f32', { n: shape.vocabulary, k: shape.hidden }, tile);
  const head = (tokens: number) => headOf(headTile(isa, tokens));
  return {
    ...(isBlocks(shape.embeddingType)
      ? {}
      : { rows: spec('rows', 'none', shape.embeddingType, 'f32', { k: shape.hidden }, pair) }),
    norm_hidden: spec('norm', 'f32', 'f32', 'i8', { k: shape.hidden }, lanes),
    rope: spec('rope', 'i32', 'f32', 'f32', { d: shape.headSize }, lanes),
    narrow: spec('narrow', 'f32', 'none', 'f16', { k: shape.headSize }, pair),
    scale_f16: spec('scale', 'i32', 'none', 'f16', { k: shape.headSize }, pair),
    scale_f32: spec('scale', 'i32', 'none', 'f32', { k: shape.headSize }, pair),
    quantise_i8: spec('quantise', 'f32', 'none', 'i8', { d: shape.headSize }, quantiseTile(isa)),
    quantise_u7: spec('quantise', 'f32', 'none', 'u7', { d: shape.headSize }, quantiseTile(isa)),
    attention_f16: spec('attention', 'f32', 'f16', 'f32', group, attentionTile(isa, group.g)),
    attention_f32: spec('attention', 'f32', 'f32', 'f32', group, attentionTile(isa, group.g)),
    attention_i8: spec('qattention', 'i8', 'i8', 'f32', group, qattentionTile(isa, group.g)),
    combine: spec('combine', 'f32', 'none', 'f32', group, combineTile(isa, shape.headSize)),
    norm_mixed: spec('norm', 'f32', sub, 'i8', { k: attended }, lanes),
    residual: spec('residual', 'i32', 'none', 'f32', { k: shape.hidden }, pair),
    activation: spec(shape.activation, 'i32', 'i32', 'f32', { k: shape.intermediate }, lanes),
    norm_inner: spec('norm', 'f32', sub, 'i8', { k: shape.intermediate }, lanes),
    norm_output: spec('norm', 'f32', 'f32', 'f32', { k: shape.hidden }, lanes),
    head_one: head(1),
    head_batch: head(HEAD_TOKENS),
    ...(hasScreen(shape)
      ? {
          head_row: headOf([1, 1, 2 * LANES]),
          screen: screenSpec(shape.vocabulary, shape.hidden, isaName, 'i8'),
          screen_fast: screenSpec(shape.vocabulary, shape.hidden, isaName, 'u4'),
        }
      : {}),
  };
}

/** What may be asked of a plan. */
export interface PlanOptions {
  /** Measured kernels (wisdom.ts). */
  readonly advice?: Advice | undefined;
  /** Packing of all ternary matrices, or of each: a token or its beginning (`t5`). */
  readonly packing?: string | Readonly<Record<string, string>> | undefined;
}

/** The plan of a model on a CPU. @throws PlanError when the CPU's ISA cannot run it, or not with what was asked for */
export function planOf(shape: ModelShape, cpu: CpuProfile, options: PlanOptions = {}): Plan {
  const known = Object.values<Packing>(packings).map((p) => p.token);
  const { packing } = options;
  for (const asked of typeof packing === 'string' ? [packing] : Object.values(packing ?? {}))
    if (!known.some((token) => token.startsWith(asked)))
      throw new PlanError(`unknown packing '${asked}'; known packings: ${known.join(', ')}`);
  const matrices: Partial<Record<MatrixSlot, MatrixPlan>> = {};
  for (const { n, k, slots } of problems(shape)) {
    const plan = chooseMatrix(cpu, n, k, options.advice, typeof packing === 'string' ? packing : packing?.[slots[0]!]);
    for (const slot of slots) matrices[slot] = plan;
  }
  return Object.freeze({
    shape,
    cpu,
    batch: BATCH,
    matrices: matrices as Record<MatrixSlot, MatrixPlan>,
    kernels: floatKernels(shape, cpu.isa),
  });
}

/** Every kernel of a plan, each once, by name. */
export function kernelsOf(plan: Plan): Map<string, KernelSpec> {
  const all = [
    ...matrixSlots.flatMap((slot) => {
      const { gemv, tabulate, gemm, tables } = plan.matrices[slot];
      return [gemv, ...(tabulate ? [tabulate] : []), ...gemm, ...(tables ? kernelsOfTables(tables) : [])];
    }),
    ...Object.values(plan.kernels),
  ];
  return new Map(all.map((spec) => [format(spec), spec]));
}
