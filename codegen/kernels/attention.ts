/**
 * Attention of one query position over one key-value head, for the g query heads that share it.
 *
 *   s_j = scale (q . k_j),  p = softmax(s),  o = sum_j p_j v_j          j = 0 .. position
 *
 * Order: blocks of 32 absolute positions, each on its own (maximum m_b, p_j = e^(s_j - m_b), sum l_b, o_b = sum p_j v_j with j
 * ascending), folded in ascending order: m' = max(m, m_b), a = e^(m - m'), c = e^(m_b - m'), l' = l a + l_b c, o' = o a + o_b c.
 * So the result does not depend on batches, chunks or threads. (The folding is that of Milakov & Gimelshein, arXiv 1805.02867.)
 *
 * Cache layouts: keys [block of 16 positions][d][16 positions], so that a lane is a position and no horizontal sum is needed;
 * values [position][d rounded up to 16]. Both float32 or binary16, initialised, finite.
 * Tile: query heads x positions of a score x value dims of one register tile.
 */
import { exp, expGroup, laneTree, loadGroup, mapGroup, reduceGroup, storeGroup } from '../ir/lanes.ts';
import type { Address, Affine, AffineLike, Value } from '../ir/record.ts';
import { at, times } from '../ir/record.ts';
import { fmaf } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { floatTypes, readFloat } from './elementwise.ts';
import type { KernelFamily } from './kernel.ts';
import { groupOf, LANES, range, roundUp } from './kernel.ts';
import { headStride } from './rope.ts';

/** Positions of a block; part of the definition of the result. */
export const BLOCK = 32;
/** Positions that buffers are declared for: 2^20, more than any model. */
const MOST_BLOCKS = 2 ** 15;
/** Stands for minus infinity: below every score, and its differences stay finite or round to -infinity, which e^x clamps. */
const LOWEST = -3e38;

/** Default tile: up to four heads share each load of keys and values, as many value dims as the registers hold. */
export function attentionTile(isa: Isa, g: number): [number, number, number] {
  const heads = Math.min(g, 4);
  const room = Math.min(isa.registers, 32) - 1;
  // Scores: an accumulator for every head and position; all 32 positions of a block at once where they fit.
  const positions = (heads + 1) * (BLOCK / isa.lanes) <= room ? BLOCK : LANES;
  let dims = 64;
  while (dims > LANES && (heads + 1) * (dims / isa.lanes) > room) dims /= 2;
  return [heads, positions, dims];
}

/** Floats of scratch that one call needs: scores, running maximum and sum, block maximum and sum, fold factors. */
export const attentionScratch = (g: number): number => g * BLOCK + 6 * roundUp(g, LANES);

export const attention: KernelFamily = {
  source: 'attention.ts',
  formula: 'o[g][d] = softmax(scale q[g] . K) . V over the positions of one key-value head',
  needs: [
    'load_floats',
    'store_floats',
    'load_halves',
    'fma',
    'mul',
    'add',
    'sub',
    'div',
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
    const states = roundUp(g, LANES);
    const type = floatTypes[spec.weight as 'f32' | 'f16'];
    const [tileHeads, tilePositions, tileDims] = spec.tile as [number, number, number];
    const positions = MOST_BLOCKS * BLOCK;

    const q = b.pointer('q', {
      element: 'f32',
      access: 'in',
      extent: g * stride,
      doc: `rotated queries [${g}][${stride}]`,
    });
    const keys = b.pointer('keys', {
      element: type.element,
      access: 'in',
      extent: positions * d,
      doc: `[position / 16][${d}][16], ${spec.weight}`,
    });
    const values = b.pointer('values', {
      element: type.element,
      access: 'in',
      extent: positions * padded,
      doc: `[position][${padded}], ${spec.weight}`,
    });
    const o = b.pointer('o', { element: 'f32', access: 'out', extent: g * padded, doc: `result [${g}][${padded}]` });
    const scratch = b.pointer('scratch', {
      element: 'f32',
      access: 'scratch',
      extent: attentionScratch(g),
      doc: 'scores and fold state',
    });
    const blocks = b.long('blocks', 0, MOST_BLOCKS - 1, 'whole blocks of 32 positions');
    const tail = b.long('tail', 0, 1, 'is there a block that is not whole');
    const rest = b.long('rest', 0, BLOCK - 1, 'positions in that block');
    const scale = b.let('scale_all', 'splat', b.scalar('float', 'scale', '1 / sqrt(d)'));

    const score = (h: number, i: AffineLike): Address => at(scratch, h * BLOCK, i);
    const state = (slot: number, h: number): Address => at(scratch, g * BLOCK + slot * states, h);
    const [MAXIMUM, SUM, BLOCK_MAXIMUM, BLOCK_SUM, OLD, NEW] = [0, 1, 2, 3, 4, 5];

    const low = b.let('lowest', 'constant', LOWEST);
    const zero = b.let('zero', 'constant', 0);
    for (let h = 0; h < states; h += L) {
      b.do('store_floats', state(MAXIMUM, h), low);
      for (const slot of [SUM, BLOCK_MAXIMUM, BLOCK_SUM]) b.do('store_floats', state(slot, h), zero);
    }
    b.loop('clear', 0, g * padded, L, (i) => b.do('store_floats', at(o, i), zero));

    const scores = (block: Affine, id: string) =>
      eachTile(g, tileHeads, (h0, heads) =>
        eachTile(BLOCK, tilePositions, (p0, positionsAtOnce) => {
          const tag = `${id}_h${h0}_p${p0}`;
          const groups = range(positionsAtOnce / LANES);
          const acc = range(heads).map((h) =>
            groups.map((p) => range(groupOf(isa)).map((v) => b.variable(`s${tag}_${h}_${p}_${v}`, 'constant', 0))),
          );
          b.unrolled(`i${tag}`, d, 4, (i, u, more) => {
            const name = `${tag}${more}_u${u}`;
            const k = groups.map((p) => {
              const from = at(keys, times(block, BLOCK * d), (p0 + p * LANES) * d, times(i, LANES));
              return loadGroup(b, L, `k${name}_${p}`, type.load, from);
            });
            acc.forEach((sums, h) => {
              const qi = b.let(`q${name}_${h}`, 'splat', b.let(`q1${name}_${h}`, 'get', at(q, (h0 + h) * stride, i)));
              sums.forEach((sum, p) => {
                sum.forEach((a, v) => {
                  b.set(a, 'fma', k[p]![v]!, qi, a);
                });
              });
            });
          });
          acc.forEach((sums, h) => {
            sums.forEach((sum, p) => {
              const scaled = mapGroup(b, `scaled${tag}_${h}_${p}`, 'mul', sum, scale);
              storeGroup(b, L, 'store_floats', score(h0 + h, p0 + p * LANES), scaled);
            });
          });
        }),
      );

    const softmax = (id: string, valid?: Affine) => {
      for (const h of range(g)) {
        const tag = `${id}_h${h}`;
        if (valid)
          b.loop(`mask${tag}`, valid, BLOCK, 1, (j) =>
            b.do('put', score(h, j), b.let(`mask_value${tag}`, 'number', LOWEST)),
          );
        const load = (name: string) =>
          [0, LANES].map((i) => loadGroup(b, L, `${name}${tag}_${i}`, 'load_floats', score(h, i)));
        const pair = (name: string, word: 'add' | 'max', [first, second]: Value[][]) =>
          reduceGroup(b, `${name}${tag}`, word, mapGroup(b, `${name}${tag}_both`, word, first!, second!));
        const raw = load('raw');
        const peak = pair('peak', 'max', raw);
        b.do('put', state(BLOCK_MAXIMUM, h), peak);
        const top = b.let(`top${tag}`, 'splat', peak);
        raw.forEach((group, i) => {
          const p = expGroup(b, `p${tag}_${i}`, mapGroup(b, `below${tag}_${i}`, 'sub', group, top));
          storeGroup(b, L, 'store_floats', score(h, i * LANES), p);
        });
        if (valid)
          b.loop(`drop${tag}`, valid, BLOCK, 1, (j) => b.do('put', score(h, j), b.let(`dropped${tag}`, 'number', 0)));
        b.do('put', state(BLOCK_SUM, h), pair('part', 'add', load('weights')));
      }
    };

    /** Running maximum and sum; leaves the factors a and c for the values. */
    const fold = (id: string) => {
      for (let h = 0; h < states; h += LANES) {
        const tag = `${id}_${h}`;
        const load = (name: string, slot: number) => loadGroup(b, L, `${name}${tag}`, 'load_floats', state(slot, h));
        const before = load('before', MAXIMUM);
        const block = load('block', BLOCK_MAXIMUM);
        const now = mapGroup(b, `now${tag}`, 'max', before, block);
        const factor = (name: string, m: Value[]) =>
          expGroup(b, `${name}${tag}`, mapGroup(b, `${name}_x${tag}`, 'sub', m, now));
        const old = factor('old', before);
        const fresh = factor('fresh', block);
        const kept = mapGroup(b, `kept${tag}`, 'mul', load('sum', SUM), old);
        storeGroup(
          b,
          L,
          'store_floats',
          state(SUM, h),
          mapGroup(b, `total${tag}`, 'fma', load('part', BLOCK_SUM), fresh, kept),
        );
        storeGroup(b, L, 'store_floats', state(MAXIMUM, h), now);
        storeGroup(b, L, 'store_floats', state(OLD, h), old);
        storeGroup(b, L, 'store_floats', state(NEW, h), fresh);
      }
    };

    const weigh = (block: Affine, id: string, valid: Affine | undefined) =>
      eachTile(g, tileHeads, (h0, heads) =>
        eachTile(padded, tileDims, (d0, dims) => {
          const tag = `${id}_h${h0}_d${d0}`;
          const vectors = range(dims / L);
          const acc = range(heads).map((h) => vectors.map((v) => b.variable(`o${tag}_${h}_${v}`, 'constant', 0)));
          const position = (j: Affine, name: string) => {
            const v = vectors.map((i) =>
              b.let(`v${name}_${i}`, type.load, at(values, times(block, BLOCK * padded), times(j, padded), d0 + i * L)),
            );
            acc.forEach((sum, h) => {
              const p = b.let(`p${name}_${h}`, 'splat', b.let(`p1${name}_${h}`, 'get', score(h0 + h, j)));
              sum.forEach((a, i) => {
                b.set(a, 'fma', v[i]!, p, a);
              });
            });
          };
          if (valid) b.loop(`j${tag}`, 0, valid, 1, (j) => position(j, tag));
          else b.unrolled(`j${tag}`, BLOCK, 2, (j, u) => position(j, `${tag}_u${u}`));
          acc.forEach((sum, h) => {
            const factor = (name: string, slot: number) =>
              b.let(`${name}${tag}_${h}`, 'splat', b.let(`${name}1${tag}_${h}`, 'get', state(slot, h0 + h)));
            const a = factor('a', OLD);
            const c = factor('c', NEW);
            sum.forEach((part, i) => {
              const to = at(o, (h0 + h) * padded, d0 + i * L);
              const kept = b.let(`ok${tag}_${h}_${i}`, 'mul', b.let(`ob${tag}_${h}_${i}`, 'load_floats', to), a);
              b.do('store_floats', to, b.let(`on${tag}_${h}_${i}`, 'fma', part, c, kept));
            });
          });
        }),
      );

    const blockOf = (block: Affine, id: string, valid?: Affine) => {
      scores(block, id);
      softmax(id, valid);
      fold(id);
      weigh(block, id, valid);
    };
    b.loop('block', 0, blocks, 1, (block) => blockOf(block, ''));
    b.loop('once', 0, tail, 1, () => blockOf(blocks, 't', rest));
    for (const h of range(g)) {
      const sum = b.let(`sum_h${h}`, 'splat', b.let(`sum1_h${h}`, 'get', state(SUM, h)));
      b.loop(`out_h${h}`, 0, padded, L, (i) => {
        const to = at(o, h * padded, i);
        b.do('store_floats', to, b.let(`ratio_h${h}`, 'div', b.let(`o_h${h}`, 'load_floats', to), sum));
      });
    }
  },

  reference: (spec, args) => {
    const f = Math.fround;
    const { g, d } = spec.shape as { g: number; d: number };
    const padded = roundUp(d, LANES);
    const { q, keys, values, o } = args as unknown as Record<string, Float32Array>;
    const scale = f(args.scale as number);
    const count = (args.blocks as number) * BLOCK + (args.tail as number) * (args.rest as number);
    for (let h = 0; h < g; h++) {
      let m = f(LOWEST);
      let l = 0;
      const out = new Float32Array(padded);
      for (let start = 0; start < count; start += BLOCK) {
        const n = Math.min(BLOCK, count - start);
        const s = range(n).map((j) => {
          let sum = 0;
          for (let i = 0; i < d; i++) {
            const position = start + j;
            const k = readFloat(
              spec.weight,
              keys![(Math.floor(position / LANES) * d + i) * LANES + (position % LANES)]!,
            );
            sum = fmaf(k, q![h * headStride(d) + i]!, sum);
          }
          return f(sum * scale);
        });
        const peak = Math.max(...s);
        const p = Float32Array.from({ length: BLOCK }, (_, j) => (j < n ? exp(f(s[j]! - peak)) : 0));
        const part = laneTree(Float32Array.from(range(LANES), (i) => p[i]! + p[i + LANES]!));
        const now = Math.max(m, peak);
        const a = exp(f(m - now));
        const c = exp(f(peak - now));
        l = fmaf(part, c, f(l * a));
        m = now;
        for (let i = 0; i < padded; i++) {
          let sum = 0;
          for (let j = 0; j < n; j++)
            sum = fmaf(readFloat(spec.weight, values![(start + j) * padded + i]!), p[j]!, sum);
          out[i] = fmaf(sum, c, f(out[i]! * a));
        }
      }
      for (let i = 0; i < padded; i++) o![h * padded + i] = out[i]! / l;
    }
  },

  samples: (isa) =>
    ['f32', 'f16'].flatMap((weight) =>
      [
        { g: 1, d: 96 },
        { g: 2, d: 64 },
        { g: 4, d: 128 },
        { g: 5, d: 20 },
        { g: 1, d: 100 },
      ].map(
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
    const padded = roundUp(d, LANES);
    // 1, 31, 32, 33, ... positions; extreme: one position
    const count = extreme ? 1 : [31, 32, 33, 65, 100][random.integer(0, 4)]!;
    const capacity = roundUp(count, BLOCK);
    const cache = (n: number) =>
      spec.weight === 'f32'
        ? Float32Array.from(range(n), random.normal)
        : Uint16Array.from(range(n), () => (random.integer(0, 1) << 15) | random.integer(0x2c00, 0x4200));
    return {
      q: Float32Array.from(range(g * headStride(d)), random.normal),
      keys: cache(capacity * d),
      values: cache(capacity * padded),
      o: new Float32Array(g * padded),
      scratch: new Float32Array(attentionScratch(g)),
      blocks: Math.floor(count / BLOCK),
      tail: count % BLOCK ? 1 : 0,
      rest: count % BLOCK,
      scale: 1 / Math.sqrt(d),
    };
  },
};

/** Calls `record(start, length)` for consecutive tiles of at most `size` over [0, total). */
function eachTile(total: number, size: number, record: (start: number, length: number) => void): void {
  for (let start = 0; start < total; start += size) record(start, Math.min(size, total - start));
}
