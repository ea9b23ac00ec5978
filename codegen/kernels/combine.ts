/**
 * The last step of attention, for one query head: brings the spans of a query position together and divides.
 *
 *   M = max_s m_s,  c_s = e^(m_s - M),  o = (sum_s o_s c_s) / (sum_s l_s c_s)          s = 0 .. spans - 1, ascending
 *
 * With one span c_0 = e^0 = 1, and o = o_0 / l_0. Tile: 1 x 1 x dims of one register tile.
 */
import { exp, expGroup } from '../ir/lanes.ts';
import { at, times } from '../ir/record.ts';
import { fmaf } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { partSize, SPAN, sampledGroups } from './attention-blocks.ts';
import type { KernelFamily } from './kernel.ts';
import { LANES, range, roundUp } from './kernel.ts';

/** Spans that buffers are declared for: 2^20 positions, more than any model. */
const MOST_SPANS = 2 ** 20 / SPAN;

/** Dims at once: all, at most eight vectors. */
export const combineTile = (isa: Isa, d: number): [number, number, number] => [
  1,
  1,
  Math.min(roundUp(d, LANES), 8 * isa.lanes),
];

export const combine: KernelFamily = {
  source: 'combine.ts',
  formula: 'o[d] = sum_s o_s[d] e^(m_s - max m) / sum_s l_s e^(m_s - max m) for one query head',
  needs: ['load_floats', 'store_floats', 'constant', 'splat', 'fma', 'mul', 'div', 'max', 'min', 'round', 'exp2i'],

  record: (b, spec, isa) => {
    const { g, d } = spec.shape as { g: number; d: number };
    const L = isa.lanes;
    const padded = roundUp(d, LANES);
    const states = roundUp(g, LANES);
    const part = partSize(g, d);
    const between = (MOST_SPANS - 1) * part;
    const sums = b.pointer('sums', {
      element: 'f32',
      access: 'in',
      extent: between + padded,
      doc: `sums of the head in the first part [${padded}]; the next part's lie ${part} floats on`,
    });
    const state = b.pointer('state', {
      element: 'f32',
      access: 'in',
      extent: between + states + 1,
      doc: `maximum of the head in the first part, its sum of weights ${states} floats on; and so in the next part`,
    });
    const o = b.pointer('o', { element: 'f32', access: 'out', extent: padded, doc: `result [${padded}]` });
    const spans = b.long('spans', 1, MOST_SPANS, 'parts');

    const top = b.variable('top', 'get', state);
    b.loop('t', 1, spans, 1, (s) => b.set(top, 'max1', top, b.let('m_first', 'get', at(state, times(s, part)))));
    b.chunks('d', padded, spec.tile[2]!, (d0, dims, id) => {
      const vectors = range(dims / L);
      const acc = vectors.map((v) => b.variable(`acc${id}_${v}`, 'constant', 0));
      const total = b.variable(`total${id}`, 'constant', 0);
      b.loop(`s${id}`, 0, spans, 1, (s) => {
        const m = b.let(`m${id}`, 'get', at(state, times(s, part)));
        const below = b.let(`below${id}`, 'splat', b.let(`below1${id}`, 'sub1', m, top));
        const c = expGroup(b, `c${id}`, [below])[0]!;
        const l = b.let(`l${id}`, 'splat', b.let(`l1${id}`, 'get', at(state, times(s, part), states)));
        b.set(total, 'fma', l, c, total);
        acc.forEach((sum, v) => {
          b.set(sum, 'fma', b.let(`o${id}_${v}`, 'load_floats', at(sums, times(s, part), d0, v * L)), c, sum);
        });
      });
      acc.forEach((sum, v) => {
        b.do('store_floats', at(o, d0, v * L), b.let(`ratio${id}_${v}`, 'div', sum, total));
      });
    });
  },

  reference: (spec, args) => {
    const f = Math.fround;
    const { g, d } = spec.shape as { g: number; d: number };
    const { sums, state, o } = args as unknown as Record<string, Float32Array>;
    const part = partSize(g, d);
    const parts = range(args.spans as number);
    const top = Math.max(...parts.map((s) => state![s * part]!));
    const factors = parts.map((s) => exp(f(state![s * part]! - top)));
    const fold = (value: (s: number) => number) => factors.reduce((sum, c, s) => fmaf(value(s), c, sum), 0);
    const total = fold((s) => state![s * part + roundUp(g, LANES)]!);
    for (let i = 0; i < o!.length; i++) o![i] = fold((s) => sums![s * part + i]!) / total;
  },

  samples: (isa) =>
    sampledGroups.map(
      (shape): KernelSpec => ({
        op: 'combine',
        act: 'f32',
        weight: 'none',
        out: 'f32',
        shape,
        tile: combineTile(isa, shape.d),
        isa: isa.name,
      }),
    ),

  example: (spec, random, extreme) => {
    const { g, d } = spec.shape as { g: number; d: number };
    const part = partSize(g, d);
    const states = roundUp(g, LANES);
    const spans = extreme ? 1 : random.integer(2, 5);
    const between = (spans - 1) * part;
    return {
      sums: Float32Array.from(range(between + roundUp(d, LANES)), random.normal),
      // A maximum at every multiple of `part`, a sum of weights `states` further on, which is at least 1.
      state: Float32Array.from(range(between + states + 1), (i) =>
        i % part === states ? 1 + 30 * Math.abs(random.normal()) : 10 * random.normal(),
      ),
      o: new Float32Array(roundUp(d, LANES)),
      spans,
    };
  },
};
