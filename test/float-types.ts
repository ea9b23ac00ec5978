/**
 * Float types for the tests of the decoder: narrowing searches the neighbours, which is slow, and independent of
 * templates/decode-floats.c and of the encoders in encode.ts.
 */

const word = new DataView(new ArrayBuffer(4));

/** Bits of a float32. */
export function bitsOf(value: number): number {
  word.setFloat32(0, value);
  return word.getUint32(0);
}

/** The float32 of 32 bits. */
export function floatOf(bits: number): number {
  word.setUint32(0, bits);
  return word.getFloat32(0);
}

/** The value of a float16. */
export function halfOf(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? (1024 + mantissa) * 2 ** (exponent - 25) : mantissa * 2 ** -24);
}

/** The float types of weights: bytes, how to store element i, and the nearest value. */
export const floatTypes = {
  f32: { bytes: 4, write: (b: Buffer, i: number, v: number) => b.writeFloatLE(v, 4 * i), round: Math.fround },
  f16: { bytes: 2, write: (b: Buffer, i: number, v: number) => b.writeUInt16LE(toHalf(v), 2 * i), round: roundHalf },
  bf16: {
    bytes: 2,
    write: (b: Buffer, i: number, v: number) => b.writeUInt16LE(toBfloat(v), 2 * i),
    round: roundBfloat,
  },
} as const;
export type FloatName = keyof typeof floatTypes;

/** Bits of the nearest float16, halves to even. */
export function toHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  // Magnitudes of halves grow with their bits; find the last one that is not above.
  let [low, high] = [0, 0x7c00];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (halfOf(middle) <= size) low = middle;
    else high = middle;
  }
  // 65536 stands for infinity when rounding.
  const up = high === 0x7c00 ? 65536 : halfOf(high);
  const distance = size - halfOf(low) - (up - size);
  return sign | (distance > 0 || (distance === 0 && low & 1) ? high : low);
}

/** The nearest float16. */
export function roundHalf(value: number): number {
  return halfOf(toHalf(value));
}

/** Bits of the nearest bfloat16, halves to even. */
export function toBfloat(value: number): number {
  const bits = bitsOf(value);
  const low = bits & 0xffff;
  const high = bits >>> 16;
  return low > 0x8000 || (low === 0x8000 && high & 1) ? high + 1 : high;
}

/** The nearest bfloat16. */
export function roundBfloat(value: number): number {
  return floatOf(toBfloat(value) * 0x10000);
}

/** Little-endian elements. */
export function stored(type: FloatName, values: ArrayLike<number>): Buffer {
  const data = Buffer.alloc(values.length * floatTypes[type].bytes);
  for (let i = 0; i < values.length; i++) floatTypes[type].write(data, i, values[i]!);
  return data;
}
