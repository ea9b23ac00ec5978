/**
 * Ternary matrix times 2, 4 or 8 int8 vectors by products of small matrices: one instruction multiplies the codes of two rows
 * by two tokens, 2 x 8 by 8 x 2, twice the products of a byte dot product of the same width. The same function as gemm in
 * dot-products.ts, of the same bytes:
 *
 *   y[t][r] = sum_k (w[r][k] + 1) x[t][k] - sum_k x[t][k]
 *
 * A field of a line has four k of every row: in a vector [row][4 k]. Interleaving the rows of two fields that follow each other gives
 *
 *   zip4_low   [row 0: k .. k+7][row 1: k .. k+7]      zip4_high   [row 2: ...][row 3: ...]        (of 128 bits)
 *
 * and load_pair8 the same eight k of two tokens. Fields are paired without regard to the lines that they are in, as k goes on from one to
 * the next: a step is two lines where a line has an odd number of fields. Beside a field that is left over in the end, codes are 0
 * (and whatever activations). A sum is [row][token] in each 2 x 2 block; interleaving sorts them at the end of a tile.
 *
 * Bounds: codes <= 2 are the same as u8 and as s8; |x| <= 127. A step adds at most 8 * 2 * 127 = 2,032 to a partial sum, which holds
 * (2^31 - 1) / 2,032 = 1,056,832 of them, k = 8,454,656: they are never flushed in between, and check() would refuse a longer k.
 * Tile: tokens x rows of a line x k of one step; variant as in dot-products.ts.
 */
import type { Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import { packingsFor } from '../packings/index.ts';
import { loadLine, tileBytes, vectorsOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range, sampleTarget } from './kernel.ts';
import { fewPrefetches } from './prefetch.ts';
import { activations, BATCHES, parameters, productSpec, samplesOf, tableRegisters, ternaryProduct } from './ternary.ts';

const HALVES = ['zip4_low', 'zip4_high'] as const;

export const mmla: KernelFamily = {
  ...ternaryProduct,
  source: 'matrix-products.ts',
  formula: 'y[t][n] = W[n][k] . x[t][k], exact int32',
  needs: [
    'load_bytes',
    'load_pair8',
    'zip4_low',
    'zip4_high',
    'field',
    'dot_zero',
    'mat_next',
    'pin',
    'dot_flush',
    'splat_int',
    'zip_low',
    'zip_high',
    'sub_ints',
    'store_ints',
    'prefetch',
  ],

  batch: (cpu, p, n, k) => {
    const isa = isaOf(cpu.isa);
    // Sums, rows, a line, two codes, activations and a mask.
    const fits = (tokens: number) =>
      !p.lookUp && (tokens + 3) * vectorsOf(p, isa) + 4 + tableRegisters(p, isa) <= isa.registers;
    const step = p.lineK % 8 ? 2 * p.lineK : p.lineK;
    return BATCHES.filter(fits).flatMap((tokens) =>
      fewPrefetches(cpu, p.ahead).flatMap((variant) =>
        [1, 2].map((steps) => productSpec('mmla', isa.name, p, n, k, [tokens, p.rows, steps * step], variant)),
      ),
    );
  },

  record: (b, spec, isa) => {
    const { p, k, tokens, lines, ldx, ldy, w, x, totals, y, t0, t1, prefetch } = parameters(
      b,
      spec,
      activations(spec, 8),
    );
    const vectors = range(vectorsOf(p, isa));
    const pairs = range(tokens / 2);
    const fields = p.lineK / 4;
    const unpack = p.unpacker(b, isa, 'codes');

    b.loop('tile', t0, t1, 1, (tile) => {
      const row = at(w, times(tile, tileBytes(p, k)));
      const sums = vectors.map((v) =>
        HALVES.map((_, h) => pairs.map((t) => b.variable(`dots_v${v}_h${h}_t${t}`, 'dot_zero'))),
      );
      b.chunks('i', lines, spec.tile[2]! / p.lineK, (base, count, rest) => {
        /** Fields of a line, for each vector of rows on its own, so that few codes live at once. */
        const opened: (readonly (() => Value[])[])[][] = [];
        const open = (u: number) => {
          const line = at(row, times(plus(base, u), p.lineBytes));
          prefetch(line, u);
          const tag = `${rest}_l${u}`;
          return loadLine(b, p, isa, line, tag).map((bytes, v) => unpack.fields([bytes], `${tag}_r${v}`));
        };
        const code = (f: number, v: number): Value => {
          const u = Math.floor(f / fields);
          opened[u] ??= open(u);
          return opened[u][v]![f % fields]!()[0]!;
        };
        for (let f = 0; f < count * fields; f += 2) {
          const tag = `${rest}_f${f}`;
          const rows = vectors.map((v) => {
            const first = code(f, v);
            const last = f + 1 === count * fields;
            const second = last ? b.let(`none${tag}_r${v}`, 'field', first, 0, 0) : code(f + 1, v);
            return HALVES.map((zip, h) => b.let(`rows${tag}_r${v}_h${h}`, zip, first, second));
          });
          for (const t of pairs) {
            const from = plus(times(base, p.lineK), 4 * f);
            const xt = b.let(`x${tag}_t${t}`, 'load_pair8', at(x, from, 2 * t * ldx), at(x, from, (2 * t + 1) * ldx));
            rows.forEach((halves, v) => {
              halves.forEach((codes, h) => {
                const sum = sums[v]![h]![t]!;
                b.set(sum, 'mat_next', sum, codes, xt);
                // clang would bring the look-ups of the next line forward, and spill.
                b.set(sum, 'pin', sum);
              });
            });
          }
        }
      });

      const zero = b.let('zero', 'splat_int', b.let('nothing', 'integer', 0));
      const biases = range(tokens).map((t) =>
        b.let(`bias_t${t}`, 'splat_int', b.let(`sum_t${t}`, 'get_int', at(totals, t))),
      );
      sums.forEach((own, v) => {
        pairs.forEach((pair) => {
          const id = `_v${v}_t${pair}`;
          // [row][token] over both halves; log2 lanes rounds of interleaving make it [token][row].
          let both = own.map((sum, h) => b.let(`acc${id}_h${h}`, 'dot_flush', zero, sum[pair]!));
          for (let round = 1; round < isa.lanes; round *= 2)
            both = (['zip_low', 'zip_high'] as const).map((zip, h) =>
              b.let(`z${round}${id}_h${h}`, zip, both[0]!, both[1]!),
            );
          both.forEach((acc, i) => {
            const t = 2 * pair + i;
            const to = at(y, t * ldy, times(tile, p.rows), v * isa.lanes);
            b.do('store_ints', to, b.let(`y_t${t}_v${v}`, 'sub_ints', acc, biases[t]!));
          });
        });
      });
    });
  },

  // One line, an odd number and an even number of lines.
  samples: (isa) =>
    packingsFor(isa).flatMap((p) =>
      [p.lineK - 1, p.lineK * 27, p.lineK * 27 + 1].flatMap((k) =>
        samplesOf(mmla.batch!(sampleTarget(isa), p, p.rows * 3 - 1, k)),
      ),
    ),
};
