/**
 * Byte writers for the tests of the format readers: safetensors and GGUF files that may be wrong in any way, and the smallest
 * model that the readers accept. Data are zeros unless a test gives them: readers look at headers only.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** A temporary folder that disappears after the suite. */
export function temporaryFolder(): () => string {
  let folder = '';
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'formats-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));
  return () => folder;
}

/** u64 length, header, data. @param length overrides the true length of the header */
export function safetensorsFile(header: string, dataBytes: number, length?: bigint): Buffer {
  const json = Buffer.from(header);
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(length ?? BigInt(json.length));
  return Buffer.concat([start, json, Buffer.alloc(dataBytes)]);
}

const dtypeBytes: Record<string, number> = { U8: 1, F16: 2, BF16: 2, F32: 4, I32: 4 };

export interface Entry {
  dtype: string;
  shape: number[];
  /** Little-endian content; zeros if absent. */
  data?: Buffer;
}

/** A valid safetensors file. */
export function safetensors(entries: Record<string, Entry>): Buffer {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  const parts: Buffer[] = [];
  let offset = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(entries)) {
    const bytes = shape.reduce((a, b) => a * b, dtypeBytes[dtype]!);
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    parts.push(data ?? Buffer.alloc(bytes));
    offset += bytes;
  }
  return Buffer.concat([safetensorsFile(JSON.stringify(header), 0), ...parts]);
}

/** bfloat16 values. */
export function bf16(...values: number[]): Buffer {
  const data = Buffer.alloc(2 * values.length);
  for (const [i, value] of values.entries()) {
    const word = Buffer.alloc(4);
    word.writeFloatLE(value);
    word.copy(data, 2 * i, 2);
  }
  return data;
}

/** Sizes of the smallest model: hidden 32, 2 heads of 16 sharing one key/value head, intermediate 64, vocabulary 16. */
export const smallConfig = {
  architectures: ['BitNetForCausalLM'],
  hidden_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  intermediate_size: 64,
  vocab_size: 16,
  max_position_embeddings: 64,
  hidden_act: 'relu2',
  rms_norm_eps: 1e-6,
  rope_theta: 5000,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: 2,
  quantization_config: { quant_method: 'bitnet', linear_class: 'autobitlinear' },
};

const projections: [string, number, number][] = [
  ['self_attn.q_proj', 32, 32],
  ['self_attn.k_proj', 16, 32],
  ['self_attn.v_proj', 16, 32],
  ['self_attn.o_proj', 32, 32],
  ['mlp.gate_proj', 64, 32],
  ['mlp.up_proj', 64, 32],
  ['mlp.down_proj', 32, 64],
];

/** Tensors of the smallest model with packed matrices, scale 0.5. */
export function smallTensors(): Record<string, Entry> {
  const entries: Record<string, Entry> = {
    'model.embed_tokens.weight': { dtype: 'BF16', shape: [16, 32] },
    'model.norm.weight': { dtype: 'BF16', shape: [32] },
    'model.layers.0.input_layernorm.weight': { dtype: 'BF16', shape: [32] },
    'model.layers.0.post_attention_layernorm.weight': { dtype: 'BF16', shape: [32] },
    'model.layers.0.self_attn.attn_sub_norm.weight': { dtype: 'BF16', shape: [32] },
    'model.layers.0.mlp.ffn_sub_norm.weight': { dtype: 'BF16', shape: [64] },
  };
  for (const [name, rows, cols] of projections) {
    entries[`model.layers.0.${name}.weight`] = { dtype: 'U8', shape: [rows / 4, cols] };
    entries[`model.layers.0.${name}.weight_scale`] = { dtype: 'BF16', shape: [1], data: bf16(0.5) };
  }
  return entries;
}

/** The same with float matrices. @param value of each element by index */
export function smallFloats(dtype: 'BF16', value: (i: number) => number): Record<string, Entry> {
  const entries = smallTensors();
  for (const [name, rows, cols] of projections) {
    const data = bf16(...Array.from({ length: rows * cols }, (_, i) => value(i)));
    entries[`model.layers.0.${name}.weight`] = { dtype, shape: [rows, cols], data };
    delete entries[`model.layers.0.${name}.weight_scale`];
  }
  return entries;
}

/** Writes a model folder; JSON for objects, bytes for buffers. */
export function writeFolder(folder: string, files: Record<string, object | Buffer | string>): string {
  for (const [name, content] of Object.entries(files)) {
    const raw = Buffer.isBuffer(content) || typeof content === 'string';
    writeFileSync(path.join(folder, name), raw ? content : JSON.stringify(content));
  }
  return folder;
}

// ---- GGUF ----

export const u32 = (value: number): Buffer => {
  const data = Buffer.alloc(4);
  data.writeUInt32LE(value);
  return data;
};
export const f32 = (value: number): Buffer => {
  const data = Buffer.alloc(4);
  data.writeFloatLE(value);
  return data;
};
export const u64 = (value: number | bigint): Buffer => {
  const data = Buffer.alloc(8);
  data.writeBigUInt64LE(BigInt(value));
  return data;
};
export const text = (value: string): Buffer => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

/** Type id and encoded value. Numbers are u32 unless marked. */
export type Value = string | number | boolean | string[] | number[] | { f32: number } | { raw: Buffer };

function encode(value: Value): Buffer {
  if (typeof value === 'string') return Buffer.concat([u32(8), text(value)]);
  if (typeof value === 'number') return Buffer.concat([u32(4), u32(value)]);
  if (typeof value === 'boolean') return Buffer.concat([u32(7), Buffer.from([value ? 1 : 0])]);
  if (!Array.isArray(value)) return 'raw' in value ? value.raw : Buffer.concat([u32(6), f32(value.f32)]);
  const items = value.map((item) => (typeof item === 'string' ? text(item) : u32(item)));
  return Buffer.concat([u32(9), u32(typeof value[0] === 'string' ? 8 : 4), u64(value.length), ...items]);
}

export interface GgufTensor {
  name: string;
  dims: (number | bigint)[];
  type: number;
  /** Bytes in the data section. */
  bytes: number;
  /** Overrides the computed offset. */
  offset?: number | bigint;
  data?: Buffer;
}

export interface Gguf {
  magic?: string;
  version?: Buffer;
  tensorCount?: bigint;
  pairCount?: bigint;
  metadata: Record<string, Value>;
  tensors: GgufTensor[];
  alignment?: number;
}

/** A GGUF file, as wrong as it is told to be. */
export function gguf({ magic = 'GGUF', version = u32(3), metadata, tensors, alignment = 32, ...counts }: Gguf): Buffer {
  const pairs = Object.entries(metadata);
  const head = [
    Buffer.from(magic),
    version,
    u64(counts.tensorCount ?? tensors.length),
    u64(counts.pairCount ?? pairs.length),
    ...pairs.map(([key, value]) => Buffer.concat([text(key), encode(value)])),
  ];
  const data: Buffer[] = [];
  let offset = 0;
  for (const tensor of tensors) {
    const { name, dims, type, bytes } = tensor;
    head.push(text(name), u32(dims.length), ...dims.map(u64), u32(type), u64(tensor.offset ?? offset));
    const padded = Math.ceil(bytes / alignment) * alignment;
    const content = Buffer.alloc(padded);
    tensor.data?.copy(content);
    data.push(content);
    offset += padded;
  }
  const header = Buffer.concat(head);
  const padding = Buffer.alloc(Math.ceil(header.length / alignment) * alignment - header.length);
  return Buffer.concat([header, padding, ...data]);
}

/** Metadata and tensors of the smallest model as I2_S, to be changed by the test. */
export function smallGguf(arch = 'bitnet-b1.58'): { metadata: Record<string, Value>; tensors: GgufTensor[] } {
  const metadata: Record<string, Value> = {
    'general.architecture': arch,
    'general.name': 'Small Model',
    [`${arch}.vocab_size`]: 16,
    [`${arch}.context_length`]: 64,
    [`${arch}.embedding_length`]: 32,
    [`${arch}.block_count`]: 1,
    [`${arch}.feed_forward_length`]: 64,
    [`${arch}.rope.dimension_count`]: 16,
    [`${arch}.rope.freq_base`]: { f32: 5000 },
    [`${arch}.attention.head_count`]: 2,
    [`${arch}.attention.head_count_kv`]: 1,
    [`${arch}.attention.layer_norm_rms_epsilon`]: { f32: 1e-6 },
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.tokens': Array.from({ length: 16 }, (_, i) => (i === 9 ? '<|eot_id|>' : `t${i}`)),
    'tokenizer.ggml.token_type': Array.from({ length: 16 }, (_, i) => (i === 9 ? 3 : 1)),
    'tokenizer.ggml.merges': ['t 1', 't 2'],
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2,
  };
  const norm = (name: string, size: number): GgufTensor => ({ name, dims: [size], type: 0, bytes: 4 * size });
  const i2s = (name: string, rows: number, cols: number): GgufTensor => {
    const bytes = (rows * cols) / 4 + 32;
    return { name: `blk.0.${name}.weight`, dims: [cols, rows], type: 36, bytes };
  };
  const tensors = [
    { name: 'token_embd.weight', dims: [32, 16], type: 1, bytes: 1024 },
    norm('output_norm.weight', 32),
    norm('blk.0.attn_norm.weight', 32),
    i2s('attn_q', 32, 32),
    i2s('attn_k', 16, 32),
    i2s('attn_v', 16, 32),
    i2s('attn_output', 32, 32),
    norm('blk.0.ffn_norm.weight', 32),
    i2s('ffn_gate', 64, 32),
    i2s('ffn_up', 64, 32),
    i2s('ffn_down', 32, 64),
  ];
  if (arch !== 'llama') tensors.push(norm('blk.0.attn_sub_norm.weight', 32), norm('blk.0.ffn_sub_norm.weight', 64));
  return { metadata, tensors };
}
