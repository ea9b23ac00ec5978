/**
 * One head of a query, key or value to 7- or 8-bit codes with a float scale, x[i] ~ scale * code[i] (u7: code[i] - 64):
 *
 *   m = max(max|x|, 1e-20),  scale = m / top,  code = round_half_even(x * (top / m)) + shift
 *   i8 (queries, values)  top = 127, shift = 0:    codes in [-127, 127], and their sum
 *   u7 (keys)             top = 63,  shift = 64:   codes in [1, 127]: unsigned for the x86 dot products, not negative for NEON's
 *
 * 1e-20 stands in for a vector of zeros: 127 / 1e-20 = 1.3e22 and 1e-20 / 127 = 8e-23 are normal float32 numbers, and
 * |x * (top / m)| <= top (1 + 2^-22) rounds to at most top. NaN and infinity: if x holds one, scale is NaN or infinite, and so
 * is all that is computed with it; codes, which come of max(x * (top / m), -top), are in their range all the same.
 * Tile: 1 x 1 x dims of an unrolled step.
 */
import { reduceGroup } from '../ir/lanes.ts';
import { at, type Recorder, times, type Value } from '../ir/record.ts';
import { roundHalfEven } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import type { KernelFamily } from './kernel.ts';
import { LANES, range, roundUp } from './kernel.ts';

const codes = { i8: { top: 127, shift: 0 }, u7: { top: 63, shift: 64 } } as const;
const LEAST = 1e-20;

/**
 * The code of x: round_half_even(x * factor), `lowest` at least. That changes no number, but is where NaN, of which no integer is
 * to be made, turns into `lowest`, or where `max` keeps NaN and `round` makes 0 of it (NEON).
 */
export function toCode(b: Recorder, id: string, x: Value, factor: Value, lowest: Value): Value {
  return b.let(`code${id}`, 'round', b.let(`least${id}`, 'max', b.let(`t${id}`, 'mul', x, factor), lowest));
}

/** Dims at once: four vectors, whose chains of dependent operations overlap. */
export const quantiseTile = (isa: Isa): [number, number, number] => [1, 1, 4 * isa.lanes];

export const quantise: KernelFamily = {
  source: 'quantise.ts',
  formula: 'q[d] = round(x[d] * top / max|x|) + shift, scale = max|x| / top',
  needs: [
    'load_floats',
    'constant',
    'splat',
    'splat_int',
    'abs',
    'max',
    'max_or_nan',
    'peak_or_nan',
    'mul',
    'round',
    'add_ints',
    'sum_ints',
    'store_int8',
  ],

  record: (b, spec, isa) => {
    const d = spec.shape.d!;
    const L = isa.lanes;
    const padded = roundUp(d, LANES);
    const { top, shift } = codes[spec.out as 'i8' | 'u7'];
    const x = b.pointer('x', {
      element: 'f32',
      access: 'inout',
      extent: padded,
      doc: `head [${d}]; set to zero up to ${padded}`,
    });
    const q = b.pointer('q', {
      element: 'i8',
      access: 'out',
      extent: padded,
      doc: `codes [${padded}], those from ${d} on stand for zero`,
    });
    const scale = b.pointer('scale', { element: 'f32', access: 'out', extent: 1, doc: `max|x| / ${top}` });
    if (d < padded) b.loop('clear', d, padded, 1, (i) => b.do('put', at(x, i), b.let('nothing', 'number', 0)));

    const vectors = spec.tile[2]! / L;
    const peaks = range(vectors).map((v) => b.variable(`peaks_${v}`, 'constant', 0));
    b.unrolled('i', padded / L, vectors, (i, u, tag) => {
      const value = b.let(`x${tag}_${u}`, 'load_floats', at(x, times(i, L)));
      b.set(peaks[u]!, 'max_or_nan', peaks[u]!, b.let(`a${tag}_${u}`, 'abs', value));
    });
    const largest = reduceGroup(b, 'largest', 'max_or_nan', peaks);
    const peak = b.let('peak', 'max1', b.let('least', 'number', LEAST), largest);
    const steps = b.let('top', 'number', top);
    b.do('put', scale, b.let('step', 'div1', peak, steps));
    const factor = b.let('factor', 'splat', b.let('factor1', 'div1', steps, peak));

    const lowest = b.let('lowest', 'constant', -top);
    const shifts = shift ? b.let('shift', 'splat_int', b.let('shift1', 'integer', shift)) : undefined;
    const sums = shift
      ? []
      : range(vectors).map((v) => b.variable(`sums_${v}`, 'splat_int', b.let(`zero_${v}`, 'integer', 0)));
    b.unrolled('j', padded / L, vectors, (j, u, tag) => {
      const value = b.let(`y${tag}_${u}`, 'load_floats', at(x, times(j, L)));
      const code = toCode(b, `${tag}_${u}`, value, factor, lowest);
      b.do('store_int8', at(q, times(j, L)), shifts ? b.let(`u${tag}_${u}`, 'add_ints', code, shifts) : code);
      const sum = sums[u];
      if (sum) b.set(sum, 'add_ints', sum, code);
    });
    if (shift) return;
    const sum = b.pointer('sum', { element: 'i32', access: 'out', extent: 1, doc: 'sum of the codes' });
    const parts = sums.map((v, i) => b.let(`part_${i}`, 'sum_ints', v));
    b.do(
      'put_int',
      sum,
      parts.reduce((a, p, i) => b.let(`sum_${i}`, 'add_int', a, p)),
    );
  },

  reference: (spec, args) => {
    const f = Math.fround;
    const { top, shift } = codes[spec.out as 'i8' | 'u7'];
    const x = (args.x as Float32Array).fill(0, spec.shape.d!);
    const peak = x.reduce((a, v) => Math.max(a, Math.abs(v)), f(LEAST));
    const q = args.q as Int8Array;
    x.forEach((v, i) => {
      q[i] = roundHalfEven(f(v * f(top / peak))) + shift;
    });
    (args.scale as Float32Array)[0] = peak / top;
    if (args.sum) (args.sum as Int32Array)[0] = q.reduce((a, v) => a + v, 0);
  },

  samples: (isa) =>
    ['i8', 'u7'].flatMap((out) =>
      [20, 64, 96, 100, 128, 256].map(
        (d): KernelSpec => ({
          op: 'quantise',
          act: 'f32',
          weight: 'none',
          out,
          shape: { d },
          tile: quantiseTile(isa),
          isa: isa.name,
        }),
      ),
    ),

  example: (spec, random, extreme) => {
    const d = spec.shape.d!;
    const padded = roundUp(d, LANES);
    return {
      // Rubbish behind the head. Extreme: all zero.
      x: Float32Array.from(range(padded), (i) => (i >= d ? 1e9 : extreme ? 0 : random.normal())),
      q: new Int8Array(padded),
      scale: new Float32Array(1),
      ...(spec.out === 'i8' ? { sum: new Int32Array(1) } : {}),
    };
  },
};
