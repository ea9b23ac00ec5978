/**
 * Ternary matrix times one int8 vector by byte dot products: the decode kernel. Works with every packing, through `unpack`.
 *
 *   y[r] = sum_k w[r][k] x[k] = sum_k (w[r][k] + 1) x[k] - sum_k x[k]
 *
 * The codes w + 1 are unsigned, as maddubs and dpbusd want them; the sum of x is subtracted once. A packing may leave the codes
 * of a field multiplied by a scale 2^s * odd; fields of one scale are summed together, and the sum S is divided in the end:
 * S >> s, times the inverse of the odd number modulo 2^32, exact because S is a multiple of the scale and |S| < 2^31. A thread calls it with its
 * range of row tiles and reads one sequential stream. Tile: 1 token x rows of a line x k of one unrolled step;
 * variant pN: prefetch N bytes ahead, pNl2: into the L2 cache, p0: not at all.
 */
import { at, plus, times } from '../ir/record.ts';
import type { KernelSpec } from '../name.ts';
import { packingOf, packingsFor } from '../packings/index.ts';
import { bytesOf, linesOf, loadLine, pack, tileBytes, tilesOf, vectorsOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range, roundUp, stepsBeforeFlush } from './kernel.ts';
import { dotExample, dotReference } from './ternary.ts';

export const gemv: KernelFamily = {
  source: 'gemv.ts',
  formula: 'y[n] = W[n][k] . x[k], exact int32',
  needs: [
    'load_bytes',
    'broadcast4',
    'dot_zero',
    'dot_next',
    'dot_flush',
    'splat_int',
    'sub_ints',
    'store_ints',
    'prefetch',
  ],

  product: {
    phase: 'decode',
    candidates: (cpu, p, n, k) =>
      [...new Set([p.prefetch, 'p4096', 'p8192', 'p12288l2', 'p24576l2', 'p0'])].flatMap((variant) =>
        [...new Set([p.unroll, 1, 2, 4, 8, 16])].map(
          (lines): KernelSpec => ({
            op: 'gemv',
            act: 'i8',
            weight: p.token,
            out: 'i32',
            shape: { n, k },
            tile: [1, p.rows, lines * p.lineK],
            isa: cpu.isa,
            variant,
          }),
        ),
      ),
  },

  record: (b, spec, isa) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const lines = linesOf(p, k);
    const unroll = spec.tile[2]! / p.lineK;
    const tiles = tilesOf(p, n);
    const w = b.pointer('w', {
      element: 'u8',
      access: 'in',
      extent: bytesOf(p, n, k),
      doc: `weights [${tiles} row tiles][${lines} lines][${p.lineBytes} bytes], packing ${p.token}`,
    });
    const x = b.pointer('x', {
      element: 'i8',
      access: 'in',
      extent: lines * p.lineK,
      doc: `activations [${k}], int8, zero up to ${lines * p.lineK}`,
    });
    const sum = b.scalar('int', 'sum', 'sum of x');
    const y = b.pointer('y', {
      element: 'i32',
      access: 'out',
      extent: tiles * p.rows,
      doc: `result [${n}], padded to ${tiles * p.rows}`,
    });
    const t0 = b.long('t0', 0, tiles, 'first row tile');
    const t1 = b.long('t1', 0, tiles, 'row tile to stop before');
    const [, ahead, level] = /^p(\d+)(?:l(2))?$/.exec(spec.variant!)!.map(Number) as [number, number, number];
    const vectors = vectorsOf(p, isa);
    const unpack = p.unpacker(b, isa, true);
    const sums = sumsOf(unpack.scales, vectors);
    // Partial sums stay in their registers over as many lines as the ISA allows: all of them, or a few.
    const most = Math.min(
      ...sums.map((s) => Math.floor(stepsBeforeFlush(isa, s.scale) / Math.ceil(s.fields / s.chains))),
    );
    const chunk = most >= lines ? lines : Math.max(unroll, Math.floor(most / unroll) * unroll);

    b.loop('tile', t0, t1, 1, (tile) => {
      const row = at(w, times(tile, tileBytes(p, k)));
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
          // Once for each 64 bytes that the step reads.
          for (let byte = 0; ahead && byte < p.lineBytes; byte += 64)
            if ((u * p.lineBytes) % 64 === 0) b.do('prefetch', at(address, ahead + byte), level || 0);
          unpack.fields(loadLine(b, p, isa, address, tag), tag).forEach((codes, g) => {
            const xg = b.let(`x${tag}_g${g}`, 'broadcast4', at(x, times(line, p.lineK), 4 * g));
            const chains = dots[sums.findIndex((s) => s.scale === unpack.scales[g])]!;
            codes().forEach((code, v) => {
              const sum = chains[g % chains.length]![v]!;
              b.set(sum, 'dot_next', sum, code, xg);
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
      sums.forEach(({ scale }, s) => {
        const power = 31 - Math.clz32(scale & -scale);
        const odd = scale >> power;
        acc[s]!.forEach((a) => {
          if (power) b.set(a, 'shift_ints', a, power);
          if (odd > 1) b.set(a, 'mul_ints', a, inverse(odd));
        });
        if (s)
          acc[0]!.forEach((a, v) => {
            b.set(a, 'add_ints', a, acc[s]![v]!);
          });
      });
      const bias = b.let('bias', 'splat_int', sum);
      acc[0]!.forEach((a, v) => {
        b.do('store_ints', at(y, times(tile, p.rows), v * isa.lanes), b.let(`y_v${v}`, 'sub_ints', a, bias));
      });
    });
  },

  reference: (spec, args) => dotReference(spec, args, 1),

  samples: (isa) =>
    packingsFor(isa).flatMap((p) =>
      [p.lineK * 4 - 1, p.lineK * 4, p.lineK * 4 + 1, 2560, 6912].map(
        (k, i): KernelSpec => ({
          op: 'gemv',
          act: 'i8',
          weight: p.token,
          out: 'i32',
          shape: { n: p.rows * 3 + i - 2, k },
          tile: [1, p.rows, p.lineK * 4],
          isa: isa.name,
          variant: i % 2 ? p.prefetch : 'p8192',
        }),
      ),
    ),

  example: (spec, random, extreme) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const { trits, x, sums } = dotExample(n, k, 1, roundUp(k, p.lineK), random, extreme);
    return {
      w: pack(p, trits, n, k),
      x,
      sum: sums[0]!,
      y: new Int32Array(roundUp(n, p.rows)),
      t0: 0,
      t1: tilesOf(p, n),
    };
  },
};

/** The sums that a tile keeps: one for each scale of the packing's fields, in as many chains as hide the latency of a dot step. */
function sumsOf(scales: readonly number[], vectors: number) {
  // A dot step takes 4-5 cycles, and one or two start in a cycle.
  const chains = Math.max(1, Math.floor(4 / vectors / new Set(scales).size));
  return [...new Set(scales)].map((scale) => ({
    scale,
    id: scale === 1 ? '' : `_s${scale}`,
    fields: scales.filter((s) => s === scale).length,
    chains,
  }));
}

/** odd^-1 modulo 2^32, as an int32: Newton's iteration doubles the number of correct bits, from 3. */
function inverse(odd: number): number {
  let x = odd;
  for (let i = 0; i < 4; i++) x = Math.imul(x, 2 - Math.imul(odd, x));
  return x;
}
