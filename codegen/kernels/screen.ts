/**
 * The screen of the head: for every row a lower and an upper bound of the logit that kernels/head.ts would compute, from a
 * narrow copy of the rows: of 8 bits, half the bytes of float16 rows, or of 4 bits. Only rows whose upper bound reaches what k
 * logits are known to reach can be among the k largest; templates/head.c computes those with the head itself. So the result of
 * 8-bit rows is exact, that of 4-bit rows where the bounds hold, which is likely but not certain.
 *
 * Rows (templates/screen.c):                 w = s q + d
 * Hidden state (there too, at each token):   h = f (127 c1 + c2) + e, c1 and c2 in [-63, 63]
 *
 * c1 and c2 are the digits of one whole number in balanced radix 127. Both planes use the same weight bytes.
 *
 *   I1 = q . c1,  I2 = q . c2,  centre = s (f (127 I1 + I2)),  radius = A H + N E,  bounds = centre -+ radius
 *
 * H >= ||h||, E >= ||e||; all norms are Euclidean.
 *
 * 8 bits: q in [-127, 127]. The dot words take unsigned codes up to 127, so the state's codes are c + 64, in [1, 127], and
 * -64 sum(q) is where the sums start. AVX2-like pairs: 2 * 127 * 127 = 32,258 <= 32,767, flushed at each step.
 * int32: |sum| <= k 127 * 127 < 2^31 for k <= 2^17 = 131,072.
 * N >= s ||q|| and A as below make the bounds rigorous. The radius has four parts, u = 2^-24:
 *
 * 1. Weights:     |w . h - s q . h| = |d . h| <= ||d|| H
 * 2. Activation:  |s q . e| <= s ||q|| E. (max|q| ||e||_1 would do too, but ||q|| is about 127 sqrt(k) / 3.5 for normally
 *                 distributed rows and ||e||_1 about 0.87 sqrt(k) ||e||: three times as much.)
 * 3. The head:    its result differs from w . h by at most g(m + 4) sum|w_i h_i| <= g(m + 4) ||w|| H, where m = padded k / 16
 *                 fused steps of a lane and 4 levels of the tree round, and g(n) = n u / (1 - n u) (Higham, Accuracy and
 *                 Stability of Numerical Algorithms, 2002, section 3.1; valid for any order of the tree). Underflow adds at
 *                 most 2^-150 for each product, doubled by later roundings: k 2^-149 <= 2^-132. Rows and states have a
 *                 largest element of at least 2^-40 (others are not screened), so that this is below u ||w|| H >= 2^-104.
 * 4. This kernel: I1 and I2 become floats, are combined by one fma and multiplied by f and by s: four roundings, each of at
 *                 most u relative, of terms that sum to at most s f ||q|| (127 ||c1|| + ||c2||). As |127 c1| <= 2 |v| and
 *                 |c2| <= |v| for v = 127 c1 + c2, and |f v| = |h - e| <= 2 |h| (v rounds h / f), that is at most
 *                 g(4) 6 s ||q|| H <= 25 u s ||q|| H. |centre| <= 3 s ||q|| H, so centre -+ radius rounds off at most
 *                 u (3 s ||q|| H + radius): together 28 u s ||q|| H, and u radius more.
 *
 *   A = (||d|| + (g(m + 4) + u) ||w|| + 32 u s ||q||) (1 + 2^-20)
 *
 * with N, H and E rounded up by the same factor. It covers the double arithmetic of the norms (k 2^-52 <= 2^-35), their
 * conversion to float (u) and the three roundings of the radius and its use (3 u): 2^-20 = 16 u. Nothing overflows or
 * underflows, since the largest elements lie in [2^-40, 2^40]. A row outside has A = infinity, and always passes.
 *
 * 4 bits: q in [-7, 7], stored as q + 8, the unsigned side; c1 and c2 are signed, and -8 sum(c) is where the sums start.
 * AVX2-like pairs: 8 steps of 2 * 15 * 127 = 3,810 make 30,480 <= 32,767. int32: |sum| <= k 15 * 127 < 2^28.
 * An error norm is too much to allow for: ||d|| is about ||w|| / 8 here, as large as the largest logit. But d . h is a sum of
 * many errors that have nothing to do with h, and is seldom much longer than ||d|| H / sqrt(k). What is assumed random: the
 * direction that the rest of h, across w, has as seen from d. s is chosen to make d orthogonal to w (s = ||w||^2 / w . q), so
 * that the part of h along w, which all large logits have in common, meets no error. (An idea of RaBitQ: Gao and Long, SIGMOD
 * 2024, section 3.) The cosine of a random direction in n dimensions has deviation sigma = 1 / sqrt(n), and exceeds t sigma with a
 * probability below e^(-t^2 / 2): its even moments 1 * 3 * ... (2 i - 1) / (n (n + 2) ... (n + 2 i - 2)) are below those of the
 * normal distribution. 6 sigma: e^-18 = 1.5e-8 for each bound. N = 6 s ||q|| / sqrt(k) in the same way, and
 *
 *   A = (max(6 ||d|| / sqrt(k), largest |d_i|) + (g(m + 4) + u) ||w|| + 32 u s ||q||) (1 + 2^-20)
 *
 * The largest single error is there for states that are concentrated in few elements: without it a bound failed by 16 sigma where
 * three elements of a state were 300 times the others and a row was clipped there. The step of q balances both: clipping at 7
 * steps errs by up to peak - 7 step, rounding by step / sqrt(12) in root mean square, and 6 step / sqrt(12) = peak - 7 step makes
 * step = peak / 8.73. d counts the errors of the 8-bit rows, of which the 4-bit ones are made, too; the roundings of parts 3 and 4
 * are counted in full. A large logit is missed only if its own upper bound fails, as templates/head.c compares it with logits, not
 * with bounds: in at most k e^-18 of all answers, 6e-7 for k = 40, *under the assumption*. Nothing is proved for a given model;
 * docs/measurements.md has counts.
 *
 * Tile: 1 token x 16 rows of a line x k of one unrolled step; variant as in prefetch.ts.
 */
import { mapGroup, reduceGroup, storeGroup } from '../ir/lanes.ts';
import type { Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { fmaf } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelFamily } from './kernel.ts';
import { groupOf, LANES, range } from './kernel.ts';
import { parsePrefetch } from './prefetch.ts';
import { FACTORS, placeOf, type ScreenWidth, screenSize, screenSpec, widths } from './screen-rows.ts';

/** Value of a step of the first plane, in steps of the second. */
const RADIX = 127;

/**
 * Dot steps between flushes. Where sums are int32, (2^31 - 1) / (4 * 127 * 127) = 33,285 or more; where they are int16, one with
 * codes up to 127, and 8 with codes up to 15.
 */
const stepsBeforeFlush = (isa: Isa, codes: number): number =>
  Math.floor(isa.dot.limit / (isa.dot.products * codes * 127));

export const screen: KernelFamily = {
  source: 'screen.ts',
  formula: 'lower[n] <= head(h)[n] <= upper[n], by rows of 8 bits; by rows of 4 bits very likely',
  needs: [
    'load_bytes',
    'field',
    'broadcast4',
    'dot_zero',
    'dot_next',
    'dot_flush',
    'splat_int',
    'load_ints',
    'to_floats',
    'load_floats',
    'store_floats',
    'splat',
    'constant',
    'fma',
    'mul',
    'add',
    'sub',
    'max',
    'peak',
    'prefetch',
  ],

  record: (b, spec, isa) => {
    const { n, k } = spec.shape as { n: number; k: number };
    const width = spec.weight as ScreenWidth;
    const { shifts, codes: largest } = widths[width];
    const { tiles, lineK, lines, weights } = screenSize(n, k, width);
    const rows = tiles * LANES;
    const stride = lineK * lines;
    const unroll = spec.tile[2]! / lineK;
    const { ahead, level } = parsePrefetch(spec.variant!);
    const layout = `[${tiles} row tiles][${lines} lines][16 rows]`;
    // 8 bits: the state's codes are unsigned and the sums start differently for each row; 4 bits: the rows', and for each plane.
    const eight = width === 'i8';
    const w = b.pointer('w', {
      element: eight ? 'i8' : 'u8',
      access: 'in',
      extent: weights,
      doc: eight ? `q ${layout}[4 k], zero beyond ${k}` : `q + 8 ${layout}[4 k, 4 k in the high halves]`,
    });
    const codes = b.pointer('codes', {
      element: eight ? 'u8' : 'i8',
      access: 'in',
      extent: 2 * stride,
      ...(eight ? { bound: largest } : {}),
      doc: eight ? `c1 + 64 and c2 + 64 [2][${stride}]` : `c1 and c2 [2][${stride}], zero beyond ${k}`,
    });
    const starts = eight
      ? b.pointer('starts', { element: 'i32', access: 'in', extent: rows, doc: `-64 sum(q) [${rows}]` })
      : ([b.scalar('int', 'start1', '-8 sum(c1)'), b.scalar('int', 'start2', '-8 sum(c2)')] as const);
    const factors = b.pointer('factors', {
      element: 'f32',
      access: 'in',
      extent: FACTORS * rows,
      doc: `s, A, N [${tiles}][${FACTORS}][16]`,
    });
    const f = b.scalar('float', 'f', 'step of the second plane');
    const norm = b.scalar('float', 'norm', 'H >= norm of h');
    const residual = b.scalar('float', 'residual', 'E >= norm of e');
    const bound = (name: string) =>
      b.pointer(name, { element: 'f32', access: 'out', extent: rows, doc: `bounds [${n}], padded to ${rows}` });
    const lower = bound('lower');
    const upper = bound('upper');
    const peaks = b.pointer('peaks', {
      element: 'f32',
      access: 'out',
      extent: 2 * tiles,
      doc: `largest lower and upper bound of each tile [${tiles}][2]`,
    });
    const t0 = b.long('t0', 0, tiles, 'first row tile');
    const t1 = b.long('t1', 0, tiles, 'row tile to stop before');

    const vectors = range(groupOf(isa));
    // Enough independent sums to hide the latency of a dot step, as in dot-products.ts; there are two planes.
    const chains = Math.max(1, Math.floor(2 / vectors.length));
    const steps = stepsBeforeFlush(isa, largest);
    const held = steps >= lines * shifts.length;
    const partial = (tag: string) =>
      range(chains).map((c) =>
        range(2).map((p) => vectors.map((v) => b.variable(`dots${tag}_c${c}_p${p}_v${v}`, 'dot_zero'))),
      );

    b.loop('tile', t0, t1, 1, (tile) => {
      const row = times(tile, LANES);
      const acc = range(2).map((p) =>
        vectors.map((v) => {
          const name = `acc_p${p}_v${v}`;
          if ('base' in starts) return b.variable(name, 'load_ints', at(starts, row, v * isa.lanes));
          return b.variable(name, 'splat_int', starts[p]!);
        }),
      );
      const flush = (dots: Value[][][]) => {
        for (const chain of dots)
          chain.forEach((plane, p) => {
            plane.forEach((d, v) => {
              b.set(acc[p]![v]!, 'dot_flush', acc[p]![v]!, d);
            });
          });
      };
      const whole = held ? partial('') : undefined;
      const linesBeforeFlush = Math.floor(steps / shifts.length);
      b.chunks('i', lines, unroll, (first, count, rest) => {
        let dots = whole ?? [];
        for (const u of range(count)) {
          const tag = `${rest}_l${u}`;
          const line = plus(first, u);
          const address = at(w, times(tile, lines * 4 * LANES), times(line, 4 * LANES));
          if (ahead) b.do('prefetch', at(address, ahead), level);
          if (!whole && u % linesBeforeFlush === 0) dots = partial(tag);
          const chain = dots[u % dots.length]!;
          const planes = shifts.map((_, g) =>
            range(2).map((p) =>
              b.let(`c${tag}_g${g}_p${p}`, 'broadcast4', at(codes, p * stride, times(line, lineK), 4 * g)),
            ),
          );
          for (const v of vectors) {
            const bytes = b.let(`q${tag}_v${v}`, 'load_bytes', at(address, v * 4 * isa.lanes));
            shifts.forEach((shift, g) => {
              const q = eight ? bytes : b.let(`q${tag}_g${g}_v${v}`, 'field', bytes, shift, largest);
              planes[g]!.forEach((code, p) => {
                const sum = chain[p]![v]!;
                b.set(sum, 'dot_next', sum, ...(eight ? [code, q] : [q, code]));
              });
            });
          }
          if (!whole && ((u + 1) % linesBeforeFlush === 0 || u + 1 === count)) flush(dots);
        }
      });
      if (whole) flush(whole);

      const load = (name: string, line: number) =>
        vectors.map((v) =>
          b.let(`${name}_v${v}`, 'load_floats', at(factors, times(row, FACTORS), line * LANES, v * isa.lanes)),
        );
      const [i1, i2] = acc.map((plane, p) => mapGroup(b, `f_p${p}`, 'to_floats', plane)) as [Value[], Value[]];
      const digits = mapGroup(b, 'digits', 'fma', i1, b.let('radix', 'constant', RADIX), i2);
      const value = mapGroup(b, 'value', 'mul', digits, b.let('step', 'splat', f));
      const centre = mapGroup(b, 'centre', 'mul', value, load('s', 0));
      const far = mapGroup(b, 'far', 'mul', load('n', 2), b.let('e', 'splat', residual));
      const radius = mapGroup(b, 'radius', 'fma', load('a', 1), b.let('h', 'splat', norm), far);
      for (const [i, [name, word, out]] of (
        [
          ['low', 'sub', lower],
          ['high', 'add', upper],
        ] as const
      ).entries()) {
        const bounds = mapGroup(b, name, word, centre, radius);
        storeGroup(b, isa.lanes, 'store_floats', at(out, row), bounds);
        b.do('put', at(peaks, times(tile, 2), i), reduceGroup(b, `${name}_peak`, 'max', bounds));
      }
    });
  },

  reference: (spec, args) => {
    const float = Math.fround;
    const { n, k } = spec.shape as { n: number; k: number };
    const width = spec.weight as ScreenWidth;
    const { tiles, lineK, lines } = screenSize(n, k, width);
    const { w, codes, starts, factors, lower, upper, peaks } = args as unknown as Record<string, Float32Array>;
    const [f, norm, residual] = [args.f, args.norm, args.residual].map((x) => float(x as number)) as [
      number,
      number,
      number,
    ];
    const weight = (row: number, i: number) => {
      const { byte, shift } = placeOf(width, lines, row, i);
      return width === 'i8' ? w![byte]! : (w![byte]! >> shift) & 15;
    };
    for (let tile = 0; tile < tiles; tile++) {
      const largest = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
      for (let r = 0; r < LANES; r++) {
        const row = tile * LANES + r;
        const [i1, i2] = [0, 1].map((p) => {
          let sum = starts?.[row] ?? (args[`start${p + 1}`] as number);
          for (let i = 0; i < lineK * lines; i++) sum += weight(row, i) * codes![p * lineK * lines + i]!;
          return float(sum);
        }) as [number, number];
        const [s, a, far] = range(FACTORS).map((j) => factors![(tile * FACTORS + j) * LANES + r]!) as [
          number,
          number,
          number,
        ];
        const centre = float(float(fmaf(i1, RADIX, i2) * f) * s);
        const radius = fmaf(a, norm, float(far * residual));
        [lower, upper].forEach((out, i) => {
          out![row] = i ? centre + radius : centre - radius;
          largest[i] = Math.max(largest[i]!, out![row]!);
        });
      }
      peaks!.set(largest, 2 * tile);
    }
  },

  samples: (isa) =>
    (
      [
        [16, 1],
        [15, 15],
        [33, 16],
        [40, 100],
        [48, 2560],
      ] as const
    ).flatMap(([n, k]) =>
      (['i8', 'u4'] as const).map((width, i) =>
        screenSpec(n, k, { isa: isa.name, prefetch: { hint: i ? 'l2' : 'nta' } }, width),
      ),
    ),

  // Extreme: the largest sums, all codes 127 against all q = 127 or -127, or all 15 against 63 and -63; and rows without a finite bound.
  example: (spec, random, extreme) => {
    const { n, k } = spec.shape as { n: number; k: number };
    const width = spec.weight as ScreenWidth;
    const eight = width === 'i8';
    const { tiles, lineK, lines, weights } = screenSize(n, k, width);
    const stride = lineK * lines;
    const w = eight ? new Int8Array(weights) : new Uint8Array(weights);
    const starts = new Int32Array(tiles * LANES);
    for (let row = 0; row < n; row++)
      for (let i = 0; i < k; i++) {
        const { byte, shift } = placeOf(width, lines, row, i);
        const most = eight ? 127 : 7;
        const q = extreme ? (row % 2 ? -most : most) : random.integer(-most, most);
        w[byte]! += eight ? q : (extreme ? 15 : q + 8) << shift;
        starts[row]! -= 64 * q;
      }
    const codes = eight
      ? Uint8Array.from(range(2 * stride), () => (extreme ? 127 : random.integer(1, 127)))
      : Int8Array.from(range(2 * stride), (i) =>
          i % stride >= k ? 0 : extreme ? (i < stride ? 63 : -63) : random.integer(-63, 63),
        );
    const sum = (p: number) => (codes as Int8Array).subarray(p * stride, (p + 1) * stride).reduce((a, c) => a + c, 0);
    const size = () => Math.abs(random.normal());
    return {
      w,
      codes,
      ...(eight ? { starts } : { start1: -8 * sum(0), start2: -8 * sum(1) }),
      factors: Float32Array.from(range(FACTORS * tiles * LANES), (i) =>
        extreme && Math.floor(i / LANES) % FACTORS === 1 && i % 5 === 0 ? Number.POSITIVE_INFINITY : size(),
      ),
      f: size(),
      norm: size(),
      residual: size() / 100,
      lower: new Float32Array(tiles * LANES),
      upper: new Float32Array(tiles * LANES),
      peaks: new Float32Array(2 * tiles),
      t0: 0,
      t1: tiles,
    };
  },
};
