/**
 * Ternary matrix times a batch of int8 vectors by look-up of sums (the method of Four Russians: Arlazarov, Dinic, Kronrod,
 * Faradzev, 1970), vectorised over tokens. Four trits have 81 values; for each of a vector of T tokens a table holds all 81 sums
 *
 *   S[e] = (t0 - 1) x[k0] + (t1 - 1) x[k1] + (t2 - 1) x[k2] + (t3 - 1) x[k3],        e = t0 + 3 t1 + 9 t2 + 27 t3
 *
 * as int16, one vector an entry. A row of the matrix then takes one addition for four weights and T tokens: twice the products
 * that a byte dot product of the same vector width has, and no multiplication. Making a table takes 81 stores, shared by all rows
 * of the call; so this is a kernel for many rows and many tokens.
 *
 * Weights come from the packed bytes. Lines are expanded, one block of k at a time, to byte offsets into the tables (a packing
 * supplies e, `base3`), which stay in the L2 cache and serve all tokens; the fields of a line beyond four are brought together
 * by a dot product with 1, 3, 9, 27.
 *
 *   scratch: [lines of a block][rows][4] u16 offsets of fields 0 .. 3; then of each other field
 *            [k of a block][T] int16 activations, transposed
 *            [groups of a block][81][T] int16 tables
 *            [tokens / T][rows][T] int16 sums
 *
 * Sums stay in int16 over a span of lines in which no token's sum of |x| passes 32,767: each entry is at most the sum of its four
 * |x|, so no partial sum passes it either. The caller cuts the spans (templates/products.c); at worst, all |x| = 127, one has
 * 258 k. At a span's end the sums are transposed and added to y.
 *
 * A token's place among T: int16 lanes 2 i and 2 i + 1 hold tokens i and i + T / 2, what a transposition of 32-bit lanes gives.
 * Tile: tokens T x rows that are summed at once x k of a block; variant rRtN: at most R rows and N tokens a call.
 */
import type { Affine, Recorder, Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { packingOf, packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bytesOf, linesOf, loadLine, pack, tileBytes, tilesOf, vectorsOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range, roundUp } from './kernel.ts';
import { activationStride, dotExample, dotReference, productStride } from './ternary.ts';

/** Sums of four trits. */
const ENTRIES = 81;
/** Lines of a block: two, so that tables of ten groups of four k are made for one pass over the rows. */
const LINES = 2;

/** Where everything lies in the scratch buffer, in bytes. */
function scratchOf(p: Packing, isa: Isa, rows: number, tokens: number) {
  const vector = 4 * isa.lanes;
  const fields = p.lineK / 4;
  const lonely = fields - 4;
  const entry = vector;
  const block = LINES * p.lineK;
  const single = LINES * rows * 8;
  const activations = roundUp(single + lonely * rows * 2 * LINES, 64);
  const tables = activations + block * vector;
  const sums = tables + LINES * fields * ENTRIES * entry;
  return { single, activations, tables, sums, bytes: sums + tokens * rows * 2, entry };
}

/** Most rows and tokens of a call. */
const limitsOf = (spec: KernelSpec): [number, number] => {
  const [, rows, tokens] = /^r(\d+)t(\d+)$/.exec(spec.variant!)!;
  return [Number(rows), Number(tokens)];
};

/** Transposes a square of 32-bit lanes: log2 L rounds of interleaving vector i with vector i + L / 2. */
function transpose(b: Recorder, name: string, square: readonly Value[]): Value[] {
  const half = square.length / 2;
  let rows = [...square];
  for (let round = 1; round < square.length; round *= 2)
    rows = range(half).flatMap((i) =>
      (['zip_low', 'zip_high'] as const).map((word, h) =>
        b.let(`${name}_x${round}_${2 * i + h}`, word, rows[i]!, rows[i + half]!),
      ),
    );
  return rows;
}

export const tableGemm: KernelFamily = {
  source: 'table-gemm.ts',
  formula: 'y[t][n] = W[n][k] . x[t][k], exact int32',
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
    'raise_shorts',
    'low_bytes',
    'high_bytes',
    'shorts_as_ints',
    'ints_as_shorts',
    'low_half',
    'shift_ints',
    'splat_int',
    'load_ints',
    'store_ints',
    'add_ints',
    'mul_ints',
    'field',
    'add_bytes',
    'sub_bytes',
    'broadcast4',
    'dot_zero',
    'dot_next',
    'dot_flush',
  ],

  record: (b, spec, isa) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const [T, R] = spec.tile as [number, number];
    const [most, tokenLimit] = limitsOf(spec);
    const L = isa.lanes;
    const lines = linesOf(p, k);
    const fields = p.lineK / 4;
    const ldx = activationStride(k);
    const ldy = productStride(p, n);
    const tilesMost = most / p.rows;
    const { single, activations, tables, sums: sumsAt, bytes, entry } = scratchOf(p, isa, most, tokenLimit);

    const w = b.pointer('w', {
      element: 'u8',
      access: 'in',
      extent: bytesOf(p, Math.min(most, tilesOf(p, n) * p.rows), k),
      doc: `weights [row tiles][${lines} lines][${p.lineBytes} bytes] from the first tile on, packing ${p.token}`,
    });
    const x = b.pointer('x', {
      element: 'i8',
      access: 'in',
      extent: tokenLimit * ldx,
      doc: `activations [tokens][${ldx}], int8, zero beyond ${k}`,
    });
    b.pointer('sums', { element: 'i32', access: 'in', extent: tokenLimit, doc: 'sum of each row of x; not used' });
    const y = b.pointer('y', {
      element: 'i32',
      access: 'out',
      extent: tokenLimit * ldy,
      doc: `result [tokens][${ldy}], from the first tile's row on`,
    });
    const scratch = b.pointer('scratch', {
      element: 'u8',
      access: 'scratch',
      extent: bytes,
      doc: 'offsets, transposed activations, tables and sums',
    });
    const spans = b.pointer('spans', {
      element: 'u8',
      access: 'in',
      extent: 2 * (lines + 1),
      doc: `u16 [spans + 1] line where a span begins, a multiple of ${LINES}; the last one ends at ${lines}`,
    });
    const spanCount = b.long('span_count', 1, lines, 'spans');
    const tokens = b.long('tokens', 0, tokenLimit, `tokens, a multiple of ${T}`);
    const tiles = b.long('tiles', 0, Math.min(tilesMost, tilesOf(p, n)), 'row tiles');
    const rows = times(tiles, p.rows);

    const unpack = p.unpacker(b, isa, false);
    const powers = fields > 4 ? b.let('powers', 'broadcast4', b.table('powers_of_3', [1, 3, 9, 27])) : undefined;
    const zero = b.let('zero', 'zero_shorts');
    const shift = Math.log2(entry);

    /** Offsets of lines [line, line + count) for all rows. */
    const expand = (line: Affine, count: number, tag: string) =>
      b.loop(`tile${tag}`, 0, tiles, 1, (tile) => {
        const lonely: Value[][][] = [];
        for (let l = 0; l < count; l++) {
          const id = `${tag}_l${l}`;
          const source = at(w, times(tile, tileBytes(p, k)), times(plus(line, l), p.lineBytes));
          const { index, rest } = unpack.base3(loadLine(b, p, isa, source, id), id);
          index.forEach((e, v) => {
            (['low_bytes', 'high_bytes'] as const).forEach((word, h) => {
              const wide = b.let(`wide${id}_v${v}_${h}`, word, e);
              const to = at(scratch, times(tile, p.rows * 8), l * most * 8 + v * 8 * L + h * 4 * L);
              b.do('store_shorts', to, b.let(`offset${id}_v${v}_${h}`, 'raise_shorts', wide, shift));
            });
          });
          lonely.push(rest);
        }
        // The other fields: u16 [field][row][LINES].
        range(fields - 4).forEach((f) => {
          range(vectorsOf(p, isa)).forEach((v) => {
            const each = lonely.map((rest, l) => {
              const id = `${tag}_f${f}_v${v}_l${l}`;
              const dots = b.let(`dots${id}`, 'dot_next', b.let(`none${id}`, 'dot_zero'), rest[f]![v]!, powers!);
              const start = b.let(`start${id}`, 'splat_int', b.let(`nil${id}`, 'integer', 0));
              return b.let(`lone${id}`, 'mul_ints', b.let(`e${id}`, 'dot_flush', start, dots), entry * 65536 ** l);
            });
            const both = each.reduce((a, c, l) => b.let(`both${tag}_f${f}_v${v}_l${l}`, 'add_ints', a, c));
            const to = at(scratch, times(tile, p.rows * 2 * LINES), single + f * most * 2 * LINES + v * 2 * LINES * L);
            b.do('store_shorts', to, b.let(`pair${tag}_f${f}_v${v}`, 'ints_as_shorts', both));
          });
        });
      });

    /** x of T tokens from t on and `count` lines -> int16 [k][T]. */
    const turn = (t: Affine, line: Affine, count: number, tag: string) => {
      const quads = (count * p.lineK) / 4;
      for (let q0 = 0; q0 < quads; q0 += L) {
        const halves = [0, 1].map((h) => {
          const square = range(L).map((i) => {
            const from = at(x, times(plus(t, h * L + i), ldx), times(line, p.lineK), 4 * q0);
            return b.let(`q${tag}_${q0}_${h}_${i}`, 'bytes_as_ints', b.let(`x${tag}_${q0}_${h}_${i}`, 'load_bytes', from));
          });
          return transpose(b, `q${tag}_${q0}_${h}`, square);
        });
        for (let q = q0; q < Math.min(q0 + L, quads); q++)
          for (let j = 0; j < 4; j++) {
            const value = b.let(`k${tag}_${4 * q + j}`, 'signed_bytes', halves[0]![q - q0]!, halves[1]![q - q0]!, j);
            b.do('store_shorts', at(scratch, activations + (4 * q + j) * entry), value);
          }
      }
    };

    /** The 81 sums of a group whose activations lie `step` vectors apart from `from` on. */
    const tabulate = (from: Affine, step: number, to: Affine, tag: string) => {
      const xs = range(4).map((i) =>
        b.let(`x${tag}_${i}`, 'load_shorts', at(scratch, activations, from, i * step * entry)),
      );
      /** The nine sums of two trits, p0's rising fastest; recorded when asked for, so that few values live at once. */
      const nine = (p0: Value, p1: Value, id: string) => {
        const name = (e: number) => `${id}${tag}_${e}`;
        const minus = (e: number, v: Value) => b.let(name(e), 'sub_shorts', zero, v);
        return [
          () => minus(0, b.let(`${name(0)}m`, 'add_shorts', p0, p1)),
          () => minus(1, p1),
          () => b.let(name(2), 'sub_shorts', p0, p1),
          () => minus(3, p0),
          () => zero,
          () => p0,
          () => b.let(name(6), 'sub_shorts', p1, p0),
          () => p1,
          () => b.let(name(8), 'add_shorts', p0, p1),
        ];
      };
      const low = nine(xs[0]!, xs[1]!, 'low').map((sum) => sum());
      nine(xs[2]!, xs[3]!, 'high').forEach((sum, j) => {
        const high = sum();
        low.forEach((l, i) => {
          const e = 9 * j + i;
          b.do('store_shorts', at(scratch, tables, to, e * entry), b.let(`s${tag}_${e}`, 'add_shorts', l, high));
        });
      });
    };

    /** Tables of all groups of `count` lines: fields 0 .. 3 give four, k = b, b + 4, b + 8, b + 12; each other field gives one. */
    const build = (count: number, tag: string) =>
      b.loop(`l${tag}`, 0, count, 1, (l) => {
        const table = times(l, fields * ENTRIES * entry);
        b.loop(`g${tag}`, 0, 4, 1, (g) =>
          tabulate(
            plus(times(l, p.lineK * entry), times(g, entry)),
            4,
            plus(table, times(g, ENTRIES * entry)),
            `${tag}q`,
          ),
        );
        for (let f = 4; f < fields; f++)
          tabulate(
            plus(times(l, p.lineK * entry), 4 * f * entry),
            1,
            plus(table, f * ENTRIES * entry),
            `${tag}f${f}`,
          );
      });

    const sumAt = (t: Affine, row: Affine, j: number) =>
      at(scratch, sumsAt, times(t, most * 2), times(row, entry), j * entry);

    /** One addition for each row and group. */
    const add = (t: Affine, count: number, tag: string) =>
      b.loop(`r${tag}`, 0, rows, R, (row) => {
        const acc = range(R).map((j) => b.variable(`acc${tag}_r${j}`, 'load_shorts', sumAt(t, row, j)));
        const next = (j: number, group: number, offset: Affine, id: string) => {
          const value = b.let(
            `t${id}`,
            'load_shorts',
            at(scratch, tables + group * ENTRIES * entry, offset),
          );
          b.set(acc[j]!, 'add_shorts', acc[j]!, value);
        };
        const top = (ENTRIES - 1) * entry;
        for (let l = 0; l < count; l++) {
          const all = range(R).map((j) =>
            b.indices(
              range(4).map((g) => `o${tag}_l${l}_r${j}_g${g}`),
              at(scratch, l * most * 8, times(row, 8), j * 8),
              top,
            ),
          );
          for (let g = 0; g < 4; g++)
            for (let j = 0; j < R; j++) next(j, l * fields + g, all[j]![g]!, `${tag}_l${l}_r${j}_g${g}`);
        }
        for (let f = 4; f < fields; f++)
          for (let j = 0; j < R; j++) {
            const from = at(scratch, single + (f - 4) * most * 2 * LINES, times(row, 2 * LINES), j * 2 * LINES);
            b.indices(
              range(count).map((l) => `o${tag}_f${f}_r${j}_l${l}`),
              from,
              top,
            ).forEach((offset, l) => {
              next(j, l * fields + f, offset, `${tag}_f${f}_r${j}_l${l}`);
            });
          }
        for (let j = 0; j < R; j++) b.do('store_shorts', sumAt(t, row, j), acc[j]!);
      });

    const block = (line: Affine, count: number, tag: string) => {
      expand(line, count, tag);
      b.loop(`t${tag}`, 0, tokens, T, (t) => {
        turn(t, line, count, tag);
        build(count, tag);
        add(t, count, tag);
      });
    };

    /** Adds all sums to y, and begins again with 0. */
    const flush = (tag: string) =>
      b.loop(`t${tag}`, 0, tokens, T, (t) =>
        b.loop(`r${tag}`, 0, rows, L, (row) => {
          const square = range(L).map((i) => {
            const v = b.let(`v${tag}_${i}`, 'load_shorts', sumAt(t, row, i));
            b.do('store_shorts', sumAt(t, row, i), zero);
            return b.let(`p${tag}_${i}`, 'shorts_as_ints', v);
          });
          transpose(b, `p${tag}`, square).forEach((pair, q) => {
            [b.let(`low${tag}_${q}`, 'low_half', pair), b.let(`high${tag}_${q}`, 'shift_ints', pair, 16)].forEach(
              (part, h) => {
                const to = at(y, times(plus(t, q + h * L), ldy), row);
                const before = b.let(`y${tag}_${q}_${h}`, 'load_ints', to);
                b.do('store_ints', to, b.let(`sum${tag}_${q}_${h}`, 'add_ints', before, part));
              },
            );
          });
        }),
      );

    const none = b.let('none', 'splat_int', b.let('nil', 'integer', 0));
    b.loop('t0', 0, tokens, 1, (t) =>
      b.loop('r0', 0, rows, L, (row) => b.do('store_ints', at(y, times(t, ldy), row), none)),
    );
    b.loop('t1', 0, tokens, T, (t) =>
      b.loop('r1', 0, rows, 1, (row) => b.do('store_shorts', sumAt(t, row, 0), zero)),
    );
    const whole = Math.floor(lines / LINES) * LINES;
    b.loop('span', 0, spanCount, 1, (span) => {
      const [from] = b.indices(['from'], at(spans, times(span, 2)), whole) as [Affine];
      const [to] = b.indices(['to'], at(spans, times(span, 2), 2), whole) as [Affine];
      b.loop('line', from, to, LINES, (line) => block(line, LINES, ''));
      flush('e');
    });
    if (whole < lines) {
      block(plus(whole), lines - whole, 'z');
      flush('ze');
    }
  },

  reference: (spec, args) => dotReference(spec, args, args.tokens as number),

  samples: (isa) =>
    packingsFor(isa)
      .filter((p) => p.rows % isa.lanes === 0)
      .flatMap((p) =>
        (
          [
            [2 * p.rows, p.lineK - 1, 2],
            [p.rows - 1, p.lineK * 4, 1],
            [p.rows, p.lineK * 27 + 1, 1],
          ] as const
        ).map(
          ([n, k, groups]): KernelSpec => ({
            op: 'tgemm',
            act: 'i8',
            weight: p.token,
            out: 'i32',
            shape: { n, k },
            tile: [2 * isa.lanes, 4, LINES * p.lineK],
            isa: isa.name,
            variant: `r${roundUp(n, p.rows)}t${groups * 2 * isa.lanes}`,
          }),
        ),
      ),

  example: (spec, random, extreme) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const tokens = limitsOf(spec)[1];
    const { trits, x, sums } = dotExample(n, k, tokens, activationStride(k), random, extreme);
    const lines = linesOf(p, k);
    const whole = Math.floor(lines / LINES) * LINES;
    // As long as |x| <= 127 permits.
    const step = Math.floor(32767 / 127 / (LINES * p.lineK)) * LINES;
    const spans = range(Math.max(1, Math.ceil(whole / step))).map((i) => i * step);
    return {
      w: pack(p, trits, n, k),
      x,
      sums,
      y: new Int32Array(tokens * productStride(p, n)),
      scratch: new Uint8Array(scratchOf(p, isaOf(spec.isa), ...limitsOf(spec)).bytes),
      spans: Uint8Array.from([...spans, whole].flatMap((line) => [line & 255, line >> 8])),
      span_count: spans.length,
      tokens,
      tiles: tilesOf(p, n),
    };
  },
};
