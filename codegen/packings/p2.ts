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
import { range, stepsBeforeFlush } from '../kernels/kernel.ts';
import type { Packing } from './packing.ts';

export const p2: Packing = {
  token: 'p2r16x16',
  rows: 16,
  lineK: 16,
  lineBytes: 64,
  unroll: 4,
  ahead: 4096,
  needs: ['field', 'shift_ints'],
  place: (row, k) => ({ byte: 4 * row + (k & 3), factor: 4 ** (k >> 2) }),
  unpacker: (b, isa, form) => {
    // Fields that share a shift stay in place, as multiples of 1, 4, 16, 64: as many as the dot product's codes can be, and as
    // leave 16 steps between flushes. All four with int32 sums of u8 x s8, three with s8 x s8, two with int16 sums.
    const inPlace =
      form === 'scaled'
        ? [1, 4, 16, 64].filter((scale) => 2 * scale <= isa.dot.codes && stepsBeforeFlush(isa, scale) >= 16).length
        : 1;
    const scales = range(4).map((f) => 4 ** (f % inPlace));
    return {
      scales,
      fields: (line, tag) =>
        scales.map(
          (scale, f) => () =>
            line.map((w, v) => ({
              // The packer writes codes 0, 1, 2: 3 never occurs.
              ...b.let(`code${tag}_v${v}_f${f}`, 'field', w, 2 * (f - (f % inPlace)), 3 * scale),
              bound: 2 * scale,
            })),
        ),
      // Two digits at once, in the halves of a byte: c0 + 3 c1 and c2 + 3 c3 times 16; then 16 becomes 9.
      base3: (line, tag) => {
        const index = line.map((w, v) => {
          const id = `${tag}_v${v}`;
          const low = b.let(`low${id}`, 'field', w, 0, 0x33);
          const high = b.let(`high${id}`, 'field', w, 2, 0x33);
          const double = b.let(`double${id}`, 'add_bytes', high, high);
          const pairs = b.let(`pairs${id}`, 'add_bytes', b.let(`two${id}`, 'add_bytes', low, high), double);
          const tops = b.let(`tops${id}`, 'field', pairs, 4, 15);
          const eights = b.let(`eights${id}`, 'field', pairs, 1, 0x78);
          const rest = b.let(`rest${id}`, 'sub_bytes', pairs, eights);
          return b.let(`index${id}`, 'add_bytes', rest, tops);
        });
        return { index, rest: [] };
      },
    };
  },
};
