/**
 * Five trits in a byte: 1.6 bits a weight, of 1.585 that ternary digits carry.
 *
 *   line = rows x 20 k, four bytes a row; byte 4 r + b belongs to row r and holds k = b, 4+b, 8+b, 12+b, 16+b:
 *
 *     B = t0 + 3 t1 + 9 t2 + 27 t3 + 84 t4,   t_f = w[r][4 f + b] + 1        0 <= B <= 2 (1 + 3 + 9 + 27 + 84) = 248
 *
 * so field f of all bytes is what a byte dot product wants. Decoding takes two look-ups:
 *
 *   t0 + 3 t1 + 9 t2 + 27 t3 <= 80 < 84 = 4 * 21, so t4 = (B >> 2) div 21 depends on six bits:  d = 84 t4 = D[B >> 2]
 *   r = B - d <= 80 gives the other four as two-bit fields of one byte:                         L[r] = t0 + 4 t1 + 16 t2 + 64 t3
 *
 * For decode products the fields stay where they are: L & 3, L & 12, L & 48, L & 192 and d itself are codes times 1, 4, 16, 64
 * and 84, each summed on its own and divided once at the end, exactly (dot-products.ts). Where a dot product takes codes up to 127
 * only (s8 x s8), the last two are shifted down first.
 *
 * The rows of a line are a parameter: 16 fill a 512-bit register, 32 share each activation between two; with 128-bit registers the
 * tables take most of the register file, and 8 or 4 rows remain. Design: base-3 digits as in TQ1_0 (llama.cpp), with a radix that two byte look-ups invert.
 */

import type { Value } from '../ir/record.ts';
import { range } from '../kernels/kernel.ts';
import type { Packing } from './packing.ts';

const radix = [1, 3, 9, 27, 84];
/** 84 t4 by B >> 2; entry 63 never occurs. */
const HIGH = range(64).map((i) => 84 * Math.min(2, Math.floor(i / 21)));
/** Two-bit fields t0 .. t3 by r; entries from 81 on never occur. */
const LOW = range(96).map((r) =>
  r > 80 ? 0 : range(4).reduce((byte, f) => byte + ((Math.floor(r / 3 ** f) % 3) << (2 * f)), 0),
);

/** @param rows rows of a line: 32 or 16, or 8 or 4 where registers are short */
export const t5 = (rows: number): Packing => ({
  token: `t5r${rows}x20`,
  rows,
  lineK: 20,
  lineBytes: 4 * rows,
  // Where registers are short, clang brings the look-ups of several lines forward and spills the tables.
  unroll: rows < 16 ? 1 : 64 / rows,
  ahead: 8192,
  // 128-bit registers: 12 for tables, and 5 sums, 5 codes and more for each vector.
  mostVectors: 2,
  needs: ['load_table64', 'load_table32', 'lookup64', 'lookup96', 'sub_bytes', 'field', 'shift_ints', 'mul_ints'],
  place: (row, k) => ({ byte: 4 * row + (k & 3), factor: radix[k >> 2]! }),
  unpacker: (b, isa, form) => {
    const scaled = form === 'scaled';
    const high = b.let('high', 'load_table64', b.table('high_digit', HIGH));
    const tables =
      form === 'base3'
        ? []
        : [
            b.let('low', 'load_table64', b.table('low_digits', LOW.slice(0, 64))),
            b.let('low64', 'load_table32', b.table('low_digits64', LOW.slice(64))),
          ];
    /** How field f is cut out: of d (f = 4) or of the two-bit fields, shifted, masked; and what its codes are multiples of. */
    const cut = (f: number) => {
      const inPlace = f === 4 ? 84 : 4 ** f;
      if (scaled && 2 * inPlace <= isa.dot.codes)
        return f === 4 ? { scale: 84, shift: 0, mask: 255 } : { scale: inPlace, shift: 0, mask: 3 * inPlace };
      // 84 t4 >> 2 = 21 t4; 84 = 0b01010100 and 168 = 0b10101000, so that t4 itself is in the two highest bits.
      if (f === 4) return scaled ? { scale: 21, shift: 2, mask: 63 } : { scale: 1, shift: 6, mask: 3 };
      return { scale: 1, shift: 2 * f, mask: 3 };
    };
    const cuts = range(5).map(cut);
    /** d and r of a line. */
    const digits = (line: readonly Value[], tag: string) => {
      const d = line.map((w, v) => b.let(`d${tag}_v${v}`, 'lookup64', high, w, 2));
      return { d, r: line.map((w, v) => b.let(`r${tag}_v${v}`, 'sub_bytes', w, d[v]!)) };
    };
    return {
      scales: cuts.map(({ scale }) => scale),
      // r is the number.
      base3: (line, tag) => {
        const { d, r } = digits(line, tag);
        const code = (x: Value, v: number) => ({ ...b.let(`last${tag}_v${v}`, 'field', x, 6, 3), bound: 2 });
        return { index: r, rest: [d.map(code)] };
      },
      fields: (line, tag) => {
        const { d, r } = digits(line, tag);
        const t = r.map((x, v) => b.let(`t${tag}_v${v}`, 'lookup96', ...tables, x));
        return cuts.map(({ scale, shift, mask }, f) => () => {
          if (mask === 255) return d;
          return (f === 4 ? d : t).map((x, v) => ({
            ...b.let(`code${tag}_v${v}_f${f}`, 'field', x, shift, mask),
            bound: 2 * scale,
          }));
        });
      },
    };
  },
});
