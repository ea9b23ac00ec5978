/**
 * The plan: which packing and which kernels serve each part of the model on this CPU. Frozen plain data, printed by
 * `bitnet-gen --dump plan`; everything that is generated follows from it.
 */
import { PlanError } from '../schemas/error.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';
import type { MatrixSlot } from './graph.ts';
import { matrixSlots, problems } from './graph.ts';
import { isaOf } from './isa/index.ts';
import { attentionTile } from './kernels/attention.ts';
import { elementTile } from './kernels/elementwise.ts';
import { MAX_TOKENS } from './kernels/gemm.ts';
import { headTile } from './kernels/head.ts';
import { LANES } from './kernels/kernel.ts';
import type { KernelSpec } from './name.ts';
import { format } from './name.ts';
import { packings } from './packings/index.ts';
import type { Packing } from './packings/packing.ts';
import { bytesOf } from './packings/packing.ts';
import { candidates, firstLegal } from './space.ts';
import type { Advice } from './wisdom.ts';

/** How one ternary matrix is stored and computed. */
export interface MatrixPlan {
  /** Token of the packing. */
  readonly packing: string;
  /** Decode and prompt kernels, over the same bytes. */
  readonly gemv: KernelSpec;
  readonly gemm: KernelSpec;
  /** The reason for the choice, for people. */
  readonly why: string;
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

/** Tokens that the head multiplies at once for a batch. */
const HEAD_TOKENS = 4;

function chooseMatrix(cpu: CpuProfile, n: number, k: number, advice: Advice, offer: readonly Packing[]): MatrixPlan {
  let best: (MatrixPlan & { bytes: number }) | undefined;
  const refused: string[] = [];
  const advised = advice('decode', n, k);
  for (const p of offer) {
    const offered = candidates('decode', cpu, p, n, k);
    const measured = offered.find((spec) => format(spec) === advised);
    const gemv = firstLegal(measured ? [measured, ...offered] : offered);
    const gemm = firstLegal(candidates('prompt', cpu, p, n, k));
    if (typeof gemv === 'string' || typeof gemm === 'string') {
      refused.push(typeof gemv === 'string' ? gemv : (gemm as string));
      continue;
    }
    const bytes = bytesOf(p, n, k);
    const bits = ((8 * bytes) / (n * k)).toFixed(2);
    if (!best || bytes < best.bytes)
      best = {
        packing: p.token,
        gemv,
        gemm,
        bytes,
        why: `fewest bytes a token: ${p.token}, ${bits} bit/weight; decode kernel ${gemv === measured ? 'measured fastest here' : 'by default'}`,
      };
  }
  if (!best)
    throw new PlanError(`no packing has kernels for a ${n} x ${k} matrix on ${cpu.isa}: ${refused.join('; ')}`);
  const { bytes: _, ...plan } = best;
  return plan;
}

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
  const head = (tokens: number) =>
    spec('head', 'f32', shape.headType, 'f32', { n: shape.vocabulary, k: shape.hidden }, headTile(isa, tokens));
  return {
    rows: spec('rows', 'none', shape.embeddingType, 'f32', { k: shape.hidden }, pair),
    norm_hidden: spec('norm', 'f32', 'f32', 'i8', { k: shape.hidden }, lanes),
    rope: spec('rope', 'i32', 'f32', 'f32', { d: shape.headSize }, lanes),
    narrow: spec('narrow', 'f32', 'none', 'f16', { k: shape.headSize }, pair),
    scale_f16: spec('scale', 'i32', 'none', 'f16', { k: shape.headSize }, pair),
    scale_f32: spec('scale', 'i32', 'none', 'f32', { k: shape.headSize }, pair),
    attention_f16: spec('attention', 'f32', 'f16', 'f32', group, attentionTile(isa, group.g)),
    attention_f32: spec('attention', 'f32', 'f32', 'f32', group, attentionTile(isa, group.g)),
    norm_mixed: spec('norm', 'f32', sub, 'i8', { k: attended }, lanes),
    residual: spec('residual', 'i32', 'none', 'f32', { k: shape.hidden }, pair),
    activation: spec(shape.activation, 'i32', 'i32', 'f32', { k: shape.intermediate }, pair),
    norm_inner: spec('norm', 'f32', sub, 'i8', { k: shape.intermediate }, lanes),
    norm_output: spec('norm', 'f32', 'f32', 'f32', { k: shape.hidden }, lanes),
    head_one: head(1),
    head_batch: head(HEAD_TOKENS),
  };
}

/**
 * The plan of a model on a CPU.
 * @param advice measured kernels (wisdom.ts) @param offer packings to choose from
 * @throws PlanError when the CPU's ISA cannot run it
 */
export function planOf(
  shape: ModelShape,
  cpu: CpuProfile,
  advice: Advice = () => undefined,
  offer: readonly Packing[] = Object.values(packings),
): Plan {
  const matrices: Partial<Record<MatrixSlot, MatrixPlan>> = {};
  for (const { n, k, slots } of problems(shape)) {
    const plan = chooseMatrix(cpu, n, k, advice, offer);
    for (const slot of slots) matrices[slot] = plan;
  }
  return Object.freeze({
    shape,
    cpu,
    batch: Math.min(MAX_TOKENS, 64),
    matrices: matrices as Record<MatrixSlot, MatrixPlan>,
    kernels: floatKernels(shape, cpu.isa),
  });
}

/** Every kernel of a plan, each once, by name. */
export function kernelsOf(plan: Plan): Map<string, KernelSpec> {
  const all = [
    ...matrixSlots.flatMap((s) => [plan.matrices[s].gemv, plan.matrices[s].gemm]),
    ...Object.values(plan.kernels),
  ];
  return new Map(all.map((spec) => [format(spec), spec]));
}
