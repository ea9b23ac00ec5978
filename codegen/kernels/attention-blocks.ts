/**
 * What all attention kernels share: the order in which softmax and weighted sum run over positions, and its recording.
 *
 *   block   32 positions: m_b = max s_j, p_j = e^(s_j - m_b), l_b = sum p_j, o_b = sum p_j v_j
 *   span    4 blocks, folded in ascending order from (m, l, o) = (LOWEST, 0, 0):
 *           m' = max(m, m_b), a = e^(m - m'), c = e^(m_b - m'), l' = l a + l_b c, o' = o a + o_b c
 *   result  the spans of a query, brought together by combine.ts
 *
 * Blocks and spans start at fixed absolute positions, so the result depends neither on batches and chunks nor on which thread
 * takes which span. (The folding is that of Milakov & Gimelshein, arXiv 1805.02867; spans are the splits of Flash-Decoding.)
 * One call serves one span of one query position, for the g query heads that share a key-value head, and leaves a part:
 * o [g][d rounded up to 16], then m and l, [g rounded up to 16] each.
 */
import { exp, expGroup, laneTree, reduceGroup } from '../ir/lanes.ts';
import type { Address, Affine, AffineLike, Recorder, Value } from '../ir/record.ts';
import { at, times } from '../ir/record.ts';
import type { Arguments } from '../ir/simulate.ts';
import { fmaf } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { Random } from './kernel.ts';
import { LANES, range, roundUp } from './kernel.ts';

/** Positions of a block; part of the definition of the result. */
export const BLOCK = 32;
const SPAN_BLOCKS = 4;
/**
 * Positions of a span, the unit of work of decode; part of the definition of the result. 128: five key-value heads make 80 units
 * at 2048 positions, enough for 16 threads, and a part is 2 KB for 32 KB of 8-bit cache; what a span costs beyond its blocks,
 * clearing and combining its part, is some 5 % of it.
 */
export const SPAN = SPAN_BLOCKS * BLOCK;
/**
 * How many blocks ahead the sums of values fetch keys: those of the next span, while scores fetch the values of their own. Keys and
 * values of a span are two runs of some kilobytes in turn, which a hardware prefetcher meets as many short streams. One token after
 * 512 positions of 2B4T's cache, 8 bits, AMD EPYC (Zen 4), clang 19, 1 thread: 55 us a layer without, 42 into the first-level cache
 * (prefetch), 32 so.
 */
export const KEYS_AHEAD = SPAN_BLOCKS;
/** Stands for minus infinity: below every score, and its differences stay finite or round to -infinity, which e^x clamps. */
const LOWEST = -3e38;

/** Floats of a part. */
export const partSize = (g: number, d: number): number => g * roundUp(d, LANES) + 2 * roundUp(g, LANES);

/** Per-head numbers of each block, behind the scores: a block's m, l and the scale of its o; the factors a and c of the fold. */
const slots = ['blockMaximum', 'blockSum', 'blockScale', 'old', 'fresh'] as const;
type Slot = (typeof slots)[number];

/** Floats of scratch that one call needs. */
export const attentionScratch = (g: number): number => SPAN_BLOCKS * (g * BLOCK + slots.length * roundUp(g, LANES));

/** The parameters that all attention kernels end with. */
export interface Blocks {
  readonly part: Address;
  /** Score, later weight, of head h and position j of a block. */
  readonly score: (block: Affine, h: AffineLike, j: AffineLike) => Address;
  readonly state: (slot: Slot, block: Affine, h: AffineLike) => Address;
  readonly whole: Affine;
  readonly blocks: Affine;
  readonly rest: Affine;
}

/** Declares them. */
export function declareBlocks(b: Recorder, g: number, d: number): Blocks {
  const states = roundUp(g, LANES);
  const part = b.pointer('part', {
    element: 'f32',
    access: 'out',
    extent: partSize(g, d),
    doc: `sums [${g}][${roundUp(d, LANES)}], maxima [${states}], sums of weights [${states}] of the span`,
  });
  const scratch = b.pointer('scratch', {
    element: 'f32',
    access: 'scratch',
    extent: attentionScratch(g),
    doc: `scores, later weights [${SPAN_BLOCKS}][${g}][${BLOCK}]; ${slots.length} numbers a head [${SPAN_BLOCKS}][${states}]`,
  });
  return {
    part,
    score: (block, h, j) => at(scratch, times(block, g * BLOCK), times(h, BLOCK), j),
    state: (slot, block, h) =>
      at(scratch, SPAN_BLOCKS * (g * BLOCK + slots.indexOf(slot) * states), times(block, states), h),
    whole: b.long('whole', 0, SPAN_BLOCKS, 'whole blocks of 32 positions'),
    blocks: b.long('blocks', 1, SPAN_BLOCKS, 'blocks: one more where the last is not whole'),
    rest: b.long('rest', 0, BLOCK - 1, 'positions in that last block'),
  };
}

/** What an attention kernel does with a block; `id` keeps names apart. */
export interface BlockSteps {
  /** Writes the scores of all heads and positions. */
  readonly scores: (block: Affine) => void;
  /** After the softmax of head h: may replace the weights, and put the scale of the block's sums in `blockScale`. */
  readonly weights?: (block: Affine, h: Affine) => void;
  /** Sums the weighted values and folds them into the part with `foldValues`; `valid` positions where given, else all. */
  readonly weigh: (block: Affine, id: string, valid?: Affine) => void;
  /** Values of positions that do not exist may be anything: `weigh` is never told how many are valid. */
  readonly anyValues: boolean;
}

/**
 * Records the walk over a span, each step for all its blocks: the softmax of a head and block is one long chain of dependent
 * operations (peak, e^x, sum, codes), and many such chains overlap.
 */
export function recordBlocks(b: Recorder, isa: Isa, g: number, d: number, frame: Blocks, steps: BlockSteps): void {
  const L = isa.lanes;
  const { part, score, state, whole, blocks, rest } = frame;
  const sums = g * roundUp(d, LANES);
  const states = roundUp(g, LANES);
  const maximum = (h: AffineLike) => at(part, sums, h);
  const total = (h: AffineLike) => at(part, sums + states, h);

  // Lanes beyond the heads hold (LOWEST, 0), which every fold keeps.
  const low = b.let('lowest', 'constant', LOWEST);
  const zero = b.let('zero', 'constant', 0);
  b.loop('clear', 0, sums, L, (i) => b.do('store_floats', at(part, i), zero));
  b.loop('start', 0, states, L, (h) => {
    b.do('store_floats', maximum(h), low);
    b.do('store_floats', total(h), zero);
    b.loop('start_block', 0, blocks, 1, (block) => {
      b.do('store_floats', state('blockMaximum', block, h), low);
      for (const slot of ['blockSum', 'blockScale'] as const) b.do('store_floats', state(slot, block, h), zero);
    });
  });

  /** Every head of every block. */
  const rows = (name: string, record: (block: Affine, h: Affine) => void) =>
    b.loop(`${name}_block`, 0, blocks, 1, (block) => b.loop(`${name}_h`, 0, g, 1, (h) => record(block, h)));
  /** The scores of positions that do not exist. */
  const fill = (name: string, value: number) =>
    b.loop(`${name}_block`, whole, blocks, 1, (block) =>
      b.loop(`${name}_h`, 0, g, 1, (h) =>
        b.loop(name, rest, BLOCK, 1, (j) => b.do('put', score(block, h, j), b.let(`${name}_value`, 'number', value))),
      ),
    );
  const load = (block: Affine, h: Affine, name: string) =>
    range(BLOCK / L).map((v) => b.let(`${name}_${v}`, 'load_floats', score(block, h, v * L)));
  /** Lane i of 16 is position i with position i + 16; then the tree. */
  const reduce = (name: string, word: 'add' | 'max', vectors: readonly Value[]) => {
    const half = vectors.length / 2;
    return reduceGroup(
      b,
      name,
      word,
      range(half).map((v) => b.let(`${name}_both_${v}`, word, vectors[v]!, vectors[v + half]!)),
    );
  };

  b.loop('block_s', 0, blocks, 1, steps.scores);
  fill('mask', LOWEST);
  rows('p', (block, h) => {
    // A score of -infinity becomes NaN, lest e^x make a small weight of it.
    const scores = load(block, h, 's').map((s, v) => b.let(`sound_${v}`, 'fma', s, zero, s));
    const peak = reduce('peak', 'max', scores);
    b.do('put', state('blockMaximum', block, h), peak);
    const top = b.let('top', 'splat', peak);
    const below = scores.map((s, v) => b.let(`below_${v}`, 'sub', s, top));
    expGroup(b, 'p', below).forEach((p, v) => {
      b.do('store_floats', score(block, h, v * L), p);
    });
  });
  fill('drop', 0);
  rows('l', (block, h) => {
    b.do('put', state('blockSum', block, h), reduce('l', 'add', load(block, h, 'weights')));
    steps.weights?.(block, h);
  });

  // Running maximum and sum; leaves the factors for the values. Lane = head.
  b.loop('f', 0, states, L, (h) =>
    b.loop('f_block', 0, blocks, 1, (block) => {
      const before = b.let('before', 'load_floats', maximum(h));
      const peak = b.let('block_max', 'load_floats', state('blockMaximum', block, h));
      const now = b.let('now', 'max', before, peak);
      const [a, c] = expGroup(b, 'fold', [
        b.let('below_a', 'sub', before, now),
        b.let('below_c', 'sub', peak, now),
      ]) as [Value, Value];
      const kept = b.let('kept', 'mul', b.let('sum', 'load_floats', total(h)), a);
      const added = b.let('added', 'load_floats', state('blockSum', block, h));
      b.do('store_floats', total(h), b.let('sum_now', 'fma', added, c, kept));
      b.do('store_floats', maximum(h), now);
      b.do('store_floats', state('old', block, h), a);
      const scaled = steps.weights
        ? b.let('scaled_c', 'mul', c, b.let('block_scale', 'load_floats', state('blockScale', block, h)))
        : c;
      b.do('store_floats', state('fresh', block, h), scaled);
    }),
  );

  b.loop('block_v', 0, steps.anyValues ? blocks : whole, 1, (block) => steps.weigh(block, ''));
  if (!steps.anyValues) b.loop('last', whole, blocks, 1, (block) => steps.weigh(block, 't', rest));
}

/** o' = o a + o_b c for the sums of one head; `sums` are vectors of consecutive dims from `to` on. */
export function foldValues(
  b: Recorder,
  lanes: number,
  name: string,
  frame: Blocks,
  block: Affine,
  h: Affine,
  to: Address,
  sums: readonly Value[],
): void {
  const factor = (slot: Slot) =>
    b.let(`${slot}${name}`, 'splat', b.let(`${slot}_1${name}`, 'get', frame.state(slot, block, h)));
  const a = factor('old');
  const c = factor('fresh');
  sums.forEach((sum, v) => {
    const o = at(to, v * lanes);
    const kept = b.let(`kept${name}_${v}`, 'mul', b.let(`o${name}_${v}`, 'load_floats', o), a);
    b.do('store_floats', o, b.let(`o_now${name}_${v}`, 'fma', sum, c, kept));
  });
}

/** What a block is to the definition: scores of its n positions, and for weights [32] its sums [padded] with their scale. */
export interface BlockValue {
  readonly scores: readonly number[];
  readonly weigh: (p: Float32Array) => { readonly sums: Float32Array; readonly scale: number };
}

/** Computes a part by the definition; `value` gives head h, positions [start, start + n). */
export function referencePart(
  part: Float32Array,
  g: number,
  d: number,
  count: number,
  value: (h: number, start: number, n: number) => BlockValue,
): void {
  const f = Math.fround;
  const padded = roundUp(d, LANES);
  part.fill(0);
  part.fill(LOWEST, g * padded, g * padded + roundUp(g, LANES));
  for (let h = 0; h < g; h++) {
    let m = f(LOWEST);
    let l = 0;
    for (let start = 0; start < count; start += BLOCK) {
      const n = Math.min(BLOCK, count - start);
      const { scores, weigh } = value(h, start, n);
      const peak = Math.max(...scores);
      const p = Float32Array.from({ length: BLOCK }, (_, j) => (j < n ? exp(f(scores[j]! - peak)) : 0));
      const sum = laneTree(Float32Array.from(range(LANES), (i) => p[i]! + p[i + LANES]!));
      const now = Math.max(m, peak);
      const a = exp(f(m - now));
      const c = exp(f(peak - now));
      l = fmaf(sum, c, f(l * a));
      m = now;
      const { sums, scale } = weigh(p);
      const factor = f(c * scale);
      for (let i = 0; i < padded; i++) part[h * padded + i] = fmaf(sums[i]!, factor, f(part[h * padded + i]! * a));
    }
    part[g * padded + h] = m;
    part[g * padded + roundUp(g, LANES) + h] = l;
  }
}

/** The parameters that stand for `count` positions. */
const blocksOf = (count: number) => ({
  whole: Math.floor(count / BLOCK),
  blocks: Math.ceil(count / BLOCK),
  rest: count % BLOCK,
});
/** Positions of a call. */
export const positionsOf = (args: Arguments): number => (args.whole as number) * BLOCK + (args.rest as number);

/** Numbers and buffers of a test call: positions below, at and above blocks, a whole span; extreme: one position. */
export function blocksExample(g: number, d: number, random: Random, extreme: boolean) {
  const count = extreme ? 1 : [31, 32, 33, 65, 100, SPAN][random.integer(0, 5)]!;
  return {
    part: new Float32Array(partSize(g, d)),
    scratch: new Float32Array(attentionScratch(g)),
    ...blocksOf(count),
  };
}

/** Heads, head sizes that the tests build attention for. */
export const sampledGroups = [
  { g: 1, d: 96 },
  { g: 2, d: 64 },
  { g: 4, d: 128 },
  { g: 5, d: 20 },
  { g: 1, d: 100 },
] as const;

/**
 * Tile: query heads x positions of a score x value dims that are accumulated at once. Up to four heads share each load of keys
 * and values; positions and dims are the most, up to 32 and 64, with which accumulators and loads stay in the registers:
 * (heads + 1) vectors for each vector of positions or dims, and `extra` more. Where a vector has few lanes the tile is small
 * too, and the generated text stays short: the rest is loops.
 */
export function attentionTile(isa: Isa, g: number, extra = 1): [number, number, number] {
  const heads = Math.min(g, 4);
  const room = Math.min(isa.registers, 32) - extra;
  const most = (wanted: number) => {
    let size = wanted;
    while (size > isa.lanes && (heads + 1) * (size / isa.lanes) > room) size /= 2;
    return size;
  };
  return [heads, most(BLOCK), most(64)];
}
