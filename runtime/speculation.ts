/**
 * Drawing tokens with drafts: the last token and some guesses of what follows are evaluated in one call, and each next token is then
 * drawn from the logits of its own position, for as long as the guess before it was the token drawn. Between the evaluator
 * and lookup.ts and draft-length.ts, which guess.
 *
 *   evaluated   a  b  c  d        a: the last token; b c d: the draft
 *   drawn        b  c  x          b and c are accepted; x is drawn where d was guessed, so d's position is forgotten
 *
 * A guess decides nothing: it only makes logits come early. The sampler draws at every position, in order, from the logits that plain
 * decoding would have computed there, to the bit, after the same history. So tokens and the state of its random numbers are
 * those of plain decoding, for every sampler; and as tokens are asked for one by one, so are end tokens, stop strings,
 * limits and interruptions.
 */
import type { DraftLength } from './draft-length.ts';
import type { Draw, Evaluator } from './evaluator.ts';
import { Lookup, type LookupOptions } from './lookup.ts';
import type { Sampler } from './sampler.ts';

/** What drafts came to. */
export interface LookupStatistics {
  /** Tokens guessed and evaluated, and how many of them were drawn. */
  drafted: number;
  accepted: number;
  /** Evaluations that had a draft. */
  evaluations: number;
}

export class Speculation {
  readonly statistics: LookupStatistics = { drafted: 0, accepted: 0, evaluations: 0 };
  readonly #evaluator: Evaluator;
  readonly #length: DraftLength;
  readonly #lookup: Lookup;
  readonly #chance = (i: number): number => this.#lookup.chance(i);
  /** Guesses whose positions are evaluated, and how the token after each is drawn. */
  #ahead: { readonly guess: number; readonly draw: Draw }[] = [];
  /** Tokens that are still to be drawn without a look. */
  #pause = 0;

  /** @param length what it has learnt of the evaluator's times is kept */
  constructor(evaluator: Evaluator, length: DraftLength, options: LookupOptions) {
    this.#evaluator = evaluator;
    this.#length = length;
    length.begin();
    this.#lookup = new Lookup(options, evaluator.positions);
  }

  /** Draws the token after the last one of `history`, which was drawn last. @param most tokens that can still be drawn */
  draw(sampler: Sampler, history: readonly number[], most: number): number {
    const last = history.at(-1)!;
    if (this.#ahead[0]?.guess === last) return this.#accept(history);
    this.settle();
    if (this.#pause === 0) return this.#evaluate(sampler, history, last, most);
    this.#pause--;
    this.#length.passed();
    return this.#evaluator.draw(sampler, history, last);
  }

  /** The next token, where the last one was guessed. */
  #accept(history: readonly number[]): number {
    this.statistics.accepted++;
    this.#length.drawn();
    return this.#ahead.shift()!.draw(history);
  }

  /** Evaluates the last token, and a draft where one promises a gain. @returns the next token */
  #evaluate(sampler: Sampler, history: readonly number[], last: number, most: number): number {
    this.#lookup.follow(history);
    const count = this.#length.choose(most, this.#chance);
    const started = performance.now();
    const token = count ? this.#drawAhead(sampler, history, count) : this.#evaluator.draw(sampler, history, last);
    this.#length.evaluated(1 + count, performance.now() - started);
    this.#length.drawn();
    if (!count) this.#pause = this.#length.pause;
    return token;
  }

  /** Evaluates the last token and a draft. @returns the next token */
  #drawAhead(sampler: Sampler, history: readonly number[], count: number): number {
    const draft = this.#lookup.draft(count);
    const [next, ...draws] = this.#evaluator.drawAll(sampler, history, draft);
    this.#ahead = draft.map((guess, i) => ({ guess, draw: draws[i]! }));
    this.statistics.drafted += count;
    this.statistics.evaluations++;
    return next!(history);
  }

  /** Forgets what was evaluated beyond the tokens drawn; also to be called at the end. */
  settle(): void {
    if (this.#ahead.length) this.#evaluator.rewind(this.#evaluator.position - this.#ahead.length);
    this.#ahead = [];
  }
}
