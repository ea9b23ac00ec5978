/**
 * Two bits a weight.
 *
 *   line = 16 rows x 16 k = 64 bytes; byte 4 r + b belongs to row r:
 *
 *     bit   7   6 | 5   4 | 3   2 | 1   0
 *         k=12+b  | k=8+b | k=4+b |  k=b        code = w + 1
 *
 * so field f of a vector, shifted down, is the codes of k = 4 f .. 4 f + 3 for its rows: what a byte dot product wants.
 */
import type { Packing } from './packing.ts';

export const p2: Packing = {
  token: 'p2r16x16',
  rows: 16,
  lineK: 16,
  lineBytes: 64,
  prefetch: 'p4096',
  needs: ['field'],
  place: (row, k) => ({ byte: 4 * row + (k & 3), factor: 4 ** (k >> 2) }),
  unpacker: (b) => ({
    scales: [1, 1, 1, 1],
    fields: (line, tag) =>
      [0, 1, 2, 3].map(
        // The packer writes codes 0, 1, 2: 3 never occurs.
        (f) => () => line.map((w, v) => ({ ...b.let(`code${tag}_v${v}_f${f}`, 'field', w, 2 * f, 3), bound: 2 })),
      ),
  }),
};
