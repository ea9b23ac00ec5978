/**
 * Three trits in a sign and one of 14 magnitudes, five bits, for kernels that look up sums of three: 1.67 bits a weight.
 *
 *   e = t0 + 3 t1 + 9 t2, t = w + 1;  magnitude |e - 13| <= 13, sign e < 13: a table of 14 sums serves both signs
 *
 *   line = rows x 24 k = 640 bytes; byte rows * c + r belongs to row r:
 *
 *     c < 4    bits 0-3  magnitude of k = c, 4+c, 8+c        bits 4-7  of k = 12+c, 16+c, 20+c
 *     c = 4    bit c     the sign of the first of them       bit 4+c   of the second
 *
 * k is padded to a multiple of 24. Design: TL2 of bitnet.cpp (arXiv 2410.16144), which cuts k in two parts instead.
 */
import type { Value } from '../ir/record.ts';
import { range } from '../kernels/kernel.ts';
import type { Packing } from './packing.ts';

const MIDDLE = 13;
/** The bit of the fifth column that has the sign of each index. */
const SIGNS = range(8).map((g) => (g >> 1) + 4 * (g & 1));

/** The digits of a number base 3, two bits each. */
const fields = (e: number) => range(3).reduce((byte, i) => byte + ((Math.floor(e / 3 ** i) % 3) << (2 * i)), 0);
/** By magnitude, the fields of the positive number; 14 and 15 never occur. */
const POSITIVE = range(16).map((m) => (m > MIDDLE ? 0 : fields(MIDDLE + m)));
/** All bits where a single one is set. */
const ANY = range(16).map((i) => (i ? 255 : 0));

/** @param rows rows of a line: whole vectors, as many as may take a table from its register */
export const tl2 = (rows: number): Packing => ({
  token: `tl2r${rows}x24`,
  rows,
  lineK: 24,
  lineBytes: 5 * rows,
  unroll: 1,
  ahead: 4096,
  lookUp: {
    groups: range(8).map((g) => range(3).map((i) => (g >> 1) + 12 * (g & 1) + 4 * i)),
    planes: 1,
    entries: range(14).map((m) => MIDDLE + m),
    // An odd radix and twice the bias = 31 + 31 * 31: 31 - low and 31 - high, by exclusive or, are the parts of the negated entry.
    radix: 31,
    bias: 496,
    signs: SIGNS,
  },
  needs: ['load_columns', 'load_table16', 'lookup16', 'field', 'add_bytes', 'and_bytes', 'xor_bytes', 'broadcast4'],
  // Of a draft, byte rows * g + r is the number e of index g, g = 2 c for the first of column c.
  place: (row, k) => ({ byte: rows * (2 * (k & 3) + (k >= 12 ? 1 : 0)) + row, factor: 3 ** ((k >> 2) % 3) }),
  encode: {
    codes: range(27).map((e) => Math.abs(e - MIDDLE) + (e < MIDDLE ? 16 : 0)),
    parts: range(8).map((g) => ({
      low: { column: g >> 1, shift: 4 * (g & 1) },
      high: { column: 4, shift: SIGNS[g]! },
    })),
  },
  unpacker: (b) => {
    const positive = b.let('positive', 'load_table16', b.table('positive_digits', POSITIVE));
    const any = b.let('any', 'load_table16', b.table('any_bit', ANY));
    const own = b.let('own_bits', 'broadcast4', b.table('bits_of_columns', [1, 2, 4, 8]));
    /** The three digits of index `high` of each byte, two bits each. */
    const digits = (line: readonly Value[], tag: string, high: number) => {
      const half = line.length / 2;
      return range(half).map((v) => {
        const id = `${tag}_v${v}_h${high}`;
        const signs = b.let(`signs${id}`, 'field', line[half + v]!, 4 * high, 15);
        const mask = b.let(`mask${id}`, 'lookup16', any, b.let(`sign${id}`, 'and_bytes', signs, own));
        const m = b.let(`magnitude${id}`, 'field', line[v]!, 4 * high, 15);
        // Every digit t becomes 2 - t: fields d become 42 - d = (255 - d) + 43 modulo 256.
        const turned = b.let(`turned${id}`, 'xor_bytes', b.let(`plain${id}`, 'lookup16', positive, m), mask);
        return b.let(`digits${id}`, 'add_bytes', turned, b.let(`rest${id}`, 'field', mask, 0, 43));
      });
    };
    const code = (all: readonly Value[], tag: string, f: number) =>
      all.map((d, v) => ({ ...b.let(`code${tag}_v${v}_f${f}`, 'field', d, 2 * (f % 3), 3), bound: 2 }));
    return {
      scales: range(6).map(() => 1),
      fields: (line, tag) => {
        let all: Value[] = [];
        return range(6).map((f) => () => {
          if (f % 3 === 0) all = digits(line, tag, f / 3);
          return code(all, tag, f);
        });
      },
      // c0 + 3 (c1 + 3 (c2 + 3 c3))
      base3: (line, tag) => {
        const [low, high] = [digits(line, tag, 0), digits(line, tag, 1)];
        const index = [2, 1, 0].reduce(
          (sum, f) => {
            const next = code(low, tag, f);
            return sum.map((s, v) => {
              const id = `${tag}_v${v}_f${f}`;
              const three = b.let(`three${id}`, 'add_bytes', b.let(`two${id}`, 'add_bytes', s, s), s);
              return b.let(`sum${id}`, 'add_bytes', three, next[v]!);
            });
          },
          code(high, tag, 3) as Value[],
        );
        return { index, rest: [code(high, tag, 4), code(high, tag, 5)] };
      },
    };
  },
});
