/**
 * RMSNorm and activation quantisation of one token, fused; with weight `none` the norm is left out, with out `f32` the
 * quantisation is.
 *
 *   r = 1 / sqrt(mean(x^2) + eps),  h = (x r) w,  s = 127 / max(max|h|, 1e-5),  q = round_half_even(h s)
 *
 * NaN and infinity: if x or w holds one, or the mean overflows, every h is NaN (out f32), or the stored scale is NaN or infinite
 * (out i8), and so is all that is computed with it; q is in its range all the same (quantise.ts).
 *
 * Also stored: max|h| / 127, which scales products back, and the sum of q, which the ternary products subtract.
 * Source of the formulas: BitNet b1.58 as Hugging Face transformers runs it (BitLinear, ActQuant). Tile: 1 x 1 x 16 lanes.
 */
import { laneSum, loadGroup, mapGroup, reduceGroup, storeGroup } from '../ir/lanes.ts';
import type { Value } from '../ir/record.ts';
import { at, times } from '../ir/record.ts';
import { fmaf, roundHalfEven } from '../ir/words.ts';
import type { KernelSpec } from '../name.ts';
import type { KernelFamily } from './kernel.ts';
import { LANES, range, roundUp } from './kernel.ts';
import { toCode } from './quantise.ts';

export const norm: KernelFamily = {
  source: 'norm.ts',
  formula: 'h = rmsnorm(x) * w; q = round(h * 127 / max|h|)',
  needs: [
    'load_floats',
    'store_floats',
    'fma',
    'mul',
    'max',
    'max_or_nan',
    'abs',
    'sum',
    'peak_or_nan',
    'round',
    'store_int8',
    'add_ints',
    'sum_ints',
  ],

  record: (b, spec, isa) => {
    const k = spec.shape.k!;
    const padded = roundUp(k, LANES);
    const L = isa.lanes;
    const x = b.pointer('x', {
      element: 'f32',
      access: 'in',
      extent: padded,
      doc: `input [${k}], zero up to ${padded}`,
    });
    const normed = spec.weight !== 'none';
    const w =
      normed &&
      b.pointer('w', {
        element: 'f32',
        access: 'in',
        extent: padded,
        doc: `norm weights [${k}], zero up to ${padded}`,
      });
    const eps = normed && b.scalar('float', 'eps', 'added to the mean square');
    const quantised = spec.out === 'i8';
    const h = b.pointer('h', {
      element: 'f32',
      access: quantised ? 'scratch' : 'out',
      extent: padded,
      doc: `normed values [${padded}]`,
    });

    const unroll = 4;
    let factor: Value | undefined;
    if (normed) {
      const squares = range(LANES / L).map((v) => b.variable(`squares_${v}`, 'constant', 0));
      b.unrolled('i', padded / LANES, unroll, (i, u, tag) => {
        const xs = loadGroup(b, L, `xs${tag}${u}`, 'load_floats', at(x, times(i, LANES)));
        xs.forEach((value, v) => {
          b.set(squares[v]!, 'fma', value, value, squares[v]!);
        });
      });
      const mean = b.let('mean', 'div1', reduceGroup(b, 'total', 'add', squares), b.let('count', 'number', k));
      const root = b.let('root', 'sqrt1', b.let('mean_eps', 'add1', mean, eps as Exclude<typeof eps, false>));
      // 1 / sqrt(infinity) would be a sound 0.
      const r = b.let('r', 'div1', b.let('one', 'number', 1), root);
      factor = b.let('factor', 'splat', b.let('r_or_nan', 'add1', r, b.let('nothing', 'sub1', mean, mean)));
    }
    const peaks = quantised ? range(LANES / L).map((v) => b.variable(`peaks_${v}`, 'constant', 0)) : [];
    b.unrolled('j', padded / LANES, unroll, (i, u, tag) => {
      let value = loadGroup(b, L, `xn${tag}${u}`, 'load_floats', at(x, times(i, LANES)));
      if (w && factor) {
        const ws = loadGroup(b, L, `w${tag}${u}`, 'load_floats', at(w, times(i, LANES)));
        value = mapGroup(b, `h${tag}${u}`, 'mul', mapGroup(b, `xr${tag}${u}`, 'mul', value, factor), ws);
      }
      storeGroup(b, L, 'store_floats', at(h, times(i, LANES)), value);
      if (quantised)
        mapGroup(b, `a${tag}${u}`, 'abs', value).forEach((a, v) => {
          b.set(peaks[v]!, 'max_or_nan', peaks[v]!, a);
        });
    });
    if (!quantised) return;

    const q = b.pointer('q', { element: 'i8', access: 'out', extent: padded, doc: `quantised [${padded}]` });
    const inverse = b.pointer('inverse', { element: 'f32', access: 'out', extent: 1, doc: 'max|h| / 127' });
    const sum = b.pointer('sum', { element: 'i32', access: 'out', extent: 1, doc: 'sum of q' });
    const peak = b.let('peak', 'max1', b.let('least', 'number', 1e-5), reduceGroup(b, 'largest', 'max_or_nan', peaks));
    const top = b.let('top', 'number', 127);
    b.do('put', inverse, b.let('inverse_scale', 'div1', peak, top));
    const s = b.let('s', 'splat', b.let('scale', 'div1', top, peak));
    const lowest = b.let('lowest', 'constant', -127);
    const zero = b.let('zero', 'integer', 0);
    const sums = range(LANES / L).map((v) => b.variable(`sums_${v}`, 'splat_int', zero));
    b.unrolled('l', padded / LANES, unroll, (i, u, tag) => {
      const hs = loadGroup(b, L, `hs${tag}${u}`, 'load_floats', at(h, times(i, LANES)));
      const qs = hs.map((value, v) => toCode(b, `${tag}${u}_${v}`, value, s, lowest));
      storeGroup(b, L, 'store_int8', at(q, times(i, LANES)), qs);
      qs.forEach((value, v) => {
        b.set(sums[v]!, 'add_ints', sums[v]!, value);
      });
    });
    const parts = sums.map((v, i) => b.let(`part_${i}`, 'sum_ints', v));
    b.do(
      'put_int',
      sum,
      parts.slice(1).reduce((a, p, i) => b.let(`sum_${i}`, 'add_int', a, p), parts[0]!),
    );
  },

  reference: (spec, args) => {
    const f = Math.fround;
    const k = spec.shape.k!;
    const x = args.x as Float32Array;
    const h = args.h as Float32Array;
    h.set(x);
    if (spec.weight !== 'none') {
      const w = args.w as Float32Array;
      const lanes = new Float32Array(16);
      for (let i = 0; i < x.length; i++) lanes[i & 15] = fmaf(x[i]!, x[i]!, lanes[i & 15]!);
      const mean = f(laneSum(16, (i) => lanes[i]!) / k);
      const r = f(1 / f(Math.sqrt(f(mean + f(args.eps as number)))));
      for (let i = 0; i < x.length; i++) h[i] = f(x[i]! * r) * w[i]!;
    }
    if (spec.out !== 'i8') return;
    const peak = h.reduce((a, v) => Math.max(a, Math.abs(v)), f(1e-5));
    const s = f(127 / peak);
    const q = args.q as Int8Array;
    h.forEach((v, i) => {
      q[i] = roundHalfEven(f(v * s));
    });
    (args.inverse as Float32Array)[0] = peak / 127;
    (args.sum as Int32Array)[0] = q.reduce((a, v) => a + v, 0);
  },

  samples: (isa) =>
    ['f32', 'none'].flatMap((weight) =>
      (weight === 'none' ? ['i8'] : ['i8', 'f32']).flatMap((out) =>
        [15, 16, 17, 100, 256, 2560].map(
          (k): KernelSpec => ({
            op: 'norm',
            act: 'f32',
            weight,
            out,
            shape: { k },
            tile: [1, 1, LANES],
            isa: isa.name,
          }),
        ),
      ),
    ),

  example: (spec, random, extreme) => {
    const k = spec.shape.k!;
    const padded = roundUp(k, LANES);
    const fill = (value: () => number) => Float32Array.from({ length: padded }, (_, i) => (i < k ? value() : 0));
    return {
      // Extreme: all zero but one huge value, where the clamp at 1e-5 and rounding to zero matter.
      x: extreme ? fill(() => 0).fill(3e18, 3, 4) : fill(random.normal),
      ...(spec.weight === 'none' ? {} : { w: fill(random.normal), eps: 1e-5 }),
      h: new Float32Array(padded),
      ...(spec.out === 'i8' ? { q: new Int8Array(padded), inverse: new Float32Array(1), sum: new Int32Array(1) } : {}),
    };
  },
};
