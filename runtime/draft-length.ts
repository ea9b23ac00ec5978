/**
 * How many tokens to draft: the size of the next evaluation, from measured times and the chances of the guesses. Pure: times come in,
 * sizes go out. Between lookup.ts, which guesses, and speculation.ts, which evaluates.
 *
 * An evaluation of `size` tokens verifies size - 1 guesses. With p(i) the chance of guess i when those before it are right, it gives
 *
 *   gain(size) = 1 + p(0) + p(0) p(1) + ... + p(0) ... p(size - 2)   tokens, for   cost(size) = time(size) / time(1).
 *
 * Of the sizes 1, 2, 4, ... 32 the one with the largest gain / cost is taken; size 1, no draft, has 1 / 1. Example: with cost(8) = 2.75
 * and p = 0.9 throughout, gain is (1 - 0.9^8) / (1 - 0.9) = 5.7, and 5.7 / 2.75 = 2.1 times the speed; with p = 0.5 it is
 * 2.0 / 2.75 = 0.7, and nothing is drafted. Right guesses raise p and wrong ones lower it, whether they were drafted or not, so
 * drafts grow, shrink and pause with the text.
 *
 * Times are exponential means over about four evaluations of this process; an outlier counts as twice the mean at most. An
 * unmeasured size costs 1 + (size - 1) / 4 (two Zen 4 cores, 2B4T).
 *
 * Chances and times can mislead, so an account bounds what wrong drafts may cost. It is in tokens of plain decoding: it begins at 1,
 * a token that is drawn brings 1.02, an evaluation takes its cost, and only a size with 1 + account >= cost is allowed: one that can
 * be paid even if every guess is wrong, which leaves 1.02. So T tokens take at most 1.02 T + 1 times the time of one,
 * as far as the costs are known.
 */

/** Tokens of an evaluation that are considered. */
const sizes = [2, 4, 8, 16, 32] as const;
/** Share of the time that may be lost. */
const ALLOWANCE = 0.02;

const moveTowards = (mean: number, sample: number): number => mean + (Math.min(sample, 2 * mean) - mean) / 4;

export class DraftLength {
  /** Milliseconds of one token; 0: not measured yet. */
  #single = 0;
  /** Costs by size, in tokens. */
  readonly #costs = new Map<number, number>(sizes.map((size) => [size, 1 + (size - 1) / 4]));
  #account = 1;

  /** An evaluation of 1 token, or of as many as `choose` told and one. */
  evaluated(size: number, ms: number): void {
    if (size === 1) this.#single = this.#single ? moveTowards(this.#single, ms) : ms;
    else this.#costs.set(size, moveTowards(this.cost(size), ms / this.#single));
    this.#account -= this.cost(size);
  }

  /** A token was drawn. */
  drawn(): void {
    this.#account += 1 + ALLOWANCE;
  }

  /** Time of an evaluation of `size` tokens over that of one. */
  cost(size: number): number {
    return this.#costs.get(size) ?? 1;
  }

  /** @param most tokens that may be evaluated @param chance of guess i if those before it are right @returns tokens to draft */
  choose(most: number, chance: (i: number) => number): number {
    if (!this.#single || chance(0) === 0) return 0;
    let [best, speed] = [1, 1];
    let [verified, gain, all] = [1, 1, 1];
    for (const size of sizes) {
      if (size > most || this.cost(size) > 1 + this.#account) break;
      for (; verified < size; verified++) {
        all *= chance(verified - 1);
        gain += all;
      }
      if (gain / this.cost(size) > speed) [best, speed] = [size, gain / this.cost(size)];
    }
    return best - 1;
  }
}
