/**
 * Chooses the next token from the logits. Between the engine, which computes them, and the chat and generate commands.
 * The steps and their order are llama.cpp's (src/llama-sampling.cpp; common/sampling.cpp has the order):
 *
 *   repetition penalty -> top-k -> top-p -> min-p -> temperature -> draw
 *
 * top-p and min-p therefore look at the probabilities *before* the temperature. The same seed gives the same tokens on every
 * machine: the generator is our own, and so is exp, because Math.exp may differ in the last bit between engines. Candidates are
 * ordered by falling logit, equal ones by token id; the 128,000 of a vocabulary are never sorted.
 *
 * With top-k, a sampler needs no more than the largest logits, which a library finds without computing the others (bn_top).
 * `candidates` tells how many; from those `sampleTop` draws the same token as `sample` from all of them.
 */
import { LibraryError } from '../schemas/error.ts';
import { checkAllOptions, type Rules, realNumber, wholeNumber } from '../schemas/options.ts';
import { xoshiro128 } from './random.ts';

/** How tokens are drawn; what is left out is as on the command line. */
export interface SamplerOptions {
  /** 0: always the most probable token; default 0.8. */
  readonly temperature?: number;
  /** Keep this many of the most probable tokens; 0: all; default 40. */
  readonly topK?: number;
  /** Keep the most probable tokens until their probabilities sum to this; 1: all; default 0.95. */
  readonly topP?: number;
  /** Keep tokens at least this probable, relative to the most probable one; 0: all; default 0.05. */
  readonly minP?: number;
  /** Logits of recent tokens are divided (if positive) or multiplied (if negative) by this; 1: off, the default. */
  readonly repeatPenalty?: number;
  /** How many tokens are recent; default 64. */
  readonly repeatLastN?: number;
  /** Whole number from 0 to 2^53 - 1; default: random. */
  readonly seed?: number;
}

/** What options are unless others are asked for, but for the seed. */
export const samplerDefaults = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repeatPenalty: 1,
  repeatLastN: 64,
} as const satisfies SamplerOptions;

const rules: Rules<Required<SamplerOptions>> = {
  temperature: realNumber((x) => x >= 0, 'a number from 0'),
  topK: wholeNumber(0, undefined, ' (0: off)'),
  topP: realNumber((x) => x > 0 && x <= 1, 'greater than 0 and at most 1 (1: off)'),
  minP: realNumber((x) => x >= 0 && x <= 1, 'from 0 (off) to 1'),
  repeatPenalty: realNumber((x) => x > 0, 'greater than 0 (1: off)'),
  repeatLastN: wholeNumber(0),
  seed: wholeNumber(0),
};

/** The tokens with the largest logits: the largest first, equal ones by rising id. */
export interface Candidates {
  readonly ids: Int32Array;
  readonly logits: Float32Array;
  /** How many there are; the arrays may be longer. */
  readonly count: number;
}

export interface Sampler {
  /**
   * @param logits [vocabulary], left unchanged
   * @param history tokens so far, the prompt's included; only the last `repeatLastN` are looked at
   * @returns a token id
   * @throws LibraryError if a logit is NaN or Infinity, or all are -Infinity
   */
  sample(logits: Float32Array, history: readonly number[]): number;
  /**
   * How many of the largest logits `sampleTop` needs after this history; 0: it must be `sample`, with all. Each token that a
   * penalty lowers can make room in the top-k for one more; a penalty below 1 raises logits, and could lift any token.
   */
  candidates(vocabulary: number, history: readonly number[]): number;
  /** As `sample`, from that many candidates. */
  sampleTop(top: Candidates, history: readonly number[]): number;
}

/** @throws UsageError for an option out of range, or one that there is not */
export function createSampler(options: SamplerOptions = {}): Sampler {
  checkAllOptions(options, rules);
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  return new ChainSampler({ ...samplerDefaults, seed: Math.floor(Math.random() * 2 ** 32), ...given });
}

/** What is wrong with the logits after the tokens so far. */
const damaged = (what: string, history: readonly number[]): LibraryError =>
  new LibraryError(
    `after ${history.length} tokens ${what}: the model's weights are damaged; pack them anew (bitnet-run --cache clear) or download the model again`,
  );

/**
 * The place of the greatest logit, of equal ones the first. -Infinity is an impossible token.
 * @throws LibraryError if a logit is NaN or Infinity, or no token is possible
 */
function mostProbable(logits: Float32Array, history: readonly number[] = []): number {
  let best = -1;
  let greatest = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id]!;
    // False for NaN.
    if (logit <= greatest) continue;
    if (!(logit < Number.POSITIVE_INFINITY)) throw damaged(`the logit of token ${id} is ${logit}`, history);
    greatest = logit;
    best = id;
  }
  if (best < 0) throw damaged('no token is possible', history);
  return best;
}

/**
 * The token with the greatest logit; of equal ones that with the lowest id. -Infinity is an impossible token. A sampler, and a
 * function of the logits alone.
 * @throws LibraryError if a logit is NaN or Infinity, or no token is possible
 */
export const greedy: Sampler & ((logits: Float32Array) => number) = Object.assign(
  (logits: Float32Array): number => mostProbable(logits),
  {
    sample: mostProbable,
    candidates: () => 1,
    sampleTop: ({ ids, logits, count }: Candidates, history: readonly number[] = []) =>
      ids[mostProbable(logits.subarray(0, count), history)]!,
  },
);

class ChainSampler implements Sampler {
  private readonly options: Required<SamplerOptions>;
  private readonly random: () => number;
  /** Penalised logits; as large as the vocabulary, made once. */
  private penalised = new Float32Array(0);
  /** Selected ids, and work space of the same size for their weights. */
  private ids = new Int32Array(0);
  private weights = new Float64Array(0);
  /** Logits of the selected ids. */
  private selected = new Float32Array(0);
  private readonly masses = new Float64Array(buckets);

  constructor(options: Required<SamplerOptions>) {
    this.options = options;
    this.random = xoshiro128(options.seed);
  }

  sample(logits: Float32Array, history: readonly number[]): number {
    const { temperature, topK } = this.options;
    const values = this.penalise(logits, history);
    const best = mostProbable(values, history);
    if (temperature === 0 || topK === 1) return best;
    const count = topK > 0 && topK < values.length ? this.selectTop(values) : this.selectMass(values, best);
    return this.ids[this.draw(values[best]!, count)]!;
  }

  candidates(vocabulary: number, history: readonly number[]): number {
    const { temperature, topK, repeatPenalty } = this.options;
    const wanted = temperature === 0 ? 1 : topK;
    if (wanted === 0 || (wanted >= vocabulary && wanted > 1) || repeatPenalty < 1) return 0;
    return Math.min(vocabulary, wanted + this.penalisedIds(history).size);
  }

  sampleTop(top: Candidates, history: readonly number[]): number {
    const { temperature, topK } = this.options;
    const { count } = top;
    const ids = this.workspace(count);
    const { selected } = this;
    const penalised = this.penalisedIds(history);
    for (let i = 0; i < count; i++) {
      const id = top.ids[i]!;
      const logit = penalised.has(id) ? this.penalty(top.logits[i]!) : top.logits[i]!;
      if (!(logit < Number.POSITIVE_INFINITY)) throw damaged(`the logit of token ${id} is ${logit}`, history);
      // Into its place among those before it: they stay in order.
      let at = i;
      for (; at > 0 && (selected[at - 1]! < logit || (selected[at - 1] === logit && ids[at - 1]! > id)); at--) {
        ids[at] = ids[at - 1]!;
        selected[at] = selected[at - 1]!;
      }
      ids[at] = id;
      selected[at] = logit;
    }
    if (selected[0] === Number.NEGATIVE_INFINITY) throw damaged('no token is possible', history);
    if (temperature === 0 || topK === 1) return ids[0]!;
    return ids[this.draw(selected[0]!, this.cut(Math.min(topK, count)))]!;
  }

  /** The tokens that the penalty applies to. */
  private penalisedIds(history: readonly number[]): Set<number> {
    const { repeatPenalty, repeatLastN } = this.options;
    return new Set(repeatPenalty === 1 || repeatLastN === 0 ? [] : history.slice(-repeatLastN));
  }

  /** A logit made less probable, as float32. */
  private penalty(logit: number): number {
    const { repeatPenalty } = this.options;
    return Math.fround(logit > 0 ? logit / repeatPenalty : logit * repeatPenalty);
  }

  /** The logits with recent tokens made less probable; each only once, however often it occurs. */
  private penalise(logits: Float32Array, history: readonly number[]): Float32Array {
    const ids = this.penalisedIds(history);
    if (!ids.size) return logits;
    if (this.penalised.length !== logits.length) this.penalised = new Float32Array(logits.length);
    this.penalised.set(logits);
    for (const id of ids) {
      const logit = logits[id];
      if (logit !== undefined) this.penalised[id] = this.penalty(logit);
    }
    return this.penalised;
  }

  /**
   * Puts what top-k, top-p and min-p leave into `ids`, by falling logit. @returns how many
   * A heap of the topK best so far, the worst at its root: most tokens cost one comparison.
   */
  private selectTop(values: Float32Array): number {
    const { topK } = this.options;
    const ids = this.workspace(topK);
    for (let id = 0; id < topK; id++) ids[id] = id;
    for (let i = (topK >> 1) - 1; i >= 0; i--) this.sink(values, i, topK);
    for (let id = topK, floor = values[ids[0]!]!; id < values.length; id++) {
      // Ids rise, so a later one of equal value is the worse one and stays outside.
      if (!(values[id]! > floor)) continue;
      ids[0] = id;
      this.sink(values, 0, topK);
      floor = values[ids[0]!]!;
    }
    // The worst goes to the end, until the best is in front.
    for (let end = topK - 1; end > 0; end--) {
      const worst = ids[0]!;
      ids[0] = ids[end]!;
      ids[end] = worst;
      this.sink(values, 0, end);
    }
    this.gather(values, topK);
    return this.cut(topK);
  }

  /** What top-p and min-p leave of the first `size` selected tokens, which are in order. @returns how many */
  private cut(size: number): number {
    const { topP, minP } = this.options;
    const { selected } = this;
    const max = selected[0]!;
    let mass = 0;
    for (let i = 0; i < size; i++) mass += exponential(selected[i]! - max);
    let count = 0;
    // The token that reaches topP is the last one kept, so one is always left.
    for (let sum = 0; count < size; count++) {
      const weight = exponential(selected[count]! - max);
      if (weight < minP || (topP < 1 && sum >= topP * mass)) break;
      sum += weight;
    }
    return count;
  }

  /**
   * The same without top-k. Which token reaches topP is found by the mass of each bucket of logits; only that token's bucket is
   * sorted, and `ids` is in no particular order: a flat distribution keeps tens of thousands of tokens.
   */
  private selectMass(values: Float32Array, best: number): number {
    const count = this.massIds(values, values[best]!);
    this.gather(values, count);
    return count;
  }

  private massIds(values: Float32Array, max: number): number {
    const { topP, minP } = this.options;
    const ids = this.workspace(values.length);
    let count = 0;
    if (topP === 1) {
      for (let id = 0; id < values.length; id++)
        if (minP === 0 || exponential(values[id]! - max) >= minP) ids[count++] = id;
      return count;
    }
    const { weights, masses } = this;
    masses.fill(0);
    let mass = 0;
    for (let id = 0; id < values.length; id++) {
      const weight = exponential(values[id]! - max);
      weights[id] = weight;
      mass += weight;
      masses[bucketOf(max - values[id]!)]! += weight;
    }
    let sum = 0;
    let last = 0;
    while (last < buckets - 1 && sum + masses[last]! < topP * mass) sum += masses[last++]!;
    const edge: number[] = [];
    for (let id = 0; id < values.length; id++) {
      const bucket = bucketOf(max - values[id]!);
      if (bucket < last && weights[id]! >= minP) ids[count++] = id;
      else if (bucket === last) edge.push(id);
    }
    // By rising id so far, and sorting is stable: equal logits stay in that order.
    edge.sort((a, b) => values[b]! - values[a]!);
    for (const id of edge) {
      if (weights[id]! < minP || sum >= topP * mass) break;
      sum += weights[id]!;
      ids[count++] = id;
    }
    return count;
  }

  /** Room for `size` tokens. */
  private workspace(size: number): Int32Array {
    if (this.ids.length < size) {
      this.ids = new Int32Array(size);
      this.weights = new Float64Array(size);
      this.selected = new Float32Array(size);
    }
    return this.ids;
  }

  /** Copies the logits of the first `count` ids to `selected`. */
  private gather(values: Float32Array, count: number): void {
    for (let i = 0; i < count; i++) this.selected[i] = values[this.ids[i]!]!;
  }

  /** Restores the heap order below place `at`. */
  private sink(values: Float32Array, at: number, size: number): void {
    const { ids } = this;
    const id = ids[at]!;
    const value = values[id]!;
    const worse = (a: number, b: number, x: number, y: number): boolean => x < y || (x === y && a > b);
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      const right = child + 1;
      if (right < size && worse(ids[right]!, ids[child]!, values[ids[right]!]!, values[ids[child]!]!)) child = right;
      if (!worse(ids[child]!, id, values[ids[child]!]!, value)) break;
      ids[at] = ids[child]!;
      at = child;
    }
    ids[at] = id;
  }

  /**
   * Draws one of the first `count` selected tokens with probability proportional to exp(logit / temperature). @returns its place
   */
  private draw(max: number, count: number): number {
    const { temperature } = this.options;
    const { selected, weights } = this;
    let total = 0;
    for (let i = 0; i < count; i++) {
      total += exponential((selected[i]! - max) / temperature);
      weights[i] = total;
    }
    // Below the total: random() is at most 1 - 2^-53, and the product with that rounds to less than the total.
    const target = this.random() * total;
    // The running sums rise: bisect for the first above the target; a token of weight 0 is never the first.
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (weights[middle]! > target) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** Buckets of selectMass: each 1/64 wide, the first at the greatest logit; the last holds all that is 32 or more below. */
const buckets = 2048;
function bucketOf(gap: number): number {
  return gap < (buckets - 1) / 64 ? Math.floor(gap * 64) : buckets - 1;
}

/** 2^-i for i = 0 ... 1022, each half of the one before: exact, which 2 ** -i need not be. */
const halves = new Float64Array(1023);
halves[0] = 1;
for (let i = 1; i < halves.length; i++) halves[i] = halves[i - 1]! / 2;

/** ln 2 in two parts; the first ends in 21 zero bits, so that i * ln2High is exact for i < 2^21 (fdlibm, e_exp.c). */
const ln2High = 0.6931471803691238;
const ln2Low = 1.9082149292705877e-10;

/** 1 / n; a division for each term would take most of the time. */
const reciprocals = Float64Array.from({ length: 14 }, (_, n) => 1 / n);

/**
 * e^x for x <= 0, by + - * / alone: the same bits on every engine. x = r - i ln 2 with |r| <= ln 2 / 2, and the Taylor series
 * of e^r to r^13: its remainder is below 0.35^14 / 14! = 4.7e-18. Below e^-708, the smallest normal double, it is 0; so for NaN.
 */
export function exponential(x: number): number {
  if (!(x > -708)) return 0;
  const i = Math.floor(0.5 - x / (ln2High + ln2Low));
  const r = x + i * ln2High + i * ln2Low;
  let sum = 1;
  for (let n = 13; n > 0; n--) sum = 1 + r * reciprocals[n]! * sum;
  return sum * halves[i]!;
}
