/**
 * Random models of a shape at its real sizes, as Hugging Face folders with packed weights, so that they come in through the
 * runtime's own loader. Weights do not matter for speed, but numbers must neither vanish nor explode: norms are 1, so the inputs
 * of a product of k weights have size 1, and scale 1 / sqrt(2 k / 3) gives its outputs size 1 again.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { roles } from '../runtime/formats/check.ts';
import { ModelError } from '../schemas/error.ts';
import { cacheRoot } from '../schemas/files.ts';
import type { FloatType, ModelShape } from '../schemas/types.ts';
import { LARGE_PRIME, normals, RandomStream, ternaryBytes } from './random.ts';
import { type Part, writeParts } from './write.ts';

/** Changes when the same shape shall be written anew. */
const VERSION = 1;
/** Logits get a standard deviation of about sqrt(2560) / 20 = 2.5. */
const EMBEDDING_DEVIATION = 0.05;

/** GGUF names, by which the shape's tensors are known, to Hugging Face's. */
const outerNames: Readonly<Record<string, string>> = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.norm',
  output: 'lm_head',
};
const layerNames: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_sub_norm: 'self_attn.attn_sub_norm',
  attn_output: 'self_attn.o_proj',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_sub_norm: 'mlp.ffn_sub_norm',
  ffn_down: 'mlp.down_proj',
};
const nameOf = (name: string): string => {
  const [, layer, slot] = /^blk\.(\d+)\.(.*)$/.exec(name) ?? [];
  return layer === undefined ? outerNames[name]! : `model.layers.${layer}.${layerNames[slot!]}`;
};

/** The scale of a ternary matrix with k columns. */
export const scaleOf = (k: number): number => 1 / Math.sqrt((2 * k) / 3);

/** A folder or file in the cache for a random model; another shape or version is another name. */
export function randomModelPath(shape: ModelShape, suffix = ''): string {
  const key = createHash('sha256')
    .update(JSON.stringify([shape, VERSION]))
    .digest('hex')
    .slice(0, 8);
  return path.join(cacheRoot(), 'bench', `${shape.name}-${key}${suffix}`);
}

const floatBytes: Record<FloatType, (values: Float32Array) => Uint8Array> = {
  f32: (values) => new Uint8Array(values.buffer),
  bf16: (values) => {
    const bits = new Uint32Array(values.buffer);
    return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
  },
  // Normal halves only: below 2^-14 lies nothing of interest here.
  f16: (values) => {
    const half = (word: number) => ((word >>> 16) & 0x8000) | Math.max(0, ((word & 0x7fffffff) - 0x38000000) >> 13);
    return new Uint8Array(Uint16Array.from(new Uint32Array(values.buffer), half).buffer);
  },
};

interface Tensor extends Part {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}

function* tensorsOf(shape: ModelShape): Generator<Tensor> {
  const ternary = new RandomStream(ternaryBytes(LARGE_PRIME, 1));
  const values = normals(LARGE_PRIME, EMBEDDING_DEVIATION, 2);
  const type = shape.embeddingType;
  if (!(type in floatBytes))
    throw new ModelError(
      `a random model is a Hugging Face folder, which cannot hold ${type} rows; take f32, f16 or bf16`,
    );
  const rows = new RandomStream(floatBytes[type as FloatType](values));
  const bf16 = (name: string, sizes: number[], numbers: Float32Array): Tensor => {
    const bytes = floatBytes.bf16(numbers);
    return { name, dtype: 'BF16', shape: sizes, bytes: bytes.length, content: [bytes] };
  };
  for (const role of roles(shape)) {
    const name = nameOf(role.name);
    const { cols } = role;
    if (role.kind === 'norm') yield bf16(`${name}.weight`, [cols], new Float32Array(cols).fill(1));
    else if (role.kind === 'table') {
      const bytes = role.rows * cols * (type === 'f32' ? 4 : 2);
      const dtype = type.toUpperCase();
      yield { name: `${name}.weight`, dtype, shape: [role.rows, cols], bytes, content: rows.take(bytes) };
    } else {
      const bytes = (role.rows / 4) * cols;
      yield { name: `${name}.weight`, dtype: 'U8', shape: [role.rows / 4, cols], bytes, content: ternary.take(bytes) };
      yield bf16(`${name}.weight_scale`, [1], Float32Array.of(scaleOf(cols)));
    }
  }
}

/** config.json; every architecture that has sub-norms may have either activation function. */
const configOf = (shape: ModelShape) => ({
  _name_or_path: shape.name,
  architectures: [shape.subNorms ? 'BitNetForCausalLM' : 'LlamaForCausalLM'],
  hidden_act: shape.activation,
  hidden_size: shape.hidden,
  head_dim: shape.headSize,
  intermediate_size: shape.intermediate,
  max_position_embeddings: shape.context,
  num_attention_heads: shape.heads,
  num_hidden_layers: shape.layers,
  num_key_value_heads: shape.kvHeads,
  quantization_config: { quant_method: 'bitnet', linear_class: 'autobitlinear', quantization_mode: 'offline' },
  rms_norm_eps: shape.normEps,
  rope_theta: shape.ropeTheta,
  tie_word_embeddings: shape.tiedEmbedding,
  vocab_size: shape.vocabulary,
});

/** u64 header length, JSON header padded with spaces to 8 bytes. */
function headerOf(tensors: readonly Tensor[]): Part {
  let offset = 0;
  const entries = tensors.map(({ name, dtype, shape, bytes }) => {
    offset += bytes;
    return [name, { dtype, shape, data_offsets: [offset - bytes, offset] }];
  });
  const json = JSON.stringify(Object.fromEntries(entries));
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return { bytes: 8 + text.length, content: [length, text] };
}

/** The random model of a shape in the cache, written when it is missing. @returns its folder */
export async function randomModel(
  shape: ModelShape,
  onProgress: (done: number, total: number) => void,
  signal: AbortSignal,
): Promise<string> {
  const folder = randomModelPath(shape);
  const weights = path.join(folder, 'model.safetensors');
  if (existsSync(weights)) return folder;
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(configOf(shape), null, 2));
  const tensors = [...tensorsOf(shape)];
  await writeParts(weights, [headerOf(tensors), ...tensors], onProgress, signal);
  return folder;
}
