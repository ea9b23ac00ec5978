/**
 * Writes a model as a GGUF v3 file in the manner of the published BitNet conversions: architectures bitnet-b1.58
 * (bitnet-25), bitnet and llama, ternary weights in I2_S, TQ1_0, TQ2_0 or floats, embeddings also in block formats, and a
 * tiny byte-level tokenizer.
 * Sources: ggml's docs/gguf.md; Microsoft's convert-hf-to-gguf-bitnet.py (keys, names, q/k row permutation for llama);
 * the key listing of microsoft/bitnet-b1.58-2B-4T-gguf.
 */
import { writeFileSync } from 'node:fs';
import type { FloatType, RowType } from '../schemas/types.ts';
import {
  type Encoded,
  encodeFloats,
  encodeQ6K,
  encodeQ40,
  encodeQ80,
  nearest,
  packI2S,
  packTq1,
  packTq2,
} from './encode.ts';
import type { OracleMatrix, OracleModel } from './oracle.ts';
import { mapMatrices, specialTokens, tinyVocabulary } from './write-model.ts';

export type GgufArch = 'bitnet-b1.58' | 'bitnet-25' | 'bitnet' | 'llama';
export type GgufWeights = 'i2_s' | 'tq1_0' | 'tq2_0' | FloatType;
export type GgufRows = RowType;

export interface GgufOptions {
  readonly arch: GgufArch;
  /** TQ types need columns in multiples of 256: other matrices become f16. I2_S needs elements in multiples of 128. */
  readonly weights: GgufWeights;
  /** Default f16, as in the official file. */
  readonly embedding?: GgufRows;
  /** Default: as the embedding. */
  readonly head?: GgufRows;
  /** tokenizer.ggml.pre; null leaves the key out, as the official file does. Default "llama-bpe". */
  readonly pre?: string | null;
  /** false leaves out the tokenizer altogether. */
  readonly tokenizer?: boolean;
  /** general.alignment; the key is written when it is not 32. */
  readonly alignment?: number;
  /** Store weights of -1, 0, 1 and their scales as tensors blk.N.*.scale, as old arch-bitnet conversions do. */
  readonly scaleTensors?: boolean;
}

type MetadataValue =
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] };

interface Tensor {
  readonly name: string;
  readonly type: keyof typeof typeIds;
  /** ne[0] is the fastest dimension: columns first. */
  readonly dimensions: readonly number[];
  readonly bytes: Uint8Array;
}

const typeIds = { f32: 0, f16: 1, q4_0: 2, q8_0: 8, q6_k: 14, bf16: 30, tq1_0: 34, tq2_0: 35, i2_s: 36 } as const;
/** llama_ftype of the weight types; 40 is Microsoft's. */
const fileTypes: Record<GgufWeights, number> = { f32: 0, f16: 1, bf16: 32, tq1_0: 36, tq2_0: 37, i2_s: 40 };

const projectionNames = {
  q: 'attn_q',
  k: 'attn_k',
  v: 'attn_v',
  o: 'attn_output',
  gate: 'ffn_gate',
  up: 'ffn_up',
  down: 'ffn_down',
} as const;

export const rowEncoders: Record<GgufRows, (values: ArrayLike<number>) => Encoded> = {
  f32: (values) => encodeFloats('f32', values),
  f16: (values) => encodeFloats('f16', values),
  bf16: (values) => encodeFloats('bf16', values),
  q8_0: encodeQ80,
  q6_k: encodeQ6K,
  q4_0: encodeQ40,
};

/** Bytes of a ternary matrix and the scale that they hold. */
function encodeMatrix(type: GgufWeights, trits: Int8Array, scale: number): { bytes: Uint8Array; scale: number } {
  if (type === 'i2_s') return { bytes: packI2S(trits, scale), scale: Math.fround(scale) };
  if (type === 'tq1_0') return { bytes: packTq1(trits, scale), scale: nearest('f16', scale) };
  if (type === 'tq2_0') return { bytes: packTq2(trits, scale), scale: nearest('f16', scale) };
  const held = nearest(type, scale);
  const values = new Float64Array(trits).map((trit) => trit * held);
  return { bytes: encodeFloats(type, values).bytes, scale: held };
}

/** Llama conversions interleave the rows of each head: row j * headSize/2 + i becomes row 2i + j. */
export function permuteRows(trits: Int8Array, cols: number, headSize: number): Int8Array {
  const out = new Int8Array(trits.length);
  for (let head = 0; head < trits.length; head += headSize * cols) {
    for (let i = 0; i < headSize / 2; i++) {
      for (let j = 0; j < 2; j++) {
        const from = head + (j * (headSize / 2) + i) * cols;
        out.set(trits.subarray(from, from + cols), head + (2 * i + j) * cols);
      }
    }
  }
  return out;
}

/**
 * Writes `model` as a GGUF file.
 * @returns the model that the file really holds: scales and norms rounded to their types, embedding and head as their
 *   encoding dequantises them. normEps and ropeTheta stay as they are, although
 *   the file holds them as float32: readers may give back the shortest decimal number, and the difference is 1e-8.
 */
export function writeGguf(file: string, model: OracleModel, options: GgufOptions): OracleModel {
  const { shape } = model;
  const { arch } = options;
  if (shape.subNorms !== (arch !== 'llama')) throw new Error(`arch ${arch} and subNorms ${shape.subNorms} do not fit`);
  if (arch !== 'bitnet' && (shape.activation === 'relu2') !== (arch !== 'llama')) {
    throw new Error(`arch ${arch} does not mean activation ${shape.activation}`);
  }
  const tensors: Tensor[] = [];
  const putRows = (name: string, type: GgufRows, values: ArrayLike<number>): Float64Array => {
    const elements = { q6_k: 256, q8_0: 32, q4_0: 32, f16: 1, bf16: 1, f32: 1 }[type];
    if (shape.hidden % elements) throw new Error(`hidden ${shape.hidden} is not whole ${type} blocks of ${elements}`);
    const encoded = rowEncoders[type](values);
    tensors.push({ name, type, dimensions: [shape.hidden, shape.vocabulary], bytes: encoded.bytes });
    return encoded.values;
  };
  const putVector = (name: string, values: ArrayLike<number>): Float64Array => {
    const encoded = encodeFloats('f32', values);
    tensors.push({ name, type: 'f32', dimensions: [values.length], bytes: encoded.bytes });
    return encoded.values;
  };
  const putMatrix = (name: string, matrix: OracleMatrix, permuted: boolean): OracleMatrix => {
    const { rows, cols } = matrix;
    const type = options.weights.startsWith('tq') && cols % 256 ? 'f16' : options.weights;
    const trits = permuted ? permuteRows(matrix.trits, cols, shape.headSize) : matrix.trits;
    const stored = encodeMatrix(type, trits, options.scaleTensors ? 1 : matrix.scale);
    tensors.push({ name: `${name}.weight`, type, dimensions: [cols, rows], bytes: stored.bytes });
    if (!options.scaleTensors) return { ...matrix, scale: stored.scale };
    return { ...matrix, scale: putVector(`${name}.scale`, [matrix.scale])[0]! };
  };

  const embeddingType = options.embedding ?? 'f16';
  const headType = model.head ? (options.head ?? embeddingType) : embeddingType;
  const embedding = putRows('token_embd.weight', embeddingType, model.embedding);
  const layers = model.layers.map((layer, l) => {
    const prefix = `blk.${l}.`;
    const held = mapMatrices(layer, (matrix, kind) =>
      putMatrix(prefix + projectionNames[kind], matrix, arch === 'llama' && (kind === 'q' || kind === 'k')),
    );
    return {
      ...held,
      attnNorm: putVector(`${prefix}attn_norm.weight`, layer.attnNorm),
      ffnNorm: putVector(`${prefix}ffn_norm.weight`, layer.ffnNorm),
      ...(layer.attnSubNorm ? { attnSubNorm: putVector(`${prefix}attn_sub_norm.weight`, layer.attnSubNorm) } : {}),
      ...(layer.ffnSubNorm ? { ffnSubNorm: putVector(`${prefix}ffn_sub_norm.weight`, layer.ffnSubNorm) } : {}),
    };
  });
  const outputNorm = putVector('output_norm.weight', model.outputNorm);
  const head = model.head ? { head: putRows('output.weight', headType, model.head) } : {};

  writeFileSync(file, container(metadata(model, options), tensors, options.alignment ?? 32));
  const held = { ...shape, embeddingType, headType };
  return { shape: held, embedding, ...head, outputNorm, layers };
}

function metadata({ shape }: OracleModel, options: GgufOptions): [key: string, value: MetadataValue][] {
  const { arch } = options;
  const entries: [string, MetadataValue][] = [
    ['general.architecture', { string: arch }],
    ['general.name', { string: shape.name }],
  ];
  if (options.alignment && options.alignment !== 32) entries.push(['general.alignment', { u32: options.alignment }]);
  entries.push(
    [`${arch}.vocab_size`, { u32: shape.vocabulary }],
    [`${arch}.context_length`, { u32: shape.context }],
    [`${arch}.embedding_length`, { u32: shape.hidden }],
    [`${arch}.block_count`, { u32: shape.layers }],
    [`${arch}.feed_forward_length`, { u32: shape.intermediate }],
    [`${arch}.rope.dimension_count`, { u32: shape.headSize }],
    [`${arch}.attention.head_count`, { u32: shape.heads }],
    [`${arch}.attention.head_count_kv`, { u32: shape.kvHeads }],
    [`${arch}.attention.layer_norm_rms_epsilon`, { f32: shape.normEps }],
    [`${arch}.rope.freq_base`, { f32: shape.ropeTheta }],
    ['general.file_type', { u32: fileTypes[options.weights] }],
    ['general.quantization_version', { u32: 2 }],
  );
  if (shape.headSize * shape.heads !== shape.hidden) {
    entries.push([`${arch}.attention.key_length`, { u32: shape.headSize }]);
    entries.push([`${arch}.attention.value_length`, { u32: shape.headSize }]);
  }
  // Arch bitnet means SiLU unless this key says otherwise.
  if (arch === 'bitnet' && shape.activation === 'relu2')
    entries.push([`${arch}.hidden_activation`, { string: 'relu2' }]);
  if (options.tokenizer === false) return entries;

  const { tokens, types, merges } = tinyVocabulary(shape.vocabulary);
  const { bos, eos } = specialTokens(shape.vocabulary);
  const pre = options.pre === undefined ? 'llama-bpe' : options.pre;
  entries.push(
    ['tokenizer.ggml.add_bos_token', { bool: true }],
    ['tokenizer.ggml.model', { string: 'gpt2' }],
    ...(pre === null ? [] : [['tokenizer.ggml.pre', { string: pre }] as [string, MetadataValue]]),
    ['tokenizer.ggml.tokens', { strings: tokens }],
    ['tokenizer.ggml.scores', { f32s: tokens.map(() => 0) }],
    ['tokenizer.ggml.token_type', { i32s: types }],
    ['tokenizer.ggml.merges', { strings: merges }],
    ['tokenizer.ggml.bos_token_id', { u32: bos }],
    ['tokenizer.ggml.eos_token_id', { u32: eos }],
    ['tokenizer.ggml.padding_token_id', { u32: eos }],
  );
  return entries;
}

/** The container: header, key-values, tensor infos, then the data, every tensor at a multiple of `alignment`. */
function container(
  entries: readonly [string, MetadataValue][],
  tensors: readonly Tensor[],
  alignment: number,
): Uint8Array {
  const parts: Uint8Array[] = [];
  const number = (size: number, write: (view: DataView) => void): void => {
    const bytes = new Uint8Array(size);
    write(new DataView(bytes.buffer));
    parts.push(bytes);
  };
  const u32 = (value: number): void => number(4, (view) => view.setUint32(0, value, true));
  const u64 = (value: number): void => number(8, (view) => view.setBigUint64(0, BigInt(value), true));
  const f32 = (value: number): void => number(4, (view) => view.setFloat32(0, value, true));
  const i32 = (value: number): void => number(4, (view) => view.setInt32(0, value, true));
  const string = (text: string): void => {
    const bytes = Buffer.from(text);
    u64(bytes.length);
    parts.push(bytes);
  };
  const bool = (value: boolean): void => number(1, (view) => view.setUint8(0, value ? 1 : 0));
  const typed = <T>(type: number, write: (item: T) => void, item: T): void => {
    u32(type);
    write(item);
  };
  const array = <T>(type: number, write: (item: T) => void, items: readonly T[]): void => {
    u32(9);
    u32(type);
    u64(items.length);
    items.forEach(write);
  };
  const padded = (length: number): number => Math.ceil(length / alignment) * alignment;

  parts.push(Buffer.from('GGUF'));
  u32(3);
  u64(tensors.length);
  u64(entries.length);
  for (const [key, value] of entries) {
    string(key);
    if ('u32' in value) typed(4, u32, value.u32);
    else if ('f32' in value) typed(6, f32, value.f32);
    else if ('bool' in value) typed(7, bool, value.bool);
    else if ('string' in value) typed(8, string, value.string);
    else if ('strings' in value) array(8, string, value.strings);
    else if ('i32s' in value) array(5, i32, value.i32s);
    else array(6, f32, value.f32s);
  }
  let offset = 0;
  for (const { name, dimensions, type, bytes } of tensors) {
    string(name);
    u32(dimensions.length);
    dimensions.forEach(u64);
    u32(typeIds[type]);
    u64(offset);
    offset = padded(offset + bytes.length);
  }
  const header = parts.reduce((sum, { length }) => sum + length, 0);
  parts.push(new Uint8Array(padded(header) - header));
  for (const { bytes } of tensors) parts.push(bytes, new Uint8Array(padded(bytes.length) - bytes.length));
  return Buffer.concat(parts);
}
