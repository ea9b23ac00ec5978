/**
 * Ternary matrix times one int8 vector (gemv, for decoding), or times 2, 4 or 8 (gemm, for batches), by byte dot products. Works
 * with every packing, through `unpack`. Weights are unpacked in registers, once for all vectors: with eight of them the work is
 * 40 dot steps and 21 other operations for a line of five fields, and those find room beside the dot steps.
 *
 *   y[t][r] = sum_k w[r][k] x[t][k] = sum_k (w[r][k] + 1) x[t][k] - sum_k x[t][k]
 *
 * The codes w + 1 are unsigned, as maddubs and dpbusd want them; the sum of x is subtracted once. A packing may leave the codes
 * of a field multiplied by a scale 2^s * odd; fields of one scale are summed together, and the sum S is divided in the end:
 * S >> s, times the inverse of the odd number modulo 2^32, exact because S is a multiple of the scale and |S| < 2^31. A thread calls it with its
 * range of row tiles and reads one sequential stream. With several vectors, codes are shifted down instead, so that one sum for
 * each vector is enough. Of panels (panels.ts) the products of some k are added to those before. Tile: tokens x rows of a line x k of one unrolled step;
 * variant pN: prefetch N bytes ahead, pNl2: into the L2 cache, p0: not at all.
 */
import type { Address, Affine } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import type { KernelSpec } from '../name.ts';
import { packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bandOf, eachBand, linesOf, loadLine, vectorsOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range, sampleTarget, stepsBeforeFlush } from './kernel.ts';
import { fewPrefetches, prefetches } from './prefetch.ts';
import {
  activations,
  BATCHES,
  divide,
  parameters,
  productSpec,
  samplesOf,
  tableRegisters,
  ternaryProduct,
} from './ternary.ts';

/** What both families have in common. */
const dotProducts = {
  ...ternaryProduct,
  source: 'dot-products.ts',
  needs: [
    'load_bytes',
    'broadcast4',
    'dot_zero',
    'dot_next',
    'pin',
    'dot_flush',
    'splat_int',
    'sub_ints',
    'add_ints',
    'load_ints',
    'store_ints',
    'prefetch',
  ],

  record: (b, spec, isa) => {
    const { p, k, panel, tokens, lines, ldx, ldy, w, x, totals, y, t0, t1, prefetch } = parameters(
      b,
      spec,
      activations(spec),
    );
    const unroll = spec.tile[2]! / p.lineK;
    const vectors = vectorsOf(p, isa);
    const pinned = tokens > 1 && isa.dot.products === 2;
    const unpack = p.unpacker(b, isa, tokens === 1 ? 'scaled' : 'codes');
    const sums = range(tokens).flatMap((t) => sumsOf(unpack.scales, vectors, tokens, t));
    // Partial sums stay in their registers over as many lines as the ISA allows: all of them, or a few.
    const most = Math.min(
      ...sums.map((s) => Math.floor(stepsBeforeFlush(isa, s.scale) / Math.ceil(s.fields / s.chains))),
    );
    const chunk = most >= lines ? lines : Math.max(unroll, Math.floor(most / unroll) * unroll);

    const products = (row: Address, firstRow: Affine) => {
      const zero = b.let('zero', 'integer', 0);
      const start = (id: string, v: number) => b.variable(`acc${id}_v${v}`, 'splat_int', zero);
      // With one chunk, int32 sums begin after it and take no registers before.
      const acc = sums.map(({ id }) => (chunk < lines ? range(vectors).map((v) => start(id, v)) : []));
      b.chunks('chunk', lines, chunk, (base, count, part) => {
        const dots = sums.map(({ id, chains }) =>
          range(chains).map((c) => range(vectors).map((v) => b.variable(`dots${part}${id}_c${c}_v${v}`, 'dot_zero'))),
        );
        b.unrolled(`i${part}`, count, unroll, (i, u, rest) => {
          const tag = `${part}${rest}_l${u}`;
          const line = plus(base, i);
          const address = at(row, times(line, p.lineBytes));
          prefetch(address, u);
          unpack.fields(loadLine(b, p, isa, address, tag), tag).forEach((codes, g) => {
            const unpacked = codes();
            sums.forEach(({ scale, token, id }, s) => {
              if (scale !== unpack.scales[g]) return;
              const from = at(x, times(line, p.lineK), token * ldx + 4 * g);
              const xg = b.let(`x${tag}_g${g}${tokens === 1 ? '' : id}`, 'broadcast4', from);
              const chains = dots[s]!;
              unpacked.forEach((code, v) => {
                const sum = chains[g % chains.length]![v]!;
                b.set(sum, 'dot_next', sum, code, xg);
                // Sums of pairs are additions: clang would do several products first, and spill.
                if (pinned) b.set(sum, 'pin', sum);
              });
            });
          });
        });
        dots.forEach((chains, s) => {
          const own = acc[s]!;
          for (const chain of chains)
            chain.forEach((d, v) => {
              own[v] ??= start(sums[s]!.id, v);
              b.set(own[v], 'dot_flush', own[v], d);
            });
        });
      });
      sums.forEach(({ scale, token }, s) => {
        for (const a of acc[s]!) divide(b, a, scale);
        const first = sums.findIndex((other) => other.token === token);
        if (s > first)
          acc[first]!.forEach((a, v) => {
            b.set(a, 'add_ints', a, acc[s]![v]!);
          });
      });
      range(tokens).forEach((t) => {
        const id = tokens === 1 ? '' : `_t${t}`;
        const to = (v: number) => at(y, t * ldy, firstRow, v * isa.lanes);
        const bias = panel ? undefined : b.let(`bias${id}`, 'splat_int', b.let(`sum${id}`, 'get_int', at(totals, t)));
        acc[sums.findIndex((s) => s.token === t)]!.forEach((a, v) => {
          const result = bias
            ? b.let(`y${id}_v${v}`, 'sub_ints', a, bias)
            : b.let(`y${id}_v${v}`, 'add_ints', a, b.let(`before${id}_v${v}`, 'load_ints', to(v)));
          b.do('store_ints', to(v), result);
        });
      });
    };
    b.loop('tile', t0, t1, 1, (tile) => eachBand(b, p, spec.tile[1]!, w, k, tile, products));
  },
} satisfies Partial<KernelFamily>;

/** Most lines that are unrolled entirely: 160 take clang 19 a second or two, and 40 KB of code are more than the L1 cache holds. */
const MOST_LINES = 160;
/** All lines of a row, where that is worth a try: with the preferred prefetch, the first. */
const entirely = (p: Packing, k: number, i: number): number[] =>
  i === 0 && linesOf(p, k) <= MOST_LINES ? [linesOf(p, k)] : [];

/** One vector. */
export const gemv: KernelFamily = {
  ...dotProducts,
  formula: 'y[n] = W[n][k] . x[k], exact int32',

  product: {
    // Columns are read in pieces: they are for look-ups.
    candidates: (cpu, p, n, k) =>
      p.lookUp
        ? []
        : prefetches(cpu, p.ahead).flatMap((variant, i) =>
            [...new Set([p.unroll, 1, 2, 4, 8, 16, ...entirely(p, k, i)])].map((lines) =>
              productSpec('gemv', cpu.isa, p, n, k, [1, p.rows, lines * p.lineK], variant),
            ),
          ),
  },

  samples: (isa) =>
    packingsFor(isa)
      .filter((p) => !p.lookUp)
      .flatMap((p) =>
        [p.lineK * 4 - 1, p.lineK * 4, p.lineK * 4 + 1, 2560, 6912].map((k, i) =>
          productSpec(
            'gemv',
            isa.name,
            p,
            p.rows * 3 + i - 2,
            k,
            [1, p.rows, p.lineK * 4],
            i % 2 ? `p${p.ahead}l2` : 'p8192',
          ),
        ),
      ),
};

/** Several vectors. */
export const gemm: KernelFamily = {
  ...dotProducts,
  formula: 'y[t][n] = W[n][k] . x[t][k], exact int32',

  batch: (cpu, p, n, k) => {
    const isa = isaOf(cpu.isa);
    // Sums, a line, its codes, an activation, products and a mask.
    const vectorsFit = (tokens: number) =>
      (tokens + 2) * vectorsOf(p, isa) + 3 + tableRegisters(p, isa) <= isa.registers;
    // Bands of columns and eight activations are more addresses than NEON has registers for.
    const fits = (tokens: number) => vectorsFit(tokens) && (tokens < 8 || !p.lookUp);
    // One line a step: that is work enough, and keeps the code small.
    return BATCHES.filter(fits).flatMap((tokens) =>
      fewPrefetches(cpu, p.ahead).flatMap((variant) =>
        [1, 2, 4].map((lines) =>
          productSpec('gemm', isa.name, p, n, k, [tokens, bandOf(p, isa), lines * p.lineK], variant),
        ),
      ),
    );
  },

  samples: (isa) =>
    packingsFor(isa).flatMap((p) => {
      const specs = samplesOf(gemm.batch!(sampleTarget(isa), p, (p.rows > 32 ? 1 : 3) * p.rows - 1, p.lineK * 27 + 1));
      // A panel is never columns of bytes.
      return p.lookUp
        ? specs
        : [...specs, ...specs.slice(0, 1).map((spec) => ofPanel(spec, 8 * p.lineK, 8 * p.lineK + 64))];
    }),
};

/** The kernel for panels of k columns. @param stride from one token's activations to the next */
export const ofPanel = (spec: KernelSpec, k: number, stride: number): KernelSpec => ({
  ...spec,
  shape: { n: spec.shape.n!, k, x: stride },
  variant: 'p0',
});

/**
 * The sums that a tile keeps for one of `tokens` tokens: one for each scale of the packing's fields, in as many chains as hide the
 * latency of a dot step.
 */
function sumsOf(scales: readonly number[], vectors: number, tokens: number, token: number) {
  // A dot step takes 4-5 cycles, and one or two start in a cycle.
  const chains = Math.max(1, Math.floor(4 / vectors / new Set(scales).size / tokens));
  return [...new Set(scales)].map((scale) => ({
    scale,
    token,
    id: `${scale === 1 ? '' : `_s${scale}`}${tokens === 1 ? '' : `_t${token}`}`,
    fields: scales.filter((s) => s === scale).length,
    chains,
  }));
}
