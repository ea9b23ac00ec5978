/**
 * One text on a model: tokens are evaluated after those that are there, and give logits, the largest of them, or a drawn token. Below
 * the engine, which has one and decides who may use it when; above the library, whose context this is.
 */
import { LibraryError } from '../schemas/error.ts';
import { show } from '../schemas/options.ts';
import { type Library, want } from './library.ts';
import type { Candidates, Sampler } from './sampler.ts';

/** Prompt tokens of one foreign call: Ctrl-C and progress get through between calls. */
const PROMPT_CHUNK = 256;
/** Most logits of one bn_top, if the vocabulary is as large. */
const MOST_TOP = 1024;

/** For whoever waits while a prompt is evaluated. */
export interface ReadOptions {
  readonly signal?: AbortSignal;
  /** Prompt tokens evaluated so far. */
  readonly onPrompt?: (done: number, total: number) => void;
}

/** What a disposed one answers. */
export const DISPOSED = 'this engine was disposed; load the model again';

/** Draws the token after an evaluated position, given the tokens up to it; valid until the next evaluation. */
export type Draw = (history: readonly number[]) => number;

export class Evaluator {
  readonly vocabulary: number;
  /** Tokens of the longest text. */
  readonly positions: number;
  /** Does a sampler that looks at the largest logits only get those only? */
  readonly #selects: boolean;
  readonly #library: Library;
  /** The library's number of it; undefined once it is disposed. */
  #context: number | undefined;
  /** The tokens that are evaluated. */
  readonly #text: number[] = [];
  readonly #logits: Float32Array;
  /** Are `#logits` those after the last token of the text? */
  #hasLogits = false;
  #tokens = new Int32Array(1);
  #topIds: Int32Array;
  #topLogits: Float32Array;

  /** @param context of a model with so many tokens in its vocabulary; it is released with this object */
  constructor(library: Library, context: number, sizes: { vocabulary: number; positions: number }, selects: boolean) {
    this.#library = library;
    this.#context = context;
    this.#selects = selects;
    this.vocabulary = sizes.vocabulary;
    this.positions = sizes.positions;
    this.#logits = new Float32Array(this.vocabulary);
    this.#topIds = new Int32Array(Math.min(MOST_TOP, this.vocabulary));
    this.#topLogits = new Float32Array(this.#topIds.length);
  }

  /** The library's number of the context. @throws LibraryError if it was disposed */
  get context(): number {
    if (this.#context === undefined) throw new LibraryError(DISPOSED);
    return this.#context;
  }

  get disposed(): boolean {
    return this.#context === undefined;
  }

  /** Tokens evaluated so far. */
  get position(): number {
    return this.#text.length;
  }

  /** Releases the context, once. */
  dispose(): void {
    if (this.#context !== undefined && !this.#library.disposed) this.#library.release(this.#context);
    this.#context = undefined;
  }

  /** Token ids as the library takes them. @throws LibraryError naming what is no token of the vocabulary */
  check(tokens: readonly number[]): Int32Array {
    if (!Array.isArray(tokens) && !(tokens instanceof Int32Array))
      throw new LibraryError(`tokens = ${show(tokens)}; they must be a list of token ids`);
    for (let i = 0; i < tokens.length; i++) {
      const id = tokens[i]!;
      if (!(Number.isInteger(id) && id >= 0 && id < this.vocabulary))
        throw new LibraryError(
          `token ${show(id)} at index ${i} is not in the vocabulary of ${this.vocabulary}: ids are whole numbers from 0 to ${this.vocabulary - 1}`,
        );
    }
    return Int32Array.from(tokens);
  }

  /** After an evaluation. @param logits are the last one's in `#logits`? */
  #evaluated(tokens: readonly number[] | Int32Array, logits: boolean): void {
    for (const token of tokens) this.#text.push(token);
    this.#hasLogits = logits;
  }

  /** How many tokens at the beginning of another text are those that are evaluated. */
  common(tokens: readonly number[]): number {
    let count = 0;
    while (count < Math.min(tokens.length, this.#text.length) && tokens[count] === this.#text[count]) count++;
    return count;
  }

  /** Forgets everything from `position` on. */
  rewind(position: number): void {
    this.#library.rewind(this.context, position);
    if (position < this.position) this.#hasLogits = false;
    this.#text.length = position;
  }

  /** Evaluates tokens, at least one. @returns logits of the last one, or [tokens][vocabulary] with `all` */
  evaluate(tokens: readonly number[], all = false): Float32Array {
    const ids = this.check(tokens);
    const logits = all ? new Float32Array(ids.length * this.vocabulary) : this.#logits;
    this.#library.evaluate(this.context, ids, ids.length, all ? want.all : want.last, logits);
    this.#evaluated(ids, !all);
    return logits;
  }

  /** Evaluates one token. @returns its logits [vocabulary], valid until the next call */
  step(token: number): Float32Array {
    this.#tokens.set(this.check([token]));
    this.#library.evaluate(this.context, this.#tokens, 1, want.last, this.#logits);
    this.#evaluated([token], true);
    return this.#logits;
  }

  /** As Engine.top. */
  top(count: number, token?: number): Candidates {
    const tokens = token === undefined ? [] : [token];
    this.#find(tokens, count, want.last);
    return { ids: this.#topIds, logits: this.#topLogits, count };
  }

  /** As Engine.topAll. */
  topAll(tokens: readonly number[], count: number): Candidates[] {
    this.#find(tokens, count, want.all);
    const row = (i: number) => [i * count, (i + 1) * count] as const;
    return tokens.map((_, i) => ({
      ids: this.#topIds.subarray(...row(i)),
      logits: this.#topLogits.subarray(...row(i)),
      count,
    }));
  }

  /** Evaluates tokens; the largest logits of the last one, or of each, go to `#topIds` and `#topLogits`. */
  #find(tokens: readonly number[], count: number, which: typeof want.last | typeof want.all): void {
    const most = Math.min(MOST_TOP, this.vocabulary);
    if (!Number.isInteger(count) || count < 1 || count > most)
      throw new LibraryError(`the ${show(count)} largest logits: there must be 1 to ${most}`);
    const ids = this.check(tokens);
    const all = (which === want.all ? ids.length : 1) * count;
    // Buffers are kept, since the first call with a new one is slow (0.1 ms).
    if (this.#tokens.length < ids.length) this.#tokens = new Int32Array(ids.length);
    if (this.#topIds.length < all) [this.#topIds, this.#topLogits] = [new Int32Array(all), new Float32Array(all)];
    this.#tokens.set(ids);
    this.#library.top(this.context, this.#tokens, ids.length, count, which, this.#topIds, this.#topLogits);
    this.#evaluated(ids, ids.length === 0 && this.#hasLogits);
  }

  /** How many of the largest logits decide the next token; 0: all must be there. */
  needed(sampler: Sampler, history: readonly number[]): number {
    const count = this.#selects ? sampler.candidates(this.vocabulary, history) : 0;
    return count <= MOST_TOP ? count : 0;
  }

  /** As Engine.draw. */
  draw(sampler: Sampler, history: readonly number[], token?: number): number {
    const count = this.needed(sampler, history);
    if (count) return sampler.sampleTop(this.top(count, token), history);
    if (token !== undefined) return sampler.sample(this.step(token), history);
    if (!this.#hasLogits) throw new LibraryError('there are no logits to draw from; evaluate a token first');
    return sampler.sample(this.#logits, history);
  }

  /** As Engine.drawAll. */
  drawAll(sampler: Sampler, history: readonly number[], draft: readonly number[]): Draw[] {
    const tokens = [history.at(-1)!, ...draft];
    const counts = tokens.map((_, i) => this.needed(sampler, [...history, ...draft.slice(0, i)]));
    if (!counts.includes(0))
      return this.topAll(tokens, Math.max(...counts)).map((top) => (past) => sampler.sampleTop(top, past));
    const logits = this.evaluate(tokens, true);
    const row = (i: number) => logits.subarray(i * this.vocabulary, (i + 1) * this.vocabulary);
    return tokens.map((_, i) => (past) => sampler.sample(row(i), past));
  }

  /** Evaluates tokens in pieces, with pauses between. @returns logits of the last one, or with `last` none what was there */
  async read(
    tokens: readonly number[],
    last: typeof want.none | typeof want.last,
    { signal, onPrompt }: ReadOptions,
  ): Promise<Float32Array> {
    const ids = this.check(tokens);
    if (!ids.length) throw new LibraryError('there are no tokens to evaluate; give at least one');
    for (let done = 0; done < ids.length; done += PROMPT_CHUNK) {
      signal?.throwIfAborted();
      const piece = ids.slice(done, done + PROMPT_CHUNK);
      const end = done + piece.length;
      const which = end === ids.length ? last : want.none;
      this.#library.evaluate(this.context, piece, piece.length, which, this.#logits);
      this.#evaluated(piece, which === want.last);
      onPrompt?.(end, ids.length);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return this.#logits;
  }
}
