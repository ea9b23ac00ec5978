/**
 * Some columns of a ternary matrix times their elements of an int8 vector: those whose element is not zero, in a list. For `down`,
 * most of whose inputs are zero. Weights lie in the order of columns (packings/orders.ts).
 *
 *   y[r] += scale(r) * sum_i (w[r][list[i]] + 1) x[i]          i = first, ..., end - 1;  scale of the field that holds row r
 *
 * Four columns side by side, a byte of each, are what a byte dot product wants: a lane for each row, four k. So columns take as many
 * dot steps as row tiles do. All sums stay in the L1 cache; each is loaded and stored once for sixteen columns (with eight, the
 * stores take as long as everything else). The list is filled up with columns whose element is 0. The sixteen that come next are
 * fetched meanwhile. Whoever adds the results of several threads divides them by the scales and subtracts the sum of x.
 * Tile: 1 x rows that 64 bytes of a column hold x columns at a time; variant p16: fetched a step ahead, p0: not.
 */
import type { Affine } from '../ir/record.ts';
import { at, Recorder, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { distinctCodings, orderedOf, orderedPackings } from '../packings/index.ts';
import type { Ordered } from '../packings/orders.ts';
import { columnBytes, fieldsOf, orderedBytes, packOrdered, paddedK, unpackOrdered } from '../packings/orders.ts';
import type { KernelFamily } from './kernel.ts';
import { range, roundUp } from './kernel.ts';
import { APART, apart, LIST_ROOM, listBytes, listOf } from './sparse-rows.ts';

const LINE = 64;
/** Columns of a dot step. */
const QUAD = 4;
/** Columns whose products are added before a sum is stored. */
export const COLUMNS = 16;

/** Columns that are fetched in one of the steps in which columns of so many bytes pass. */
const aheadInLine = (bytes: number): number => Math.ceil((COLUMNS * LINE) / bytes);

/** The lines of a column, no stream of them. */
const linesApart = (lines: number): number[] =>
  range(Math.ceil(lines / APART.length)).flatMap((block) =>
    apart(lines - block * APART.length).map((l) => block * APART.length + l),
  );

/** The kernel for a matrix [n, k]. */
export const columnSumsSpec = (o: Ordered, isa: string, n: number, k: number, variant = `p${COLUMNS}`): KernelSpec => ({
  op: 'colsums',
  act: 'i8',
  weight: o.token,
  out: 'i32',
  shape: { n, k },
  tile: [1, LINE * fieldsOf(o.coding), COLUMNS],
  isa,
  variant,
});

/** The scales by which a coding's fields are multiplied in the sums. */
export const scalesOf = (o: Ordered, isa: Isa): readonly number[] =>
  o.coding.unpacker(new Recorder(), isa, 'scaled').scales;

/** The columns of a list. */
export const columnSums: KernelFamily = {
  source: 'sparse-columns.ts',
  formula: 'y[r] += scale of a field * sum over a list of (W[r][column] + 1) x',
  needs: [
    'load_bytes',
    'broadcast4',
    'mix4',
    'dot_zero',
    'dot_next',
    'dot_flush',
    'load_ints',
    'store_ints',
    'prefetch',
  ],

  record: (b, spec, isa) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const bytes = columnBytes(o.coding, n);
    const fields = fieldsOf(o.coding);
    const w = b.pointer('w', {
      element: 'u8',
      access: 'in',
      extent: orderedBytes(o, n, k),
      doc: `weights [${paddedK(o, k)} columns][${bytes} bytes], packing ${o.token}`,
    });
    const x = b.pointer('x', { element: 'i8', access: 'in', extent: k + LIST_ROOM, doc: 'their elements, int8 [end]' });
    const list = b.pointer('list', {
      element: 'u8',
      access: 'in',
      extent: listBytes(k),
      doc: `columns, u16 [end + ${COLUMNS}]`,
    });
    const y = b.pointer('y', {
      element: 'i32',
      access: 'inout',
      extent: fields * bytes,
      doc: `sums [${fields} fields][${bytes}]`,
    });
    const first = b.long('first', 0, k, `first entry of the list, a multiple of ${COLUMNS}`);
    const end = b.long('end', 0, k + COLUMNS - 1, 'entry to stop before: whole steps are taken');

    const unpack = o.coding.unpacker(b, isa, 'scaled');
    const step = 4 * isa.lanes;
    const order = b.table(
      'line_order',
      linesApart(bytes / LINE).flatMap((l) => [l & 255, l >> 8]),
    );
    b.loop('i', first, end, COLUMNS, (i) => {
      const columns = range(COLUMNS / QUAD).map((q) =>
        b.indices(
          range(QUAD).map((j) => `c${QUAD * q + j}`),
          at(list, times(i, 2), 2 * QUAD * q),
          k - 1,
        ),
      );
      b.loop('turn', 0, bytes / LINE, 1, (turn) => {
        const [line] = b.indices(['line'], at(order, times(turn, 2)), bytes / LINE - 1) as [Affine];
        // Whole columns, so that memory is read in runs; all of the next step's by the end of this one.
        for (const c of spec.variant === 'p0' ? [] : range(aheadInLine(bytes))) {
          const place = times(turn, 2 * aheadInLine(bytes));
          const [next] = b.indices([`next${c}`], at(list, times(i, 2), place, 2 * (COLUMNS + c)), k - 1);
          for (let l = 0; l < bytes; l += LINE) b.do('prefetch', at(w, times(next!, bytes), l), 2);
        }
        for (let v = 0; v < LINE; v += step)
          for (let m = 0; m < 4; m++) {
            const part = `_v${v}_m${m}`;
            const dots = range(fields).map((f) => b.variable(`dots${part}_f${f}`, 'dot_zero'));
            columns.forEach((quad, q) => {
              const tag = `${part}_q${q}`;
              const xs = b.let(`x${tag}`, 'broadcast4', at(x, i, QUAD * q));
              const four = quad.map((column, j) =>
                b.let(`w${tag}_${j}`, 'load_bytes', at(w, times(column, bytes), times(line, LINE), v)),
              );
              unpack.fields([b.let(`mixed${tag}`, 'mix4', ...four, m)], tag).forEach((codes, f) => {
                b.set(dots[f]!, 'dot_next', dots[f]!, codes()[0]!, xs);
              });
            });
            dots.forEach((sum, f) => {
              const tag = `${part}_f${f}`;
              const to = at(y, times(line, LINE), f * bytes + v + m * isa.lanes);
              b.do('store_ints', to, b.let(`y${tag}`, 'dot_flush', b.let(`before${tag}`, 'load_ints', to), sum));
            });
          }
      });
    });
  },

  reference: (spec, args) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const bytes = columnBytes(o.coding, n);
    // Of the padding's rows, too: they take part in the sums.
    const rows = fieldsOf(o.coding) * bytes;
    const trits = unpackOrdered(o, args.w as Uint8Array, rows, k);
    const scales = scalesOf(o, isaOf(spec.isa));
    const list = args.list as Uint8Array;
    const y = args.y as Int32Array;
    const whole =
      (args.first as number) + COLUMNS * Math.ceil(((args.end as number) - (args.first as number)) / COLUMNS);
    for (let i = args.first as number; i < whole; i++) {
      const column = list[2 * i]! | (list[2 * i + 1]! << 8);
      for (let r = 0; r < rows; r++)
        y[r]! += scales[Math.floor(r / bytes)]! * (trits[r * k + column]! + 1) * (args.x as Int8Array)[i]!;
    }
  },

  // Columns of one, two and ten lines.
  samples: (isa) =>
    distinctCodings(orderedPackings(isa, 'columns')).flatMap((o) =>
      [
        { n: 1, k: 150 },
        { n: 64 * fieldsOf(o.coding) + 1, k: 151 },
        { n: 576 * fieldsOf(o.coding) + 1, k: 35 },
      ].map(({ n, k }) => columnSumsSpec(o, isa.name, n, k)),
    ),

  example: (spec, random, extreme) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const trits = Int8Array.from({ length: n * k }, () => (extreme ? 1 : random.integer(-1, 1)));
    const live = range(k).filter(() => extreme || random.integer(0, 2) === 0);
    const first = live.length > COLUMNS ? COLUMNS : 0;
    const bytes = columnBytes(o.coding, n);
    const whole = first + roundUp(live.length - first, COLUMNS);
    const x = new Int8Array(whole);
    live.forEach((_, i) => {
      x[i] = extreme ? 127 : random.integer(-127, 127);
    });
    return {
      w: packOrdered(o, trits, n, k),
      x,
      list: listOf(live, whole - live.length + aheadInLine(bytes) * (bytes / LINE)),
      y: Int32Array.from({ length: fieldsOf(o.coding) * bytes }, () => random.integer(-1e6, 1e6)),
      first,
      end: live.length,
    };
  },
};
