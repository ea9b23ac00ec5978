/**
 * Orders of a packed matrix beside row tiles (packing.ts), for inputs that are mostly zero: a row, or a column, is one run of
 * bytes, so that what multiplies a zero is not read. Both keep the bytes of a packing and put them elsewhere.
 *
 *   rows     the four bytes that a row has in each line of its tile, line after line: byte 4 l + b of row r is byte 4 r + b of
 *            line l. Whole lines of 64 bytes: 16 lines of the tile.
 *   columns  the transposed matrix: byte i of a column holds the weights of rows i, B + i, 2 B + i, ... (B bytes a column, whole
 *            lines of 64), field f of the packing that of row f B + i.
 *
 * Products of several tokens take row tiles: a panel of some k is brought back to them at a time (kernels/panels.ts), and stays
 * in the second-level cache. Rows are padded to whole tiles, k to whole panels, with the code of zero.
 */
import { range, roundUp } from '../kernels/kernel.ts';
import { p2 } from './p2.ts';
import type { Packing } from './packing.ts';
import { linesOf, tilesOf } from './packing.ts';

/** A matrix whose rows or columns are runs. */
export interface Ordered {
  readonly order: 'rows' | 'columns';
  /** Name in the weights file and in kernel names: the packing's, and the order. */
  readonly token: string;
  /** Whose bytes they are. */
  readonly coding: Packing;
  /** The row tiles that panels are made of. */
  readonly tiles: Packing;
  /** Lines of a panel's tiles. */
  readonly panelLines: number;
}

/** Bytes of a line of memory: runs are whole ones. */
const LINE = 64;
/** Lines of 16 columns in a panel of columns: 128 k, so that sums stay in registers over that many. */
const COLUMN_LINES = 8;

const rowsOf = (coding: Packing): Ordered => ({
  order: 'rows',
  token: `${coding.token}rows`,
  coding,
  tiles: coding,
  panelLines: LINE / 4,
});

const columnsOf = (coding: Packing): Ordered => ({
  order: 'columns',
  token: `${coding.token}columns`,
  coding,
  // Fields of a column are rows, those of a tile k: they are coded anew, in the packing that costs least.
  tiles: p2,
  panelLines: COLUMN_LINES,
});

/** Both orders of a packing; of columns of bytes there are none. */
export const ordersOf = (coding: Packing): readonly Ordered[] =>
  coding.lookUp ? [] : [rowsOf(coding), columnsOf(coding)];

/** Weights of one byte. */
export const fieldsOf = (p: Packing): number => p.lineK / 4;
/** Bytes of a row of k weights, in the order of rows. */
export const rowBytes = (coding: Packing, k: number): number => roundUp(4 * linesOf(coding, k), LINE);
/** Bytes of a column of n weights, in the order of columns. */
export const columnBytes = (coding: Packing, n: number): number => roundUp(Math.ceil(n / fieldsOf(coding)), LINE);
/** k of one panel. */
export const panelK = (o: Ordered): number => o.panelLines * o.tiles.lineK;
/** k of all panels. */
export const paddedK = (o: Ordered, k: number): number => roundUp(k, panelK(o));
/** Row tiles of all panels: those of the padding, too. */
export const panelTiles = (o: Ordered, n: number): number =>
  o.order === 'rows' ? tilesOf(o.tiles, n) : (fieldsOf(o.coding) * columnBytes(o.coding, n)) / o.tiles.rows;

/** Bytes of the packed matrix. */
export const orderedBytes = (o: Ordered, n: number, k: number): number =>
  o.order === 'rows'
    ? panelTiles(o, n) * o.tiles.rows * rowBytes(o.coding, k)
    : paddedK(o, k) * columnBytes(o.coding, n);

/** Where weight (row, k) goes: byte `byte` of the matrix grows by `factor` times its code. */
export function placeOf(o: Ordered, n: number, k: number) {
  const { coding } = o;
  if (o.order === 'rows') {
    const bytes = rowBytes(coding, k);
    return (row: number, col: number) => {
      const { byte, factor } = coding.place(0, col % coding.lineK);
      return { byte: row * bytes + 4 * Math.floor(col / coding.lineK) + byte, factor };
    };
  }
  const bytes = columnBytes(coding, n);
  return (row: number, col: number) => ({
    byte: col * bytes + (row % bytes),
    factor: coding.place(0, 4 * Math.floor(row / bytes)).factor,
  });
}

/** The packed bytes: the definition that the C packer is tested against. @param trits [n, k] row-major in {-1,0,1} */
export function packOrdered(o: Ordered, trits: ArrayLike<number>, n: number, k: number): Uint8Array {
  const out = new Uint8Array(orderedBytes(o, n, k));
  const place = placeOf(o, n, k);
  const rows = panelTiles(o, n) * o.tiles.rows;
  for (let row = 0; row < rows; row++)
    for (let col = 0; col < paddedK(o, k); col++) {
      const { byte, factor } = place(row, col);
      out[byte]! += factor * (row < n && col < k ? trits[row * k + col]! + 1 : 1);
    }
  return out;
}

/** Weights of the packed bytes of a matrix [n, k]: the first rows and columns, all by default, in {-1, 0, 1}. The inverse of `packOrdered`. */
export function unpackOrdered(o: Ordered, bytes: Uint8Array, n: number, k: number, rows = n, cols = k): Int8Array {
  const factors = [...new Set(range(o.coding.lineK).map((col) => o.coding.place(0, col).factor))].sort((a, b) => b - a);
  /** Codes of a byte, by factor: digits of mixed radix, the largest first. */
  const codes = range(256).map((byte) => {
    let rest = byte;
    return new Map(
      factors.map((factor) => {
        const code = Math.min(2, Math.floor(rest / factor));
        rest -= code * factor;
        return [factor, code];
      }),
    );
  });
  const place = placeOf(o, n, k);
  return Int8Array.from({ length: rows * cols }, (_, i) => {
    const { byte, factor } = place(Math.floor(i / cols), i % cols);
    return codes[bytes[byte]!]!.get(factor)! - 1;
  });
}
