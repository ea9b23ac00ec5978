/**
 * Readers that turn a model on disk into an OracleModel: Hugging Face folders (packed ternary, masters, already ternary
 * floats) and GGUF files. They are as plain as possible and trust their input; the program's own readers are in
 * runtime/formats and share nothing with these. The GGUF container is parsed by @huggingface/gguf.
 * Sources: safetensors' README, Hugging Face's integrations/bitnet.py and the converters' tensor_mapping.py.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { gguf } from '@huggingface/gguf';
import type { FloatType, ModelShape, RowType } from '../schemas/types.ts';
import { matrixSizes, type OracleLayer, type OracleMatrix, type OracleModel, type Projection } from './oracle.ts';
import {
  asTernary,
  bfloatValue,
  byteLength,
  decodeValues,
  type GgmlType,
  ggmlTypes,
  halfValue,
  unpackHuggingFace,
} from './oracle-decode.ts';

/** Name of each layer tensor: GGUF's (blk.N.*.weight) and Hugging Face's (model.layers.N.*.weight), old names second. */
const layerNames = {
  attnNorm: ['attn_norm', 'input_layernorm'],
  attnSubNorm: ['attn_sub_norm', 'self_attn.attn_sub_norm', 'self_attn.inner_attn_ln'],
  ffnNorm: ['ffn_norm', 'post_attention_layernorm'],
  ffnSubNorm: ['ffn_sub_norm', 'mlp.ffn_sub_norm', 'mlp.ffn_layernorm'],
  q: ['attn_q', 'self_attn.q_proj'],
  k: ['attn_k', 'self_attn.k_proj'],
  v: ['attn_v', 'self_attn.v_proj'],
  o: ['attn_output', 'self_attn.o_proj'],
  gate: ['ffn_gate', 'mlp.gate_proj'],
  up: ['ffn_up', 'mlp.up_proj'],
  down: ['ffn_down', 'mlp.down_proj'],
} as const;

/** Puts the layers together from functions that fetch a vector, if it is there, and a matrix. */
function assemble(
  shape: ModelShape,
  vector: (layer: number, names: readonly string[]) => Float64Array | undefined,
  matrix: (layer: number, names: readonly string[], kind: Projection) => OracleMatrix,
): OracleLayer[] {
  const need = (layer: number, names: readonly string[]): Float64Array => {
    const values = vector(layer, names);
    if (!values) throw new Error(`no tensor ${names.join(' or ')} in layer ${layer}`);
    return values;
  };
  const get = (layer: number, kind: Projection): OracleMatrix => matrix(layer, layerNames[kind], kind);
  return Array.from({ length: shape.layers }, (_, l) => ({
    attnNorm: need(l, layerNames.attnNorm),
    ...(shape.subNorms ? { attnSubNorm: need(l, layerNames.attnSubNorm) } : {}),
    ffnNorm: need(l, layerNames.ffnNorm),
    ...(shape.subNorms ? { ffnSubNorm: need(l, layerNames.ffnSubNorm) } : {}),
    q: get(l, 'q'),
    k: get(l, 'k'),
    v: get(l, 'v'),
    o: get(l, 'o'),
    gate: get(l, 'gate'),
    up: get(l, 'up'),
    down: get(l, 'down'),
  }));
}

interface SafeTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Reads one .safetensors file: u64 header length, JSON header, data. */
export function readSafetensors(file: string): Map<string, SafeTensor> {
  const data = readFileSync(file);
  const start = 8 + Number(data.readBigUInt64LE(0));
  const header = JSON.parse(data.toString('utf8', 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, SafeTensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    tensors.set(name, { dtype, shape, bytes: data.subarray(start + data_offsets[0], start + data_offsets[1]) });
  }
  return tensors;
}

const ggmlType: Record<string, FloatType> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

function floatType({ dtype }: SafeTensor): FloatType {
  const type = ggmlType[dtype];
  if (!type) throw new Error(`dtype ${dtype} is no float type`);
  return type;
}

function floats(tensor: SafeTensor): Float64Array {
  return decodeValues(
    floatType(tensor),
    tensor.bytes,
    tensor.shape.reduce((a, b) => a * b, 1),
  );
}

/** Rounds a positive value to a float type, to nearest even. */
const roundTo: Record<FloatType, (value: number) => number> = {
  f32: Math.fround,
  bf16: (value) => roundBits(value, 7, -126, bfloatValue(0x7f7f)),
  f16: (value) => roundBits(value, 10, -14, halfValue(0x7bff)),
};

/** Nearest value with `bits` fraction bits and an exponent of at least `lowest`; positive values only. */
function roundBits(value: number, bits: number, lowest: number, largest: number): number {
  const unit = 2 ** (Math.max(Math.floor(Math.log2(value)), lowest) - bits);
  const below = Math.floor(value / unit);
  const rest = value / unit - below;
  return Math.min((rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below) * unit, largest);
}

/**
 * Ternary matrix of a float tensor. Values that are all -s, 0, s are taken as they are; others are master weights:
 * scale = max(mean|w|, 1e-5) over the whole matrix, t = round(w / scale) clipped to -1..1, scale rounded to the type.
 */
function ternarise(values: Float64Array, type: FloatType): { trits: Int8Array; scale: number } {
  const exact = asTernary(values);
  if (exact) return exact;
  const mean = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length;
  const scale = Math.max(mean, 1e-5);
  // A tie (|w| = scale / 2 exactly) goes to the even number, 0.
  const trits = new Int8Array(values.map((value) => (Math.abs(value) > scale / 2 ? Math.sign(value) : 0)));
  return { trits, scale: roundTo[type](scale) };
}

/** Reads a Hugging Face folder: config.json and model.safetensors or its shards. */
export function readHuggingFace(folder: string): OracleModel {
  const config = JSON.parse(readFileSync(path.join(folder, 'config.json'), 'utf8'));
  const index = path.join(folder, 'model.safetensors.index.json');
  const files: string[] = existsSync(index)
    ? [...new Set(Object.values<string>(JSON.parse(readFileSync(index, 'utf8')).weight_map))]
    : readdirSync(folder).filter((file) => file.endsWith('.safetensors'));
  const tensors = new Map(files.flatMap((file) => [...readSafetensors(path.join(folder, file))]));

  const embedding = tensors.get('model.embed_tokens.weight')!;
  const head = config.tie_word_embeddings ? undefined : tensors.get('lm_head.weight');
  const shape: ModelShape = {
    name: path.basename(folder).toLowerCase(),
    hidden: config.hidden_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    kvHeads: config.num_key_value_heads,
    headSize: config.head_dim ?? config.hidden_size / config.num_attention_heads,
    intermediate: config.intermediate_size,
    vocabulary: config.vocab_size,
    context: config.max_position_embeddings,
    activation: config.hidden_act,
    subNorms: layerNames.attnSubNorm.some((name) => tensors.has(`model.layers.0.${name}.weight`)),
    tiedEmbedding: !head,
    embeddingType: floatType(embedding),
    headType: floatType(head ?? embedding),
    normEps: config.rms_norm_eps,
    ropeTheta: config.rope_theta,
  };
  const sizes = matrixSizes(shape);
  const multiplies = config.quantization_config?.linear_class === 'autobitlinear';
  const find = (l: number, names: readonly string[]) =>
    names.map((name) => tensors.get(`model.layers.${l}.${name}.weight`)).find((tensor) => tensor);

  const layers = assemble(
    shape,
    (l, names) => {
      const tensor = find(l, names);
      return tensor && floats(tensor);
    },
    (l, names, kind) => {
      const [rows, cols] = sizes[kind];
      const tensor = find(l, names)!;
      if (tensor.dtype !== 'U8') return { rows, cols, ...ternarise(floats(tensor), floatType(tensor)) };
      const stored = floats(tensors.get(`model.layers.${l}.${names[1]}.weight_scale`)!)[0]!;
      const scale = multiplies ? stored : 1 / stored;
      return { rows, cols, trits: unpackHuggingFace(tensor.bytes, rows, cols), scale };
    },
  );
  return {
    shape,
    embedding: floats(embedding),
    ...(head ? { head: floats(head) } : {}),
    outputNorm: floats(tensors.get('model.norm.weight')!),
    layers,
  };
}

/** Reads a GGUF file. */
export async function readGguf(file: string): Promise<OracleModel> {
  const { metadata, tensorInfos, tensorDataOffset } = await gguf(file, { allowLocalFile: true });
  const values = metadata as unknown as Record<string, string | number | boolean | readonly string[] | undefined>;
  const data = readFileSync(file);
  const typeOf = (id: number): GgmlType => {
    const entry = Object.entries(ggmlTypes).find(([, type]) => type.id === id);
    if (!entry) throw new Error(`${file}: tensor type ${id} is unknown`);
    return entry[0] as GgmlType;
  };
  const tensors = new Map(
    tensorInfos.map(({ name, shape, dtype, offset }) => {
      const type = typeOf(dtype);
      const count = shape.reduce((product, size) => product * Number(size), 1);
      const start = Number(tensorDataOffset + offset);
      return [name, { type, count, bytes: data.subarray(start, start + byteLength(type, count)) }];
    }),
  );
  const decode = (name: string): Float64Array | undefined => {
    const tensor = tensors.get(name);
    return tensor && decodeValues(tensor.type, tensor.bytes, tensor.count);
  };

  const arch = String(values['general.architecture']);
  const number = (key: string, otherwise?: number): number => Number(values[`${arch}.${key}`] ?? otherwise);
  const heads = number('attention.head_count');
  const hidden = number('embedding_length');
  const embeddingType = tensors.get('token_embd.weight')!.type as RowType;
  const output = tensors.get('output.weight');
  const relu2 = arch === 'bitnet' ? values['bitnet.hidden_activation'] === 'relu2' : arch.startsWith('bitnet-');
  const shape: ModelShape = {
    name: String(values['general.name']),
    hidden,
    layers: number('block_count'),
    heads,
    kvHeads: number('attention.head_count_kv'),
    headSize: number('attention.key_length', hidden / heads),
    intermediate: number('feed_forward_length'),
    vocabulary: number('vocab_size'),
    context: number('context_length'),
    activation: relu2 ? 'relu2' : 'silu',
    subNorms: tensors.has('blk.0.attn_sub_norm.weight'),
    tiedEmbedding: !output,
    embeddingType,
    headType: output ? (output.type as RowType) : embeddingType,
    normEps: number('attention.layer_norm_rms_epsilon'),
    ropeTheta: number('rope.freq_base'),
  };
  const sizes = matrixSizes(shape);
  const layers = assemble(
    shape,
    (l, names) => decode(`blk.${l}.${names[0]}.weight`),
    (l, names, kind) => {
      const [rows, cols] = sizes[kind];
      const ternary = asTernary(decode(`blk.${l}.${names[0]}.weight`)!);
      if (!ternary) throw new Error(`${file}: blk.${l}.${names[0]} is not ternary`);
      const permuted = arch === 'llama' && (kind === 'q' || kind === 'k');
      return {
        rows,
        cols,
        trits: permuted ? unpermute(ternary.trits, cols, shape.headSize) : ternary.trits,
        scale: ternary.scale * (decode(`blk.${l}.${names[0]}.scale`)?.[0] ?? 1),
      };
    },
  );
  return {
    shape,
    embedding: decode('token_embd.weight')!,
    ...(output ? { head: decode('output.weight')! } : {}),
    outputNorm: decode('output_norm.weight')!,
    layers,
  };
}

/** Llama GGUFs keep the rows of a head interleaved: stored row 2i + j is row j * headSize/2 + i. */
function unpermute(stored: Int8Array, cols: number, headSize: number): Int8Array {
  const trits = new Int8Array(stored.length);
  for (let row = 0; row < stored.length / cols; row++) {
    const within = row % headSize;
    const target = row - within + (within % 2) * (headSize / 2) + Math.floor(within / 2);
    trits.set(stored.subarray(row * cols, (row + 1) * cols), target * cols);
  }
  return trits;
}
