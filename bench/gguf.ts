/**
 * Random models as GGUF files that llama.cpp runs: ternary matrices in TQ2_0, embedding and head in Q6_K, and the least vocabulary
 * that loads: bytes and made-up words, no merges. Architecture `bitnet` for models with sub-norms, whose activation function llama.cpp takes for SiLU; else `llama`.
 * Sources: ggml's docs/gguf.md; ggml-common.h (block_tq2_0, block_q6_K).
 */
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { type Role, roles } from '../runtime/formats/check.ts';
import type { ModelShape } from '../schemas/types.ts';
import { randomModelPath, scaleOf } from './model.ts';
import { RandomStream, randomWords, ternaryBytes } from './random.ts';
import { type Part, writeParts } from './write.ts';

/** Weights of a block, along a row. */
const BLOCK = 256;
/** ggml's type ids, and bytes of a block (of one element: F32). */
const types = {
  norm: { id: 0, bytes: 4 },
  table: { id: 14, bytes: 210 },
  ternary: { id: 35, bytes: 66 },
} as const satisfies Record<Role['kind'], { id: number; bytes: number }>;
const ALIGNMENT = 32;
const padded = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** Why a shape has no such file; undefined when it has one. */
export function refusal(shape: ModelShape): string | undefined {
  const bad = roles(shape).find(({ kind, cols }) => kind !== 'norm' && cols % BLOCK);
  return bad && `TQ2_0 and Q6_K rows are whole blocks of ${BLOCK}, and ${bad.name} has rows of ${bad.cols}`;
}

/** A positive normal half-precision number, rounded down: 15 - 127 rebiases the exponent, 13 bits of the mantissa go. */
const halfBits = (value: number) => (new Uint32Array(Float32Array.of(value).buffer)[0]! - ((127 - 15) << 23)) >>> 13;

/** Primes, so that rows do not repeat (random.ts): blocks of the endless streams. */
const TERNARY_BLOCKS = 65537;
const TABLE_BLOCKS = 131071;

/** TQ2_0: 64 bytes of four codes each, then the scale. */
function ternaryBlocks(scale: number): RandomStream {
  const bytes = ternaryBytes(TERNARY_BLOCKS * types.ternary.bytes, 1);
  const view = new DataView(bytes.buffer);
  for (let at = types.ternary.bytes; at <= bytes.length; at += types.ternary.bytes)
    view.setUint16(at - 2, halfBits(scale), true);
  return new RandomStream(bytes);
}

/** Q6_K: 192 bytes of six-bit values, 16 scales of one byte, then the scale of scales; standard deviation 0.05. */
function tableBlocks(): RandomStream {
  const bytes = new Uint8Array(randomWords(Math.ceil((TABLE_BLOCKS * types.table.bytes) / 4), 2).buffer);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < TABLE_BLOCKS * types.table.bytes; at += types.table.bytes) {
    bytes.fill(16, at + 192, at + 208);
    // Values of -32..31 have a standard deviation of 18.5.
    view.setUint16(at + 208, halfBits(0.05 / 18.5 / 16), true);
  }
  return new RandomStream(bytes.subarray(0, TABLE_BLOCKS * types.table.bytes));
}

class Header {
  readonly #parts: Buffer[] = [Buffer.from('GGUF')];

  #number(size: 4 | 8, write: (buffer: Buffer) => void): this {
    const buffer = Buffer.alloc(size);
    write(buffer);
    this.#parts.push(buffer);
    return this;
  }
  u32 = (value: number): this => this.#number(4, (b) => b.writeUInt32LE(value));
  f32 = (value: number): this => this.#number(4, (b) => b.writeFloatLE(value));
  u64 = (value: number): this => this.#number(8, (b) => b.writeBigUInt64LE(BigInt(value)));
  string(text: string): this {
    this.u64(Buffer.byteLength(text));
    this.#parts.push(Buffer.from(text));
    return this;
  }
  /** All of it, and zeros up to where the data begin. */
  bytes(): Buffer {
    const whole = Buffer.concat(this.#parts);
    return Buffer.concat([whole, Buffer.alloc(padded(whole.length) - whole.length)]);
  }
}

/** GPT-2's letters for the 256 bytes (printable ones stand for themselves, the n-th other one is 256 + n), then words. */
function vocabularyOf(size: number): string[] {
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const isPrintable = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  const others = bytes.filter((byte) => !isPrintable(byte)).map((_, n) => 256 + n);
  const letters = [...bytes.filter(isPrintable), ...others].map((code) => String.fromCodePoint(code));
  return Array.from({ length: size }, (_, id) => letters[id] ?? `word${id}`);
}

type Value = { u32: number } | { f32: number } | { string: string } | { strings: readonly string[] };

function metadata(shape: ModelShape): [string, Value][] {
  const arch = shape.subNorms ? 'bitnet' : 'llama';
  return [
    ['general.architecture', { string: arch }],
    ['general.name', { string: shape.name }],
    ['general.file_type', { u32: 37 }],
    ['general.quantization_version', { u32: 2 }],
    [`${arch}.vocab_size`, { u32: shape.vocabulary }],
    [`${arch}.context_length`, { u32: shape.context }],
    [`${arch}.embedding_length`, { u32: shape.hidden }],
    [`${arch}.block_count`, { u32: shape.layers }],
    [`${arch}.feed_forward_length`, { u32: shape.intermediate }],
    [`${arch}.rope.dimension_count`, { u32: shape.headSize }],
    [`${arch}.rope.freq_base`, { f32: shape.ropeTheta }],
    [`${arch}.attention.head_count`, { u32: shape.heads }],
    [`${arch}.attention.head_count_kv`, { u32: shape.kvHeads }],
    [`${arch}.attention.key_length`, { u32: shape.headSize }],
    [`${arch}.attention.value_length`, { u32: shape.headSize }],
    [`${arch}.attention.layer_norm_rms_epsilon`, { f32: shape.normEps }],
    ['tokenizer.ggml.model', { string: 'gpt2' }],
    ['tokenizer.ggml.pre', { string: 'llama-bpe' }],
    ['tokenizer.ggml.tokens', { strings: vocabularyOf(shape.vocabulary) }],
    ['tokenizer.ggml.merges', { strings: [] }],
  ];
}

/** The random GGUF file of a shape in the cache, written when it is missing. @returns its path */
export async function randomGguf(
  shape: ModelShape,
  onProgress: (done: number, total: number) => void,
  signal: AbortSignal,
): Promise<string> {
  const file = randomModelPath(shape, '.gguf');
  if (existsSync(file)) return file;
  const tensors = roles(shape);
  const entries = metadata(shape);
  const header = new Header().u32(3).u64(tensors.length).u64(entries.length);
  for (const [key, value] of entries) {
    header.string(key);
    if ('u32' in value) header.u32(4).u32(value.u32);
    else if ('f32' in value) header.u32(6).f32(value.f32);
    else if ('string' in value) header.u32(8).string(value.string);
    else {
      header.u32(9).u32(8).u64(value.strings.length);
      for (const text of value.strings) header.string(text);
    }
  }
  const table = tableBlocks();
  const ternary = new Map<number, RandomStream>();
  const parts: Part[] = [];
  let offset = 0;
  for (const { name, kind, rows, cols } of tensors) {
    const { id, bytes: unit } = types[kind];
    const bytes = kind === 'norm' ? cols * unit : ((rows * cols) / BLOCK) * unit;
    header.string(`${name}.weight`);
    if (kind === 'norm') header.u32(1).u64(cols);
    else header.u32(2).u64(cols).u64(rows);
    header.u32(id).u64(offset);
    offset += padded(bytes);
    if (kind === 'ternary' && !ternary.has(cols)) ternary.set(cols, ternaryBlocks(scaleOf(cols)));
    const ones = [new Uint8Array(new Float32Array(kind === 'norm' ? cols : 0).fill(1).buffer)];
    const content = kind === 'norm' ? ones : (kind === 'table' ? table : ternary.get(cols)!).take(bytes);
    parts.push({ bytes, content }, { bytes: padded(bytes) - bytes, content: [new Uint8Array(padded(bytes) - bytes)] });
  }
  const start = header.bytes();
  mkdirSync(path.dirname(file), { recursive: true });
  await writeParts(file, [{ bytes: start.length, content: [start] }, ...parts], onProgress, signal);
  return file;
}
