/**
 * First step of products by tables (tables.ts): the lines of one block become offsets into the tables, in bytes.
 *
 *   e[row][g] = sum_i 3^i code(row, k_i of group g),   offset = e * bytes of an entry
 *
 * Four fields of a line give four numbers a row at once, by the packing's `base3`; each other field is a number of its own, found
 * by a dot product with 1, 3, 9, 27. Tile: 1 x rows of a line x k of a block; variant rN: the offsets have room for N rows.
 */
import type { Address, Affine, Value } from '../ir/record.ts';
import { at, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import type { KernelSpec } from '../name.ts';
import { packingOf } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bandOf, eachBand, loadLine, pack, tileBytes, vectorsOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range } from './kernel.ts';
import { BLOCK_LINES, entryBytes, offsetsLayout, PAIR, QUAD, roomOf } from './tables.ts';
import { codesOf, tablePackings } from './ternary.ts';

/** The kernel for `lines` lines of a matrix with k columns. @param rows room for so many */
export const offsetsSpec = (p: Packing, isa: string, k: number, lines: number, rows: number): KernelSpec => ({
  op: 'offsets',
  act: 'none',
  weight: p.token,
  out: 'u16',
  shape: { k },
  tile: [1, bandOf(p, isaOf(isa)), lines * p.lineK],
  isa,
  variant: `r${rows}`,
});

/** The first step. */
export const tableOffsets: KernelFamily = {
  source: 'table-offsets.ts',
  formula: 'offsets[row][group of 4 k] = bytes of an entry * sum_i 3^i (W[row][k_i] + 1)',
  needs: [
    'load_bytes',
    'store_shorts',
    'low_bytes',
    'high_bytes',
    'raise_shorts',
    'field',
    'add_bytes',
    'sub_bytes',
    'broadcast4',
    'dot_zero',
    'dot_next',
    'dot_flush',
    'splat_int',
    'mul_ints',
    'add_ints',
    'ints_as_shorts',
  ],

  record: (b, spec, isa) => {
    const p = packingOf(spec.weight);
    const k = spec.shape.k!;
    const lines = spec.tile[2]! / p.lineK;
    const room = roomOf(spec);
    const entry = entryBytes(isa);
    const layout = offsetsLayout(p, room, lines);
    const most = room / p.rows;
    const w = b.pointer('w', {
      element: 'u8',
      access: 'in',
      extent: (most - 1) * tileBytes(p, k) + lines * p.lineBytes,
      doc: `first line of the block in the first tile, packing ${p.token}; tiles are ${tileBytes(p, k)} bytes apart`,
    });
    const quads = b.pointer('quads', {
      element: 'u8',
      access: 'out',
      extent: layout.quads,
      doc: `offsets of four fields, u16 [${lines}][${room} rows][${QUAD}], from the first tile's row on`,
    });
    const others = b.pointer('others', {
      element: 'u8',
      access: 'out',
      extent: layout.others,
      doc: `offsets of each other field, for each pair of lines u16 [${room} rows][${PAIR}], from the first tile's row on`,
    });
    const tiles = b.long('tiles', 0, most, 'row tiles');

    const unpack = p.unpacker(b, isa, 'base3');
    const single = range(p.lineK / 4 - QUAD);
    const powers = single.length ? b.let('powers', 'broadcast4', b.table('powers_of_3', [1, 3, 9, 27])) : undefined;
    const offsets = (first: Address, row: Affine) => {
      const rest: Value[][][] = [];
      for (let l = 0; l < lines; l++) {
        const id = `_l${l}`;
        const digits = unpack.base3(loadLine(b, p, isa, at(first, l * p.lineBytes), id), id);
        rest.push(digits.rest);
        digits.index.forEach((e, v) => {
          (['low_bytes', 'high_bytes'] as const).forEach((word, h) => {
            const wide = b.let(`e${id}_v${v}_h${h}`, word, e);
            const to = at(quads, times(row, 2 * QUAD), l * layout.line + (2 * v + h) * entry);
            b.do('store_shorts', to, b.let(`offset${id}_v${v}_h${h}`, 'raise_shorts', wide, Math.log2(entry)));
          });
        });
      }
      for (let first = 0; first < lines; first += PAIR)
        for (const f of single)
          for (const v of range(vectorsOf(p, isa))) {
            // The offsets of two lines, side by side in a lane.
            const both = rest
              .slice(first, first + PAIR)
              .map((fields, l) => {
                const id = `_f${f}_v${v}_l${first + l}`;
                const dots = b.let(`dots${id}`, 'dot_next', b.let(`no${id}`, 'dot_zero'), fields[f]![v]!, powers!);
                const start = b.let(`start${id}`, 'splat_int', b.let(`nil${id}`, 'integer', 0));
                return b.let(`offset${id}`, 'mul_ints', b.let(`e${id}`, 'dot_flush', start, dots), entry << (16 * l));
              })
              .reduce((a, c, l) => b.let(`both_f${f}_v${v}_l${first + l}`, 'add_ints', a, c));
            const place = (first / PAIR) * layout.pair + f * layout.other + v * entry;
            const to = at(others, times(row, 2 * PAIR), place);
            b.do('store_shorts', to, b.let(`pair_f${f}_v${v}_l${first}`, 'ints_as_shorts', both));
          }
    };
    b.loop('tile', 0, tiles, 1, (tile) => eachBand(b, p, spec.tile[1]!, w, k, tile, offsets));
  },

  reference: (spec, args) => {
    const p = packingOf(spec.weight);
    const k = spec.shape.k!;
    const lines = spec.tile[2]! / p.lineK;
    const layout = offsetsLayout(p, roomOf(spec), lines);
    const entry = entryBytes(isaOf(spec.isa));
    const w = args.w as Uint8Array;
    const quads = args.quads as Uint8Array;
    const others = args.others as Uint8Array;
    const put = (to: Uint8Array, byte: number, value: number) => to.set([value & 255, value >> 8], byte);
    for (let tile = 0; tile < (args.tiles as number); tile++)
      for (let l = 0; l < PAIR * Math.ceil(lines / PAIR); l++) {
        const from = tile * tileBytes(p, k) + l * p.lineBytes;
        const codes = l < lines ? codesOf(p, w.subarray(from, from + p.lineBytes)) : undefined;
        for (let r = 0; r < p.rows; r++) {
          const row = tile * p.rows + r;
          const e = (place: (i: number) => number) =>
            entry * range(4).reduce((sum, i) => sum + 3 ** i * (codes?.[r * p.lineK + place(i)] ?? 0), 0);
          for (let g = 0; codes && g < QUAD; g++)
            put(
              quads,
              l * layout.line + row * 2 * QUAD + 2 * g,
              e((i) => 4 * i + g),
            );
          for (let f = QUAD; f < p.lineK / 4; f++)
            put(
              others,
              Math.floor(l / PAIR) * layout.pair + (f - QUAD) * layout.other + row * 2 * PAIR + 2 * (l % PAIR),
              e((i) => 4 * f + i),
            );
        }
      }
  },

  samples: (isa) =>
    tablePackings(isa).flatMap((p) =>
      [1, 3, ...BLOCK_LINES].map((lines) => offsetsSpec(p, isa.name, 5 * p.lineK - 1, lines, 3 * p.rows)),
    ),

  example: (spec, random, extreme) => {
    const p = packingOf(spec.weight);
    const k = spec.shape.k!;
    const room = roomOf(spec);
    const trits = Int8Array.from({ length: room * k }, (_, i) => (extreme ? 1 - 2 * (i & 1) : random.integer(-1, 1)));
    const lines = spec.tile[2]! / p.lineK;
    const { quads, others } = offsetsLayout(p, room, lines);
    const rows = room / p.rows;
    return {
      w: pack(p, trits, room, k).subarray(0, (rows - 1) * tileBytes(p, k) + lines * p.lineBytes),
      quads: new Uint8Array(quads),
      others: new Uint8Array(others),
      tiles: rows,
    };
  },
};
