/**
 * A packing: how the ternary weights of a matrix lie in memory. A matrix [n rows, k] is a run of row tiles of `rows` rows; a
 * tile is a run of lines along k; a line holds `rows` x `lineK` weights in 64 bytes or so. Nothing depends on the number of
 * threads: a thread takes a contiguous range of tiles.
 *
 * Weights are stored as codes w + 1 in {0, 1, 2}. Rows and k are padded to whole tiles and lines with the code of zero.
 */
import type { Address, Recorder, Value } from '../ir/record.ts';
import type { VectorWord } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';

export interface Packing {
  /** Name in the weights file, the manifest and kernel names, with its line: `p2r16x16` = rows x k of a line. */
  readonly token: string;
  /** Rows of a line and of a tile. */
  readonly rows: number;
  /** k of a line. */
  readonly lineK: number;
  readonly lineBytes: number;
  /** Lines of one unrolled step and prefetch that decoding begins with, as dot-products.ts names it; the tuner looks further. */
  readonly unroll: number;
  readonly prefetch: string;
  /** Most vectors of a line that leave registers for tables and sums; any number when absent. */
  readonly mostVectors?: number;
  /** Words that unpacking uses, and those that divide scaled sums. */
  readonly needs: readonly VectorWord[];
  /** Where weight (row, k) of a line goes: byte `byte` of the line grows by `factor` times its code. */
  readonly place: (row: number, k: number) => { readonly byte: number; readonly factor: number };
  /**
   * Prepares a kernel to unpack lines to one form, outside its loops. As `scaled` codes may stay multiplied by the scale of
   * their field, where that saves work and fits what the ISA's dot product takes; as `codes` every scale is 1.
   */
  readonly unpacker: (b: Recorder, isa: Isa, form: 'scaled' | 'codes' | 'base3') => Unpacker;
}

/** Expands lines to fields: field g of a line holds the codes of k = 4g .. 4g+3. */
export interface Unpacker {
  /** Of each field: its codes are scale * (w + 1). A power of two times an odd number. */
  readonly scales: readonly number[];
  /**
   * The fields of one line, loaded as vectors: u8 codes, one vector for each vector of the line, four codes per lane, lane = row.
   * They are recorded when asked for, so that few values live at once. `tag` makes names unique.
   */
  readonly fields: (line: readonly Value[], tag: string) => readonly (() => Value[])[];
  /** The first four fields as one number base 3 a byte, codes c0 + 3 c1 + 9 c2 + 27 c3 <= 80; then the codes of the other fields. */
  readonly base3: (line: readonly Value[], tag: string) => { readonly index: Value[]; readonly rest: Value[][] };
}

/** Lines of a row tile. */
export const linesOf = (p: Packing, k: number): number => Math.ceil(k / p.lineK);
/** Row tiles of a matrix with n rows. */
export const tilesOf = (p: Packing, n: number): number => Math.ceil(n / p.rows);
/** Bytes of one row tile. */
export const tileBytes = (p: Packing, k: number): number => linesOf(p, k) * p.lineBytes;
/** Bytes of a packed matrix [n, k]. */
export const bytesOf = (p: Packing, n: number, k: number): number => tilesOf(p, n) * tileBytes(p, k);
/** Vectors of one line. */
export const vectorsOf = (p: Packing, isa: Isa): number => p.lineBytes / (4 * isa.lanes);

/** The packed bytes of a matrix: the definition that the C packer is tested against. @param trits [n, k] row-major in {-1,0,1} */
export function pack(p: Packing, trits: ArrayLike<number>, n: number, k: number): Uint8Array {
  const out = new Uint8Array(bytesOf(p, n, k));
  const lines = linesOf(p, k);
  for (let tile = 0; tile < tilesOf(p, n); tile++)
    for (let line = 0; line < lines; line++)
      for (let r = 0; r < p.rows; r++)
        for (let j = 0; j < p.lineK; j++) {
          const row = tile * p.rows + r;
          const col = line * p.lineK + j;
          const code = row < n && col < k ? trits[row * k + col]! + 1 : 1;
          const { byte, factor } = p.place(r, j);
          out[(tile * lines + line) * p.lineBytes + byte]! += factor * code;
        }
  return out;
}

/** Loads one line as vectors. */
export function loadLine(b: Recorder, p: Packing, isa: Isa, line: Address, tag: string): Value[] {
  const step = 4 * isa.lanes;
  return Array.from({ length: vectorsOf(p, isa) }, (_, v) =>
    b.let(`w${tag}_v${v}`, 'load_bytes', {
      ...line,
      offset: { ...line.offset, constant: line.offset.constant + v * step },
    }),
  );
}
