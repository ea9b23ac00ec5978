/**
 * Two trits in four bits, for kernels that look up sums of pairs: 2 bits a weight.
 *
 *   line = rows x 16 k = 512 bytes; byte rows * c + r belongs to row r and holds k = c, 4+c, 8+c, 12+c:
 *
 *     bit   7   6   5   4 | 3   2   1   0
 *         k=8+c + 3 12+c  | k=c + 3 4+c          digits w + 1; 0 .. 8 in each half
 *
 * Half a byte is the index of a pair's sum in a table of nine (kernels/look-ups.ts). The bytes of one k are together, a byte a
 * row, since a look-up of bytes has one table for all of them, and 128 rows share what it costs to load one.
 * Design: TL1 of bitnet.cpp (arXiv 2410.16144).
 */
import { range } from '../kernels/kernel.ts';
import type { Packing } from './packing.ts';

/** The digits of half a byte, two bits each; indices from 9 on never occur. */
const DIGITS = range(16).map((i) => (i > 8 ? 0 : (i % 3) + 4 * Math.floor(i / 3)));

/** @param rows rows of a line: whole vectors, as many as may take a table from its register */
export const tl1 = (rows: number): Packing => ({
  token: `tl1r${rows}x16`,
  rows,
  lineK: 16,
  lineBytes: 4 * rows,
  lookUp: {
    groups: range(8).map((g) => range(2).map((i) => (g >> 1) + 8 * (g & 1) + 4 * i)),
    planes: 1,
    entries: range(9),
    // 256 - 254 = 2 to 256 + 254 = 510: low parts up to 31, high ones up to 15.
    radix: 32,
    bias: 256,
  },
  unroll: 1,
  ahead: 4096,
  needs: ['load_columns', 'load_table16', 'lookup16', 'field', 'add_bytes', 'sub_bytes'],
  place: (row, k) => ({ byte: rows * (k & 3) + row, factor: [1, 3, 16, 48][k >> 2]! }),
  unpacker: (b, _isa, form) => {
    const digits = form === 'base3' ? [] : [b.let('digits', 'load_table16', b.table('pair_digits', DIGITS))];
    return {
      scales: [1, 1, 1, 1],
      fields: (line, tag) =>
        range(4).map((f) => () => {
          const high = f >> 1;
          return line.map((w, v) => {
            const id = `${tag}_v${v}_f${f}`;
            const pair = b.let(`pair${id}`, 'lookup16', digits[0]!, b.let(`index${id}`, 'field', w, 4 * high, 15));
            return { ...b.let(`code${id}`, 'field', pair, 2 * (f & 1), 3), bound: 2 };
          });
        }),
      // Low + 16 high becomes low + 9 high.
      base3: (line, tag) => {
        const index = line.map((w, v) => {
          const id = `${tag}_v${v}`;
          const high = b.let(`high${id}`, 'field', w, 4, 15);
          const rest = b.let(`rest${id}`, 'sub_bytes', w, b.let(`eights${id}`, 'field', w, 1, 0x78));
          return b.let(`index${id}`, 'add_bytes', rest, high);
        });
        return { index, rest: [] };
      },
    };
  },
});
