/**
 * What the exactness gate multiplies: a few row tiles, repeated over the whole matrix, with their products by the definition.
 * Random data find a wrong index; the worst cases find a partial sum that is flushed too late, which random data seldom do.
 */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { activationStride, dotExample, dotReference } from '../kernels/ternary.ts';
import type { Packing } from '../packings/packing.ts';
import { pack } from '../packings/packing.ts';

/** Row tiles and tokens that differ, so few that their repetition does not agree with a power of two. */
const PERIOD = 3;
const TOKENS = 7;

/** One case of the gate, in a file as measure.c reads it: tiles; of the tokens activations, their sums, products as int32. */
export interface Example {
  readonly name: string;
  readonly period: number;
  readonly tokens: number;
  readonly file: string;
}

/** A small deterministic generator of test data (an LCG; Numerical Recipes). */
export function randomSource(): { integer: (low: number, high: number) => number; normal: () => number } {
  let state = 1;
  const integer = (low: number, high: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return low + Math.floor((state / 2 ** 32) * (high - low + 1));
  };
  return { integer, normal: () => integer(-1000, 1000) / 500 };
}

type Data = ReturnType<typeof dotExample>;

/** The data by name: random; the largest sums of codes times activations; the largest products, which sums of a table reach. */
const cases = {
  random: (n, k) => dotExample(n, k, TOKENS, activationStride(k), randomSource(), false),
  'all +-1 and 127': (n, k) => dotExample(n, k, TOKENS, activationStride(k), randomSource(), true),
  'signs that agree': (n, k) => {
    const { integer } = randomSource();
    const stride = activationStride(k);
    const signs = Int8Array.from({ length: k }, () => 2 * integer(0, 1) - 1);
    // Every other token and row has the opposite signs.
    const side = (i: number) => (i % 2 ? -1 : 1);
    const x = Int8Array.from({ length: TOKENS * stride }, (_, i) =>
      i % stride < k ? 127 * side(Math.floor(i / stride)) * signs[i % stride]! : 0,
    );
    const trits = Int8Array.from({ length: n * k }, (_, i) => side(Math.floor(i / k)) * signs[i % k]!);
    const sum = 127 * signs.reduce((total, sign) => total + sign, 0);
    return { trits, x, sums: Int32Array.from({ length: TOKENS }, (_, t) => side(t) * sum) };
  },
} satisfies Record<string, (n: number, k: number) => Data>;

/** Writes the cases of a packing for matrices with k columns. @param folder where to */
export async function writeExamples(p: Packing, k: number, folder: string): Promise<Example[]> {
  const rows = PERIOD * p.rows;
  return Promise.all(
    Object.entries(cases).map(async ([name, make], i) => {
      const { trits, x, sums } = make(rows, k);
      const w = pack(p, trits, rows, k);
      const y = new Int32Array(TOKENS * rows);
      const spec = { op: '', act: '', weight: p.token, out: '', shape: { n: rows, k }, tile: [], isa: '' };
      dotReference(spec, { w, x, y }, TOKENS);
      const file = path.join(folder, `${p.token}-${k}-${i}`);
      await writeFile(file, Buffer.concat([w, x, sums, y].map((v) => new Uint8Array(v.buffer))));
      return { name, period: PERIOD, tokens: TOKENS, file };
    }),
  );
}

/** Writes lines of random weights, for an arena to be filled with. @returns the file */
export async function writeLines(p: Packing, folder: string): Promise<string> {
  // A prime number of lines, so that nothing repeats in step with a page.
  const k = 251 * p.lineK;
  const { trits } = dotExample(p.rows, k, 1, activationStride(k), randomSource(), false);
  const file = path.join(folder, `${p.token}-lines`);
  await writeFile(file, pack(p, trits, p.rows, k));
  return file;
}
