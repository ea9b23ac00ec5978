/**
 * Ternary matrix times a batch of int8 vectors by byte dot products: the prompt kernel. The packing's bytes are expanded, a
 * panel of rows and a block of k at a time, to u8 codes laid out [k/4][rows][4] in a scratch buffer that stays in the L2 cache;
 * register tiles of tokens x rows then consume the panel, so every packing is served from the same bytes as in decode.
 *
 *   y[t][r] = sum_k (w[r][k] + 1) x[t][k] - sum_k x[t][k]
 *
 * Tile: tokens x rows x k of one unrolled step; variant kbN: k of one panel. Token count must be a multiple of the tile's
 * (the caller pads with rows of any int8 values).
 */
import type { Affine } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { packingOf, packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bytesOf, linesOf, loadLine, pack, tileBytes, tilesOf, vectorsOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { roundUp, stepsBeforeFlush } from './kernel.ts';
import { activationStride, dotExample, dotReference, MAX_TOKENS, productStride } from './ternary.ts';

/** k of one panel. */
const blockOf = (spec: KernelSpec): number => Number(spec.variant!.slice(2));

/**
 * The default register tile: rows of two vectors (or one line), and as many tokens, a power of two up to 8, as leave room for
 * the accumulators, one column of codes and one activation: 8x32 (avx512: 16 + 2 + 1 of 32 registers).
 */
function gemmTile(isa: Isa, p: Packing): [number, number, number] {
  const rows = Math.max(p.rows, 2 * isa.lanes);
  const vectors = rows / isa.lanes;
  let tokens = 8;
  while (tokens > 1 && (tokens * vectors + vectors + 1 > isa.registers || tokens * vectors > 32)) tokens /= 2;
  // A dot step of pairs needs a register for its products, and clang sums several before it adds them: 16 k would spill.
  return [tokens, rows, isa.dot.products === 2 ? 8 : 16];
}

export const gemm: KernelFamily = {
  source: 'gemm.ts',
  formula: 'y[t][n] = W[n][k] . x[t][k], exact int32',
  needs: [
    'load_bytes',
    'store_bytes',
    'broadcast4',
    'dot_zero',
    'dot_next',
    'dot_flush',
    'splat_int',
    'load_ints',
    'store_ints',
  ],

  product: {
    phase: 'prompt',
    // The panel's block of k takes a quarter of the L2 cache, or an eighth, or half.
    candidates: (cpu, p, n, k) => {
      const [tokens, rows, step] = gemmTile(isaOf(cpu.isa), p);
      return [1 / 4, 1 / 8, 1 / 2].flatMap((share) => {
        const most = Math.floor((cpu.cache.l2 * share) / rows / p.lineK) * p.lineK;
        const block = Math.max(p.lineK, Math.min(most, roundUp(k, p.lineK)));
        return [tokens, tokens / 2, tokens * 2]
          .filter((t) => t >= 1 && t <= 16)
          .map(
            (t): KernelSpec => ({
              op: 'gemm',
              act: 'i8',
              weight: p.token,
              out: 'i32',
              shape: { n, k },
              tile: [t, rows, step],
              isa: cpu.isa,
              variant: `kb${block}`,
            }),
          );
      });
    },
    panel: (spec) => ({
      tiles: spec.tile[1]! / packingOf(spec.weight).rows,
      bytes: blockOf(spec) * spec.tile[1]!,
      tokens: spec.tile[0]!,
    }),
  },

  record: (b, spec, isa) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const [tokens, rows, unrollK] = spec.tile as [number, number, number];
    const lines = linesOf(p, k);
    const ldx = activationStride(k);
    const tiles = tilesOf(p, n);
    const ldy = productStride(p, n);
    const blockLines = blockOf(spec) / p.lineK;
    const panelTiles = rows / p.rows;
    const lineVectors = vectorsOf(p, isa);
    const step = 4 * isa.lanes;

    const w = b.pointer('w', {
      element: 'u8',
      access: 'in',
      extent: bytesOf(p, n, k),
      doc: `weights [row tiles][${lines} lines][${p.lineBytes} bytes] from the first tile on, packing ${p.token}`,
    });
    const x = b.pointer('x', {
      element: 'i8',
      access: 'in',
      extent: MAX_TOKENS * ldx,
      doc: `activations [tokens][${ldx}], int8, zero beyond ${k}`,
    });
    const sums = b.pointer('sums', { element: 'i32', access: 'in', extent: MAX_TOKENS, doc: 'sum of each row of x' });
    const y = b.pointer('y', {
      element: 'i32',
      access: 'out',
      extent: MAX_TOKENS * ldy,
      doc: `result [tokens][${ldy}], from the first tile's row on`,
    });
    const panel = b.pointer('panel', {
      element: 'u8',
      access: 'scratch',
      extent: blockLines * p.lineK * rows,
      doc: `codes [k/4][${rows} rows][4] of one block of k`,
      bound: 2,
    });
    const count = b.long('tokens', 0, MAX_TOKENS, `tokens, a multiple of ${tokens}`);
    const whole = b.long(
      'whole',
      0,
      Math.floor(tiles / panelTiles) * panelTiles,
      `row tile where the last whole panel of ${panelTiles} tiles ends`,
    );
    const end = b.long('end', 0, tiles, 'row tile to stop before');

    const unpack = p.unpacker(b, isa, false);
    /** Expands lines [base, base + count) of the panel's row tiles. */
    const expand = (tile: Affine, base: Affine, lineCount: number, tag: string, high: number) =>
      b.loop(`line${tag}`, 0, lineCount, 1, (line) => {
        for (let r = 0; r < high; r++) {
          const id = `${tag}_r${r}`;
          const source = at(w, times(plus(tile, r), tileBytes(p, k)), times(plus(base, line), p.lineBytes));
          unpack.fields(loadLine(b, p, isa, source, id), id).forEach((codes, g) => {
            codes().forEach((code, v) => {
              const to = at(panel, times(line, p.lineK * high * p.rows), (g * high + r) * p.rows * 4 + v * step);
              b.do('store_bytes', to, code);
            });
          });
        }
      });

    /** One register tile over k4 steps [0, steps) of the panel: partial sums in registers, then added to y. */
    const tileOf = (t: Affine, tile: Affine, base: Affine, steps: number, tag: string, high: number) => {
      const vectors = high * lineVectors;
      const most = Math.min(stepsBeforeFlush(isa), steps);
      const unroll = Math.min(unrollK / 4, most);
      const chunk = Math.floor(most / unroll) * unroll;
      const part = (from: Affine, length: number, id: string) => {
        const dots = Array.from({ length: tokens }, (_, j) =>
          Array.from({ length: vectors }, (_, v) => b.variable(`dots${id}_t${j}_v${v}`, 'dot_zero')),
        );
        b.unrolled(`s${id}`, length, unroll, (s, u, rest) => {
          const name = `${id}${rest}_s${u}`;
          const at4 = plus(from, s);
          const codes = Array.from({ length: vectors }, (_, v) =>
            b.let(`w${name}_v${v}`, 'load_bytes', at(panel, times(at4, high * p.rows * 4), v * step)),
          );
          for (let j = 0; j < tokens; j++) {
            const xs = b.let(
              `x${name}_t${j}`,
              'broadcast4',
              at(x, times(plus(t, j), ldx), times(base, p.lineK), times(at4, 4)),
            );
            codes.forEach((code, v) => {
              b.set(dots[j]![v]!, 'dot_next', dots[j]![v]!, code, xs);
            });
          }
        });
        for (let j = 0; j < tokens; j++)
          for (let v = 0; v < vectors; v++) {
            const to = at(y, times(plus(t, j), ldy), times(tile, p.rows), v * isa.lanes);
            const before = b.let(`y${id}_t${j}_v${v}`, 'load_ints', to);
            b.do('store_ints', to, b.let(`sum${id}_t${j}_v${v}`, 'dot_flush', before, dots[j]![v]!));
          }
      };
      b.chunks(`chunk${tag}`, steps, chunk, (from, length, rest) => part(from, length, rest ? `${tag}r` : tag));
    };

    /** All tokens times the panel of `high` row tiles at `tile`. */
    const panelOf = (tile: Affine, tag: string, high: number) => {
      b.loop(`t${tag}i`, 0, count, 1, (t) => {
        const minus = b.let(`minus${tag}`, 'negate_int', b.let(`sum${tag}`, 'get_int', at(sums, t)));
        const bias = b.let(`bias${tag}`, 'splat_int', minus);
        for (let v = 0; v < high * lineVectors; v++)
          b.do('store_ints', at(y, times(t, ldy), times(tile, p.rows), v * isa.lanes), bias);
      });
      b.chunks(`block${tag}`, lines, blockLines, (base, lineCount, rest) => {
        const id = rest ? `${tag}y` : tag;
        expand(tile, base, lineCount, id, high);
        b.loop(`t${id}`, 0, count, tokens, (t) => tileOf(t, tile, base, (lineCount * p.lineK) / 4, id, high));
      });
    };
    b.loop('tile', 0, whole, panelTiles, (tile) => panelOf(tile, '', panelTiles));
    if (panelTiles > 1) b.loop('last', whole, end, 1, (tile) => panelOf(tile, 'o', 1));
  },

  reference: (spec, args) => dotReference(spec, args, args.tokens as number),

  samples: (isa) =>
    packingsFor(isa).flatMap((p) =>
      [p.lineK - 1, p.lineK * 8, p.lineK * 20 + 1, p.lineK * 40].map(
        (k, i): KernelSpec => ({
          op: 'gemm',
          act: 'i8',
          weight: p.token,
          out: 'i32',
          shape: { n: p.rows * (i + 2) - i, k },
          tile: gemmTile(isa, p),
          isa: isa.name,
          variant: `kb${p.lineK * 10}`,
        }),
      ),
    ),

  example: (spec, random, extreme) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const tokens = spec.tile[0]! * 2;
    const { trits, x, sums } = dotExample(n, k, tokens, activationStride(k), random, extreme);
    const tiles = tilesOf(p, n);
    const panelTiles = spec.tile[1]! / p.rows;
    return {
      w: pack(p, trits, n, k),
      x,
      sums,
      y: new Int32Array(tokens * productStride(p, n)),
      panel: new Uint8Array(blockOf(spec) * spec.tile[1]!),
      tokens,
      whole: Math.floor(tiles / panelTiles) * panelTiles,
      end: tiles,
    };
  },
};
