/**
 * Panels: some k of a matrix that lies in the order of rows or columns (packings/orders.ts), brought back to row tiles, whose
 * products several tokens share. A panel stays in the second-level cache; nothing of it is kept.
 *
 *   rows      64 bytes of each row are four bytes of 16 lines: squares of 32-bit lanes are transposed.
 *   columns   four columns side by side are four k of a lane's row; sixteen make a line of the 2-bit packing, whose byte is
 *             c0 + 4 c1 + 16 c2 + 64 c3 of k = b, 4 + b, 8 + b, 12 + b.
 *
 * What the next panel takes is fetched meanwhile, since a panel reads lines of memory that are far apart.
 * Tile: 1 x rows of what is turned at once x k of a panel.
 */
import { transpose } from '../ir/lanes.ts';
import type { Address, Affine, Recorder, Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { orderedOf, orderedPackings } from '../packings/index.ts';
import type { Ordered } from '../packings/orders.ts';
import {
  columnBytes,
  fieldsOf,
  orderedBytes,
  packOrdered,
  panelK,
  panelTiles,
  rowBytes,
  unpackOrdered,
} from '../packings/orders.ts';
import { pack } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range } from './kernel.ts';

const LINE = 64;
/** Columns of a line of the 2-bit packing, four in a dot step. */
const [COLUMNS, QUAD] = [16, 4];

/** What is turned at once: a row tile, or the rows that 64 bytes of a column hold. */
export const unitRows = (o: Ordered): number => (o.order === 'rows' ? o.tiles.rows : LINE * fieldsOf(o.coding));
/** How many there are. */
export const unitsOf = (o: Ordered, n: number): number => (panelTiles(o, n) * o.tiles.rows) / unitRows(o);
/** Bytes of a row in a panel. */
const rowInPanel = (o: Ordered): number => (o.panelLines * o.tiles.lineBytes) / o.tiles.rows;
/** Bytes of a panel of a whole matrix: rows follow each other as in the matrix. */
export const panelBytes = (o: Ordered, n: number): number => panelTiles(o, n) * o.tiles.rows * rowInPanel(o);

/** From the first byte of the matrix that belongs to a panel to the last. */
const bytesOfPanel = (o: Ordered, n: number, k: number): number =>
  o.order === 'rows' ? orderedBytes(o, n, k) - rowBytes(o.coding, k) + LINE : panelK(o) * columnBytes(o.coding, n);
/** The unit that a row belongs to. */
const unitOf = (o: Ordered, n: number, row: number): number =>
  Math.floor((o.order === 'rows' ? row : row % columnBytes(o.coding, n)) / (o.order === 'rows' ? o.tiles.rows : LINE));

/** The kernel for a matrix [n, k]. */
export const panelSpec = (o: Ordered, isa: string, n: number, k: number): KernelSpec => ({
  op: 'panel',
  act: 'none',
  weight: o.token,
  out: o.tiles.token,
  shape: { n, k },
  tile: [1, unitRows(o), panelK(o)],
  isa,
});

export const panel: KernelFamily = {
  source: 'panels.ts',
  formula: 'panel[tile][line] = row tiles of W[.][k], k = first .. first + k of a panel',
  needs: [
    'load_bytes',
    'store_bytes',
    'bytes_as_ints',
    'ints_as_shorts',
    'store_shorts',
    'zip_low',
    'zip_high',
    'mix4',
    'field',
    'add_bytes',
    'prefetch',
  ],

  record: (b, spec, isa) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const units = unitsOf(o, n);
    const w = b.pointer('w', {
      element: 'u8',
      access: 'in',
      extent: bytesOfPanel(o, n, k),
      doc: `weights from the panel's first k on, packing ${o.token}`,
    });
    const out = b.pointer('panel', {
      element: 'u8',
      access: 'out',
      extent: panelBytes(o, n),
      doc: `row tiles [${panelTiles(o, n)}][${o.panelLines} lines], packing ${o.tiles.token}`,
    });
    const first = b.long('first', 0, units, `first unit of ${unitRows(o)} rows`);
    const end = b.long('end', 0, units, 'unit to stop before');
    b.loop('unit', first, end, 1, (unit) =>
      o.order === 'rows' ? turnRows(b, isa, o, k, w, out, unit) : mixColumns(b, isa, o, n, w, out, unit),
    );
  },

  reference: (spec, args) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const rows = panelTiles(o, n) * o.tiles.rows;
    // Of the first panel, with the padding.
    const trits = unpackOrdered(o, args.w as Uint8Array, n, k, rows, panelK(o));
    const tiles = pack(o.tiles, trits, rows, panelK(o));
    const bytes = rowInPanel(o);
    for (let row = 0; row < rows; row += o.tiles.rows) {
      const unit = unitOf(o, n, row);
      if (unit < (args.first as number) || unit >= (args.end as number)) continue;
      (args.panel as Uint8Array).set(tiles.subarray(row * bytes, (row + o.tiles.rows) * bytes), row * bytes);
    }
  },

  samples: (isa) =>
    (['rows', 'columns'] as const).flatMap((order) =>
      orderedPackings(isa, order).map((o) => panelSpec(o, isa.name, 2 * unitRows(o) + 1, panelK(o) + 3)),
    ),

  example: (spec, random) => {
    const o = orderedOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const trits = Int8Array.from({ length: n * k }, () => random.integer(-1, 1));
    const bytes = packOrdered(o, trits, n, k);
    return {
      w: bytes.subarray(0, bytesOfPanel(o, n, k)),
      panel: new Uint8Array(panelBytes(o, n)),
      first: 1,
      end: unitsOf(o, n),
    };
  },
};

/** A row tile: squares of as many rows and lines as a vector has lanes. */
function turnRows(b: Recorder, isa: Isa, o: Ordered, k: number, w: Address, out: Address, tile: Affine): void {
  const { rows, lineBytes } = o.tiles;
  const bytes = rowBytes(o.coding, k);
  const L = isa.lanes;
  b.loop('row', 0, rows, L, (row) =>
    b.loop('line', 0, o.panelLines, L, (line) => {
      const square = range(L).map((i) => {
        const from = at(w, times(tile, rows * bytes), times(row, bytes), i * bytes, times(line, 4));
        b.do('prefetch', at(from, LINE), 2);
        return b.let(`q_${i}`, 'bytes_as_ints', b.let(`w_${i}`, 'load_bytes', from));
      });
      transpose(b, 'q', square).forEach((turned, i) => {
        const to = at(out, times(tile, o.panelLines * lineBytes), times(line, lineBytes), i * lineBytes, times(row, 4));
        b.do('store_shorts', to, b.let(`t_${i}`, 'ints_as_shorts', turned));
      });
    }),
  );
}

/** 64 bytes of each column. */
function mixColumns(b: Recorder, isa: Isa, o: Ordered, n: number, w: Address, out: Address, unit: Affine): void {
  const bytes = columnBytes(o.coding, n);
  const { lineBytes } = o.tiles;
  const step = 4 * isa.lanes;
  const unpack = o.coding.unpacker(b, isa, 'codes');
  const four = (v: Value, id: string) => {
    const two = b.let(`two${id}`, 'add_bytes', v, v);
    return b.let(`four${id}`, 'add_bytes', two, two);
  };
  const { rows } = o.tiles;
  const square = Math.max(step, rows);
  b.loop('line', 0, o.panelLines, 1, (line) =>
    b.loop('byte', 0, LINE, square, (byte) => {
      // Lane L is the row of byte `within` + L.
      for (let within = 0; within < square; within += isa.lanes) {
        const v = within - (within % step);
        const m = (within % step) / isa.lanes;
        // By Horner's rule, the last four columns first.
        let sums: Value[] = [];
        for (let q = COLUMNS / QUAD - 1; q >= 0; q--) {
          const tag = `_${within}_q${q}`;
          const columns = range(QUAD).map((j) => {
            const column = plus(times(line, COLUMNS * bytes), (QUAD * q + j) * bytes);
            if (within === 0) b.do('prefetch', at(w, column, times(unit, LINE), byte, panelK(o) * bytes), 2);
            return b.let(`w${tag}_${j}`, 'load_bytes', at(w, column, times(unit, LINE), byte, v));
          });
          const codes = unpack.fields([b.let(`mixed${tag}`, 'mix4', ...columns, m)], tag).map((field) => field()[0]!);
          sums = codes.map((c, f) =>
            sums.length ? b.let(`sum${tag}_f${f}`, 'add_bytes', four(sums[f]!, `${tag}_f${f}`), c) : c,
          );
        }
        sums.forEach((sum, f) => {
          const inTile = within % rows;
          const tile = plus(f * bytes, times(unit, LINE), byte, within - inTile);
          b.do('store_bytes', at(out, times(tile, rowInPanel(o)), times(line, lineBytes), 4 * inTile), sum);
        });
      }
    }),
  );
}
