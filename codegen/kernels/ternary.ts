/** Shared by the ternary product kernels: their definition, their test data, and how long partial sums may grow. */
import type { Arguments } from '../ir/simulate.ts';
import type { KernelSpec } from '../name.ts';
import { packingOf } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { linesOf, tilesOf } from '../packings/packing.ts';
import type { Random } from './kernel.ts';
import { LANES, roundUp } from './kernel.ts';

/** y[t][r] = sum_k w[r][k] x[t][k] with the weights read back from their packed bytes, by the packing's definition. */
export function dotReference(spec: KernelSpec, args: Arguments, tokens: number): void {
  const p = packingOf(spec.weight);
  const { n, k } = spec.shape as { n: number; k: number };
  const w = args.w as Uint8Array;
  const x = args.x as Int8Array;
  const y = args.y as Int32Array;
  const lines = linesOf(p, k);
  const ldx = x.length / tokens;
  const ldy = y.length / tokens;
  // digit(row, j): a mixed-radix digit of its byte; the digits of a byte are sorted by factor
  const factors = new Map<number, { factor: number; index: number }[]>();
  for (let r = 0; r < p.rows; r++)
    for (let j = 0; j < p.lineK; j++) {
      const { byte, factor } = p.place(r, j);
      const list = factors.get(byte) ?? [];
      list.push({ factor, index: r * p.lineK + j });
      factors.set(byte, list);
    }
  for (const list of factors.values()) list.sort((a, b) => b.factor - a.factor);
  const codes = new Int8Array(p.rows * p.lineK);
  const tiles = tilesOf(p, n);
  for (let t = 0; t < tokens; t++) y.fill(0, t * ldy, t * ldy + tiles * p.rows);
  for (let tile = 0; tile < tiles; tile++)
    for (let line = 0; line < lines; line++) {
      const base = (tile * lines + line) * p.lineBytes;
      for (const [byte, list] of factors) {
        let rest = w[base + byte]!;
        for (const { factor, index } of list) {
          codes[index] = Math.min(2, Math.floor(rest / factor));
          rest -= codes[index]! * factor;
        }
      }
      for (let t = 0; t < tokens; t++)
        for (let r = 0; r < p.rows; r++) {
          let sum = 0;
          for (let j = 0; j < p.lineK; j++) sum += (codes[r * p.lineK + j]! - 1) * x[t * ldx + line * p.lineK + j]!;
          y[t * ldy + tile * p.rows + r]! += sum;
        }
    }
  if (ldy < n) throw new Error(`y holds ${ldy} rows of ${n}`);
}

/**
 * Random or worst-case data. Worst case: all weights +1 against all +127 (the largest u8 x s8 sums; an int16 sum that is
 * flushed too late passes random tests and fails here), alternating with all -1 and -127 by row and token.
 */
export function dotExample(n: number, k: number, tokens: number, ldx: number, random: Random, extreme: boolean) {
  const trits = Int8Array.from({ length: n * k }, (_, i) =>
    extreme ? (Math.floor(i / k) % 2 ? -1 : 1) : random.integer(-1, 1),
  );
  const x = new Int8Array(tokens * ldx);
  const sums = new Int32Array(tokens);
  for (let t = 0; t < tokens; t++)
    for (let j = 0; j < k; j++) {
      const value = extreme ? (t % 2 ? -127 : 127) : random.integer(-127, 127);
      x[t * ldx + j] = value;
      sums[t]! += value;
    }
  return { trits, x, sums };
}

/**
 * Bytes from one token's int8 activations to the next: room for k padded to whole lines of any packing (a line is at most 64
 * k long), so that matrices with different packings share one quantised input.
 */
export const activationStride = (k: number): number => roundUp(k, 64) + 64;

/** int32 from one token's products to the next: whole row tiles, and whole groups of lanes for what reads them. */
export const productStride = (p: Packing, n: number): number => roundUp(tilesOf(p, n) * p.rows, LANES);
