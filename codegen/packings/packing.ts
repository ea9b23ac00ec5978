/**
 * A packing: how the ternary weights of a matrix lie in memory. A matrix [n rows, k] is a run of row tiles of `rows` rows; a
 * tile is a run of lines along k; a line holds `rows` x `lineK` weights in 64 bytes or so. Nothing depends on the number of
 * threads: a thread takes a contiguous range of tiles.
 *
 * Weights are stored as codes w + 1 in {0, 1, 2}. Rows and k are padded to whole tiles and lines with the code of zero.
 */
import type { Address, Affine, Recorder, Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import type { VectorWord } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import { range } from '../kernels/kernel.ts';

export interface Packing {
  /** Name in the weights file, the manifest and kernel names, with its line: `p2r16x16` = rows x k of a line. */
  readonly token: string;
  /** Rows of a line and of a tile. */
  readonly rows: number;
  /** k of a line. */
  readonly lineK: number;
  readonly lineBytes: number;
  /**
   * Absent: the four bytes of a row in a line follow each other. Else a line is columns, one byte a row, for kernels that look up
   * (kernels/look-ups.ts); others read four columns as four bytes a row, and the fifth, where there is one, besides.
   */
  readonly lookUp?: LookUp;
  /**
   * Lines of one unrolled step, and bytes fetched ahead where the CPU's profile names no distance (kernels/prefetch.ts), that decoding
   * begins with; the tuner looks further.
   */
  readonly unroll: number;
  readonly ahead: number;
  /** Most vectors of a line that leave registers for tables and sums; any number when absent. */
  readonly mostVectors?: number;
  /** Words that unpacking uses, and those that divide scaled sums. */
  readonly needs: readonly VectorWord[];
  /** Where weight (row, k) of a line goes: byte `byte` of the line, or of its draft, grows by `factor` times its code. */
  readonly place: (row: number, k: number) => { readonly byte: number; readonly factor: number };
  /** Where a line is not such a sum: how its draft becomes the line. */
  readonly encode?: Encoding;
  /**
   * Prepares a kernel to unpack lines to one form, outside its loops. As `scaled` codes may stay multiplied by the scale of
   * their field, where that saves work and fits what the ISA's dot product takes; as `codes` every scale is 1.
   */
  readonly unpacker: (b: Recorder, isa: Isa, form: 'scaled' | 'codes' | 'base3') => Unpacker;
}

/** Indices in a line, and the tables of sums that they point into. Two are the halves of a byte: columns in order, the low half first. */
export interface LookUp {
  /** The k of a line whose digits w + 1 each table sums, the lowest digit first. */
  readonly groups: readonly (readonly number[])[];
  /** Indices in a row, one after the other, that point into the same table: what they find adds up to so many times the sum. */
  readonly planes: number;
  /** What the entries of a table stand for: such digits, as a number base 3. */
  readonly entries: readonly number[];
  /** An entry is stored as low + radix * high - bias; low, high < 32. */
  readonly radix: number;
  readonly bias: number;
  /** The bit of the fifth column that tells, index by index, that the entry is to be negated. */
  readonly signs?: readonly number[];
}

/** A draft has a byte for each index and row, [index][rows]: a number that a code of up to 8 bits stands for. */
export interface Encoding {
  /** The code of each number. */
  readonly codes: readonly number[];
  /** Of each index: where the low four bits of its code and the others go, from which bit on. */
  readonly parts: readonly { readonly low: Place; readonly high: Place }[];
}
interface Place {
  readonly column: number;
  readonly shift: number;
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
/** Rows that kernels unpack at once: those of a line, or of a line of columns one vector. */
export const bandOf = (p: Packing, isa: Isa): number => (p.lookUp ? isa.lanes : p.rows);
/** Vectors that these rows fill, four bytes each. */
export const vectorsOf = (p: Packing, isa: Isa): number => bandOf(p, isa) / isa.lanes;

/** The packed bytes of a matrix: the definition that the C packer is tested against. @param trits [n, k] row-major in {-1,0,1} */
export function pack(p: Packing, trits: ArrayLike<number>, n: number, k: number): Uint8Array {
  const out = new Uint8Array(bytesOf(p, n, k));
  const lines = linesOf(p, k);
  for (let tile = 0; tile < tilesOf(p, n); tile++)
    for (let line = 0; line < lines; line++) {
      const draft = new Uint8Array(draftBytes(p));
      for (let r = 0; r < p.rows; r++)
        for (let j = 0; j < p.lineK; j++) {
          const row = tile * p.rows + r;
          const col = line * p.lineK + j;
          const code = row < n && col < k ? trits[row * k + col]! + 1 : 1;
          const { byte, factor } = p.place(r, j);
          draft[byte]! += factor * code;
        }
      out.set(encoded(p, draft), (tile * lines + line) * p.lineBytes);
    }
  return out;
}

const draftBytes = (p: Packing): number => (p.encode ? p.encode.parts.length * p.rows : p.lineBytes);

function encoded({ rows, lineBytes, encode }: Packing, draft: Uint8Array): Uint8Array {
  if (!encode) return draft;
  const line = new Uint8Array(lineBytes);
  draft.forEach((number, i) => {
    const { low, high } = encode.parts[Math.floor(i / rows)]!;
    const code = encode.codes[number]!;
    line[low.column * rows + (i % rows)]! |= (code & 15) << low.shift;
    line[high.column * rows + (i % rows)]! |= (code >> 4) << high.shift;
  });
  return line;
}

/** The draft of a line: the line itself, or what it encodes. */
export function draftOf(p: Packing, line: Uint8Array): Uint8Array {
  const { rows, encode } = p;
  if (!encode) return line;
  const bits = Math.max(...encode.codes) >> 4;
  return Uint8Array.from({ length: draftBytes(p) }, (_, i) => {
    const { low, high } = encode.parts[Math.floor(i / rows)]!;
    const part = ({ column, shift }: Place, mask: number) => (line[column * rows + (i % rows)]! >> shift) & mask;
    return encode.codes.indexOf(part(low, 15) | (part(high, bits) << 4));
  });
}

/** Loads one line as vectors, lane = row; of columns, the rows that begin at `line`, and after their vectors those of the fifth column. */
export function loadLine(b: Recorder, p: Packing, isa: Isa, line: Address, tag: string): Value[] {
  const vectors = range(vectorsOf(p, isa));
  if (!p.lookUp) return vectors.map((v) => b.let(`w${tag}_v${v}`, 'load_bytes', at(line, v * 4 * isa.lanes)));
  const load = (name: string, columns: readonly number[]) =>
    vectors.map((v) => {
      const [c0, c1, c2, c3] = columns.map((c) => at(line, c * p.rows + v * isa.lanes));
      return b.let(`${name}${tag}_v${v}`, 'load_columns', c0!, c1!, c2!, c3!);
    });
  return [...load('w', [0, 1, 2, 3]), ...(p.lineBytes > 4 * p.rows ? load('fifth', [4, 4, 4, 4]) : [])];
}

/** For each band of `rows` rows of a tile: where it begins in the tile's first line, and its first row. @param w first byte of tile 0 */
export function eachBand(
  b: Recorder,
  p: Packing,
  rows: number,
  w: Address,
  k: number,
  tile: Affine,
  record: (first: Address, row: Affine) => void,
): void {
  const first = at(w, times(tile, tileBytes(p, k)));
  const row = times(tile, p.rows);
  if (rows === p.rows) record(first, row);
  else b.loop('band', 0, p.rows, rows, (band) => record(at(first, band), plus(row, band)));
}
