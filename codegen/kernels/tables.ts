/**
 * Ternary products of a batch by look-up of sums (the method of Four Russians: Arlazarov, Dinic, Kronrod, Faradzev, 1970),
 * vectorised over tokens. Four trits have 81 values; for a vector of T tokens a table holds all 81 sums of a group of four k
 *
 *   S[e] = (t0 - 1) x[k0] + (t1 - 1) x[k1] + (t2 - 1) x[k2] + (t3 - 1) x[k3],        e = t0 + 3 t1 + 9 t2 + 27 t3
 *
 * as int16, a vector an entry. A row of the matrix then takes one addition for four weights and T tokens, twice the products of
 * a byte dot product of the same width, and no multiplication. A table takes 81 stores, shared by all rows that use it: by
 * several matrices with the same input. Three steps, called by templates/products.c, for one block of lines after the other:
 *
 *   table-offsets.ts   packed lines of a matrix -> byte offsets of entries, for all tokens; they stay in the L2 cache
 *   table-sums.ts      tables of T tokens; sums[row][T] += entries
 *   table-results.ts   y[t][row] += sums; sums = 0
 *
 * Sums stay in int16 over a span of lines in which no token's sum of |x| passes 32,767: an entry is at most the sum of its four
 * |x|, so no partial sum passes it either. At worst, all |x| = 127, a span has 258 k: 258 * 127 = 32,766.
 *
 * This file: where offsets, activations, tables and sums lie in the buffers that the steps share.
 */
import type { Isa } from '../isa/isa.ts';
import type { Packing } from '../packings/packing.ts';
import { roundUp } from './kernel.ts';

/** Sums of four trits. */
export const ENTRIES = 81;
/** Fields of a line that make up four groups, k = b, 4 + b, 8 + b, 12 + b; each other field is a group of its own. */
export const QUAD = 4;
/** Lines of a block: with two, a pass over the sums adds 8 or 10 entries to each; tables of more lines leave the L1 cache. */
export const BLOCK_LINES = 2;
/** Largest sum of |x| over a span. */
export const MOST_SUM = 32767;

/** Tokens of a vector. */
export const tableTokens = (isa: Isa): number => 2 * isa.lanes;
/** Bytes of a table's entry: one vector. */
export const entryBytes = (isa: Isa): number => 4 * isa.lanes;

/**
 * The offsets of a block for `rows` rows, in bytes: `quads`, u16 [BLOCK_LINES][rows][4], and `others`, for each other field
 * u16 [rows][BLOCK_LINES].
 */
export function offsetsLayout(p: Packing, rows: number) {
  const line = rows * 2 * QUAD;
  const other = rows * 2 * BLOCK_LINES;
  return { line, other, quads: BLOCK_LINES * line, others: (p.lineK / 4 - QUAD) * other };
}

/** Bytes of transposed activations, int16 [k of a block][T], and of the tables, int16 [lines][fields][81][T]. */
export function tablesLayout(p: Packing, isa: Isa) {
  const entry = entryBytes(isa);
  const table = ENTRIES * entry;
  const tables = BLOCK_LINES * p.lineK * entry;
  return { table, tables, bytes: tables + (BLOCK_LINES * p.lineK * table) / 4 };
}

/** Everything that a thread needs for `rows` rows and `tokens` tokens: offsets, tables, and sums int16 [tokens / T][rows][T]. */
export function tableScratch(p: Packing, isa: Isa, rows: number, tokens: number) {
  const { quads, others } = offsetsLayout(p, rows);
  const tables = roundUp(quads + others, 64);
  const sums = roundUp(tables + tablesLayout(p, isa).bytes, 64);
  return { others: quads, tables, sums, bytes: sums + rows * tokens * 2 };
}
