/**
 * Attention of one query position over one span of one key-value head, for the g query heads that share it, with a cache of
 * float32 or binary16:
 *
 *   s_j = scale (q . k_j),  p = softmax(s),  o = sum_j p_j v_j
 *
 * Sums q . k and p . v are fused multiply-adds in ascending order; attention-blocks.ts has the order of everything else.
 * Cache layouts: keys [position / 16][d][16 positions], so that a lane is a position and no horizontal sum is needed; values
 * [position][d rounded up to 16]. Initialised, finite.
 * Tile: query heads x positions of a score x value dims of one register tile.
 */
import type { Affine, Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { fmaf } from '../ir/words.ts';
import type { KernelSpec } from '../name.ts';
import {
  attentionTile,
  BLOCK,
  blocksExample,
  declareBlocks,
  foldValues,
  KEYS_AHEAD,
  positionsOf,
  recordBlocks,
  referencePart,
  SPAN,
  sampledGroups,
} from './attention-blocks.ts';
import { floatTypes, readFloat } from './elementwise.ts';
import type { KernelFamily } from './kernel.ts';
import { LANES, range, roundUp } from './kernel.ts';
import { headStride } from './rope.ts';

export const attention: KernelFamily = {
  source: 'attention.ts',
  formula: 'o[g][d] = e^(scale q[g] . K - m[g]) . V over a span of positions of one key-value head',
  needs: [
    'load_floats',
    'store_floats',
    'load_halves',
    'prefetch',
    'constant',
    'fma',
    'mul',
    'add',
    'sub',
    'max',
    'min',
    'round',
    'exp2i',
    'sum',
    'peak',
    'splat',
  ],

  record: (b, spec, isa) => {
    const { g, d } = spec.shape as { g: number; d: number };
    const L = isa.lanes;
    const padded = roundUp(d, LANES);
    const stride = headStride(d);
    const type = floatTypes[spec.weight as 'f32' | 'f16'];
    /** Elements of 64 bytes. */
    const line64 = spec.weight === 'f32' ? 16 : 32;
    const [tileHeads, tilePositions, tileDims] = spec.tile as [number, number, number];

    const q = b.pointer('q', {
      element: 'f32',
      access: 'in',
      extent: g * stride,
      doc: `rotated queries [${g}][${stride}]`,
    });
    const keys = b.pointer('keys', {
      element: type.element,
      access: 'in',
      extent: SPAN * d,
      doc: `keys of the span [${SPAN / LANES}][${d}][16], ${spec.weight}`,
    });
    const values = b.pointer('values', {
      element: type.element,
      access: 'in',
      extent: SPAN * padded,
      doc: `values of the span [${SPAN}][${padded}], ${spec.weight}`,
    });
    const frame = declareBlocks(b, g, d);
    const scale = b.let('scale_all', 'splat', b.scalar('float', 'scale', '1 / sqrt(d)'));

    /** One tile of scores: `heads` from h0, `lines` of 16 positions from `line`, in each the positions p .. p + count. */
    const scoreTile = (
      id: string,
      block: Affine,
      h0: Affine,
      heads: number,
      line: Affine,
      lines: number,
      p: Affine,
      count: number,
    ) => {
      const vectors = range(lines).flatMap((n) => range(count / L).map((v) => ({ line: plus(line, n), v })));
      const acc = range(heads).map((h) => vectors.map((_, v) => b.variable(`s${id}_${h}_${v}`, 'constant', 0)));
      b.unrolled(`i${id}`, d, 4, (i, u, more) => {
        const name = `${id}_${more}u${u}`;
        for (let n = 0; n < lines * LANES; n += line64)
          b.do(
            'prefetch',
            at(values, times(block, BLOCK * padded), times(line, LANES * d), times(i, lines * LANES), n),
            2,
          );
        const k = vectors.map((from, v) =>
          b.let(
            `k${name}_${v}`,
            type.load,
            at(keys, times(block, BLOCK * d), times(from.line, LANES * d), times(i, LANES), p, from.v * L),
          ),
        );
        acc.forEach((sums, h) => {
          const q1 = b.let(`q1${name}_${h}`, 'get', at(q, times(plus(h0, h), stride), i));
          const qi = b.let(`q${name}_${h}`, 'splat', q1);
          sums.forEach((sum, v) => {
            b.set(sum, 'fma', k[v]!, qi, sum);
          });
        });
      });
      acc.forEach((sums, h) => {
        sums.forEach((sum, v) => {
          const to = frame.score(block, plus(h0, h), plus(times(vectors[v]!.line, LANES), p, vectors[v]!.v * L));
          b.do('store_floats', to, b.let(`scaled${id}_${h}_${v}`, 'mul', sum, scale));
        });
      });
    };

    recordBlocks(b, isa, g, d, frame, {
      scores: (block) =>
        b.chunks('hs', g, tileHeads, (h0, heads, hTag) =>
          b.chunks(`line${hTag}`, BLOCK / LANES, Math.ceil(tilePositions / LANES), (line, lines) =>
            b.chunks(`p${hTag}`, LANES, Math.min(tilePositions, LANES), (p, count) =>
              scoreTile(`_${hTag}`, block, h0, heads, line, lines, p, count),
            ),
          ),
        ),
      anyValues: false,
      weigh: (block, id, valid) =>
        b.chunks(`hw${id}`, g, tileHeads, (h0, heads, hTag) =>
          b.chunks(`d${id}${hTag}`, padded, tileDims, (d0, dims, dTag) => {
            const tag = `${id}${hTag}${dTag}`;
            const vectors = range(dims / L);
            const acc = range(heads).map((h) => vectors.map((v) => b.variable(`w${tag}_${h}_${v}`, 'constant', 0)));
            const position = (j: Affine, name: string) => {
              const from = at(values, times(block, BLOCK * padded), times(j, padded), d0);
              if (!valid)
                for (let n = 0; n < dims; n += line64)
                  b.do('prefetch', at(keys, times(plus(block, KEYS_AHEAD), BLOCK * d), times(j, padded), d0, n), 2);
              const v: Value[] = vectors.map((i) => b.let(`v${name}_${i}`, type.load, at(from, i * L)));
              acc.forEach((sum, h) => {
                const p1 = b.let(`pj1${name}_${h}`, 'get', frame.score(block, plus(h0, h), j));
                const p = b.let(`pj${name}_${h}`, 'splat', p1);
                sum.forEach((a, i) => {
                  b.set(a, 'fma', v[i]!, p, a);
                });
              });
            };
            if (valid) b.loop(`j${tag}`, 0, valid, 1, (j) => position(j, `${tag}_p`));
            else b.unrolled(`j${tag}`, BLOCK, 2, (j, u) => position(j, `${tag}_u${u}`));
            acc.forEach((sums, h) => {
              const head = plus(h0, h);
              foldValues(b, L, `${tag}_${h}`, frame, block, head, at(frame.part, times(head, padded), d0), sums);
            });
          }),
        ),
    });
  },

  reference: (spec, args) => {
    const f = Math.fround;
    const { g, d } = spec.shape as { g: number; d: number };
    const padded = roundUp(d, LANES);
    const { q, keys, values, part } = args as unknown as Record<string, Float32Array>;
    const scale = f(args.scale as number);
    const key = (j: number, i: number) =>
      readFloat(spec.weight, keys![(Math.floor(j / LANES) * d + i) * LANES + (j % LANES)]!);
    referencePart(part!, g, d, positionsOf(args), (h, start, n) => ({
      scores: range(n).map((j) => {
        let sum = 0;
        for (let i = 0; i < d; i++) sum = fmaf(key(start + j, i), q![h * headStride(d) + i]!, sum);
        return f(sum * scale);
      }),
      weigh: (p) => {
        const sums = new Float32Array(padded);
        for (let j = 0; j < n; j++)
          for (let i = 0; i < padded; i++)
            sums[i] = fmaf(readFloat(spec.weight, values![(start + j) * padded + i]!), p[j]!, sums[i]!);
        return { sums, scale: 1 };
      },
    }));
  },

  samples: (isa) =>
    ['f32', 'f16'].flatMap((weight) =>
      sampledGroups.map(
        (shape): KernelSpec => ({
          op: 'attention',
          act: 'f32',
          weight,
          out: 'f32',
          shape,
          tile: attentionTile(isa, shape.g),
          isa: isa.name,
        }),
      ),
    ),

  example: (spec, random, extreme) => {
    const { g, d } = spec.shape as { g: number; d: number };
    const frame = blocksExample(g, d, random, extreme);
    const capacity = frame.blocks * BLOCK;
    const cache = (n: number) =>
      spec.weight === 'f32'
        ? Float32Array.from(range(n), random.normal)
        : Uint16Array.from(range(n), () => (random.integer(0, 1) << 15) | random.integer(0x2c00, 0x4200));
    return {
      ...frame,
      q: Float32Array.from(range(g * headStride(d)), random.normal),
      keys: cache(capacity * d),
      values: cache(capacity * roundUp(d, LANES)),
      scale: 1 / Math.sqrt(d),
    };
  },
};
