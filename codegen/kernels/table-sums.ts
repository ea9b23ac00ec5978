/**
 * Second step of products by tables (tables.ts): for each vector of T tokens the tables of one block of lines are made, and
 * every row adds its entries.
 *
 *   sums[row][t] += sum_g S_g[e[row][g]][t]
 *
 * Activations are transposed first, from a row a token to a vector a k: 32-bit lanes, four k each, by rounds of interleaving, then
 * bytes to int16. Lanes 2 i and 2 i + 1 of a vector hold tokens i and i + T / 2, as the transposition leaves them; the last step
 * (table-results.ts) undoes it. Tile: tokens of a vector x rows at once x k of a block; variant rN: offsets and sums have room for N rows.
 */
import { PlanError } from '../../schemas/error.ts';
import { transpose } from '../ir/lanes.ts';
import type { Affine, Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import type { KernelSpec } from '../name.ts';
import { format } from '../name.ts';
import { packingOf } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { linesOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range, roundUp } from './kernel.ts';
import {
  BLOCK_LINES,
  ENTRIES,
  entryBytes,
  offsetsLayout,
  PAIR,
  QUAD,
  roomOf,
  SUMMED_ROWS,
  tableRows,
  tablesLayout,
  tableTokens,
} from './tables.ts';
import { activationStride, MAX_TOKENS, tablePackings } from './ternary.ts';

/** The kernel for blocks of `lines` lines of matrices with k columns. @param rows room for so many @param atOnce of them */
export const sumsSpec = (
  p: Packing,
  isa: string,
  k: number,
  lines: number,
  rows: number,
  atOnce: number = SUMMED_ROWS[0],
): KernelSpec => ({
  op: 'sums',
  act: 'i8',
  weight: p.token,
  out: 'i16',
  shape: { k },
  tile: [tableTokens(isaOf(isa)), atOnce, lines * p.lineK],
  isa,
  variant: `r${rows}`,
});

/** The second step. */
export const tableSums: KernelFamily = {
  source: 'table-sums.ts',
  formula: 'sums[row][t] += sum over the k of a block W[row][k] x[t][k]',
  needs: [
    'load_bytes',
    'bytes_as_ints',
    'signed_bytes',
    'zip_low',
    'zip_high',
    'load_shorts',
    'store_shorts',
    'zero_shorts',
    'add_shorts',
    'sub_shorts',
  ],

  tables: (cpu, p, k) =>
    // A vector of one lane gains nothing.
    isaOf(cpu.isa).lanes === 1 || !tablePackings(isaOf(cpu.isa)).includes(p)
      ? []
      : [1, 0.5, 2].flatMap((factor) =>
          BLOCK_LINES.flatMap((lines) =>
            SUMMED_ROWS.map((atOnce) => sumsSpec(p, cpu.isa, k, lines, factor * tableRows(cpu), atOnce)),
          ),
        ),

  record: (b, spec, isa) => {
    const p = packingOf(spec.weight);
    const k = spec.shape.k!;
    const [T, R, blockK] = spec.tile as [number, number, number];
    const lines = blockK / p.lineK;
    const room = roomOf(spec);
    const L = isa.lanes;
    const entry = entryBytes(isa);
    const ldx = activationStride(k);
    const fields = p.lineK / 4;
    const layout = offsetsLayout(p, room, lines);
    const { table, tables, bytes } = tablesLayout(p, isa, lines);
    // The last vector of a row may reach beyond it, into the row's own padding.
    const reach = roundUp(blockK, 4 * L);
    if ((linesOf(p, k) - lines) * p.lineK + reach > ldx)
      throw new PlanError(`${format(spec)}: the last block's vectors reach beyond the padding of the activations`);
    const x = b.pointer('x', {
      element: 'i8',
      access: 'in',
      extent: (MAX_TOKENS - 1) * ldx + reach,
      doc: `activations of the block's first k, int8, tokens ${ldx} bytes apart`,
    });
    const offsets = (name: string, extent: number, doc: string) =>
      b.pointer(name, { element: 'u8', access: 'in', extent, doc });
    const quads = offsets(
      'quads',
      layout.quads,
      `offsets of four fields, u16 [${lines}][${room} rows][${QUAD}], at most ${(ENTRIES - 1) * entry}`,
    );
    const others = offsets(
      'others',
      layout.others,
      `offsets of each other field, for each pair of lines u16 [${room} rows][${PAIR}]`,
    );
    const sums = b.pointer('sums', {
      element: 'u8',
      access: 'inout',
      extent: (MAX_TOKENS / T) * room * entry,
      doc: `int16 [tokens / ${T}][${room} rows][${T} tokens]`,
    });
    const scratch = b.pointer('scratch', {
      element: 'u8',
      access: 'scratch',
      extent: bytes,
      doc: `activations int16 [${blockK} k][${T}], tables int16 [${lines}][${fields} groups][${ENTRIES}][${T}]`,
    });
    const tokens = b.long('tokens', 0, MAX_TOKENS, `tokens, a multiple of ${T}`);
    const rows = b.long('rows', 0, room, `rows, a multiple of ${R}`);
    const zero = b.let('zero', 'zero_shorts');

    /** x of T tokens -> int16 [k][T]. */
    const turn = (t: Affine) => {
      const quarter = blockK / 4;
      for (let q0 = 0; q0 < quarter; q0 += L) {
        const [low, high] = [0, 1].map((h) => {
          const square = range(L).map((i) => {
            const from = at(x, times(plus(t, h * L + i), ldx), 4 * q0);
            return b.let(`q${q0}_h${h}_t${i}`, 'bytes_as_ints', b.let(`x${q0}_h${h}_t${i}`, 'load_bytes', from));
          });
          return transpose(b, `q${q0}_h${h}`, square, Math.min(L, quarter - q0));
        }) as [Value[], Value[]];
        range(Math.min(L, quarter - q0)).forEach((q) => {
          for (let j = 0; j < 4; j++) {
            const at4 = 4 * (q0 + q) + j;
            const value = b.let(`k${at4}`, 'signed_bytes', low[q]!, high[q]!, j);
            b.do('store_shorts', at(scratch, at4 * entry), value);
          }
        });
      }
    };

    /** The nine sums of two trits, p0's rising fastest; recorded when asked for, so that few values live at once. */
    const nine = (p0: Value, p1: Value, id: string) => {
      const minus = (e: number, v: Value) => b.let(`${id}_${e}`, 'sub_shorts', zero, v);
      return [
        () => minus(0, b.let(`${id}_0m`, 'add_shorts', p0, p1)),
        () => minus(1, p1),
        () => b.let(`${id}_2`, 'sub_shorts', p0, p1),
        () => minus(3, p0),
        () => zero,
        () => p0,
        () => b.let(`${id}_6`, 'sub_shorts', p1, p0),
        () => p1,
        () => b.let(`${id}_8`, 'add_shorts', p0, p1),
      ];
    };

    /** The 81 sums of the four activations that begin at `from` and lie `step` vectors apart. */
    const tabulate = (from: Affine, step: number, to: Affine, tag: string) => {
      const xs = range(4).map((i) => b.let(`x${tag}_${i}`, 'load_shorts', at(scratch, from, i * step * entry)));
      const low = nine(xs[0]!, xs[1]!, `low${tag}`).map((sum) => sum());
      nine(xs[2]!, xs[3]!, `high${tag}`).forEach((sum, j) => {
        const high = sum();
        low.forEach((l, i) => {
          const value = b.let(`s${tag}_${9 * j + i}`, 'add_shorts', l, high);
          b.do('store_shorts', at(scratch, tables, to, (9 * j + i) * entry), value);
        });
      });
    };

    /** The tables of all groups. */
    const build = () =>
      b.loop('l', 0, lines, 1, (l) => {
        const first = times(l, p.lineK * entry);
        const own = times(l, fields * table);
        b.loop('g', 0, QUAD, 1, (g) => tabulate(plus(first, times(g, entry)), 4, plus(own, times(g, table)), '_q'));
        for (let f = QUAD; f < fields; f++) tabulate(plus(first, 4 * f * entry), 1, plus(own, f * table), `_f${f}`);
      });

    /** One addition for each row and group. */
    const add = (t: Affine) =>
      b.loop('r', 0, rows, R, (row) => {
        const own = range(R).map((j) => at(sums, times(t, (room * entry) / T), times(row, entry), j * entry));
        const acc = own.map((to, j) => b.variable(`acc_r${j}`, 'load_shorts', to));
        const next = (j: number, group: number, offset: Affine, id: string) => {
          const value = b.let(`t${id}`, 'load_shorts', at(scratch, tables + group * table, offset));
          b.set(acc[j]!, 'add_shorts', acc[j]!, value);
        };
        const top = (ENTRIES - 1) * entry;
        for (let l = 0; l < lines; l++) {
          const all = range(R).map((j) => {
            const names = range(QUAD).map((g) => `o_l${l}_r${j}_g${g}`);
            return b.indices(names, at(quads, l * layout.line, times(row, 2 * QUAD), j * 2 * QUAD), top);
          });
          for (let g = 0; g < QUAD; g++)
            all.forEach((offset, j) => {
              next(j, l * fields + g, offset[g]!, `_l${l}_r${j}_g${g}`);
            });
        }
        for (let first = 0; first < lines; first += PAIR)
          for (let f = QUAD; f < fields; f++)
            for (let j = 0; j < R; j++) {
              const pair = range(Math.min(PAIR, lines - first)).map((l) => first + l);
              const names = pair.map((l) => `o_f${f}_r${j}_l${l}`);
              const place = (first / PAIR) * layout.pair + (f - QUAD) * layout.other;
              const from = at(others, place, times(row, 2 * PAIR), j * 2 * PAIR);
              b.indices(names, from, top).forEach((offset, i) => {
                next(j, pair[i]! * fields + f, offset, `_f${f}_r${j}_l${pair[i]}`);
              });
            }
        own.forEach((to, j) => {
          b.do('store_shorts', to, acc[j]!);
        });
      });

    b.loop('t', 0, tokens, T, (t) => {
      turn(t);
      build();
      add(t);
    });
  },

  reference: (spec, args) => {
    const p = packingOf(spec.weight);
    const isa = isaOf(spec.isa);
    const [T, , blockK] = spec.tile as [number, number, number];
    const room = roomOf(spec);
    const entry = entryBytes(isa);
    const layout = offsetsLayout(p, room, blockK / p.lineK);
    const ldx = activationStride(spec.shape.k!);
    const { x, quads, others, sums } = args as unknown as { x: Int8Array } & Record<string, Uint8Array>;
    const number = (bytes: Uint8Array, i: number) => bytes[i]! | (bytes[i + 1]! << 8);
    for (let row = 0; row < (args.rows as number); row++)
      for (let l = 0; l < blockK / p.lineK; l++) {
        const trits = new Int8Array(p.lineK);
        const digits = (offset: number, place: (i: number) => number) => {
          for (let i = 0; i < 4; i++) trits[place(i)] = (Math.floor(offset / entry / 3 ** i) % 3) - 1;
        };
        for (let g = 0; g < QUAD; g++) digits(number(quads!, l * layout.line + (row * QUAD + g) * 2), (i) => 4 * i + g);
        for (let f = QUAD; f < p.lineK / 4; f++)
          digits(
            number(
              others!,
              Math.floor(l / PAIR) * layout.pair + (f - QUAD) * layout.other + (row * PAIR + (l % PAIR)) * 2,
            ),
            (i) => 4 * f + i,
          );
        for (let t = 0; t < (args.tokens as number); t++) {
          const lane = t % T;
          const place =
            (Math.floor(t / T) * room + row) * entry + 4 * (lane % (T / 2)) + 2 * Math.floor(lane / (T / 2));
          let sum = number(sums!, place);
          trits.forEach((trit, i) => {
            sum += trit * x[t * ldx + l * p.lineK + i]!;
          });
          sums!.set([sum & 255, (sum >> 8) & 255], place);
        }
      }
  },

  samples: (isa) =>
    tablePackings(isa).flatMap((p) =>
      [1, 3, ...BLOCK_LINES].map((lines, i) =>
        sumsSpec(p, isa.name, lines * p.lineK, lines, 2 * p.rows, SUMMED_ROWS[i % SUMMED_ROWS.length]),
      ),
    ),

  // Extreme: all |x| = 127, and sums that begin as near to the limits as a block may find them.
  example: (spec, random, extreme) => {
    const p = packingOf(spec.weight);
    const isa = isaOf(spec.isa);
    const entry = entryBytes(isa);
    const room = roomOf(spec);
    const [T, R, blockK] = spec.tile as [number, number, number];
    const tokens = 2 * T;
    const layout = offsetsLayout(p, room, blockK / p.lineK);
    const most = 32767 - 127 * blockK;
    const offset = () => {
      const value = entry * (extreme ? (ENTRIES - 1) * random.integer(0, 1) : random.integer(0, ENTRIES - 1));
      return [value & 255, value >> 8];
    };
    const pairs = (bytes: number, pair: () => number[]) => Uint8Array.from(range(bytes / 2).flatMap(pair));
    return {
      x: Int8Array.from({ length: tokens * activationStride(spec.shape.k!) }, () =>
        extreme ? 127 : random.integer(-127, 127),
      ),
      quads: pairs(layout.quads, offset),
      others: pairs(layout.others, offset),
      sums: pairs(2 * room * entry, () => {
        const sum = extreme ? most * (2 * random.integer(0, 1) - 1) : random.integer(-most, most);
        return [sum & 255, (sum >> 8) & 255];
      }),
      scratch: new Uint8Array(tablesLayout(p, isa, blockK / p.lineK).bytes),
      tokens,
      rows: room - R,
    };
  },
};
