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
 * Times are means over about the last four evaluations of this process. Before its first one, a size is taken to cost
 * 1 + (size - 1) / 4, which is optimistic, so that it is tried; with every 64 single tokens timed it is forgotten a little, so that one slow
 * minute does not rule a size out for good. No draft is made before four single tokens were timed.
 *
 * Chances and times can mislead, so an account bounds what wrong drafts may cost. It is in tokens of plain decoding: it begins at 1,
 * a token that is drawn brings 1.01, an evaluation takes its cost, and only a size with cost <= 1 + account is allowed: one that can
 * be paid even if every guess is wrong. So T tokens take at most 1.01 T + 1 times the time of one, and once more what a size takes
 * beyond its estimate; that too goes into the account, as debts that are paid before the next draft.
 *
 * Choosing itself takes some microseconds, which count where a token takes fifty: after a choice of no draft, a millisecond passes
 * before the next, unless a token takes longer.
 */

import { Mean } from './mean.ts';

/** Tokens of an evaluation that are considered. */
const sizes: readonly number[] = [2, 4, 8, 16, 32];
/** Share of the time that may be lost. */
const ALLOWANCE = 0.01;

/** Evaluations that a mean time spans. */
const SAMPLES = 4;

/** Milliseconds from a choice of no draft to the next. */
const PAUSE = 1;

/** What a size is taken to cost until it is measured. */
const expectedCost = (size: number): number => 1 + (size - 1) / 4;

export class DraftLength {
  /** Milliseconds of one token. */
  readonly #single = new Mean(SAMPLES);
  /** Costs of the sizes, in tokens. */
  readonly #costs = sizes.map((size) => new Mean(SAMPLES, expectedCost(size), 1));
  #account = 1;
  #singles = 0;

  /** A new text begins, with an account of its own. */
  begin(): void {
    this.#account = 1;
  }

  /** An evaluation of 1 token, or of as many as `choose` told and one. */
  evaluated(size: number, ms: number): void {
    if (size === 1) {
      this.#single.add(ms);
      this.#account -= 1;
      if (++this.#singles % 64) return;
      this.#costs.forEach((cost, i) => {
        cost.value += (expectedCost(sizes[i]!) - cost.value) / 128;
      });
      return;
    }
    // More than twice the time of as many single ones is a disturbance.
    const cost = Math.min(ms / this.#single.value, 2 * size);
    this.#costs[sizes.indexOf(size)]!.add(cost);
    this.#account -= cost;
  }

  /** A token was drawn. */
  drawn(): void {
    this.#account += 1 + ALLOWANCE;
  }

  /** A token was evaluated without a choice, and the next one drawn. */
  passed(): void {
    this.#account += ALLOWANCE;
  }

  /** Tokens that had better be evaluated without a choice, after a choice of no draft. */
  get pause(): number {
    return this.#single.samples < SAMPLES ? 0 : Math.floor(PAUSE / this.#single.value);
  }

  /** Time of an evaluation of `size` tokens over that of one. */
  cost(size: number): number {
    return this.#costs[sizes.indexOf(size)]!.value;
  }

  /** @param most tokens that may be evaluated @param chance of guess i if those before it are right @returns tokens to draft */
  choose(most: number, chance: (i: number) => number): number {
    if (this.#single.samples < SAMPLES || chance(0) === 0) return 0;
    let [best, speed] = [1, 1];
    let [verified, gain, all] = [1, 1, 1];
    for (const size of sizes) {
      if (size > most) break;
      for (; verified < size; verified++) {
        all *= chance(verified - 1);
        gain += all;
      }
      const cost = this.cost(size);
      if (cost <= 1 + this.#account && gain / cost > speed) [best, speed] = [size, gain / cost];
    }
    return best - 1;
  }
}
