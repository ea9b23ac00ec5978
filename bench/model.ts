/**
 * Random models of a shape at its real sizes, as Hugging Face folders with packed weights, so that they come in through the
 * runtime's own loader. Weights do not matter for speed, but numbers must neither vanish nor explode: norms are 1, so the inputs
 * of a product of k weights have size 1, and scale 1 / sqrt(2 k / 3) gives its outputs size 1 again.
 *
 * A random gate is open for half of the neurons. For less, some elements of the residual stream are the same constant in every
 * row of the embedding, no product adds to them, and all gates weigh them with -1: sums of random weights, of standard deviation
 * sqrt(2 k / 3), are shifted as far as the wanted share needs. Which gates are open then depends on the token as before.
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

/** Elements of the residual stream that are constant where gates shall be closed more often, and their value. */
const [CONSTANTS, CONSTANT] = [64, 0.5];
/** One of so many neurons has an input of `down` that is so many times larger, as in trained models: more of the others are rounded to zero. */
const [OUTLIERS, OUTLIER] = [64, 6];

/** Elements that a gate weighs, and what is shifted. @param sparsity share of the gates that are closed */
function shiftOf(shape: ModelShape, sparsity: number): number {
  const sample = normals(2 ** 16, 1, 4).sort();
  const quantile = sample[Math.floor(sparsity * sample.length)]!;
  return (quantile * Math.sqrt((2 * (shape.hidden - CONSTANTS)) / 3)) / CONSTANTS;
}

/** A folder or file in the cache for a random model; another shape, sparsity or version is another name. */
export function randomModelPath(shape: ModelShape, suffix = '', sparsity?: number): string {
  const key = createHash('sha256')
    .update(JSON.stringify([shape, VERSION, ...(sparsity === undefined ? [] : [sparsity, OUTLIER])]))
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

/** Each byte anew, by its place. */
function* edited(pieces: Iterable<Uint8Array>, edit: (bytes: Uint8Array, at: number) => void): Generator<Uint8Array> {
  let at = 0;
  for (const piece of pieces) {
    const bytes = Uint8Array.from(piece);
    edit(bytes, at);
    at += bytes.length;
    yield bytes;
  }
}

/** Sets the first `width` bytes of every row of `stride` bytes, of `rows` rows. */
const beginnings =
  (stride: number, width: number, rows: number, value: (byte: number, column: number) => number) =>
  (bytes: Uint8Array, at: number): void => {
    for (let row = Math.floor(at / stride); row * stride < at + bytes.length && row < rows; row++)
      for (let column = 0; column < width; column++) {
        const i = row * stride + column - at;
        if (i >= 0 && i < bytes.length) bytes[i] = value(bytes[i]!, column);
      }
  };

/** What makes a tensor of a random model shift its gates; undefined where it stays as it is. */
function shiftingEdit(shape: ModelShape, role: string, rows: number, cols: number) {
  const slot = role.replace(/^blk\.\d+\./, '');
  const CLOSED = 0x00; // four codes of -1
  const IGNORED = 0x01; // a code of 0, in the lowest of four rows
  if (slot === 'ffn_gate') return beginnings(cols, CONSTANTS, rows, () => CLOSED);
  // Rows 0 ... of the matrix are the lowest codes of packed rows 0 ...
  if (slot === 'attn_output' || slot === 'ffn_down')
    return beginnings(cols, cols, CONSTANTS, (byte) => (byte & 0xfc) | IGNORED);
  if (slot !== 'token_embd') return undefined;
  const constant = floatBytes[shape.embeddingType as FloatType](new Float32Array(CONSTANTS).fill(CONSTANT));
  return beginnings((constant.length / CONSTANTS) * cols, constant.length, rows, (_, column) => constant[column]!);
}

/** Weights of a norm: those of a gate's constants give them the size of the shift, whatever layers have added up to. */
function normWeights(role: string, cols: number, shift: number): Float32Array {
  const weights = new Float32Array(cols).fill(1);
  const [, layer, slot] = /^blk\.(\d+)\.(.*)$/.exec(role) ?? [];
  if (layer === undefined || !shift) return weights;
  if (slot === 'ffn_sub_norm') return weights.map((_, i) => (i % OUTLIERS ? 1 : OUTLIER));
  // Variance of what attention adds in a layer, and the MLP.
  const added = 1 + (OUTLIERS - 1 + OUTLIER ** 2) / OUTLIERS;
  if (slot === 'ffn_norm') weights.fill((shift * Math.sqrt(1 + Number(layer) * added)) / CONSTANT, 0, CONSTANTS);
  return weights;
}

function* tensorsOf(shape: ModelShape, sparsity: number | undefined): Generator<Tensor> {
  const shift = sparsity === undefined ? 0 : shiftOf(shape, sparsity);
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
    const edit = shift
      ? shiftingEdit(shape, role.name, role.kind === 'ternary' ? role.rows / 4 : role.rows, cols)
      : undefined;
    const shifted = (pieces: Iterable<Uint8Array>) => (edit ? edited(pieces, edit) : pieces);
    if (role.kind === 'norm') yield bf16(`${name}.weight`, [cols], normWeights(role.name, cols, shift));
    else if (role.kind === 'table') {
      const bytes = role.rows * cols * (type === 'f32' ? 4 : 2);
      const dtype = type.toUpperCase();
      yield { name: `${name}.weight`, dtype, shape: [role.rows, cols], bytes, content: shifted(rows.take(bytes)) };
    } else {
      const bytes = (role.rows / 4) * cols;
      yield {
        name: `${name}.weight`,
        dtype: 'U8',
        shape: [role.rows / 4, cols],
        bytes,
        content: shifted(ternary.take(bytes)),
      };
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

/**
 * The random model of a shape in the cache, written when it is missing.
 * @param sparsity share of the gates that are closed, from 0.5 on; absent: half, by chance @returns its folder
 */
export async function randomModel(
  shape: ModelShape,
  onProgress: (done: number, total: number) => void,
  signal: AbortSignal,
  sparsity?: number,
): Promise<string> {
  const folder = randomModelPath(shape, '', sparsity);
  const weights = path.join(folder, 'model.safetensors');
  if (existsSync(weights)) return folder;
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(configOf(shape), null, 2));
  const tensors = [...tensorsOf(shape, sparsity)];
  await writeParts(weights, [headerOf(tensors), ...tensors], onProgress, signal);
  return folder;
}
