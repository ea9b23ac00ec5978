/**
 * Two bit planes, four weights in an index, for kernels that look up sums of four activations with signs: 2 bits a weight.
 *
 *   w = (s0 + s1) / 2,  s = 2 b - 1 = +-1,  b0 + b1 = w + 1:  bits 00, 10, 11 for -1, 0, +1
 *
 *   line = rows x 16 k = 512 bytes; byte rows * c + r belongs to row r and holds k = c, 4+c, 8+c, 12+c:
 *
 *     bit     7    6    5    4   |   3    2    1    0
 *     k =  12+c  8+c  4+c    c   | 12+c  8+c  4+c    c
 *               plane b1         |       plane b0
 *
 * Both halves of a byte point into one table of the 16 sums +-x +-x +-x +-x. T[15 - e] = -T[e], but both signs are kept: a register
 * holds 16 bytes, and negating what is found costs four operations for an index. Design: T-MAC (arXiv 2407.00088).
 */
import type { Value } from '../ir/record.ts';
import { range } from '../kernels/kernel.ts';
import type { Packing } from './packing.ts';

/** sum_i value(bit i of e), four bits. */
const overBits = (e: number, value: (bit: number, i: number) => number): number =>
  range(4).reduce((sum, i) => sum + value((e >> i) & 1, i), 0);
/** The bits of an index as fields of two bits, and as a number base 3: what two planes give is their sum. */
const FIELDS = range(16).map((e) => overBits(e, (bit, i) => bit * 4 ** i));
const BASE3 = range(16).map((e) => overBits(e, (bit, i) => bit * 3 ** i));

/** @param rows rows of a line: whole vectors, as many as may take a table from its register */
export const tmac = (rows: number): Packing => ({
  token: `tmacr${rows}x16`,
  rows,
  lineK: 16,
  lineBytes: 4 * rows,
  unroll: 1,
  ahead: 4096,
  lookUp: {
    groups: range(4).map((c) => range(4).map((i) => c + 4 * i)),
    planes: 2,
    // Digits 0 and 2, which are -1 and +1.
    entries: BASE3.map((e) => 2 * e),
    // 512 - 508 = 4 to 512 + 508 = 1020: low and high parts up to 31.
    radix: 32,
    bias: 512,
  },
  needs: ['load_columns', 'load_table16', 'lookup16', 'field', 'add_bytes'],
  // Of a draft, byte rows * c + r is a number base 3.
  place: (row, k) => ({ byte: rows * (k & 3) + row, factor: 3 ** (k >> 2) }),
  encode: {
    codes: range(81).map((e) =>
      range(4).reduce((code, i) => code + [0, 1, 17][Math.floor(e / 3 ** i) % 3]! * 2 ** i, 0),
    ),
    parts: range(4).map((column) => ({ low: { column, shift: 0 }, high: { column, shift: 4 } })),
  },
  unpacker: (b, _isa, form) => {
    const table = b.let('digits', 'load_table16', b.table('digits_of_bits', form === 'base3' ? BASE3 : FIELDS));
    /** The digits of both planes together. */
    const digits = (line: readonly Value[], tag: string) =>
      line.map((w, v) => {
        const [b0, b1] = range(2).map((plane) => {
          const id = `${tag}_v${v}_b${plane}`;
          return b.let(`plane${id}`, 'lookup16', table, b.let(`bits${id}`, 'field', w, 4 * plane, 15));
        });
        return b.let(`digits${tag}_v${v}`, 'add_bytes', b0!, b1!);
      });
    return {
      scales: [1, 1, 1, 1],
      fields: (line, tag) => {
        const all = digits(line, tag);
        return range(4).map(
          (f) => () => all.map((d, v) => ({ ...b.let(`code${tag}_v${v}_f${f}`, 'field', d, 2 * f, 3), bound: 2 })),
        );
      },
      base3: (line, tag) => ({ index: digits(line, tag), rest: [] }),
    };
  },
});
