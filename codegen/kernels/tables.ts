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
import type { CpuProfile } from '../../schemas/types.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import type { Packing } from '../packings/packing.ts';
import { roundUp } from './kernel.ts';

/** Sums of four trits. */
export const ENTRIES = 81;
/** Fields of a line that make up four groups, k = b, 4 + b, 8 + b, 12 + b; each other field is a group of its own. */
export const QUAD = 4;
/** Lines whose offsets into the tables of another field lie side by side: two u16 are an int32 lane. */
export const PAIR = 2;
/**
 * Lines of a block that may be chosen, the preferred first: with two, a pass over the sums adds 8 or 10 entries to each; with four
 * twice as many, from tables that leave the L1 cache further behind.
 */
export const BLOCK_LINES = [2, 4] as const;
/** Rows that may be summed at once, the preferred first. */
export const SUMMED_ROWS = [4, 2, 8] as const;
/** Tokens of a prompt that pass through the layers at once: four vectors of 32 tokens. */
export const BATCH = 128;
/** Rows of a thread, of all matrices that share tables, from which on tables gain more than they cost. */
export const LEAST_ROWS = 512;
/** Largest sum of |x| over a span. */
export const MOST_SUM = 32767;

/** Rows that are summed in one pass: their sums for a whole batch fill half of the second-level cache. */
export const tableRows = (cpu: CpuProfile): number =>
  Math.max(256, Math.min(2048, Math.floor(cpu.cache.l2 / 2 / (2 * BATCH) / 256) * 256));
/** Rows that the buffers of a step have room for: its variant `rN`. */
export const roomOf = (spec: KernelSpec): number => Number(spec.variant!.slice(1));

/** Tokens of a vector. */
export const tableTokens = (isa: Isa): number => 2 * isa.lanes;
/** Bytes of a table's entry: one vector. */
export const entryBytes = (isa: Isa): number => 4 * isa.lanes;

/**
 * The offsets of a block of `lines` lines for `rows` rows, in bytes: `quads`, u16 [lines][rows][4], and `others`, for each pair of
 * lines and each other field u16 [rows][PAIR].
 */
export function offsetsLayout(p: Packing, rows: number, lines: number) {
  const line = rows * 2 * QUAD;
  const other = rows * 2 * PAIR;
  const pair = (p.lineK / 4 - QUAD) * other;
  return { line, other, pair, quads: lines * line, others: Math.ceil(lines / PAIR) * pair };
}

/** Bytes of transposed activations, int16 [k of a block][T], and of the tables, int16 [lines][fields][81][T]. */
export function tablesLayout(p: Packing, isa: Isa, lines: number) {
  const entry = entryBytes(isa);
  const table = ENTRIES * entry;
  const tables = lines * p.lineK * entry;
  return { table, tables, bytes: tables + (lines * p.lineK * table) / 4 };
}

/**
 * Everything that a thread needs for blocks of `lines` lines, `rows` rows and `tokens` tokens: offsets, tables, and sums int16
 * [tokens / T][rows][T].
 */
export function tableScratch(p: Packing, isa: Isa, lines: number, rows: number, tokens: number) {
  const { quads, others } = offsetsLayout(p, rows, lines);
  const tables = roundUp(quads + others, 64);
  const sums = roundUp(tables + tablesLayout(p, isa, lines).bytes, 64);
  return { others: quads, tables, sums, bytes: sums + rows * tokens * 2 };
}
