/**
 * The screen of the head: for every row a lower and an upper bound of the logit that kernels/head.ts would compute, from an
 * int8 copy of the rows, which is half the bytes of float16 rows. Only rows whose upper bound reaches the k-th largest lower
 * bound can be among the k largest logits; templates/head.c computes those with the head itself, so the result is exact.
 *
 * Rows (templates/screen.c, at pack time):   w = s q + d,             q in [-127, 127]
 * Hidden state (there too, at each token):   h = f (127 c1 + c2) + e, c1 and c2 in [-63, 63]
 *
 * c1 and c2 are the digits of one whole number in balanced radix 127. The dot words take unsigned codes up to 127, so the
 * codes are c + 64, in [1, 127], and -64 sum(q) is where the sums start. AVX2-like pairs: 2 * 127 * 127 = 32,258 <= 32,767,
 * flushed at each step. int32: |sum| <= k 127 * 127 < 2^31 for k <= 2^17 = 131,072. Both planes use the same weight bytes.
 *
 *   I1 = q . c1,  I2 = q . c2,  centre = s (f (127 I1 + I2)),  radius = A H + N E,  bounds = centre -+ radius
 *
 * H >= ||h||, E >= ||e||, N >= s ||q|| and A as below; all norms are Euclidean. The radius has four parts, u = 2^-24:
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
 * Tile: 1 token x 16 rows of a line x k of one unrolled step; variant pN: prefetch N bytes ahead.
 */
import { mapGroup, reduceGroup, storeGroup } from '../ir/lanes.ts';
import type { Value } from '../ir/record.ts';
import { at, times } from '../ir/record.ts';
import { fmaf } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import type { KernelFamily } from './kernel.ts';
import { groupOf, LANES, range } from './kernel.ts';

/** Largest code: c + 64 for c in [-63, 63]. */
const CODES = 127;
/** Value of a step of the first plane, in steps of the second. */
const RADIX = 127;
/** Floats of a row, each in a line of 16 rows: s, A, N. */
const FACTORS = 3;
const LINE = 64;

/** Row tiles, lines of a tile (16 rows x 4 k), and bytes of lines, starts and factors, which follow each other in the file. */
export function screenSize(n: number, k: number) {
  const tiles = Math.ceil(n / LANES);
  const lines = Math.ceil(k / 4);
  return { tiles, lines, weights: tiles * lines * LINE, starts: tiles * LINE, factors: tiles * FACTORS * LINE };
}

/** Largest k whose sums stay in int32. */
const MOST_K = 2 ** 17;
/** Rows from which on a screen pays: a smaller head stays in a core's second-level cache, where half the bytes gain little. */
const LEAST_ROWS = 8192;
/** Does a head of this size have a screen? */
export const isScreened = (n: number, k: number): boolean => n >= LEAST_ROWS && k <= MOST_K;

/** Lines of one unrolled step. */
const UNROLL = 4;

/** The kernel for a head of n rows. */
export const screenSpec = (n: number, k: number, isa: string): KernelSpec => ({
  op: 'screen',
  act: 'u7',
  weight: 'i8',
  out: 'f32',
  shape: { n, k },
  tile: [1, LANES, 4 * UNROLL],
  isa,
  variant: 'p4096',
});

/** Dot steps between flushes: (2^31 - 1) / (4 * 127 * 127) = 33,285 where sums are int32, one where they are int16. */
const stepsBeforeFlush = (isa: Isa): number => Math.floor(isa.dot.limit / (isa.dot.products * CODES * 127));

export const screen: KernelFamily = {
  source: 'screen.ts',
  formula: 'lower[n] <= head(h)[n] <= upper[n], by int8 rows',
  needs: [
    'load_bytes',
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
    const { tiles, lines, weights } = screenSize(n, k);
    const rows = tiles * LANES;
    const unroll = spec.tile[2]! / 4;
    const ahead = Number(spec.variant!.slice(1));
    const w = b.pointer('w', {
      element: 'i8',
      access: 'in',
      extent: weights,
      doc: `q [${tiles} row tiles][${lines} lines][16 rows][4 k], zero beyond ${k}`,
    });
    const codes = b.pointer('codes', {
      element: 'u8',
      access: 'in',
      extent: 2 * 4 * lines,
      bound: CODES,
      doc: `c1 + 64 and c2 + 64 [2][${4 * lines}]`,
    });
    const starts = b.pointer('starts', { element: 'i32', access: 'in', extent: rows, doc: `-64 sum(q) [${rows}]` });
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
    const held = stepsBeforeFlush(isa) >= lines;
    const partial = (tag: string) =>
      range(chains).map((c) =>
        range(2).map((p) => vectors.map((v) => b.variable(`dots${tag}_c${c}_p${p}_v${v}`, 'dot_zero'))),
      );

    b.loop('tile', t0, t1, 1, (tile) => {
      const row = times(tile, LANES);
      const none = b.let('none', 'integer', 0);
      const acc = range(2).map((p) => vectors.map((v) => b.variable(`acc_p${p}_v${v}`, 'splat_int', none)));
      const flush = (dots: Value[][][]) => {
        for (const chain of dots)
          chain.forEach((plane, p) => {
            plane.forEach((d, v) => {
              b.set(acc[p]![v]!, 'dot_flush', acc[p]![v]!, d);
            });
          });
      };
      const whole = held ? partial('') : undefined;
      b.unrolled('i', lines, unroll, (line, u, rest) => {
        const tag = `${rest}_l${u}`;
        const address = at(w, times(tile, lines * LINE), times(line, LINE));
        if (ahead) b.do('prefetch', at(address, ahead), 0);
        const dots = whole ?? partial(tag);
        const planes = range(2).map((p) =>
          b.let(`c${tag}_p${p}`, 'broadcast4', at(codes, p * 4 * lines, times(line, 4))),
        );
        for (const v of vectors) {
          const q = b.let(`q${tag}_v${v}`, 'load_bytes', at(address, v * 4 * isa.lanes));
          planes.forEach((code, p) => {
            const sum = dots[whole ? u % chains : 0]![p]![v]!;
            b.set(sum, 'dot_next', sum, code, q);
          });
        }
        if (!whole) flush(dots.slice(0, 1));
      });
      if (whole) flush(whole);

      const load = (name: string, line: number) =>
        vectors.map((v) =>
          b.let(`${name}_v${v}`, 'load_floats', at(factors, times(row, FACTORS), line * LANES, v * isa.lanes)),
        );
      const start = vectors.map((v) => b.let(`start_v${v}`, 'load_ints', at(starts, row, v * isa.lanes)));
      const [i1, i2] = acc.map((plane, p) =>
        mapGroup(b, `f_p${p}`, 'to_floats', mapGroup(b, `i_p${p}`, 'add_ints', plane, start)),
      ) as [Value[], Value[]];
      const steps = mapGroup(b, 'steps', 'fma', i1, b.let('radix', 'constant', RADIX), i2);
      const value = mapGroup(b, 'value', 'mul', steps, b.let('step', 'splat', f));
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
    const { tiles, lines } = screenSize(n, k);
    const { w, codes, starts, factors, lower, upper, peaks } = args as unknown as Record<string, Float32Array>;
    const [f, norm, residual] = [args.f, args.norm, args.residual].map((x) => float(x as number)) as [
      number,
      number,
      number,
    ];
    for (let tile = 0; tile < tiles; tile++) {
      const largest = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
      for (let r = 0; r < LANES; r++) {
        const row = tile * LANES + r;
        const [i1, i2] = [0, 1].map((p) => {
          let sum = starts![row]!;
          for (let i = 0; i < 4 * lines; i++)
            sum += w![((tile * lines + (i >> 2)) * LANES + r) * 4 + (i & 3)]! * codes![p * 4 * lines + i]!;
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
    ).map(([n, k]) => screenSpec(n, k, isa.name)),

  // Extreme: all codes 127 against all q = 127 or -127, the largest sums; and rows without a finite bound.
  example: (spec, random, extreme) => {
    const { n, k } = spec.shape as { n: number; k: number };
    const { tiles, lines, weights } = screenSize(n, k);
    const w = new Int8Array(weights);
    const starts = new Int32Array(tiles * LANES);
    for (let row = 0; row < n; row++)
      for (let i = 0; i < k; i++) {
        const q = extreme ? (row % 2 ? -127 : 127) : random.integer(-127, 127);
        w[((Math.floor(row / LANES) * lines + (i >> 2)) * LANES + (row % LANES)) * 4 + (i & 3)] = q;
        starts[row]! -= 64 * q;
      }
    const size = () => Math.abs(random.normal());
    return {
      w,
      codes: Uint8Array.from(range(8 * lines), () => (extreme ? CODES : random.integer(1, CODES))),
      starts,
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
