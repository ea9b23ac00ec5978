/**
 * Ternary matrix times one vector by look-ups that round: T-MAC's int8 tables and fast aggregation (arXiv 2407.00088). The only
 * products that are not exact, so nothing takes them unless asked to (`--kernel roundlookup`).
 *
 * A table has one byte for each of 16 sums of four activations, rounded to a multiple of 4 (look-up-tables.ts), where exact look-ups
 * (look-ups.ts) have two. The eight bytes that a row finds for a line are not added but averaged in pairs, pairs of pairs and
 * so on, as the average of two bytes is a byte. Each of the three averages rounds halves up. In every second line the bits of the indices
 * are turned round, which finds -T in place of T, and the mean is subtracted: so what rounding adds cancels out, also where zeros or
 * equal entries leave nothing to round.
 *
 *   q = T / 4 + 127,  m = average of averages of eight q
 *   y[r] = 1/2 sum of T = sum over lines of +-1/2 * 4 * 8 (m - 127)
 *
 * Means are summed in int16 for as many lines as would leave the sum within int16 if all had one sign (254 a line), then in int32. Every instruction set computes the
 * same integers, but not those of other kernels. Tile and variant as in look-ups.ts.
 */
import type { Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import { packingOf } from '../packings/index.ts';
import { linesOf, tileBytes, tilesOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range } from './kernel.ts';
import {
  planeAt,
  ROUNDED,
  roundedPackings,
  roundedTables,
  tablesBytes,
  tablesParameter,
  tabulateSpec,
} from './look-up-tables.ts';
import { lookup } from './look-ups.ts';
import { preferredPrefetch } from './prefetch.ts';
import { parameters, productSpec } from './ternary.ts';

/** Indices of a row in a line. */
const INDICES = 8;
/** What a mean stands for. */
const FACTOR = (ROUNDED.step * INDICES) / 2;
/** What is subtracted for a number of lines: of an even number nothing. */
const offsetOf = (lines: number): number => (lines % 2) * FACTOR * ROUNDED.zero;

const average = (a: number, b: number): number => (a + b + 1) >> 1;

/** Look-ups that round. */
export const roundedLookup: KernelFamily = {
  source: 'rounded-look-ups.ts',
  formula: 'y[n] = W[n][k] . x[k] by rounded tables of x and averages: not exact',
  needs: [
    'load_bytes',
    'load_table16',
    'lookup16',
    'field',
    'average_bytes',
    'after',
    'xor_bytes',
    'broadcast4',
    'zero_shorts',
    'low_bytes',
    'high_bytes',
    'add_shorts',
    'sub_shorts',
    'shorts_as_ints',
    'low_half',
    'shift_ints',
    'splat_int',
    'add_ints',
    'mul_ints',
    'zip_low',
    'zip_high',
    'store_ints',
    'prefetch',
  ],

  product: {
    exact: false,
    candidates: (cpu, p, n, k) =>
      roundedPackings(isaOf(cpu.isa)).includes(p)
        ? [productSpec('roundlookup', cpu.isa, p, n, k, [1, p.rows, 2 * p.lineK], preferredPrefetch(cpu, p.ahead))]
        : [],
    tabulate: (spec) => tabulateSpec(packingOf(spec.weight), spec.isa, spec.shape.k!, 'roundtables'),
  },

  record: (b, spec, isa) => {
    const own = packingOf(spec.weight);
    const second = tablesParameter('roundtables', own, spec.shape.k!);
    const { p, k, lines, w, x: tables, y, t0, t1, prefetch } = parameters(b, spec, second);
    // Two lines of opposite sign.
    const unroll = spec.tile[2]! / p.lineK;
    const bytes = 4 * isa.lanes;
    const vectors = range(p.rows / bytes);
    const chunk = Math.floor(32767 / (2 * ROUNDED.zero) / unroll) * unroll;

    const ones = b.table('ones', [255, 255, 255, 255]);
    b.loop('tile', t0, t1, 1, (tile) => {
      const turn = b.let('turn', 'broadcast4', ones);
      const zero = b.let('zero', 'integer', 0);
      const offset = b.let('offset', 'splat_int', b.let('offset_1', 'integer', -offsetOf(lines)));
      // Rows 2 i and 2 i + 1 of a half of a vector are lane i of its two sums.
      const acc = vectors.map((v) => range(4).map((j) => b.variable(`acc_v${v}_${j}`, 'splat_int', zero)));
      b.chunks('chunk', lines, chunk, (base, count, part) => {
        const sums = vectors.map((v) => range(2).map((h) => b.variable(`sum${part}_v${v}_${h}`, 'zero_shorts')));
        b.unrolled(`i${part}`, count, unroll, (i, u, rest) => {
          const line = plus(base, i);
          const from = at(w, times(tile, tileBytes(p, k)), times(line, p.lineBytes));
          const tag = `${part}${rest}_l${u}`;
          prefetch(from, u);
          /** Of each vector the averages of 1, 2 and 4 entries that wait for another. */
          const waiting = vectors.map((): (Value | undefined)[] => []);
          const last: (Value | undefined)[] = vectors.map(() => undefined);
          let weights: Value[] = [];
          for (let g = 0; g < INDICES; g++) {
            if (g % 2 === 0)
              weights = vectors.map((v) => {
                const own = b.let(`w${tag}_g${g}_v${v}`, 'load_bytes', at(from, (g / 2) * p.rows + v * bytes));
                return u % 2 ? b.let(`turned${tag}_g${g}_v${v}`, 'xor_bytes', own, turn) : own;
              });
            const id = `${tag}_g${g}`;
            const plane = planeAt(p, line, Math.floor(g / p.lookUp!.planes), 0, ROUNDED.planes);
            const table = b.let(`table${id}`, 'load_table16', at(tables, plane));
            vectors.forEach((v) => {
              // One index after the other, so that few values live at once.
              const all = last[v] ? b.let(`next${id}_v${v}`, 'after', weights[v]!, last[v]) : weights[v]!;
              const index = b.let(`index${id}_v${v}`, 'field', all, 4 * (g % 2), 15);
              let mean = b.let(`found${id}_v${v}`, 'lookup16', table, index);
              let level = 0;
              for (; waiting[v]![level]; level++) {
                mean = b.let(`mean${id}_v${v}_${level}`, 'average_bytes', waiting[v]![level]!, mean);
                waiting[v]![level] = undefined;
              }
              waiting[v]![level] = last[v] = mean;
            });
          }
          last.forEach((mean, v) => {
            ['low_bytes', 'high_bytes'].forEach((half, h) => {
              const wide = b.let(`wide${tag}_v${v}_${h}`, half as 'low_bytes', mean!);
              b.set(sums[v]![h]!, u % 2 ? 'sub_shorts' : 'add_shorts', sums[v]![h]!, wide);
            });
          });
        });
        sums.forEach((halves, v) => {
          halves.forEach((sum, h) => {
            const id = `${part}_v${v}_${h}`;
            const pairs = b.let(`pairs${id}`, 'shorts_as_ints', sum);
            const [even, odd] = [acc[v]![2 * h]!, acc[v]![2 * h + 1]!];
            b.set(even, 'add_ints', even, b.let(`even${id}`, 'low_half', pairs));
            b.set(odd, 'add_ints', odd, b.let(`odd${id}`, 'shift_ints', pairs, 16));
          });
        });
      });
      acc.forEach((four, v) => {
        for (const sum of four) {
          b.set(sum, 'mul_ints', sum, FACTOR);
          b.set(sum, 'add_ints', sum, offset);
        }
        for (const h of [0, 1])
          ['zip_low', 'zip_high'].forEach((zip, q) => {
            const rows = b.let(`y_v${v}_${h}_${q}`, zip as 'zip_low', four[2 * h]!, four[2 * h + 1]!);
            b.do('store_ints', at(y, times(tile, p.rows), v * bytes + (2 * h + q) * isa.lanes), rows);
          });
      });
    });
  },

  samples: (isa) =>
    roundedPackings(isa).flatMap((p) =>
      [4 * p.lineK - 1, 4 * p.lineK + 1, 133 * p.lineK].map((k, i) =>
        productSpec('roundlookup', isa.name, p, p.rows + i - 1, k, [1, p.rows, 2 * p.lineK], `p${8192 * (i & 1)}`),
      ),
    ),

  reference: (spec, args) => {
    const p = packingOf(spec.weight);
    const lines = linesOf(p, spec.shape.k!);
    const tables = args.tables as Int8Array;
    const w = args.w as Uint8Array;
    const y = args.y as Int32Array;
    for (let r = 0; r < y.length; r++) {
      const tile = Math.floor(r / p.rows);
      let sum = 0;
      for (let line = 0; line < lines; line++) {
        const from = (tile * lines + line) * p.lineBytes + (r % p.rows);
        let means = range(INDICES).map((g) => {
          const bits = w[from + (g >> 1) * p.rows]! ^ (line % 2 ? 255 : 0);
          const index = (bits >> (4 * (g & 1))) & 15;
          return tables[planeAt(p, line, g >> 1, 0, ROUNDED.planes).constant + index]! & 255;
        });
        while (means.length > 1) means = range(means.length / 2).map((i) => average(means[2 * i]!, means[2 * i + 1]!));
        sum += line % 2 ? -means[0]! : means[0]!;
      }
      y[r] = FACTOR * sum - offsetOf(lines);
    }
  },

  example: (spec, random, extreme) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const args = lookup.example({ ...spec, op: 'lookup' }, random, extreme);
    const tables = new Int8Array(tablesBytes(p, k, ROUNDED.planes));
    roundedTables.reference(tabulateSpec(p, spec.isa, k, 'roundtables'), {
      x: args.x!,
      tables,
      l0: 0,
      l1: linesOf(p, k),
    });
    return { ...args, tables, y: new Int32Array(tilesOf(p, n) * p.rows) };
  },
};
