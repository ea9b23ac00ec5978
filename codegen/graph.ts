/**
 * A model's structure: the tensors of one layer in the order in which decoding reads them, and the tensors around the layers.
 * Slot names are GGUF's.
 */
import type { ModelShape, RowType } from '../schemas/types.ts';
import { isScreened, screenSize } from './kernels/screen-rows.ts';

/** The ternary matrices of a layer. */
export const matrixSlots = ['attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_gate', 'ffn_up', 'ffn_down'] as const;
/** Name of a ternary matrix of a layer. */
export type MatrixSlot = (typeof matrixSlots)[number];

/** A tensor that every layer, or the model, has. */
export interface Slot {
  readonly name: string;
  readonly kind: 'ternary' | 'vector';
  readonly rows: number;
  readonly cols: number;
}

/** The tensors of one layer. Matrices are [rows = outputs, cols = inputs]; norm weights are vectors of `cols`. */
export function layerSlots(shape: ModelShape): readonly Slot[] {
  const q = shape.heads * shape.headSize;
  const kv = shape.kvHeads * shape.headSize;
  const vector = (name: string, cols: number): Slot => ({ name, kind: 'vector', rows: 1, cols });
  const matrix = (name: MatrixSlot, rows: number, cols: number): Slot => ({ name, kind: 'ternary', rows, cols });
  return [
    vector('attn_norm', shape.hidden),
    matrix('attn_q', q, shape.hidden),
    matrix('attn_k', kv, shape.hidden),
    matrix('attn_v', kv, shape.hidden),
    ...(shape.subNorms ? [vector('attn_sub_norm', q)] : []),
    matrix('attn_output', shape.hidden, q),
    vector('ffn_norm', shape.hidden),
    matrix('ffn_gate', shape.intermediate, shape.hidden),
    matrix('ffn_up', shape.intermediate, shape.hidden),
    ...(shape.subNorms ? [vector('ffn_sub_norm', shape.intermediate)] : []),
    matrix('ffn_down', shape.hidden, shape.intermediate),
  ];
}

/** Rows of the embedding or the head. */
export interface RowsSlot extends Omit<Slot, 'kind'> {
  readonly kind: 'rows';
  readonly type: RowType;
}

/** The head's screen: an int8 copy of the rows of tensor `from` (kernels/screen-rows.ts). */
export interface ScreenSlot extends Omit<Slot, 'kind'> {
  readonly kind: 'int8';
  readonly from: string;
}

/** Does the model's head have a screen? */
export const hasScreen = (shape: ModelShape): boolean => isScreened(shape.vocabulary, shape.hidden);

/** Bytes of the 4-bit rows that the fast head reads instead of the screen, made in memory; 0 without a screen. */
export function fastBytes(shape: ModelShape): number {
  const { weights, factors } = screenSize(shape.vocabulary, shape.hidden, 'u4');
  return hasScreen(shape) ? weights + factors : 0;
}

/** Tensors outside the layers, before them in the file. */
export function outerSlots(shape: ModelShape): readonly (RowsSlot | ScreenSlot | Slot)[] {
  const rows = (name: string, type: RowType) => ({
    name,
    kind: 'rows' as const,
    rows: shape.vocabulary,
    cols: shape.hidden,
    type,
  });
  return [
    rows('token_embd', shape.embeddingType),
    { name: 'output_norm', kind: 'vector', rows: 1, cols: shape.hidden },
    ...(shape.tiedEmbedding ? [] : [rows('output', shape.headType)]),
    ...(hasScreen(shape)
      ? [
          {
            name: 'output_screen',
            kind: 'int8' as const,
            rows: shape.vocabulary,
            cols: shape.hidden,
            from: shape.tiedEmbedding ? 'token_embd' : 'output',
          },
        ]
      : []),
  ];
}

/** A ternary product of the model. */
export interface Problem {
  readonly n: number;
  readonly k: number;
  readonly slots: readonly MatrixSlot[];
}

/** The matrices of a layer by their inputs, in order: those with the same input count as one with the rows of all. */
export const inputs = (shape: ModelShape): readonly Problem[] =>
  ([['attn_q', 'attn_k', 'attn_v'], ['attn_output'], ['ffn_gate', 'ffn_up'], ['ffn_down']] as const).map((slots) => {
    const own = layerSlots(shape).filter(({ name }) => (slots as readonly string[]).includes(name));
    return { n: own.reduce((sum, { rows }) => sum + rows, 0), k: own[0]!.cols, slots };
  });

/** The distinct matrix sizes of a layer, each with the matrices that have it. */
export function problems(shape: ModelShape): readonly Problem[] {
  const found = new Map<string, { n: number; k: number; slots: MatrixSlot[] }>();
  for (const slot of layerSlots(shape)) {
    if (slot.kind !== 'ternary') continue;
    const key = `n${slot.rows}k${slot.cols}`;
    const problem = found.get(key) ?? { n: slot.rows, k: slot.cols, slots: [] };
    problem.slots.push(slot.name as MatrixSlot);
    found.set(key, problem);
  }
  return [...found.values()];
}
