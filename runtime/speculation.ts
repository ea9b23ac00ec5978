/**
 * Drawing tokens with drafts: the last token and some guesses of what follows are evaluated in one call, and each next token is then
 * drawn from the logits of its own position, for as long as the guess before it was the token drawn. Between the engine, which
 * evaluates, and lookup.ts and draft-length.ts, which guess.
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
import type { Draw, Engine } from './engine.ts';
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
  readonly #engine: Engine;
  readonly #length: DraftLength;
  readonly #lookup: Lookup;
  /** Guesses whose positions are evaluated, and how the token after each is drawn. */
  #ahead: { readonly guess: number; readonly draw: Draw }[] = [];

  /** @param length what it has learnt of the engine's times is kept @param text the prompt */
  constructor(engine: Engine, length: DraftLength, options: LookupOptions, text: readonly number[]) {
    this.#engine = engine;
    this.#length = length;
    this.#lookup = new Lookup(options, engine.context);
    for (const token of text) this.#lookup.push(token);
  }

  /** Draws the token after the last one of `history`, which was drawn last. @param most tokens that can still be drawn */
  draw(sampler: Sampler, history: readonly number[], most: number): number {
    const last = history.at(-1)!;
    this.#lookup.push(last);
    const accepted = this.#ahead[0]?.guess === last;
    this.statistics.accepted += Number(accepted);
    const next = accepted ? this.#ahead.shift()!.draw : this.#evaluate(sampler, history, most);
    this.#length.drawn();
    return next(history);
  }

  /** Evaluates the last token and a draft. @returns how the next token is drawn */
  #evaluate(sampler: Sampler, history: readonly number[], most: number): Draw {
    this.settle();
    const lookup = this.#lookup;
    const count = this.#length.choose(most, (i) => lookup.chance(i));
    const draft = lookup.draft(count);
    const started = performance.now();
    const draws = this.#engine.drawAll(sampler, history, draft);
    this.#length.evaluated(1 + draft.length, performance.now() - started);
    this.#ahead = draft.map((guess, i) => ({ guess, draw: draws[i + 1]! }));
    this.statistics.drafted += draft.length;
    this.statistics.evaluations += Number(draft.length > 0);
    return draws[0]!;
  }

  /** Forgets what was evaluated beyond the tokens drawn; also to be called at the end. */
  settle(): void {
    if (this.#ahead.length) this.#engine.rewind(this.#engine.position - this.#ahead.length);
    this.#ahead = [];
  }
}
