/**
 * Decoders of every encoding that the tests meet, written from the format descriptions and independently of the encoders
 * in encode.ts and of the program. Sources: ggml's block structures (ggml-common.h, ggml-quants.c), Microsoft's
 * ggml-bitnet-mad.cpp for I2_S, Hugging Face's integrations/bitnet.py for packed U8.
 */

/** Value of a float16 given as 16 bits. */
export function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const word = new DataView(new ArrayBuffer(4));

/** Value of a bfloat16 given as 16 bits: the upper half of a float32. */
export function bfloatValue(bits: number): number {
  word.setUint16(0, bits);
  word.setUint16(2, 0);
  return word.getFloat32(0);
}

const halfAt = (data: DataView, at: number): number => halfValue(data.getUint16(at, true));

/** GGML type ids with the elements and bytes of a block. I2_S has no blocks of its own; see `byteLength`. */
export const ggmlTypes = {
  f32: { id: 0, elements: 1, bytes: 4 },
  f16: { id: 1, elements: 1, bytes: 2 },
  bf16: { id: 30, elements: 1, bytes: 2 },
  q4_0: { id: 2, elements: 32, bytes: 18 },
  q8_0: { id: 8, elements: 32, bytes: 34 },
  q6_k: { id: 14, elements: 256, bytes: 210 },
  tq1_0: { id: 34, elements: 256, bytes: 54 },
  tq2_0: { id: 35, elements: 256, bytes: 66 },
  i2_s: { id: 36, elements: 128, bytes: 32 },
} as const;
export type GgmlType = keyof typeof ggmlTypes;

/** Bytes that `count` elements occupy; I2_S ends with the scale and 28 bytes of padding. */
export function byteLength(type: GgmlType, count: number): number {
  const { elements, bytes } = ggmlTypes[type];
  if (count % elements) throw new Error(`${count} elements are not whole blocks of ${type}`);
  return (count / elements) * bytes + (type === 'i2_s' ? 32 : 0);
}

/** One block or element of each float type: writes its values to out[to...]. `at` counts bytes. */
const blocks: Record<Exclude<GgmlType, 'i2_s'>, (data: DataView, at: number, out: Float64Array, to: number) => void> = {
  f32: (data, at, out, to) => {
    out[to] = data.getFloat32(at, true);
  },
  f16: (data, at, out, to) => {
    out[to] = halfAt(data, at);
  },
  bf16: (data, at, out, to) => {
    out[to] = bfloatValue(data.getUint16(at, true));
  },
  q8_0: (data, at, out, to) => {
    for (let i = 0; i < 32; i++) out[to + i] = data.getInt8(at + 2 + i) * halfAt(data, at);
  },
  q4_0: (data, at, out, to) => {
    const d = halfAt(data, at);
    for (let i = 0; i < 16; i++) {
      const pair = data.getUint8(at + 2 + i);
      out[to + i] = ((pair & 15) - 8) * d;
      out[to + i + 16] = ((pair >> 4) - 8) * d;
    }
  },
  // ql[128] (low 4 bits), qh[64] (high 2 bits), int8 scales[16], f16 d; two halves of 128 elements.
  q6_k: (data, at, out, to) => {
    const d = halfAt(data, at + 208);
    for (let i = 0; i < 256; i++) {
      const half = i >> 7;
      const quarter = (i >> 5) & 3; // which 32 elements of the half
      const l = i & 31;
      const low = data.getUint8(at + 64 * half + (quarter & 1) * 32 + l) >> (quarter >> 1 ? 4 : 0);
      const high = data.getUint8(at + 128 + 32 * half + l) >> (2 * quarter);
      const q = ((low & 15) | ((high & 3) << 4)) - 32;
      out[to + i] = d * data.getInt8(at + 192 + (i >> 4)) * q;
    }
  },
  // 48 bytes of five base-3 digits, 4 bytes of four, f16 d. byte * 3^n mod 256 moves digit n to the front.
  tq1_0: (data, at, out, to) => {
    const d = halfAt(data, at + 52);
    const digit = (byte: number, n: number): number => ((((byte * 3 ** n) & 255) * 3) >> 8) - 1;
    for (let n = 0; n < 5; n++) {
      for (let m = 0; m < 32; m++) out[to + 32 * n + m] = d * digit(data.getUint8(at + m), n);
      for (let m = 0; m < 16; m++) out[to + 160 + 16 * n + m] = d * digit(data.getUint8(at + 32 + m), n);
    }
    for (let n = 0; n < 4; n++) {
      for (let j = 0; j < 4; j++) out[to + 240 + 4 * n + j] = d * digit(data.getUint8(at + 48 + j), n);
    }
  },
  tq2_0: (data, at, out, to) => {
    const d = halfAt(data, at + 64);
    for (let i = 0; i < 256; i++) {
      out[to + i] = d * (((data.getUint8(at + 32 * (i >> 7) + (i & 31)) >> (2 * ((i >> 5) & 3))) & 3) - 1);
    }
  },
};

/** All values of a tensor. @param count elements; `bytes` may be longer */
export function decodeValues(type: GgmlType, bytes: Uint8Array, count: number): Float64Array {
  if (bytes.length < byteLength(type, count)) throw new Error(`${bytes.length} bytes are too few for ${count} ${type}`);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float64Array(count);
  if (type === 'i2_s') {
    // Blocks of 128 in 32 bytes, element 32g + p in bits 7-2g.. of byte p; the scale follows the last block.
    const scale = data.getFloat32(count / 4, true);
    for (let i = 0; i < count; i++) {
      const code = (bytes[32 * Math.floor(i / 128) + (i % 32)]! >> (6 - 2 * (Math.floor(i / 32) % 4))) & 3;
      out[i] = (code - 1) * scale;
    }
    return out;
  }
  const { elements, bytes: size } = ggmlTypes[type];
  const decode = blocks[type];
  for (let to = 0, at = 0; to < count; to += elements, at += size) decode(data, at, out, to);
  return out;
}

/** Hugging Face's packed U8 [rows/4, cols]: byte [r][c] holds rows r, r + rows/4, ... of column c, lowest bits first. */
export function unpackHuggingFace(bytes: Uint8Array, rows: number, cols: number): Int8Array {
  const trits = new Int8Array(rows * cols);
  const quarter = rows / 4;
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < cols; c++) {
      const byte = bytes[(row % quarter) * cols + c]!;
      trits[row * cols + c] = ((byte >> (2 * Math.floor(row / quarter))) & 3) - 1;
    }
  }
  return trits;
}

/** Splits values that are all -s, 0 or s; undefined when they are not. */
export function asTernary(values: Float64Array): { trits: Int8Array; scale: number } | undefined {
  let scale = 0;
  for (const value of values) scale = Math.max(scale, Math.abs(value));
  if (!values.every((value) => value === 0 || Math.abs(value) === scale)) return undefined;
  return { trits: new Int8Array(values.map(Math.sign)), scale };
}
