/**
 * Writes a model as a Hugging Face folder: config.json and model.safetensors (or shards with an index), with packed
 * ternary weights, master weights or weights that are already ternary.
 * Sources: safetensors' README; Hugging Face's modeling_bitnet.py, integrations/bitnet.py (packing, BitLinear's division,
 * AutoBitLinear's product) and the configurations of microsoft/bitnet-b1.58-2B-4T, 1bitLLM/bitnet_b1_58-large and
 * HF1BitLLM/Llama3-8B-1.58-100B-tokens.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { FloatType, ModelShape } from '../schemas/types.ts';
import { encodeFloats, nearest, packHuggingFace } from './encode.ts';
import { generator, type OracleLayer, type OracleMatrix, type OracleModel, type Projection } from './oracle.ts';
import { mapMatrices, powerOfTwo, specialTokens } from './write-model.ts';

/**
 * - `packed`: U8, linear_class "autobitlinear", weight_scale multiplies; `packed-divide`: U8, weight_scale divides; scales
 *   become powers of two, so that the division is exact;
 * - `masters-*`: float weights that a reader must ternarise by their mean size;
 * - `ternary-*`: floats that are all -scale, 0 or scale; no quantization_config, for the weights are final.
 */
export type HuggingFaceWeights = 'packed' | 'packed-divide' | `${'masters' | 'ternary'}-${FloatType}`;

export interface HuggingFaceOptions {
  readonly weights: HuggingFaceWeights;
  /** Type of embedding and head. Default: the shape's. */
  readonly embedding?: FloatType;
  /** Type of the norm weights. Default: that of float weights, else bf16. */
  readonly norms?: FloatType;
  /** Number of safetensors files; more than one come with an index. Default 1. */
  readonly shards?: number;
  /** Names of the sub-norms: `old` are 1bitLLM's inner_attn_ln and ffn_layernorm. Default: `old` with SiLU. */
  readonly names?: 'new' | 'old';
  /** Spell linear_class "bitlinear" out with `packed-divide`, where it is otherwise absent. */
  readonly explicitLinearClass?: boolean;
  /** Seed of the master weights. */
  readonly seed?: number;
}

interface Tensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

const projectionNames: Record<Projection, string> = {
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.o_proj',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
};

/**
 * Writes `model` into `folder`, which is created.
 * @returns the model that the folder really holds: scales and norms rounded to their types, masters' own scales
 */
export function writeHuggingFace(folder: string, model: OracleModel, options: HuggingFaceOptions): OracleModel {
  const { shape } = model;
  const floatWeights = options.weights.startsWith('packed') ? undefined : (options.weights.split('-')[1] as FloatType);
  const embeddingType = options.embedding ?? (shape.embeddingType as FloatType);
  const normType = options.norms ?? floatWeights ?? 'bf16';
  const old = (options.names ?? (shape.activation === 'silu' ? 'old' : 'new')) === 'old';
  const random = generator(options.seed ?? 1);
  const tensors: Tensor[] = [];

  const put = (name: string, type: FloatType, values: ArrayLike<number>, sizes: number[]): Float64Array => {
    const encoded = encodeFloats(type, values);
    tensors.push({ name, dtype: type.toUpperCase(), shape: sizes, bytes: encoded.bytes });
    return encoded.values;
  };
  const putRows = (name: string, values: ArrayLike<number>): Float64Array =>
    put(`${name}.weight`, embeddingType, values, [shape.vocabulary, shape.hidden]);
  const putNorm = (name: string, values: ArrayLike<number>): Float64Array =>
    put(`${name}.weight`, normType, values, [values.length]);

  const putMatrix = (name: string, matrix: OracleMatrix): OracleMatrix => {
    const { trits, rows, cols } = matrix;
    if (floatWeights && options.weights.startsWith('masters')) {
      const masters = masterWeights(matrix, floatWeights, random);
      put(`${name}.weight`, floatWeights, masters.values, [rows, cols]);
      return { ...matrix, scale: masters.scale };
    }
    if (floatWeights) {
      const scale = nearest(floatWeights, matrix.scale);
      const values = new Float64Array(trits).map((trit) => trit * scale);
      put(`${name}.weight`, floatWeights, values, [rows, cols]);
      return { ...matrix, scale };
    }
    const bytes = packHuggingFace(trits, rows, cols);
    tensors.push({ name: `${name}.weight`, dtype: 'U8', shape: [rows / 4, cols], bytes });
    const divides = options.weights === 'packed-divide';
    const scale = divides ? powerOfTwo(matrix.scale) : nearest('bf16', matrix.scale);
    put(`${name}.weight_scale`, 'bf16', [divides ? 1 / scale : scale], [1]);
    return { ...matrix, scale };
  };

  const embedding = putRows('model.embed_tokens', model.embedding);
  const layers = model.layers.map((layer, l): OracleLayer => {
    const prefix = `model.layers.${l}.`;
    const attnSub = old ? 'self_attn.inner_attn_ln' : 'self_attn.attn_sub_norm';
    const ffnSub = old ? 'mlp.ffn_layernorm' : 'mlp.ffn_sub_norm';
    return {
      ...mapMatrices(layer, (matrix, kind) => putMatrix(prefix + projectionNames[kind], matrix)),
      attnNorm: putNorm(`${prefix}input_layernorm`, layer.attnNorm),
      ffnNorm: putNorm(`${prefix}post_attention_layernorm`, layer.ffnNorm),
      ...(layer.attnSubNorm ? { attnSubNorm: putNorm(prefix + attnSub, layer.attnSubNorm) } : {}),
      ...(layer.ffnSubNorm ? { ffnSubNorm: putNorm(prefix + ffnSub, layer.ffnSubNorm) } : {}),
    };
  });
  const outputNorm = putNorm('model.norm', model.outputNorm);
  const head = model.head ? { head: putRows('lm_head', model.head) } : {};

  mkdirSync(folder, { recursive: true });
  const held = { ...shape, embeddingType, headType: embeddingType };
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(configuration(held, options), null, 2));
  writeShards(folder, tensors, options.shards ?? 1);
  return { shape: held, embedding, ...head, outputNorm, layers };
}

/**
 * Float weights whose ternarisation by their mean size m gives back the trits: zeros get |w| < m/2, ones more.
 * Some zeros are 1e-34, as dead units of the published masters are.
 * @returns the values, rounded to the type, and the scale as a reader must find it: max(m, 1e-5) rounded to the type
 */
export function masterWeights(
  { trits, scale }: OracleMatrix,
  type: FloatType,
  random: () => number,
): { values: Float64Array; scale: number } {
  const share = trits.reduce((sum, trit) => sum + Math.abs(trit), 0) / trits.length;
  // In units of the scale, ones lie in 0.8..2 and zeros below limit = min(0.3, share / 2), share being that of the ones.
  // Half the mean is then about 0.7 share + limit / 4 (1 - share): above the limit, and below 0.8.
  const limit = Math.min(0.3, share / 2);
  const values = new Float64Array(trits).map((trit) => {
    if (trit !== 0) return nearest(type, trit * scale * (0.8 + 1.2 * random()));
    const sign = random() < 0.5 ? -1 : 1;
    return nearest(type, sign * (random() < 0.02 ? 1e-34 : scale * limit * random()));
  });
  const mean = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length;
  values.forEach((value, i) => {
    if (Math.abs(value) > mean / 2 !== (trits[i] !== 0)) throw new Error(`master weight ${value}, mean size ${mean}`);
  });
  return { values, scale: nearest(type, Math.max(mean, 1e-5)) };
}

/** config.json of the family that the shape belongs to. */
function configuration(shape: ModelShape, options: HuggingFaceOptions): Record<string, unknown> {
  const { bos, eos } = specialTokens(shape.vocabulary);
  const family = !shape.subNorms
    ? { architectures: ['LlamaForCausalLM'], model_type: 'llama' }
    : shape.activation === 'silu'
      ? { architectures: ['BitnetForCausalLM'], model_type: 'llama', weight_bits: 1, input_bits: 8 }
      : { architectures: ['BitNetForCausalLM'], model_type: 'bitnet' };
  const quantisation = {
    packed: { quant_method: 'bitnet', linear_class: 'autobitlinear', quantization_mode: 'offline' },
    'packed-divide': {
      modules_to_not_convert: null,
      quant_method: 'bitnet',
      ...(options.explicitLinearClass ? { linear_class: 'bitlinear', quantization_mode: 'offline' } : {}),
    },
    masters: { quant_method: 'bitnet', linear_class: 'autobitlinear', quantization_mode: 'online' },
  };
  // 1bitLLM's masters and weights that are final carry no quantization_config.
  const kind = options.weights.startsWith('masters') ? 'masters' : options.weights;
  const plain = kind.startsWith('ternary') || (kind === 'masters' && family.architectures[0] === 'BitnetForCausalLM');
  const torchType = { bf16: 'bfloat16', f16: 'float16', f32: 'float32' }[shape.embeddingType as FloatType];
  return {
    ...family,
    bos_token_id: bos,
    eos_token_id: eos,
    hidden_act: shape.activation,
    hidden_size: shape.hidden,
    ...(shape.headSize * shape.heads === shape.hidden ? {} : { head_dim: shape.headSize }),
    initializer_range: 0.02,
    intermediate_size: shape.intermediate,
    max_position_embeddings: shape.context,
    rms_norm_eps: shape.normEps,
    num_attention_heads: shape.heads,
    num_hidden_layers: shape.layers,
    num_key_value_heads: shape.kvHeads,
    rope_theta: shape.ropeTheta,
    tie_word_embeddings: shape.tiedEmbedding,
    torch_dtype: torchType,
    use_cache: true,
    vocab_size: shape.vocabulary,
    ...(plain ? {} : { quantization_config: quantisation[kind as keyof typeof quantisation] }),
  };
}

/** Cuts the tensors into files of about equal counts; a weight and its scale may well land in different files. */
function writeShards(folder: string, tensors: readonly Tensor[], shards: number): void {
  if (shards === 1) {
    writeFileSync(path.join(folder, 'model.safetensors'), safetensors(tensors));
    return;
  }
  const pad = (n: number): string => String(n).padStart(5, '0');
  const map: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const file = `model-${pad(shard + 1)}-of-${pad(shards)}.safetensors`;
    const part = tensors.slice((shard * tensors.length) / shards, ((shard + 1) * tensors.length) / shards);
    for (const { name } of part) map[name] = file;
    writeFileSync(path.join(folder, file), safetensors(part));
  }
  const total = tensors.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const index = { metadata: { total_size: total }, weight_map: map };
  writeFileSync(path.join(folder, 'model.safetensors.index.json'), JSON.stringify(index, null, 2));
}

/** u64 header length, JSON header padded with spaces to 8 bytes, data. */
function safetensors(tensors: readonly Tensor[]): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  const json = JSON.stringify(header);
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...tensors.map(({ bytes }) => bytes)]);
}
