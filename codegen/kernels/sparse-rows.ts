/**
 * Some rows of a ternary matrix times one int8 vector: those whose result is wanted, in a list. For `up`, whose rows do not
 * matter where the gate is not positive. Weights lie in the order of rows (packings/orders.ts).
 *
 *   y[r] = sum_k w[r][k] x[k] = sum_k (w[r][k] + 1) x[k] - sum_k x[k]        for r in list[first], ..., list[end - 1]
 *
 * A vector holds bytes of one row, so each lane sums other k, and the lanes are added in the end. The activations lie as the bytes
 * do, field by field: x[line][field][64 bytes]. As rows are read in leaps, the one that comes `ahead` later is fetched meanwhile.
 * Fields that stay multiplied by a scale are summed on their own and divided once (dot-products.ts). Variant pN: N rows ahead.
 */
import { at, plus, times } from '../ir/record.ts';
import type { KernelSpec } from '../name.ts';
import { distinctCodings, orderedOf, orderedPackings } from '../packings/index.ts';
import type { Ordered } from '../packings/orders.ts';
import {
  fieldsOf,
  orderedBytes,
  packOrdered,
  paddedK,
  panelK,
  panelTiles,
  rowBytes,
  unpackOrdered,
} from '../packings/orders.ts';
import type { KernelFamily } from './kernel.ts';
import { range, stepsBeforeFlush } from './kernel.ts';
import { divide, dotExample } from './ternary.ts';

/** Bytes of a line of a row. */
const LINE = 64;
/** Most rows and columns: lists hold 16-bit numbers. */
export const MOST_LISTED = 65536;
/** Rows that are fetched ahead: no more than LIST_ROOM. */
const AHEAD = 16;

/**
 * An order of eight in which hardware prefetchers see no stream. Of one they would fetch what lies behind the end of each run, which is
 * not wanted: as much again as is (docs/measurements.md). So lines are taken in this order, and runs (templates/sparse.c).
 */
export const APART = [5, 2, 7, 0, 3, 6, 1, 4];
/** The same for fewer. */
export const apart = (count: number): number[] => APART.filter((i) => i < count);

/** Entries that a list needs beyond its last one: repetitions of it. */
export const LIST_ROOM = 64;
/** Bytes of a list of up to n entries: one more is written while it is made. */
export const listBytes = (n: number): number => 2 * (n + LIST_ROOM);

const aheadOf = (spec: KernelSpec): number => Number(spec.variant!.slice(1));

/** The kernel for a matrix [n, k]. */
export const rowDotsSpec = (o: Ordered, isa: string, n: number, k: number, ahead = AHEAD): KernelSpec => ({
  op: 'rowdots',
  act: 'i8',
  weight: o.token,
  out: 'i32',
  shape: { n, k },
  tile: [1, 1, panelK(o)],
  isa,
  variant: `p${ahead}`,
});

/** Element of the activations, as they lie, that k is at. */
function placeOfX(o: Ordered, k: number): number {
  const { lineK } = o.coding;
  const line = Math.floor(k / lineK);
  const within = k % lineK;
  const lines = o.panelLines;
  return (Math.floor(line / lines) * fieldsOf(o.coding) + (within >> 2)) * LINE + 4 * (line % lines) + (within & 3);
}

/** The rows of a list. */
export const rowDots: KernelFamily = {
  source: 'sparse-rows.ts',
  formula: 'y[r] = W[r][k] . x[k] for the r of a list, exact int32',
  needs: ['load_bytes', 'dot_zero', 'dot_next', 'dot_flush', 'splat_int', 'add_ints', 'sum_ints', 'prefetch'],

  record: (b, spec, isa) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const bytes = rowBytes(o.coding, k);
    const fields = fieldsOf(o.coding);
    const rows = panelTiles(o, n) * o.tiles.rows;
    const ahead = aheadOf(spec);
    const w = b.pointer('w', {
      element: 'u8',
      access: 'in',
      extent: orderedBytes(o, n, k),
      doc: `weights [${rows} rows][${bytes} bytes], packing ${o.token}`,
    });
    const x = b.pointer('x', {
      element: 'i8',
      access: 'in',
      extent: paddedK(o, k),
      doc: `activations, int8 [${bytes / LINE} lines][${fields} fields][${LINE}], zero from ${k} on`,
    });
    const totals = b.pointer('sums', { element: 'i32', access: 'in', extent: 1, doc: 'sum of x' });
    const list = b.pointer('list', {
      element: 'u8',
      access: 'in',
      extent: listBytes(n),
      doc: `rows, u16 [end + ${ahead}]`,
    });
    const y = b.pointer('y', { element: 'i32', access: 'out', extent: n, doc: `results [${n}], those of the list` });
    const first = b.long('first', 0, n, 'first entry of the list');
    const end = b.long('end', 0, n, 'entry to stop before');

    const unpack = o.coding.unpacker(b, isa, 'scaled');
    const step = 4 * isa.lanes;
    const scales = [...new Set(unpack.scales)];
    const perLine = (scale: number) => (unpack.scales.filter((s) => s === scale).length * LINE) / step;
    const most = Math.min(...scales.map((scale) => Math.floor(stepsBeforeFlush(isa, scale) / perLine(scale))));
    const bias = b.let('bias', 'negate_int', b.let('total', 'get_int', totals));
    b.loop('i', first, end, 1, (i) => {
      const [row] = b.indices(['row'], at(list, times(i, 2)), n - 1);
      const [next] = b.indices(['next'], at(list, times(i, 2), 2 * ahead), n - 1);
      const zero = b.let('zero', 'integer', 0);
      const acc = scales.map((scale) => b.variable(`acc_s${scale}`, 'splat_int', zero));
      b.chunks('chunk', bytes / LINE, Math.min(most, bytes / LINE), (base, count, part) => {
        const dots = scales.map((scale) => b.variable(`dots${part}_s${scale}`, 'dot_zero'));
        b.chunks(`line${part}`, count, APART.length, (from, lines, rest) => {
          for (const u of apart(lines)) {
            const line = plus(base, from, u);
            b.do('prefetch', at(w, times(next!, bytes), times(line, LINE)), 2);
            for (let v = 0; v < LINE; v += step) {
              const tag = `${part}${rest}_l${u}_v${v / step}`;
              const codes = b.let(`w${tag}`, 'load_bytes', at(w, times(row!, bytes), times(line, LINE), v));
              unpack.fields([codes], tag).forEach((field, f) => {
                const [unpacked] = field();
                const xs = b.let(`x${tag}_f${f}`, 'load_bytes', at(x, times(line, fields * LINE), f * LINE + v));
                const sum = dots[scales.indexOf(unpack.scales[f]!)]!;
                b.set(sum, 'dot_next', sum, unpacked!, xs);
              });
            }
          }
        });
        scales.forEach((_, s) => {
          b.set(acc[s]!, 'dot_flush', acc[s]!, dots[s]!);
        });
      });
      scales.forEach((scale, s) => {
        divide(b, acc[s]!, scale);
        if (s) b.set(acc[0]!, 'add_ints', acc[0]!, acc[s]!);
      });
      b.do('put_int', at(y, row!), b.let('result', 'add_int', b.let('sum', 'sum_ints', acc[0]!), bias));
    });
  },

  reference: (spec, args) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const trits = unpackOrdered(o, args.w as Uint8Array, n, k);
    const x = args.x as Int8Array;
    const list = args.list as Uint8Array;
    for (let i = args.first as number; i < (args.end as number); i++) {
      const row = list[2 * i]! | (list[2 * i + 1]! << 8);
      let sum = 0;
      for (let j = 0; j < k; j++) sum += trits[row * k + j]! * x[placeOfX(o, j)]!;
      (args.y as Int32Array)[row] = sum;
    }
  },

  samples: (isa) =>
    distinctCodings(orderedPackings(isa, 'rows')).flatMap((o) =>
      [panelK(o) - 1, 3 * panelK(o) + 1, 9 * panelK(o)].map((k, i) => rowDotsSpec(o, isa.name, 21 - i, k)),
    ),

  example: (spec, random, extreme) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const { trits, x: plain, sums } = dotExample(n, k, 1, k, random, extreme);
    const x = new Int8Array(paddedK(o, k));
    plain.forEach((value, j) => {
      x[placeOfX(o, j)] = value;
    });
    const rows = range(n).filter((r) => r % 7 && (extreme || random.integer(0, 2) > 0));
    return {
      w: packOrdered(o, trits, n, k),
      x,
      sums,
      list: listOf(rows, aheadOf(spec)),
      y: new Int32Array(n),
      first: Math.min(1, rows.length),
      end: rows.length,
    };
  },
};

/** A list as kernels read it: u16, the last one repeated. @param room entries beyond it */
export function listOf(entries: readonly number[], room: number): Uint8Array {
  const padded = [...entries, ...range(room).map(() => entries.at(-1) ?? 0)];
  return Uint8Array.from(padded.flatMap((entry) => [entry & 255, entry >> 8]));
}
