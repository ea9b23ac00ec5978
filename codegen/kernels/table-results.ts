/**
 * Last step of products by tables (tables.ts): adds the int16 sums of a span to the results, a row a token, and clears them.
 *
 *   y[t][row] += sums[row][t]; sums[row][t] = 0
 *
 * As many rows as a vector has lanes are transposed at once, as pairs of tokens: the lower halves are tokens 0 .. T / 2 - 1, the
 * upper halves the others (table-sums.ts). Tile: tokens of a vector x rows at once x 1; variant rN: sums have room for N rows.
 */
import { transpose } from '../ir/lanes.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import type { KernelSpec } from '../name.ts';
import type { KernelFamily } from './kernel.ts';
import { range } from './kernel.ts';
import { entryBytes, roomOf, tableTokens } from './tables.ts';
import { MAX_TOKENS } from './ternary.ts';

/** The kernel for results that lie `stride` int32 apart from token to token. @param rows room for so many */
export const resultsSpec = (isa: string, stride: number, rows: number): KernelSpec => ({
  op: 'results',
  act: 'i16',
  weight: 'none',
  out: 'i32',
  shape: { n: stride },
  tile: [tableTokens(isaOf(isa)), isaOf(isa).lanes, 1],
  isa,
  variant: `r${rows}`,
});

/** The last step. */
export const tableResults: KernelFamily = {
  source: 'table-results.ts',
  formula: 'y[t][row] += sums[row][t]; sums = 0',
  needs: [
    'load_shorts',
    'store_shorts',
    'zero_shorts',
    'shorts_as_ints',
    'zip_low',
    'zip_high',
    'low_half',
    'shift_ints',
    'load_ints',
    'add_ints',
    'store_ints',
  ],

  record: (b, spec, isa) => {
    const stride = spec.shape.n!;
    const [T, R] = spec.tile as [number, number];
    const room = roomOf(spec);
    const entry = entryBytes(isa);
    const sums = b.pointer('sums', {
      element: 'u8',
      access: 'inout',
      extent: (MAX_TOKENS / T) * room * entry,
      doc: `int16 [tokens / ${T}][${room} rows][${T} tokens], from the first row on`,
    });
    const y = b.pointer('y', {
      element: 'i32',
      access: 'inout',
      extent: (MAX_TOKENS - 1) * stride + room,
      doc: `results, tokens ${stride} apart, from the first row on`,
    });
    const tokens = b.long('tokens', 0, MAX_TOKENS, `tokens, a multiple of ${T}`);
    const rows = b.long('rows', 0, room, `rows, a multiple of ${R}`);
    const zero = b.let('zero', 'zero_shorts');
    b.loop('t', 0, tokens, T, (t) =>
      b.loop('r', 0, rows, R, (row) => {
        const square = range(R).map((i) => {
          const own = at(sums, times(t, (room * entry) / T), times(row, entry), i * entry);
          const v = b.let(`v_${i}`, 'load_shorts', own);
          b.do('store_shorts', own, zero);
          return b.let(`p_${i}`, 'shorts_as_ints', v);
        });
        transpose(b, 'p', square).forEach((pair, q) => {
          const halves = [b.let(`low_${q}`, 'low_half', pair), b.let(`high_${q}`, 'shift_ints', pair, 16)];
          halves.forEach((part, h) => {
            const to = at(y, times(plus(t, q + (h * T) / 2), stride), row);
            const before = b.let(`y_${q}_${h}`, 'load_ints', to);
            b.do('store_ints', to, b.let(`sum_${q}_${h}`, 'add_ints', before, part));
          });
        });
      }),
    );
  },

  reference: (spec, args) => {
    const stride = spec.shape.n!;
    const [T] = spec.tile as [number];
    const sums = new Int16Array((args.sums as Uint8Array).buffer);
    const y = args.y as Int32Array;
    for (let t = 0; t < (args.tokens as number); t++)
      for (let row = 0; row < (args.rows as number); row++) {
        const lane = t % T;
        const place = (Math.floor(t / T) * roomOf(spec) + row) * T + 2 * (lane % (T / 2)) + Math.floor(lane / (T / 2));
        y[t * stride + row]! += sums[place]!;
        sums[place] = 0;
      }
  },

  samples: (isa) => [16, 48].map((rows) => resultsSpec(isa.name, rows + 16, rows)),

  example: (spec, random, extreme) => {
    const [T, R] = spec.tile as [number, number];
    const room = roomOf(spec);
    const stride = spec.shape.n!;
    const tokens = 2 * T;
    const sums = Int16Array.from({ length: tokens * room }, (_, i) =>
      extreme ? [-32767, 32767][i & 1]! : random.integer(-32767, 32767),
    );
    return {
      sums: new Uint8Array(sums.buffer),
      y: Int32Array.from({ length: (tokens - 1) * stride + room }, () => random.integer(-(2 ** 24), 2 ** 24)),
      tokens,
      rows: room - (room > R ? R : 0),
    };
  },
};
