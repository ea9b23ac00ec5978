/**
 * The vocabulary: every operation a kernel may use, each once, with its types and its meaning as plain TypeScript.
 *
 * A kernel algorithm (kernels/*.ts) records words; an instruction set (isa/*.ts) spells them in C; `simulate` executes the
 * meanings given here; the tests hold compiled C against them. A vector has `lanes` lanes of 32 bits; viewed as bytes, lane L
 * holds bytes 4L .. 4L+3. An ISA that cannot spell a word rules out the kernels that need it.
 */

/**
 * Vector types: bytes (u8 or s8), int16, partial sums of a dot product, int32, float32, and tables of 64, 32 and 16 bytes, which may
 * take several registers; scalar types: int32, float32.
 */
export type ValueType =
  | 'table64'
  | 'table32'
  | 'table16'
  | 'bytes'
  | 'shorts'
  | 'dots'
  | 'ints'
  | 'floats'
  | 'int'
  | 'float';

/** Argument kinds: a value type, an address, or a constant printed as a number. */
export type ArgType = ValueType | 'address' | 'constant';

/** A value while simulating: scalars are numbers, vectors are arrays. */
export type Datum = number | Uint8Array | Int16Array | Int32Array | Float32Array;

/** Typed memory under an address: the simulator resolves and bounds-checks it before a word sees it. */
export interface Cell {
  readonly array: Uint8Array | Int8Array | Uint16Array | Int32Array | Float32Array;
  readonly index: number;
}

/** What a word's meaning may know of the ISA. */
export interface Machine {
  /** 32-bit lanes of a vector. */
  readonly lanes: number;
  /** Products summed into one partial sum, the largest magnitude it may hold, and the largest unsigned code it takes. */
  readonly dot: { readonly products: 2 | 4; readonly limit: number; readonly codes: number };
}

/** One word of the vocabulary. */
export interface Word {
  readonly args: readonly ArgType[];
  /** Absent: the word only acts on memory. */
  readonly result?: ValueType;
  readonly doc: string;
  readonly meaning: (machine: Machine, ...args: never[]) => Datum | undefined;
  /** Elements touched at the address, for bounds checks: per lane or in total. */
  readonly touches?: { readonly perLane?: number; readonly total?: number };
  /** In words that sum products of a code and an activation: how many they add to each partial sum. */
  readonly products?: (machine: Machine) => number;
}

const f = Math.fround;
const bits32 = new DataView(new ArrayBuffer(8));

/** Nearest integer, ties to even: the rounding of cvtps2dq, FRINTN and torch.round. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

/** float32 fused multiply-add: a*b exact in float64, the sum rounded to odd in float64, then once to float32. */
export function fmaf(a: number, b: number, c: number): number {
  const p = a * b;
  const s = p + c;
  if (!Number.isFinite(s)) return f(s);
  const t = s - p;
  const error = p - (s - t) + (c - t);
  if (error === 0) return f(s);
  bits32.setFloat64(0, s);
  const low = bits32.getUint32(4);
  if (low & 1) return f(s);
  // The last bit is even and the sum inexact: move to the odd neighbour on the error's side.
  const away = error > 0 === s > 0;
  const bits = bits32.getBigInt64(0);
  bits32.setBigInt64(0, away ? bits + 1n : bits - 1n);
  return f(bits32.getFloat64(0));
}

/** IEEE binary16 bits -> number, exactly. */
export function halfToFloat(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 31;
  const fraction = h & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** number -> IEEE binary16 bits, nearest even. */
export function floatToHalf(x: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const a = Math.abs(x);
  if (Number.isNaN(x)) return 0x7e00;
  if (a >= 65520) return sign | 0x7c00;
  if (a < 2 ** -14) return sign | roundHalfEven(a * 2 ** 24);
  let exponent = Math.floor(Math.log2(a));
  if (2 ** exponent > a) exponent--;
  if (2 ** (exponent + 1) <= a) exponent++;
  const fraction = roundHalfEven(a * 2 ** (10 - exponent));
  return sign | (((exponent + 14) << 10) + fraction);
}

const ints = (m: Machine, g: (lane: number) => number) => Int32Array.from({ length: m.lanes }, (_, i) => g(i));
const floats = (m: Machine, g: (lane: number) => number) => Float32Array.from({ length: m.lanes }, (_, i) => g(i));
const bytes = (m: Machine, g: (byte: number) => number) => Uint8Array.from({ length: 4 * m.lanes }, (_, i) => g(i));
const shorts = (m: Machine, g: (short: number) => number) => Int16Array.from({ length: 2 * m.lanes }, (_, i) => g(i));
const put = (m: Machine, to: Cell, g: (lane: number) => number) => {
  for (let i = 0; i < m.lanes; i++) to.array[to.index + i] = g(i);
  return undefined;
};
const signed = (byte: number) => (byte << 24) >> 24;

/** Binary tree over the lanes, halves first: i + n/2, ..., +2, +1. */
function tree(values: Float32Array, op: (a: number, b: number) => number): number {
  const v = Float32Array.from(values);
  for (let half = v.length >> 1; half; half >>= 1) for (let i = 0; i < half; i++) v[i] = f(op(v[i]!, v[i + half]!));
  return v[0]!;
}

const perLane = (n: number) => ({ perLane: n });
const total = (n: number) => ({ total: n });
/** a partial sum, checked against the ISA's limit */
const within = (m: Machine, sum: number) => {
  if (Math.abs(sum) > m.dot.limit) throw new Error(`partial sum ${sum} passes the limit ${m.dot.limit}`);
  return sum;
};
type V = Int32Array;
type F = Float32Array;
type B = Uint8Array;
type S = Int16Array;

/** The vocabulary. */
export const words = {
  // --- memory
  load_bytes: {
    args: ['address'],
    result: 'bytes',
    touches: perLane(4),
    doc: 'one vector of bytes',
    meaning: (m, p: Cell) => bytes(m, (i) => p.array[p.index + i]! & 255),
  },
  store_bytes: {
    args: ['address', 'bytes'],
    touches: perLane(4),
    doc: 'writes one vector of bytes',
    meaning: (m, p: Cell, v: B) => {
      for (let i = 0; i < 4 * m.lanes; i++) p.array[p.index + i] = v[i]!;
      return undefined;
    },
  },
  broadcast4: {
    args: ['address'],
    result: 'bytes',
    touches: total(4),
    doc: 'four consecutive bytes, repeated in every lane',
    meaning: (m, p: Cell) => bytes(m, (i) => p.array[p.index + (i & 3)]! & 255),
  },
  load_columns: {
    args: ['address', 'address', 'address', 'address'],
    result: 'bytes',
    touches: perLane(1),
    doc: 'one byte of each address in a lane, the first the lowest; the next lane takes the next bytes',
    meaning: (m, ...columns: Cell[]) => bytes(m, (i) => columns[i & 3]!.array[columns[i & 3]!.index + (i >> 2)]! & 255),
  },
  load_ints: {
    args: ['address'],
    result: 'ints',
    touches: perLane(1),
    doc: 'one vector of int32',
    meaning: (m, p: Cell) => ints(m, (i) => p.array[p.index + i]!),
  },
  store_ints: {
    args: ['address', 'ints'],
    touches: perLane(1),
    doc: 'writes one vector of int32',
    meaning: (m, p: Cell, v: V) => put(m, p, (i) => v[i]!),
  },
  load_floats: {
    args: ['address'],
    result: 'floats',
    touches: perLane(1),
    doc: 'one vector of float32',
    meaning: (m, p: Cell) => floats(m, (i) => p.array[p.index + i]!),
  },
  store_floats: {
    args: ['address', 'floats'],
    touches: perLane(1),
    doc: 'writes one vector of float32',
    meaning: (m, p: Cell, v: F) => put(m, p, (i) => v[i]!),
  },
  load_halves: {
    args: ['address'],
    result: 'floats',
    touches: perLane(1),
    doc: 'binary16 values, widened exactly',
    meaning: (m, p: Cell) => floats(m, (i) => halfToFloat(p.array[p.index + i]!)),
  },
  store_halves: {
    args: ['address', 'floats'],
    touches: perLane(1),
    doc: 'narrows to binary16, nearest even',
    meaning: (m, p: Cell, v: F) => put(m, p, (i) => floatToHalf(v[i]!)),
  },
  load_bfloats: {
    args: ['address'],
    result: 'floats',
    touches: perLane(1),
    doc: 'bfloat16 values, widened exactly',
    meaning: (m, p: Cell) =>
      floats(m, (i) => {
        bits32.setUint32(0, p.array[p.index + i]! << 16);
        return bits32.getFloat32(0);
      }),
  },
  store_int8: {
    args: ['address', 'ints'],
    touches: perLane(1),
    doc: 'narrows to int8; every lane must lie in [-128, 127]',
    meaning: (m, p: Cell, v: V) => put(m, p, (i) => v[i]!),
  },
  prefetch: {
    args: ['address', 'constant'],
    touches: total(0),
    doc: 'hint: this line will be read once: 0 soon, bypassing what caches can be bypassed; 2 later, into the L2 cache',
    meaning: () => undefined,
  },
  // --- bytes
  field: {
    args: ['bytes', 'constant', 'constant'],
    result: 'bytes',
    doc: '(byte >> shift) & mask in every byte; mask <= 255 >> shift',
    meaning: (m, v: B, shift: number, mask: number) => bytes(m, (i) => (v[i]! >> shift) & mask),
  },
  sub_bytes: {
    args: ['bytes', 'bytes'],
    result: 'bytes',
    doc: 'a - b modulo 256 in every byte',
    meaning: (m, a: B, b: B) => bytes(m, (i) => a[i]! - b[i]!),
  },
  add_bytes: {
    args: ['bytes', 'bytes'],
    result: 'bytes',
    doc: 'a + b modulo 256 in every byte',
    meaning: (m, a: B, b: B) => bytes(m, (i) => a[i]! + b[i]!),
  },
  average_bytes: {
    args: ['bytes', 'bytes'],
    result: 'bytes',
    doc: '(a + b + 1) >> 1 of every two bytes, unsigned',
    meaning: (m, a: B, b: B) => bytes(m, (i) => (a[i]! + b[i]! + 1) >> 1),
  },
  and_bytes: {
    args: ['bytes', 'bytes'],
    result: 'bytes',
    doc: 'a & b',
    meaning: (m, a: B, b: B) => bytes(m, (i) => a[i]! & b[i]!),
  },
  xor_bytes: {
    args: ['bytes', 'bytes'],
    result: 'bytes',
    doc: 'a ^ b',
    meaning: (m, a: B, b: B) => bytes(m, (i) => a[i]! ^ b[i]!),
  },
  after: {
    args: ['bytes', 'bytes'],
    result: 'bytes',
    doc: 'a; stops compilers that would go on with it before b is known, until registers run out',
    meaning: (_m, a: B, _b: B) => a,
  },
  mix4: {
    args: ['bytes', 'bytes', 'bytes', 'bytes', 'constant'],
    result: 'bytes',
    doc: 'quarter q of four vectors, side by side: lane L holds byte q * lanes + L of a, b, c, d; q < 4',
    meaning: (m, a: B, b: B, c: B, d: B, q: number) => bytes(m, (i) => [a, b, c, d][i & 3]![q * m.lanes + (i >> 2)]!),
  },
  bytes_as_ints: {
    args: ['bytes'],
    result: 'ints',
    doc: 'the same bits: the first byte is the lowest',
    meaning: (m, v: B) => ints(m, (i) => new DataView(v.buffer, v.byteOffset).getInt32(4 * i, true)),
  },
  // --- int16 lanes, two in a lane of 32 bits; in memory they are pairs of bytes, the lower first
  load_shorts: {
    args: ['address'],
    result: 'shorts',
    touches: perLane(4),
    doc: 'one vector of int16',
    meaning: (m, p: Cell) => shorts(m, (i) => (p.array[p.index + 2 * i]! & 255) | (p.array[p.index + 2 * i + 1]! << 8)),
  },
  store_shorts: {
    args: ['address', 'shorts'],
    touches: perLane(4),
    doc: 'writes one vector of int16',
    meaning: (m, p: Cell, v: S) => {
      for (let i = 0; i < 4 * m.lanes; i++) p.array[p.index + i] = v[i >> 1]! >> (8 * (i & 1));
      return undefined;
    },
  },
  zero_shorts: { args: [], result: 'shorts', doc: '0 in every lane', meaning: (m) => shorts(m, () => 0) },
  add_shorts: {
    args: ['shorts', 'shorts'],
    result: 'shorts',
    doc: 'a + b modulo 2^16',
    meaning: (m, a: S, b: S) => shorts(m, (i) => a[i]! + b[i]!),
  },
  sub_shorts: {
    args: ['shorts', 'shorts'],
    result: 'shorts',
    doc: 'a - b modulo 2^16',
    meaning: (m, a: S, b: S) => shorts(m, (i) => a[i]! - b[i]!),
  },
  raise_shorts: {
    args: ['shorts', 'constant'],
    result: 'shorts',
    doc: 'a << n modulo 2^16; 1 <= n <= 15',
    meaning: (m, a: S, n: number) => shorts(m, (i) => a[i]! << n),
  },
  low_bytes: {
    args: ['bytes'],
    result: 'shorts',
    doc: 'the first half of the bytes, unsigned, widened',
    meaning: (m, v: B) => shorts(m, (i) => v[i]!),
  },
  high_bytes: {
    args: ['bytes'],
    result: 'shorts',
    doc: 'the second half of the bytes, unsigned, widened',
    meaning: (m, v: B) => shorts(m, (i) => v[2 * m.lanes + i]!),
  },
  signed_bytes: {
    args: ['ints', 'ints', 'constant'],
    result: 'shorts',
    doc: 'byte j of every lane, signed and widened: of a in the even int16 lanes, of b in the odd ones',
    meaning: (m, a: V, b: V, j: number) => shorts(m, (i) => signed((i & 1 ? b : a)[i >> 1]! >> (8 * j))),
  },
  add_words: {
    args: ['shorts', 'bytes', 'bytes', 'constant'],
    result: 'shorts',
    doc: 'sum + a + c b modulo 2^16, two bytes a number, the even one the lower',
    meaning: (m, sum: S, a: B, b: B, c: number) =>
      shorts(m, (i) => sum[i]! + a[2 * i]! + 256 * a[2 * i + 1]! + c * (b[2 * i]! + 256 * b[2 * i + 1]!)),
  },
  add_odd: {
    args: ['shorts', 'bytes', 'bytes', 'constant'],
    result: 'shorts',
    doc: 'sum + a + c b of the odd bytes, unsigned, modulo 2^16; c <= 127',
    meaning: (m, sum: S, a: B, b: B, c: number) => shorts(m, (i) => sum[i]! + a[2 * i + 1]! + c * b[2 * i + 1]!),
  },
  shorts_as_ints: {
    args: ['shorts'],
    result: 'ints',
    doc: 'the same bits: the even int16 lane is the lower half',
    meaning: (m, v: S) => ints(m, (i) => (v[2 * i]! & 0xffff) | (v[2 * i + 1]! << 16)),
  },
  ints_as_shorts: {
    args: ['ints'],
    result: 'shorts',
    doc: 'the same bits: the lower half is the even int16 lane',
    meaning: (m, v: V) => shorts(m, (i) => v[i >> 1]! >> (16 * (i & 1))),
  },
  // --- look-up
  load_table64: {
    args: ['address'],
    result: 'table64',
    touches: total(64),
    doc: 'a table of 64 bytes',
    meaning: (_m, p: Cell) => Uint8Array.from({ length: 64 }, (_, i) => p.array[p.index + i]!),
  },
  lookup64: {
    args: ['table64', 'bytes', 'constant'],
    result: 'bytes',
    doc: 'table[(byte >> shift) & 63] for every byte; shift <= 2',
    meaning: (m, table: B, v: B, shift: number) => bytes(m, (i) => table[(v[i]! >> shift) & 63]!),
  },
  load_table32: {
    args: ['address'],
    result: 'table32',
    touches: total(32),
    doc: 'a table of 32 bytes',
    meaning: (_m, p: Cell) => Uint8Array.from({ length: 32 }, (_, i) => p.array[p.index + i]!),
  },
  lookup96: {
    args: ['table64', 'table32', 'bytes'],
    result: 'bytes',
    doc: 'entry `byte` of two tables, one after the other, for every byte; byte < 96',
    meaning: (m, low: B, high: B, v: B) => bytes(m, (i) => (v[i]! < 64 ? low[v[i]!]! : high[v[i]! - 64]!)),
  },
  load_table16: {
    args: ['address'],
    result: 'table16',
    touches: total(16),
    doc: 'a table of 16 bytes',
    meaning: (_m, p: Cell) => Uint8Array.from({ length: 16 }, (_, i) => p.array[p.index + i]!),
  },
  lookup16: {
    args: ['table16', 'bytes'],
    result: 'bytes',
    doc: 'entry `byte` of the table for every byte; byte < 16',
    meaning: (m, table: B, v: B) => bytes(m, (i) => table[v[i]!]!),
  },
  // --- dot products: u8 codes times s8 activations, four per lane
  dot_zero: {
    args: [],
    result: 'dots',
    doc: 'no products yet',
    meaning: (m) => new Int32Array((4 * m.lanes) / m.dot.products),
  },
  dot_next: {
    args: ['dots', 'bytes', 'bytes'],
    result: 'dots',
    products: (m) => m.dot.products,
    doc: 'adds u8 x s8 products to the partial sums, u <= 127; the partial sum must stay within the ISA limit',
    meaning: (m, acc: V, u: B, s: B) => {
      const n = m.dot.products;
      return acc.map((a, i) => {
        let sum = a;
        for (let j = 0; j < n; j++) sum += u[i * n + j]! * signed(s[i * n + j]!);
        return within(m, sum);
      });
    },
  },
  pin: {
    args: ['dots'],
    result: 'dots',
    doc: 'the same sums; stops compilers that would reorder dot steps, or add products to each other first, until registers run out',
    meaning: (_m, acc: V) => acc,
  },
  dot_flush: {
    args: ['ints', 'dots'],
    result: 'ints',
    doc: 'adds the partial sums of each lane to an int32 lane',
    meaning: (m, acc: V, d: V) => {
      const per = 4 / m.dot.products;
      return ints(m, (i) => {
        let sum = acc[i]!;
        for (let j = 0; j < per; j++) sum += d[i * per + j]!;
        return sum;
      });
    },
  },
  // --- products of two matrices of bytes: in every four lanes a partial sum for each of 2 rows and 2 columns, k <= 8
  load_pair8: {
    args: ['address', 'address'],
    result: 'bytes',
    touches: total(8),
    doc: 'eight consecutive bytes of each address, repeated in every four lanes',
    meaning: (m, p: Cell, q: Cell) =>
      bytes(m, (i) => (i & 8 ? q.array[q.index + (i & 7)]! : p.array[p.index + (i & 7)]!) & 255),
  },
  zip4_low: {
    args: ['bytes', 'bytes'],
    result: 'bytes',
    doc: 'the first halves of a and b, interleaved by four bytes',
    meaning: (m, a: B, b: B) => bytes(m, (i) => (i & 4 ? b : a)[4 * (i >> 3) + (i & 3)]!),
  },
  zip4_high: {
    args: ['bytes', 'bytes'],
    result: 'bytes',
    doc: 'the second halves of a and b, interleaved by four bytes',
    meaning: (m, a: B, b: B) => bytes(m, (i) => (i & 4 ? b : a)[2 * m.lanes + 4 * (i >> 3) + (i & 3)]!),
  },
  mat_next: {
    args: ['dots', 'bytes', 'bytes'],
    result: 'dots',
    products: () => 8,
    doc: 'adds u8 x s8 products, u <= 127: in every 16 bytes, a row is eight bytes of u, a column eight of s; sums [row][column]',
    meaning: (m, acc: V, u: B, s: B) =>
      acc.map((a, i) => {
        const [row, column] = [8 * (i >> 1), 16 * (i >> 2) + 8 * (i & 1)];
        let sum = a;
        for (let j = 0; j < 8; j++) sum += u[row + j]! * signed(s[column + j]!);
        return within(m, sum);
      }),
  },
  // --- int32 lanes
  splat_int: {
    args: ['int'],
    result: 'ints',
    doc: 'the scalar in every lane',
    meaning: (m, x: number) => ints(m, () => x),
  },
  add_ints: {
    args: ['ints', 'ints'],
    result: 'ints',
    doc: 'a + b',
    meaning: (m, a: V, b: V) => ints(m, (i) => a[i]! + b[i]!),
  },
  sub_ints: {
    args: ['ints', 'ints'],
    result: 'ints',
    doc: 'a - b',
    meaning: (m, a: V, b: V) => ints(m, (i) => a[i]! - b[i]!),
  },
  shift_ints: {
    args: ['ints', 'constant'],
    result: 'ints',
    doc: 'a >> n, the sign kept; 1 <= n <= 31',
    meaning: (m, a: V, n: number) => ints(m, (i) => a[i]! >> n),
  },
  mul_ints: {
    args: ['ints', 'constant'],
    result: 'ints',
    doc: 'a * c modulo 2^32',
    meaning: (m, a: V, c: number) => ints(m, (i) => Math.imul(a[i]!, c)),
  },
  low_half: {
    args: ['ints'],
    result: 'ints',
    doc: 'the lower 16 bits of every lane, signed',
    meaning: (m, a: V) => ints(m, (i) => (a[i]! << 16) >> 16),
  },
  zip_low: {
    args: ['ints', 'ints'],
    result: 'ints',
    doc: 'the first half of a and b interleaved: of a0 b0 a1 b1 ...',
    meaning: (m, a: V, b: V) => ints(m, (i) => (i & 1 ? b : a)[i >> 1]!),
  },
  zip_high: {
    args: ['ints', 'ints'],
    result: 'ints',
    doc: 'the second half of a and b interleaved',
    meaning: (m, a: V, b: V) => ints(m, (i) => ((m.lanes + i) & 1 ? b : a)[(m.lanes + i) >> 1]!),
  },
  sum_ints: {
    args: ['ints'],
    result: 'int',
    doc: 'sum of all lanes',
    meaning: (_m, a: V) => a.reduce((x, y) => (x + y) | 0, 0),
  },
  to_floats: {
    args: ['ints'],
    result: 'floats',
    doc: 'int32 -> float32, nearest even',
    meaning: (m, a: V) => floats(m, (i) => a[i]!),
  },
  // --- float32 lanes
  round: {
    args: ['floats'],
    result: 'ints',
    doc: 'float32 -> int32, ties to even; |x| <= 2^22; of NaN whatever the machine gives',
    meaning: (m, a: F) => ints(m, (i) => roundHalfEven(a[i]!)),
  },
  constant: {
    args: ['constant'],
    result: 'floats',
    doc: 'a float32 constant in every lane',
    meaning: (m, x: number) => floats(m, () => x),
  },
  splat: {
    args: ['float'],
    result: 'floats',
    doc: 'the scalar in every lane',
    meaning: (m, x: number) => floats(m, () => x),
  },
  add: {
    args: ['floats', 'floats'],
    result: 'floats',
    doc: 'a + b',
    meaning: (m, a: F, b: F) => floats(m, (i) => a[i]! + b[i]!),
  },
  sub: {
    args: ['floats', 'floats'],
    result: 'floats',
    doc: 'a - b',
    meaning: (m, a: F, b: F) => floats(m, (i) => a[i]! - b[i]!),
  },
  mul: {
    args: ['floats', 'floats'],
    result: 'floats',
    doc: 'a * b',
    meaning: (m, a: F, b: F) => floats(m, (i) => a[i]! * b[i]!),
  },
  div: {
    args: ['floats', 'floats'],
    result: 'floats',
    doc: 'a / b',
    meaning: (m, a: F, b: F) => floats(m, (i) => a[i]! / b[i]!),
  },
  fma: {
    args: ['floats', 'floats', 'floats'],
    result: 'floats',
    doc: 'a * b + c, rounded once',
    meaning: (m, a: F, b: F, c: F) => floats(m, (i) => fmaf(a[i]!, b[i]!, c[i]!)),
  },
  max: {
    args: ['floats', 'floats'],
    result: 'floats',
    doc: 'larger of a and b; NaN if b is, b or NaN if a is; of two zeros either',
    meaning: (m, a: F, b: F) => floats(m, (i) => Math.max(a[i]!, b[i]!)),
  },
  min: {
    args: ['floats', 'floats'],
    result: 'floats',
    doc: 'smaller of a and b; NaN if b is, b or NaN if a is; of two zeros either',
    meaning: (m, a: F, b: F) => floats(m, (i) => Math.min(a[i]!, b[i]!)),
  },
  max_or_nan: {
    args: ['floats', 'floats'],
    result: 'floats',
    doc: 'larger of a and b, NaN if one of them is; no sign bit is set',
    meaning: (m, a: F, b: F) => floats(m, (i) => Math.max(a[i]!, b[i]!)),
  },
  abs: { args: ['floats'], result: 'floats', doc: '|a|', meaning: (m, a: F) => floats(m, (i) => Math.abs(a[i]!)) },
  exp2i: {
    args: ['ints'],
    result: 'floats',
    doc: '2^n for n in [-126, 127]',
    meaning: (m, n: V) => floats(m, (i) => 2 ** n[i]!),
  },
  sum: {
    args: ['floats'],
    result: 'float',
    doc: 'sum over the lanes by the halving tree',
    meaning: (_m, a: F) => tree(a, (x, y) => x + y),
  },
  peak: { args: ['floats'], result: 'float', doc: 'largest lane; no NaN', meaning: (_m, a: F) => tree(a, Math.max) },
  peak_or_nan: {
    args: ['floats'],
    result: 'float',
    doc: 'largest lane, NaN if one of them is; no sign bit is set',
    meaning: (_m, a: F) => tree(a, Math.max),
  },
  // --- scalars: the same C on every ISA (print.ts spells them)
  get: {
    args: ['address'],
    result: 'float',
    touches: total(1),
    doc: 'one float32',
    meaning: (_m, p: Cell) => p.array[p.index]!,
  },
  put: {
    args: ['address', 'float'],
    touches: total(1),
    doc: 'writes one float32',
    meaning: (_m, p: Cell, x: number) => {
      p.array[p.index] = x;
      return undefined;
    },
  },
  get_int: {
    args: ['address'],
    result: 'int',
    touches: total(1),
    doc: 'one int32',
    meaning: (_m, p: Cell) => p.array[p.index]!,
  },
  put_int: {
    args: ['address', 'int'],
    touches: total(1),
    doc: 'writes one int32',
    meaning: (_m, p: Cell, x: number) => {
      p.array[p.index] = x;
      return undefined;
    },
  },
  number: { args: ['constant'], result: 'float', doc: 'a float32 constant', meaning: (_m, x: number) => f(x) },
  integer: { args: ['constant'], result: 'int', doc: 'an int32 constant', meaning: (_m, x: number) => x },
  negate_int: { args: ['int'], result: 'int', doc: '-a', meaning: (_m, a: number) => -a },
  add_int: { args: ['int', 'int'], result: 'int', doc: 'a + b', meaning: (_m, a: number, b: number) => (a + b) | 0 },
  add1: { args: ['float', 'float'], result: 'float', doc: 'a + b', meaning: (_m, a: number, b: number) => f(a + b) },
  sub1: { args: ['float', 'float'], result: 'float', doc: 'a - b', meaning: (_m, a: number, b: number) => f(a - b) },
  mul1: { args: ['float', 'float'], result: 'float', doc: 'a * b', meaning: (_m, a: number, b: number) => f(a * b) },
  div1: { args: ['float', 'float'], result: 'float', doc: 'a / b', meaning: (_m, a: number, b: number) => f(a / b) },
  max1: {
    args: ['float', 'float'],
    result: 'float',
    doc: 'larger of a and b; NaN if b is, b or NaN if a is',
    meaning: (_m, a: number, b: number) => Math.max(a, b),
  },
  sqrt1: {
    args: ['float'],
    result: 'float',
    doc: 'square root, correctly rounded',
    meaning: (_m, a: number) => f(Math.sqrt(a)),
  },
} as const satisfies Record<string, Word>;

/** Every word. */
export type WordName = keyof typeof words;

/** Scalar words, spelled the same on every ISA; all others must be spelled by the ISA. */
export const scalarWords = [
  'get',
  'put',
  'get_int',
  'put_int',
  'number',
  'integer',
  'negate_int',
  'add_int',
  'add1',
  'sub1',
  'mul1',
  'div1',
  'max1',
  'sqrt1',
] as const satisfies readonly WordName[];
/** Words that are spelt in C, the same on every instruction set. */
export type ScalarWord = (typeof scalarWords)[number];
/** Words that an instruction set spells. */
export type VectorWord = Exclude<WordName, ScalarWord>;
