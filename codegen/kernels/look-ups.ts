/**
 * Ternary matrix times one vector by look-up of sums, for CPUs without a fast byte dot product: tables of the sums that digits
 * make of a few activations (look-up-tables.ts) take the place of the vector.
 *
 *   y[r] = sum over indices g of T_g[e(r, g)]; of bit planes half of it, as w = (+-1 +-1) / 2
 *
 * A byte of the weights holds two indices of a row. One look-up gives the low parts of an entry for a vector of rows, another the
 * high parts; both are summed in bytes over the eight indices of a line, then brought together in int16, then in int32:
 *
 *   bytes   8 parts of a line:   8 * 31 = 248 <= 255
 *   int16   as many lines as leave |sum| <= 32,767, e.g. 16 of 16 k: 16 * 16 * 127 = 32,512, as a sum of the entries themselves: it
 *           begins at minus the bias of all entries, modulo 2^16, and only the end of the sum counts
 *
 * The rows of a tile take a table one after the other, so that it is fetched once for all. Tile: 1 x rows at once x k of one
 * unrolled step; variant as in dot-products.ts.
 */
import { transpose } from '../ir/lanes.ts';
import type { Address, Affine, Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import { packingOf } from '../packings/index.ts';
import { linesOf, pack, tileBytes, tilesOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range } from './kernel.ts';
import { lookUpPackings, planeAt, tablesBytes, tablesParameter, tabulate, tabulateSpec } from './look-up-tables.ts';
import { fewPrefetches } from './prefetch.ts';
import { activationStride, dotExample, dotReference, parameters, productSpec } from './ternary.ts';

export const lookup: KernelFamily = {
  source: 'look-ups.ts',
  formula: 'y[n] = W[n][k] . x[k] by tables of x, exact int32',
  needs: [
    'load_bytes',
    'load_table16',
    'lookup16',
    'field',
    'add_bytes',
    'xor_bytes',
    'after',
    'add_words',
    'add_odd',
    'raise_shorts',
    'sub_shorts',
    'ints_as_shorts',
    'shorts_as_ints',
    'low_half',
    'shift_ints',
    'splat_int',
    'add_ints',
    'zip_low',
    'zip_high',
    'store_ints',
    'prefetch',
  ],

  product: {
    candidates: (cpu, p, n, k) =>
      lookUpPackings(isaOf(cpu.isa)).includes(p)
        ? // At their own distance: with others clang 19 spills on AVX2 (test/long/assembly.test.ts).
          fewPrefetches({ ...cpu, prefetch: { hint: cpu.prefetch.hint } }, p.ahead).flatMap((variant) =>
            [1, 2].map((lines) => productSpec('lookup', cpu.isa, p, n, k, [1, p.rows, lines * p.lineK], variant)),
          )
        : [],
    tabulate: (spec) => tabulateSpec(packingOf(spec.weight), spec.isa, spec.shape.k!),
  },

  record: (b, spec, isa) => {
    const own = packingOf(spec.weight);
    const {
      p,
      k,
      lines,
      w,
      x: tables,
      y,
      t0,
      t1,
      prefetch,
    } = parameters(b, spec, tablesParameter('tabulate', own, spec.shape.k!));
    const { groups, planes, radix, bias, signs } = p.lookUp!;
    const indices = planes * groups.length;
    const unroll = spec.tile[2]! / p.lineK;
    const bytes = 4 * isa.lanes;
    const vectors = range(p.rows / bytes);
    const most = Math.floor(32767 / (planes * p.lineK * 127));
    const chunk = Math.max(unroll, Math.floor(most / unroll) * unroll);
    const flip = signs && b.let('flip', 'load_table16', b.table('flipped_bits', [0, ...Array(15).fill(31)]));

    /** What the rows find in the tables of a line: of each vector, the sums of the low and of the high parts. */
    const look = (line: Address, number: Affine, tag: string) => {
      const load = (name: string, column: number) =>
        vectors.map((v) => b.let(`${name}${tag}_v${v}`, 'load_bytes', at(line, column * p.rows + v * bytes)));
      const parts = vectors.map((): Value[] => []);
      // One index after the other, so that few values live at once.
      const later = (name: string, all: Value, than: Value | undefined) =>
        than ? b.let(name, 'after', all, than) : all;
      const negative = signs && load('signs', indices / 2);
      let weights: Value[] = [];
      for (let g = 0; g < indices; g++) {
        if (g % 2 === 0) weights = load(`w_g${g}`, g / 2);
        const id = `${tag}_g${g}`;
        const index = weights.map((all, v) =>
          b.let(`index${id}_v${v}`, 'field', later(`next${id}_v${v}`, all, parts[v]![0]), 4 * (g % 2), 15),
        );
        const flips = negative?.map((all, v) => {
          const sign = b.let(`sign${id}_v${v}`, 'field', later(`all${id}_v${v}`, all, parts[v]![1]), signs![g]!, 1);
          return b.let(`flip${id}_v${v}`, 'lookup16', flip!, sign);
        });
        for (const h of [0, 1]) {
          const plane = at(tables, planeAt(p, number, Math.floor(g / planes), h));
          const table = b.let(`table${id}_${h}`, 'load_table16', plane);
          parts.forEach((own, v) => {
            const found = b.let(`found${id}_${h}_v${v}`, 'lookup16', table, index[v]!);
            const entry = flips ? b.let(`entry${id}_${h}_v${v}`, 'xor_bytes', found, flips[v]!) : found;
            own[h] = own[h] ? b.let(`part${id}_${h}_v${v}`, 'add_bytes', own[h], entry) : entry;
          });
        }
      }
      return parts as [Value, Value][];
    };

    b.loop('tile', t0, t1, 1, (tile) => {
      const zero = b.let('zero', 'integer', 0);
      // Row 4 i + j of a vector is lane i of int32 sum j; even and odd rows are int16 sums.
      const acc = vectors.map((v) => range(4).map((j) => b.variable(`acc_v${v}_${j}`, 'splat_int', zero)));
      b.chunks('chunk', lines, chunk, (base, count, part) => {
        const start = (-bias * indices * count) & 0xffff;
        const both = (id: string, half: number) =>
          b.let(`${id}${part}`, 'splat_int', b.let(`${id}_1${part}`, 'integer', (half << 16) | (half & 0xffff)));
        const starts = [both('start_words', start * 257), both('start_odd', start)];
        const sums = vectors.map((v) =>
          ['words', 'odd'].map((name, h) => b.variable(`${name}${part}_v${v}`, 'ints_as_shorts', starts[h]!)),
        );
        b.unrolled(`i${part}`, count, unroll, (i, u, rest) => {
          const line = plus(base, i);
          const from = at(w, times(tile, tileBytes(p, k)), times(line, p.lineBytes));
          prefetch(from, u);
          look(from, line, `${part}${rest}_l${u}`).forEach(([low, high], v) => {
            const [words, odd] = sums[v]!;
            b.set(words!, 'add_words', words!, low, high, radix);
            b.set(odd!, 'add_odd', odd!, low, high, radix);
          });
        });
        sums.forEach(([words, odd], v) => {
          // Numbers of two bytes hold the odd ones 256 times.
          const raised = b.let(`raised${part}_v${v}`, 'raise_shorts', odd!, 8);
          const even = b.let(`even${part}_v${v}`, 'sub_shorts', words!, raised);
          [even, odd!].forEach((sum, h) => {
            const id = `${part}_v${v}_${h}`;
            const pairs = b.let(`pairs${id}`, 'shorts_as_ints', sum);
            const [first, second] = [acc[v]![h]!, acc[v]![2 + h]!];
            b.set(first, 'add_ints', first, b.let(`first${id}`, 'low_half', pairs));
            b.set(second, 'add_ints', second, b.let(`second${id}`, 'shift_ints', pairs, 16));
          });
        });
      });
      acc.forEach((own, v) => {
        if (planes === 2) for (const a of own) b.set(a, 'shift_ints', a, 1);
        transpose(b, `y_v${v}`, own).forEach((sum, q) => {
          b.do('store_ints', at(y, times(tile, p.rows), v * bytes + q * isa.lanes), sum);
        });
      });
    });
  },

  // The last one has several chunks.
  samples: (isa) =>
    lookUpPackings(isa).flatMap((p) =>
      [4 * p.lineK - 1, 4 * p.lineK + 1, 35 * p.lineK + 1].map((k, i) =>
        productSpec(
          'lookup',
          isa.name,
          p,
          p.rows + i - 1,
          k,
          [1, p.rows, (1 + (i & 1)) * p.lineK],
          `p${8192 * (i & 1)}`,
        ),
      ),
    ),

  // `x` is no argument: the definition takes it.
  reference: (spec, args) => dotReference(spec, args, 1),

  example: (spec, random, extreme) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const { trits, x } = dotExample(n, k, 1, activationStride(k), random, extreme);
    const tables = new Int8Array(tablesBytes(p, k));
    tabulate.reference(tabulateSpec(p, spec.isa, k), { x, tables, l0: 0, l1: linesOf(p, k) });
    const tiles = tilesOf(p, n);
    return {
      w: pack(p, trits, n, k),
      x,
      tables,
      sums: new Int32Array(0),
      y: new Int32Array(tiles * p.rows),
      t0: 0,
      t1: tiles,
    };
  },
};
