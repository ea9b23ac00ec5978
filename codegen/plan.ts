/**
 * The plan: which packing and which kernels serve each part of the model on this CPU. Frozen plain data, printed by
 * `bitnet-gen --dump plan`; everything that is generated follows from it.
 */
import { PlanError } from '../schemas/error.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';
import { askedKernels, nothingFor } from './asked.ts';
import { familyOf, programOf } from './generate.ts';
import type { MatrixSlot, Problem } from './graph.ts';
import { hasScreen, inputs, matrixSlots, problems } from './graph.ts';
import { decodeCycles } from './ir/cost.ts';
import { isaOf } from './isa/index.ts';
import { attentionTile } from './kernels/attention-blocks.ts';
import { combineTile } from './kernels/combine.ts';
import { gemm, ofPanel } from './kernels/dot-products.ts';
import { elementTile } from './kernels/elementwise.ts';
import { headTile } from './kernels/head.ts';
import { LANES } from './kernels/kernel.ts';
import { panelSpec } from './kernels/panels.ts';
import { qattentionTile } from './kernels/qattention.ts';
import { quantiseTile } from './kernels/quantise.ts';
import { screenSpec } from './kernels/screen-rows.ts';
import { columnSumsSpec } from './kernels/sparse-columns.ts';
import { MOST_LISTED, rowDotsSpec } from './kernels/sparse-rows.ts';
import { BATCH } from './kernels/tables.ts';
import { activationStride } from './kernels/ternary.ts';
import type { KernelSpec } from './name.ts';
import { format, parse } from './name.ts';
import { findOrdered, packingOf, packings, packingsFor, tilesFor } from './packings/index.ts';
import type { Ordered } from './packings/orders.ts';
import { ordersOf, panelK } from './packings/orders.ts';
import type { Packing } from './packings/packing.ts';
import { bytesOf } from './packings/packing.ts';
import { isBlocks, kernelType } from './rows.ts';
import type { TableSteps } from './space.ts';
import {
  batchCandidates,
  batches,
  candidates,
  firstLegal,
  firstOfEach,
  kernelsOfTables,
  refusal,
  tableCandidates,
  tableSteps,
} from './space.ts';
import type { Advice, Phase } from './wisdom.ts';

/** How one ternary matrix is stored and computed. */
export interface MatrixPlan {
  /** Token of the packing, and of its order where that is not row tiles (packings/orders.ts). */
  readonly packing: string;
  /** Kernels over the same bytes: for one token; for several, by rising number; for many, by tables. */
  readonly gemv: KernelSpec;
  /** Makes what `gemv` takes in place of activations. */
  readonly tabulate?: KernelSpec;
  /** Of a matrix in an order of its own: makes the row tiles that `gemm` and `tables` read, and that packing. */
  readonly panel?: KernelSpec;
  readonly gemm: readonly KernelSpec[];
  readonly tables?: TableSteps;
  /** The reason for the choice, for people. */
  readonly why: string;
}

export interface Plan {
  readonly shape: ModelShape;
  readonly cpu: CpuProfile;
  /** Tokens of a prompt that pass through the layers at once. */
  readonly batch: number;
  readonly matrices: Readonly<Record<MatrixSlot, MatrixPlan>>;
  /** Percent of the neurons that may be live where zeros are skipped; from there on everything is read. */
  readonly mostLive: MostLive;
  /** The float kernels by the name under which templates/forward.c calls them (without `bn_`). */
  readonly kernels: Readonly<Record<string, KernelSpec>>;
}

/**
 * For one token, beyond which its list takes as long as everything, one after the other; for all tokens of a batch together, since most
 * of what their lists name is in the cache; and for prompts, where tables multiply row tiles, which is faster.
 */
export type MostLive = Readonly<Record<Phase, number>>;

/** Unless they were measured (tune/thresholds.ts): as here (docs/measurements.md). */
const MOST_LIVE: MostLive = { decode: 90, batch: 70, prefill: 40 };

/** Tokens that the head multiplies at once for a batch. */
const HEAD_TOKENS = 4;

function chooseMatrix(
  cpu: CpuProfile,
  n: number,
  k: number,
  advice: Advice | undefined,
  packing: string | undefined,
  kernel: string | undefined,
): MatrixPlan {
  let best: (MatrixPlan & { cycles: number }) | undefined;
  const refused: string[] = [];
  const advised = advice?.kernel('decode', 1, n, k);
  for (const p of packingsFor(isaOf(cpu.isa))) {
    if (packing && !p.token.startsWith(packing)) continue;
    const offered = candidates(cpu, p, n, k, kernel !== undefined).filter(
      (s) => !kernel || kernel === s.op || kernel === format(s),
    );
    const measured = offered.find((spec) => format(spec) === advised);
    const gemv = firstLegal(measured ? [measured, ...offered] : offered);
    if (typeof gemv === 'string') {
      if (offered.length) refused.push(gemv);
      continue;
    }
    const bytes = bytesOf(p, n, k) / (n * k);
    const cycles = gemv === measured ? 0 : decodeCycles(programOf(gemv), isaOf(cpu.isa), bytes);
    if (best && cycles >= best.cycles) continue;
    const tabulate = familyOf(gemv).product!.tabulate?.(gemv);
    const gemm = batchesFor(cpu, p, n, k, advice);
    // A kernel for one token that takes tables cannot serve the last token of a batch.
    const missing = tabulate && (gemm.length ? refusal(tabulate) : `${p.token} has no kernels for batches`);
    if (missing) {
      refused.push(missing);
      continue;
    }
    const reason =
      gemv === measured
        ? 'decode kernel measured fastest here'
        : kernel || !Number.isFinite(cycles)
          ? `as asked for${familyOf(gemv).product!.exact === false ? '; rounds, so single tokens are not exact' : ''}`
          : 'least time a weight by estimate';
    best = {
      packing: p.token,
      gemv,
      ...(tabulate ? { tabulate } : {}),
      gemm,
      cycles,
      why: `${p.token}, ${(8 * bytes).toFixed(2)} bit/weight: ${reason}`,
    };
  }
  if (!best)
    throw new PlanError(`${nothingFor(cpu, n, k, packing, kernel)}${refused.length ? `: ${refused.join('; ')}` : ''}`);
  const { cycles: _, ...plan } = best;
  return plan;
}

/** The kernels for several tokens: those measured, or else the preferred ones. */
function batchesFor(cpu: CpuProfile, p: Packing, n: number, k: number, advice: Advice | undefined): KernelSpec[] {
  const offered = batchCandidates(cpu, p, n, k);
  return batches(cpu, p, n, k)
    .map((preferred) => {
      const advised = advice?.kernel('batch', preferred.tile[0]!, n, k);
      return offered.find((spec) => format(spec) === advised && !refusal(spec)) ?? preferred;
    })
    .filter((spec) => !refusal(spec));
}

/** A matrix in an order of its own, or undefined where a kernel that it takes cannot be generated. */
function ordered(cpu: CpuProfile, o: Ordered, { gemv }: MatrixPlan): MatrixPlan | undefined {
  const isa = isaOf(cpu.isa);
  const { n, k } = gemv.shape as { n: number; k: number };
  if (Math.max(n, k) >= MOST_LISTED) return undefined;
  const plan: MatrixPlan = {
    packing: o.token,
    gemv: o.order === 'rows' ? rowDotsSpec(o, isa.name, n, k) : columnSumsSpec(o, isa.name, n, k),
    panel: panelSpec(o, isa.name, n, k),
    gemm: firstOfEach(gemm.batch!(cpu, o.tiles, n, k)).map((spec) => ofPanel(spec, panelK(o), activationStride(k))),
    why: `${o.token}: ${o.order === 'rows' ? 'rows whose gate is closed' : 'columns whose input is zero'} are not read`,
  };
  return plan.gemm.length && ![plan.gemv, plan.panel!, ...plan.gemm].some(refusal) ? plan : undefined;
}

/**
 * How a matrix, one of those with the same input, is multiplied with many tokens: by the tables or the dot products that were
 * measured for all of them, or else by the preferred tables.
 * @param all the matrices with this input, as one
 */
function withPrompts(plan: MatrixPlan, cpu: CpuProfile, all: Problem, advice: Advice | undefined): MatrixPlan {
  const { n, k } = plan.gemv.shape as { n: number; k: number };
  const p = tilesFor(plan.packing);
  const o = findOrdered(plan.packing);
  const advised = advice?.kernel('prefill', BATCH, all.n, k);
  // Blocks of lines do not cross from panel to panel.
  const offered = tableCandidates(cpu, p, k).filter(({ tile }) => !o || panelK(o) % tile[2]! === 0);
  const measured = offered.find((spec) => format(spec) === advised);
  if (advised && !measured && parse(advised).weight === p.token) return plan;
  const tables = [...(measured ? [measured] : []), ...offered]
    .map((sums) => tableSteps(sums, n, o && panelK(o)))
    .find((steps) => !kernelsOfTables(steps).some(refusal));
  return tables ? { ...plan, tables } : plan;
}

function floatKernels(shape: ModelShape, cpu: CpuProfile): Record<string, KernelSpec> {
  const isa = isaOf(cpu.isa);
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
    isa: isa.name,
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
          screen: screenSpec(shape.vocabulary, shape.hidden, cpu, 'i8'),
          screen_fast: screenSpec(shape.vocabulary, shape.hidden, cpu, 'u4'),
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
  /** Decode kernels: names, each for the matrices of its size, or an operation for those that are left (`lookup`). */
  readonly kernel?: readonly string[] | undefined;
  /** Are zeros of squared ReLU to be skipped? Default: in matrices large enough (SPARSE_WEIGHTS). */
  readonly sparse?: boolean | undefined;
}

/**
 * Weights of a matrix from which on zeros are skipped by default: below, making lists and meeting once more takes longer than the bytes
 * that are not read, as in the demo model (docs/decisions.md).
 */
const SPARSE_WEIGHTS = 1 << 20;

/** The matrices that zeros of the activation function let off, and the order that they take for it. */
const sparseSlots = { ffn_up: 'rows', ffn_down: 'columns' } as const;

/** Are zeros skipped? */
export const isSparse = ({ matrices }: Plan): boolean => matrices.ffn_up.panel !== undefined;

/** What the user should know of a plan whose kernels are not all exact; undefined: they are. */
export function roundingOf({ matrices }: Plan): string | undefined {
  const rounding = Object.values(matrices).find(({ gemv }) => familyOf(gemv).product?.exact === false);
  return rounding && `kernel '${rounding.gemv.op}' rounds: tokens evaluated one at a time are not exact`;
}

/** The plan of a model on a CPU. @throws PlanError when the CPU's ISA cannot run it, or not with what was asked for */
export function planOf(shape: ModelShape, cpu: CpuProfile, options: PlanOptions = {}): Plan {
  const known = Object.values<Packing>(packings).flatMap((p) => [p.token, ...ordersOf(p).map((o) => o.token)]);
  const { packing } = options;
  for (const asked of typeof packing === 'string' ? [packing] : Object.values(packing ?? {}))
    if (!known.some((token) => token.startsWith(asked)))
      throw new PlanError(`unknown packing '${asked}'; known packings: ${known.join(', ')}`);
  if (options.sparse && shape.activation !== 'relu2')
    throw new PlanError(
      `${shape.name} has activation '${shape.activation}': only squared ReLU (relu2) makes zeros that can be skipped; leave out --sparse`,
    );
  const askedFor = (slot: MatrixSlot) => (typeof packing === 'string' ? packing : packing?.[slot]);
  const kernelFor = askedKernels(shape, cpu, options.kernel ?? []);
  const matrices: Partial<Record<MatrixSlot, MatrixPlan>> = {};
  for (const { n, k, slots } of problems(shape)) {
    const asked = askedFor(slots[0]!);
    const plan = chooseMatrix(
      cpu,
      n,
      k,
      options.advice,
      asked && (findOrdered(asked)?.coding.token ?? asked),
      kernelFor(n, k),
    );
    for (const slot of slots) matrices[slot] = plan;
  }
  const tiled = { ...matrices };
  for (const [slot, order] of Object.entries(sparseSlots) as [keyof typeof sparseSlots, Ordered['order']][]) {
    const tiles = matrices[slot]!;
    const o = ordersOf(packingOf(tiles.packing)).find((other) => other.order === order);
    const asked = typeof packing === 'object' ? packing[slot] : undefined;
    const { n, k } = tiles.gemv.shape as { n: number; k: number };
    const wanted = asked ? asked === o?.token : (options.sparse ?? n * k >= SPARSE_WEIGHTS);
    if (o && wanted && shape.activation === 'relu2' && !kernelFor(n, k))
      matrices[slot] = ordered(cpu, o, tiles) ?? tiles;
    if (options.sparse && !asked && matrices[slot] === tiles)
      throw new PlanError(
        `zeros cannot be skipped in ${slot} with kernel '${tiles.gemv.op}' over ${tiles.packing}; leave out --sparse, or --kernel and --packing`,
      );
  }
  // In both, or in none.
  if (!matrices.ffn_up!.panel || !matrices.ffn_down!.panel) Object.assign(matrices, tiled);
  for (const all of inputs(shape))
    for (const slot of all.slots) matrices[slot] = withPrompts(matrices[slot]!, cpu, all, options.advice);
  return Object.freeze({
    shape,
    cpu,
    batch: BATCH,
    matrices: matrices as Record<MatrixSlot, MatrixPlan>,
    mostLive: { ...MOST_LIVE, ...options.advice?.mostLive(matrices.ffn_up!.packing) },
    kernels: floatKernels(shape, cpu),
  });
}

/** Every kernel of a plan, each once, by name. */
export function kernelsOf(plan: Plan): Map<string, KernelSpec> {
  const all = [
    ...matrixSlots.flatMap((slot) => {
      const { gemv, tabulate, panel, gemm: several, tables } = plan.matrices[slot];
      return [
        gemv,
        ...(tabulate ? [tabulate] : []),
        ...(panel ? [panel] : []),
        ...several,
        ...(tables ? kernelsOfTables(tables) : []),
      ];
    }),
    ...Object.values(plan.kernels),
  ];
  return new Map(all.map((spec) => [format(spec), spec]));
}
