/**
 * The fixed float order, shared by all float kernels: 16 strided lanes (one zmm, two ymm, four NEON registers, 16 scalars),
 * reduced by the tree i+8, +4, +2, +1. Each helper works on a group of vectors that together make 16 lanes.
 * Also e^x by our own polynomial: the C library's differs from machine to machine.
 */
import type { Address, Recorder, Value } from './record.ts';
import { at } from './record.ts';
import type { WordName } from './words.ts';
import { fmaf, roundHalfEven } from './words.ts';

/** Loads 16 values at `p` as a group. */
export function loadGroup(b: Recorder, lanes: number, name: string, word: WordName, p: Address): Value[] {
  return Array.from({ length: 16 / lanes }, (_, v) => b.let(`${name}_${v}`, word, at(p, v * lanes)));
}

/** Applies a word to each vector of a group; vector arguments that are groups go along, others are shared. */
export function mapGroup(b: Recorder, name: string, word: WordName, ...args: (Value[] | Value)[]): Value[] {
  const groups = args.find((a): a is Value[] => Array.isArray(a))!;
  return groups.map((_, v) => b.let(`${name}_${v}`, word, ...args.map((a) => (Array.isArray(a) ? a[v]! : a))));
}

/** Stores a group at `p`. */
export function storeGroup(b: Recorder, lanes: number, word: WordName, p: Address, group: readonly Value[]): void {
  group.forEach((value, v) => {
    b.do(word, at(p, v * lanes), value);
  });
}

/**
 * Transposes a square of L vectors of L 32-bit lanes: log2 L rounds of interleaving vector i with vector i + L / 2. Of M vectors of
 * any length, the M first lanes follow each other in the result, then the M second ones.
 * @returns the first `count` vectors of the result
 */
export function transpose(b: Recorder, name: string, square: readonly Value[], count = square.length): Value[] {
  const half = square.length / 2;
  /** Vector j after so many rounds. */
  const made = new Map<string, Value>();
  const after = (rounds: number, j: number): Value => {
    if (rounds === 0) return square[j]!;
    const key = `${name}_z${rounds}_${j}`;
    const known = made.get(key);
    if (known) return known;
    const pair = [after(rounds - 1, j >> 1), after(rounds - 1, (j >> 1) + half)] as const;
    const value = b.let(key, j & 1 ? 'zip_high' : 'zip_low', ...pair);
    made.set(key, value);
    return value;
  };
  return Array.from({ length: count }, (_, j) => after(Math.log2(square.length), j));
}

/** What reduces the lanes of a vector, for words that combine two vectors. */
const within = { add: 'sum', max: 'peak', max_or_nan: 'peak_or_nan' } as const;

/** Reduces a group to one scalar by the tree; `pair` combines vectors, `within` the lanes of the last one. */
export function reduceGroup(b: Recorder, name: string, pair: keyof typeof within, group: readonly Value[]): Value {
  let rest = [...group];
  while (rest.length > 1) {
    const half = rest.length / 2;
    rest = rest.slice(0, half).map((v, i) => b.let(`${name}_h${half}_${i}`, pair, v, rest[i + half]!));
  }
  return b.let(name, within[pair], rest[0]!);
}

/**
 * e^x = 2^n * 2^f with n = round(x log2 e), |f| <= 1/2: a polynomial of degree 6 in f (Taylor coefficients of 2^f: the first
 * omitted term, (ln 2 / 2)^7 / 7! = 1.2e-7, is the last bit of float32). The product x log2 e is split in two constants so
 * that f keeps its precision. x is clamped to [-87, 88]: the result is never denormal or infinite. e^NaN is NaN: x is the second
 * operand of `min` and `max`, which give NaN then, so that f is NaN, whatever number n is made of it.
 */
const LOW = -87;
const HIGH = 88;
const LOG2E = Math.fround(Math.LOG2E);
const LOG2E_LOW = Math.fround(Math.LOG2E - LOG2E);
/** (ln 2)^i / i!, i = 0 .. 6 */
const coefficients: number[] = [];
for (let i = 0, c = 1; i <= 6; c = (c * Math.LN2) / ++i) coefficients.push(Math.fround(c));

/** e^x of a group of floats. */
export function expGroup(b: Recorder, name: string, x: readonly Value[]): Value[] {
  const constant = (suffix: string, value: number) => b.let(`${name}_${suffix}`, 'constant', value);
  const low = constant('low', LOW);
  const high = constant('high', HIGH);
  const log2e = constant('log2e', LOG2E);
  const log2eLow = constant('log2e_low', LOG2E_LOW);
  const minusOne = constant('minus_one', -1);
  const cs = coefficients.map((c, i) => constant(`c${i}`, c));
  return x.map((value, v) => {
    const id = (suffix: string) => `${name}_${suffix}_${v}`;
    const clamped = b.let(id('x'), 'max', low, b.let(id('top'), 'min', high, value));
    const n = b.let(id('n'), 'round', b.let(id('t'), 'mul', clamped, log2e));
    // f = x log2e - n, rounded once by the fma, plus the constant's own low part.
    const minusN = b.let(id('minus_n'), 'mul', b.let(id('whole'), 'to_floats', n), minusOne);
    const f = b.let(id('f'), 'fma', clamped, log2eLow, b.let(id('f0'), 'fma', clamped, log2e, minusN));
    let p = cs.at(-1)!;
    for (let i = cs.length - 2; i >= 0; i--) p = b.let(id(`p${i}`), 'fma', p, f, cs[i]!);
    return b.let(`${name}_${v}`, 'mul', p, b.let(id('scale'), 'exp2i', n));
  });
}

/** The same e^x on numbers: part of the definition of every kernel that uses it. */
export function exp(x: number): number {
  const f32 = Math.fround;
  const clamped = Math.max(Math.min(x, HIGH), LOW);
  const n = roundHalfEven(f32(clamped * LOG2E));
  const f = fmaf(clamped, LOG2E_LOW, fmaf(clamped, LOG2E, -n));
  let p = coefficients.at(-1)!;
  for (let i = coefficients.length - 2; i >= 0; i--) p = fmaf(p, f, coefficients[i]!);
  return f32(p * 2 ** n);
}

/** Sum of values by 16 strided lanes and the tree; the length is padded with +0. */
export function laneSum(length: number, value: (i: number) => number): number {
  const lanes = new Float32Array(16);
  for (let i = 0; i < length; i++) lanes[i & 15] = lanes[i & 15]! + value(i);
  return laneTree(lanes);
}

/** The tree i+8, +4, +2, +1 over 16 lanes. */
export function laneTree(lanes: Float32Array): number {
  const v = Float32Array.from(lanes);
  for (let half = 8; half; half >>= 1) for (let i = 0; i < half; i++) v[i] = v[i]! + v[i + half]!;
  return v[0]!;
}
