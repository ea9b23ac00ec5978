/**
 * Encoders for the models that the tests write: float types, packed ternary matrices and GGML's block formats for
 * embeddings. Every lossy one also returns the values that the bytes really hold. Byte-identical to gguf-py's quantisers
 * and Microsoft's converters, apart from Q6_K, whose encoder is a simpler one of our own.
 * Sources: gguf-py/gguf/quants.py (TQ1_0, TQ2_0, Q8_0, Q4_0), ggml-common.h (Q6_K's layout), Microsoft's
 * convert-hf-to-gguf-bitnet.py (I2_S), Hugging Face's integrations/bitnet.py (packed U8).
 */
import type { FloatType } from '../schemas/types.ts';

export interface Encoded {
  readonly bytes: Uint8Array;
  /** What a decoder gets back. */
  readonly values: Float64Array;
}

/** Nearest integer, ties to even, |x| < 2^51; never -0. */
const roundEven = (x: number): number => x + 6755399441055744 - 6755399441055744;

/** Nearest integer, ties away from zero (C's roundf); never -0, for integers have none. */
const roundAway = (x: number): number => Math.sign(x) * Math.floor(Math.abs(x) + 0.5) + 0;

/**
 * Bits of the nearest value of a 16-bit float type, ties to even.
 * @param fraction bits of the fraction: 10 for float16, 7 for bfloat16
 */
function nearestBits(x: number, fraction: number): number {
  const bias = 2 ** (14 - fraction) - 1; // 15 or 127: 15 - fraction bits of exponent
  const size = Math.abs(x);
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const infinity = (2 * bias + 1) << fraction;
  if (size === Number.POSITIVE_INFINITY) return sign | infinity;
  const exponent = Math.max(size === 0 ? 1 - bias : Math.floor(Math.log2(size)), 1 - bias);
  // Subnormals have no hidden bit, so counting units from the lowest normal exponent needs no special case; a carry
  // out of the fraction raises the exponent by itself.
  const units = roundEven(size / 2 ** (exponent - fraction));
  return sign | Math.min(((exponent + bias - 1) << fraction) + units, infinity);
}

export const halfBits = (x: number): number => nearestBits(x, 10);
export const bfloatBits = (x: number): number => nearestBits(x, 7);

/** The value that 16 bits stand for. */
function fromBits(bits: number, fraction: number): number {
  const bias = 2 ** (14 - fraction) - 1;
  const exponent = (bits & 0x7fff) >> fraction;
  const units = (bits & ((1 << fraction) - 1)) + (exponent > 0 ? 1 << fraction : 0);
  return (bits & 0x8000 ? -1 : 1) * units * 2 ** (Math.max(exponent, 1) - bias - fraction);
}

/** Nearest value of a float type; finite results only. */
export function nearest(type: FloatType, x: number): number {
  if (type === 'f32') return Math.fround(x);
  const fraction = type === 'f16' ? 10 : 7;
  return fromBits(nearestBits(x, fraction), fraction);
}

/** Little-endian floats. */
export function encodeFloats(type: FloatType, values: ArrayLike<number>): Encoded {
  const size = type === 'f32' ? 4 : 2;
  const bytes = new Uint8Array(values.length * size);
  const view = new DataView(bytes.buffer);
  const held = new Float64Array(values.length);
  const fraction = type === 'f16' ? 10 : 7;
  for (let i = 0; i < values.length; i++) {
    if (type === 'f32') {
      held[i] = Math.fround(values[i]!);
      view.setFloat32(i * size, held[i]!, true);
    } else {
      const bits = nearestBits(values[i]!, fraction);
      held[i] = fromBits(bits, fraction);
      view.setUint16(i * size, bits, true);
    }
  }
  return { bytes, values: held };
}

function putHalf(bytes: Uint8Array, at: number, x: number): number {
  const bits = halfBits(x);
  bytes[at] = bits & 255;
  bytes[at + 1] = bits >> 8;
  return fromBits(bits, 10);
}

/** Packed U8 [rows/4, cols]: rows r, r + rows/4, r + rows/2, r + 3 rows/4 in bits 0-1, 2-3, 4-5, 6-7; code t + 1. */
export function packHuggingFace(trits: Int8Array, rows: number, cols: number): Uint8Array {
  if (rows % 4) throw new Error(`${rows} rows cannot be packed: they must be a multiple of 4`);
  const bytes = new Uint8Array((rows * cols) / 4);
  for (let at = 0; at < bytes.length; at++) {
    for (let i = 0; i < 4; i++) bytes[at] = bytes[at]! | ((trits[i * bytes.length + at]! + 1) << (2 * i));
  }
  return bytes;
}

/** I2_S of a flattened matrix: 128 trits in 32 bytes, first quarter in the highest bits; then f32 scale and 28 zeros. */
export function packI2S(trits: Int8Array, scale: number): Uint8Array {
  if (trits.length % 128) throw new Error(`${trits.length} elements are not whole I2_S blocks of 128`);
  const bytes = new Uint8Array(trits.length / 4 + 32);
  for (let i = 0; i < trits.length; i++) {
    const at = 32 * (i >> 7) + (i & 31);
    bytes[at] = bytes[at]! | ((trits[i]! + 1) << (6 - 2 * ((i >> 5) & 3)));
  }
  new DataView(bytes.buffer).setFloat32(trits.length / 4, scale, true);
  return bytes;
}

function checkBlocks(count: number, size: number, type: string): void {
  if (count % size) throw new Error(`${count} elements are not whole ${type} blocks of ${size}`);
}

/** TQ1_0: five trits per byte in base 3, first one most significant, byte = ceil(V * 256 / 243); d = 0 for a zero block. */
export function packTq1(trits: Int8Array, scale: number): Uint8Array {
  checkBlocks(trits.length, 256, 'TQ1_0');
  const bytes = new Uint8Array((trits.length / 256) * 54);
  for (let block = 0; block < trits.length / 256; block++) {
    const t = trits.subarray(block * 256, block * 256 + 256);
    const out = bytes.subarray(block * 54, block * 54 + 54);
    // A fifth digit of 0 pads the last four bytes, which hold four trits each.
    const put = (at: number, first: number, step: number, digits: number): void => {
      let value = 0;
      for (let n = 0; n < 5; n++) value = value * 3 + (n < digits ? t[first + n * step]! + 1 : 0);
      out[at] = Math.ceil((value * 256) / 243);
    };
    for (let m = 0; m < 32; m++) put(m, m, 32, 5);
    for (let m = 0; m < 16; m++) put(32 + m, 160 + m, 16, 5);
    for (let j = 0; j < 4; j++) put(48 + j, 240 + j, 4, 4);
    putHalf(out, 52, t.some((value) => value !== 0) ? scale : 0);
  }
  return bytes;
}

/** TQ2_0: 128 trits in 32 bytes, first quarter in the lowest bits; f16 d after 64 bytes. */
export function packTq2(trits: Int8Array, scale: number): Uint8Array {
  checkBlocks(trits.length, 256, 'TQ2_0');
  const bytes = new Uint8Array((trits.length / 256) * 66);
  for (let block = 0; block < trits.length / 256; block++) {
    const t = trits.subarray(block * 256, block * 256 + 256);
    const out = bytes.subarray(block * 66, block * 66 + 66);
    for (let i = 0; i < 256; i++) {
      const at = 32 * (i >> 7) + (i & 31);
      out[at] = out[at]! | ((t[i]! + 1) << (2 * ((i >> 5) & 3)));
    }
    putHalf(out, 64, t.some((value) => value !== 0) ? scale : 0);
  }
  return bytes;
}

/** Q8_0: blocks of 32: f16 d = max|x| / 127, then int8 x / d. */
export function encodeQ80(values: ArrayLike<number>): Encoded {
  checkBlocks(values.length, 32, 'Q8_0');
  const bytes = new Uint8Array((values.length / 32) * 34);
  const decoded = new Float64Array(values.length);
  for (let block = 0; block < values.length / 32; block++) {
    let max = 0;
    for (let i = 0; i < 32; i++) max = Math.max(max, Math.abs(values[block * 32 + i]!));
    // float32 at every step, as the C code does; the division by the unrounded d decides the integers.
    const d = Math.fround(Math.fround(max) / 127);
    const inverse = d ? Math.fround(1 / d) : 0;
    const stored = putHalf(bytes, block * 34, d);
    for (let i = 0; i < 32; i++) {
      const q = roundAway(Math.fround(Math.fround(values[block * 32 + i]!) * inverse));
      bytes[block * 34 + 2 + i] = q & 255;
      decoded[block * 32 + i] = q * stored;
    }
  }
  return { bytes, values: decoded };
}

/** Q4_0: blocks of 32: f16 d = (the value of largest size) / -8, then 4-bit x / d + 8, elements 0-15 in the low halves. */
export function encodeQ40(values: ArrayLike<number>): Encoded {
  checkBlocks(values.length, 32, 'Q4_0');
  const bytes = new Uint8Array((values.length / 32) * 18);
  const decoded = new Float64Array(values.length);
  for (let block = 0; block < values.length / 32; block++) {
    let largest = 0;
    for (let i = 0; i < 32; i++) {
      const value = Math.fround(values[block * 32 + i]!);
      if (Math.abs(value) > Math.abs(largest)) largest = value;
    }
    const d = Math.fround(largest / -8);
    const inverse = d ? Math.fround(1 / d) : 0;
    const stored = putHalf(bytes, block * 18, d);
    for (let i = 0; i < 32; i++) {
      const q = Math.min(15, Math.trunc(Math.fround(values[block * 32 + i]!) * inverse + 8.5));
      const at = block * 18 + 2 + (i & 15);
      bytes[at] = bytes[at]! | (q << (i < 16 ? 0 : 4));
      decoded[block * 32 + i] = (q - 8) * stored;
    }
  }
  return { bytes, values: decoded };
}

/**
 * Q6_K: blocks of 256: low 4 bits [128], high 2 bits [64], int8 scale for every 16 elements, f16 d. x = d * scale * q with
 * q in -32..31. Our scales are simply (value of largest size) / -32; ggml searches for better ones.
 */
export function encodeQ6K(values: ArrayLike<number>): Encoded {
  checkBlocks(values.length, 256, 'Q6_K');
  const bytes = new Uint8Array((values.length / 256) * 210);
  const decoded = new Float64Array(values.length);
  for (let block = 0; block < values.length / 256; block++) {
    const out = bytes.subarray(block * 210, block * 210 + 210);
    const wanted = new Float64Array(16);
    for (let i = 0; i < 256; i++) {
      const value = values[block * 256 + i]! / -32;
      if (Math.abs(value) > Math.abs(wanted[i >> 4]!)) wanted[i >> 4] = value;
    }
    const d = putHalf(out, 208, wanted.reduce((max, value) => Math.max(max, Math.abs(value)), 0) / 127);
    for (let i = 0; i < 256; i++) {
      const scale = d ? Math.max(-127, Math.min(127, roundEven(wanted[i >> 4]! / d))) : 0;
      const unit = d * scale;
      const q = unit ? Math.max(-32, Math.min(31, roundEven(values[block * 256 + i]! / unit))) : 0;
      out[192 + (i >> 4)] = scale & 255;
      const half = i >> 7;
      const quarter = (i >> 5) & 3;
      const low = 64 * half + 32 * (quarter & 1) + (i & 31);
      out[low] = out[low]! | (((q + 32) & 15) << (quarter >= 2 ? 4 : 0));
      const high = 128 + 32 * half + (i & 31);
      out[high] = out[high]! | (((q + 32) >> 4) << (2 * quarter));
      decoded[block * 256 + i] = unit * q;
    }
  }
  return { bytes, values: decoded };
}
