/**
 * Attention of one query position over one span of one key-value head, for the g query heads that share it, with a cache of
 * 8-bit codes. attention-blocks.ts has the order of everything that is not written here.
 *
 *   s_j = (sum_i u_ji q_i + offset) * (K_j * Q)                     keys  k_ji = K_j (u_ji - 64),  query q_i Q sqrt(d)
 *   w_j = p_j V_j,  W = max w_j,  c_j = round_half_even(w_j * (127 / W))        values V_j v_ji; a block of 32 positions
 *   o_b = (sum_j c_j v_ji) * (W / 127)
 *
 * u in [1, 127] and c in [0, 127] are the unsigned operands of the dot products, q and v in [-127, 127] the signed ones, so
 * that a step adds at most products * 127 * 127: two products of vpmaddubsw make 32,258 <= 32,767, and sdot may take both as
 * signed. offset = -64 sum q; |sum (u - 64) q| <= 63 * 127 * d <= 2^24 for d <= 2,096 and |sum c v| <= 32 * 127 * 127 =
 * 516,128, so both are exact in float32. W > 0: the largest p of a block is e^0 = 1 and V >= 1e-20 / 127 (quantise.ts).
 * The sum of weights l takes p as it is. Positions that do not exist have p = 0 and code 0: codes there may be anything, scales
 * are finite (templates/attention.c). A scale that is NaN or infinite makes s_j NaN, or W / 127 NaN or infinite, and with it o_b.
 *
 * Cache layouts: keys [position / 16][d / 4][16 positions][4 dims] with d rounded up to 4, values
 * [position / 4][d / 16][16 dims][4 positions] with d rounded up to 16: four bytes of a lane meet one broadcast of four codes
 * of the query, or of the weights. Scales [position]. Tile: query heads x positions of a score x value dims.
 */
import { reduceGroup } from '../ir/lanes.ts';
import type { Address, Affine, AffineLike, Recorder, Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { roundHalfEven } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
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
import type { KernelFamily } from './kernel.ts';
import { LANES, range, roundUp } from './kernel.ts';
import { toCode } from './quantise.ts';

/** Largest code, signed and unsigned. */
const TOP = 127;
/** Positions and dims of a 64-byte line. */
const FOUR = 4;

/** Bytes of a position in the cache of keys, and of a query head. */
export const keyStride = (d: number): number => roundUp(d, FOUR);

/** Dot steps that a partial sum can take before it must be flushed: maddubs 32,767 / 32,258 = 1, the others 33,284. */
const stepsBeforeFlush = (isa: Isa): number => Math.floor(isa.dot.limit / (isa.dot.products * TOP * TOP));

/** Heads x positions x dims: beside accumulators and loads, a broadcast and a partial sum. */
export const qattentionTile = (isa: Isa, g: number): [number, number, number] => attentionTile(isa, g, 3);

/** Operands of dot products: each vector is shared by all heads, the four codes of a head by all vectors. */
interface Operands {
  readonly steps: number;
  readonly vectors: number;
  readonly vector: (step: Affine, v: number) => Address;
  readonly codes: (step: Affine, h: number) => Address;
  /** What is fetched meanwhile, a line with each line of vectors: see attention-blocks.ts. */
  readonly ahead: (step: Affine, v: number) => Address;
  /** Which side of the product the vector is; the codes are the other. */
  readonly vectorIs: 'unsigned' | 'signed';
}

/** start[h] + sum over the steps of products, for every head and vector. */
function dotSums(b: Recorder, isa: Isa, id: string, start: readonly Value[], o: Operands): Value[][] {
  const atOnce = o.steps <= stepsBeforeFlush(isa);
  const acc = start.map((from, h) =>
    range(o.vectors).map((v) => {
      const name = `acc${id}_${h}_${v}`;
      return atOnce ? b.variable(name, 'dot_zero') : b.variable(name, 'splat_int', from);
    }),
  );
  b.unrolled(`i${id}`, o.steps, 4, (step, u, more) => {
    const name = `${id}_${more}u${u}`;
    const vectors = range(o.vectors).map((v) => {
      if ((v * isa.lanes) % LANES === 0) b.do('prefetch', o.ahead(step, v), 2);
      return b.let(`x${name}_${v}`, 'load_bytes', o.vector(step, v));
    });
    acc.forEach((sums, h) => {
      const codes = b.let(`y${name}_${h}`, 'broadcast4', o.codes(step, h));
      sums.forEach((sum, v) => {
        const pair = o.vectorIs === 'unsigned' ? [vectors[v]!, codes] : [codes, vectors[v]!];
        if (atOnce) b.set(sum, 'dot_next', sum, ...pair);
        else {
          const none = b.let(`none${name}_${h}_${v}`, 'dot_zero');
          b.set(sum, 'dot_flush', sum, b.let(`dot${name}_${h}_${v}`, 'dot_next', none, ...pair));
        }
      });
    });
  });
  if (!atOnce) return acc;
  return acc.map((sums, h) => {
    const from = b.let(`from${id}_${h}`, 'splat_int', start[h]!);
    return sums.map((sum, v) => b.let(`sum${id}_${h}_${v}`, 'dot_flush', from, sum));
  });
}

export const qattention: KernelFamily = {
  source: 'qattention.ts',
  formula: 'o[g][d] = e^(q[g] . K - m[g]) . V over a span of positions of one key-value head, all in 8-bit codes',
  needs: [
    'load_bytes',
    'broadcast4',
    'prefetch',
    'dot_zero',
    'dot_next',
    'dot_flush',
    'splat_int',
    'to_floats',
    'store_int8',
    'load_floats',
    'store_floats',
    'constant',
    'fma',
    'mul',
    'add',
    'sub',
    'max',
    'max_or_nan',
    'abs',
    'min',
    'round',
    'exp2i',
    'sum',
    'peak',
    'peak_or_nan',
    'splat',
  ],

  record: (b, spec, isa) => {
    const { g, d } = spec.shape as { g: number; d: number };
    const L = isa.lanes;
    const padded = roundUp(d, LANES);
    const stride = keyStride(d);
    const [tileHeads, tilePositions, tileDims] = spec.tile as [number, number, number];

    const q = b.pointer('q', {
      element: 'i8',
      access: 'in',
      extent: g * padded,
      doc: `queries [${g}][${padded}], zero from ${d} on`,
    });
    const perHead = `[${g}]`;
    const queryScales = b.pointer('query_scales', {
      element: 'f32',
      access: 'in',
      extent: g,
      doc: `${perHead}, with the factor 1 / sqrt(d)`,
    });
    const offsets = b.pointer('offsets', { element: 'i32', access: 'in', extent: g, doc: `${perHead} -64 sum q` });
    const keys = b.pointer('keys', {
      element: 'u8',
      access: 'in',
      extent: SPAN * stride,
      bound: TOP,
      doc: `keys of the span [${SPAN / LANES}][${stride / FOUR}][16][4]`,
    });
    const keyScales = b.pointer('key_scales', { element: 'f32', access: 'in', extent: SPAN, doc: `[${SPAN}]` });
    const values = b.pointer('values', {
      element: 'i8',
      access: 'in',
      extent: SPAN * padded,
      doc: `values of the span [${SPAN / FOUR}][${padded / LANES}][16][4]`,
    });
    const valueScales = b.pointer('value_scales', { element: 'f32', access: 'in', extent: SPAN, doc: `[${SPAN}]` });
    const frame = declareBlocks(b, g, d);
    const codes = b.pointer('codes', {
      element: 'i8',
      access: 'scratch',
      extent: g * SPAN,
      bound: TOP,
      doc: `codes of the weights [${SPAN / BLOCK}][${g}][${BLOCK}]`,
    });
    const codeOf = (block: Affine, h: Affine, j: AffineLike) => at(codes, times(block, g * BLOCK), times(h, BLOCK), j);
    const nothing = b.let('nothing', 'integer', 0);

    /** Scores of `heads` heads from h0, of `lines` times 16 positions from `line`, in each the positions p .. p + count. */
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
      const perLine = count / L;
      const positions = range(lines * perLine).map((v) =>
        plus(times(line, LANES), Math.floor(v / perLine) * LANES, p, (v % perLine) * L),
      );
      const start = range(heads).map((h) => b.let(`offset${id}_${h}`, 'get_int', at(offsets, h0, h)));
      const sums = dotSums(b, isa, id, start, {
        steps: stride / FOUR,
        vectors: positions.length,
        // Byte 4 * 16 * (d / 4) * line + 64 * step + 4 * (position % 16).
        vector: (step, v) =>
          at(
            keys,
            times(block, BLOCK * stride),
            times(plus(line, Math.floor(v / perLine)), LANES * stride),
            times(step, LANES * FOUR),
            times(plus(p, (v % perLine) * L), FOUR),
          ),
        ahead: (step, v) =>
          at(
            values,
            times(block, BLOCK * padded),
            times(plus(line, Math.floor(v / perLine)), LANES * stride),
            times(step, LANES * FOUR),
          ),
        codes: (step, h) => at(q, times(plus(h0, h), padded), times(step, FOUR)),
        vectorIs: 'unsigned',
      });
      const scales = positions.map((j, v) =>
        b.let(`ks${id}_${v}`, 'load_floats', at(keyScales, times(block, BLOCK), j)),
      );
      sums.forEach((row, h) => {
        const scale = b.let(`qs${id}_${h}`, 'splat', b.let(`qs1${id}_${h}`, 'get', at(queryScales, h0, h)));
        row.forEach((sum, v) => {
          const name = `${id}_${h}_${v}`;
          const both = b.let(`kq${name}`, 'mul', scales[v]!, scale);
          const s = b.let(`s${name}`, 'mul', b.let(`f${name}`, 'to_floats', sum), both);
          b.do('store_floats', frame.score(block, plus(h0, h), positions[v]!), s);
        });
      });
    };

    recordBlocks(b, isa, g, d, frame, {
      scores: (block) =>
        b.chunks('hs', g, tileHeads, (h0, heads, hTag) =>
          b.chunks(`line${hTag}`, BLOCK / LANES, Math.ceil(tilePositions / LANES), (line, lines) =>
            b.chunks(`p${hTag}`, LANES, Math.min(tilePositions, LANES), (p, count) =>
              scoreTile(`_s_${hTag}`, block, h0, heads, line, lines, p, count),
            ),
          ),
        ),
      weights: (block, h) => {
        const w = range(BLOCK / L).map((v) => {
          const p = b.let(`p_of_${v}`, 'load_floats', frame.score(block, h, v * L));
          return b.let(
            `w_${v}`,
            'mul',
            p,
            b.let(`vs_${v}`, 'load_floats', at(valueScales, times(block, BLOCK), v * L)),
          );
        });
        // Not negative: |w| takes the sign off NaNs alone.
        const sizes = w.map((value, v) => b.let(`size_${v}`, 'abs', value));
        const most = reduceGroup(b, 'most', 'max_or_nan', sizes);
        const top = b.let('top_code', 'number', TOP);
        b.do('put', frame.state('blockScale', block, h), b.let('step', 'div1', most, top));
        const factor = b.let('factor', 'splat', b.let('factor1', 'div1', top, most));
        const lowest = b.let('lowest_code', 'constant', 0);
        w.forEach((value, v) => {
          const code = toCode(b, `_${v}`, value, factor, lowest);
          b.do('store_int8', codeOf(block, h, v * L), code);
        });
      },
      anyValues: true,
      weigh: (block) =>
        b.chunks('hw', g, tileHeads, (h0, heads, hTag) =>
          b.chunks(`d${hTag}`, padded, tileDims, (d0, dims, dTag) => {
            const tag = `_v${hTag}${dTag}`;
            const sums = dotSums(b, isa, tag, Array<Value>(heads).fill(nothing), {
              steps: BLOCK / FOUR,
              vectors: dims / L,
              vector: (step, v) =>
                at(values, times(block, BLOCK * padded), times(step, FOUR * padded), times(plus(d0, v * L), FOUR)),
              ahead: (step, v) =>
                at(
                  keys,
                  times(plus(block, KEYS_AHEAD), BLOCK * stride),
                  times(step, FOUR * padded),
                  times(plus(d0, v * L), FOUR),
                ),
              codes: (step, h) => codeOf(block, plus(h0, h), times(step, FOUR)),
              vectorIs: 'signed',
            });
            sums.forEach((row, h) => {
              const floats = row.map((sum, v) => b.let(`o_b${tag}_${h}_${v}`, 'to_floats', sum));
              const head = plus(h0, h);
              foldValues(b, L, `${tag}_${h}`, frame, block, head, at(frame.part, times(head, padded), d0), floats);
            });
          }),
        ),
    });
  },

  reference: (spec, args) => {
    const f = Math.fround;
    const { g, d } = spec.shape as { g: number; d: number };
    const padded = roundUp(d, LANES);
    const stride = keyStride(d);
    const { q, keys, values } = args as unknown as Record<string, Int8Array>;
    const { query_scales, key_scales, value_scales, part } = args as unknown as Record<string, Float32Array>;
    const offsets = args.offsets as Int32Array;
    const key = (j: number, i: number) =>
      keys![
        Math.floor(j / LANES) * LANES * stride + Math.floor(i / FOUR) * LANES * FOUR + (j % LANES) * FOUR + (i % FOUR)
      ]!;
    const value = (j: number, i: number) => values![Math.floor(j / FOUR) * FOUR * padded + i * FOUR + (j % FOUR)]!;
    referencePart(part!, g, d, positionsOf(args), (h, start, n) => ({
      scores: range(n).map((j) => {
        let sum = offsets[h]!;
        for (let i = 0; i < stride; i++) sum += key(start + j, i) * q![h * padded + i]!;
        return f(sum * f(key_scales![start + j]! * query_scales![h]!));
      }),
      weigh: (p) => {
        const w = p.subarray(0, n).map((weight, j) => weight * value_scales![start + j]!);
        const most = Math.max(...w);
        const code = w.map((weight) => roundHalfEven(f(weight * f(TOP / most))));
        const sums = Float32Array.from(range(padded), (i) =>
          code.reduce((sum, c, j) => sum + c * value(start + j, i), 0),
        );
        return { sums, scale: f(most / TOP) };
      },
    }));
  },

  samples: (isa) =>
    sampledGroups.map(
      (shape): KernelSpec => ({
        op: 'qattention',
        act: 'i8',
        weight: 'i8',
        out: 'f32',
        shape,
        tile: qattentionTile(isa, shape.g),
        isa: isa.name,
      }),
    ),

  example: (spec, random, extreme) => {
    const { g, d } = spec.shape as { g: number; d: number };
    const padded = roundUp(d, LANES);
    const frame = blocksExample(g, d, random, extreme);
    const capacity = frame.blocks * BLOCK;
    // Extreme: codes whose products are the largest, all of one sign; scales as small as they come.
    const code = (least: number) => (extreme ? TOP : random.integer(least, TOP));
    const q = Int8Array.from(range(g * padded), (i) => (i % padded < d ? code(-TOP) : 0));
    const scales = (n: number, size: number) =>
      Float32Array.from(range(n), () => (extreme ? 1e-20 / TOP : size * (0.1 + Math.abs(random.normal()))));
    return {
      ...frame,
      q,
      query_scales: scales(g, 0.005),
      offsets: Int32Array.from(
        range(g),
        (h) => -64 * q.subarray(h * padded, (h + 1) * padded).reduce((a, v) => a + v, 0),
      ),
      keys: Uint8Array.from(range(capacity * keyStride(d)), () => code(1)),
      key_scales: scales(capacity, 0.02),
      values: Int8Array.from(range(capacity * padded), () => code(-TOP)),
      value_scales: scales(capacity, 0.02),
      codes: new Int8Array(g * SPAN),
    };
  },
};
