/**
 * Prompt lookup: guesses the next tokens from the text itself (A. Saxena, "Prompt Lookup Decoding", 2023). Where the last few
 * tokens occurred before, what followed them then is the draft. Pure bookkeeping; speculation.ts verifies the drafts.
 *
 *   text   ... the little red hen said ... the little red        the last 3 tokens occurred before
 *                             ^ source                           draft: hen said ...
 *
 * Each token enters the text's n-grams, for n = shortest ... longest, into one hash table that holds the position after the last
 * occurrence of each. A look-up tries the longest n first and compares the tokens themselves, so a collision costs a match but
 * never makes a false one. While the source foretells the tokens that come it just moves along, and nothing is searched: a token
 * costs a few table accesses, however long the text. After a wrong guess it goes on behind it, unless there is a match: copies exchange
 * single words. A second wrong one ends it.
 *
 * A match foretells every next token, drafted or not. So for each length of the agreement (how many tokens before the source equal
 * those at the end of the text) the share of right guesses is known without a single evaluation spent on finding out: a mean
 * over about 16 guesses, which begins at (length + 1) / (length + 4), an assumption that counts as two. draft-length.ts decides by it.
 */
import { UsageError } from '../schemas/error.ts';
import { Mean } from './mean.ts';

export interface LookupOptions {
  /** Tokens that must agree before a source is followed; default 2. */
  readonly shortest?: number;
  /** The most that are looked up together; default 4. */
  readonly longest?: number;
}

/** Agreements of this length or more are alike. */
const MOST_AGREEMENT = 16;
/** Lengths 1, 2, 3, 4 to 7, 8 to 15, and 16 or more are classes of their own, 1 to 6; class 0: after a wrong guess. */
const classOf = (length: number): number => (length < 4 ? length : Math.min(33 - Math.clz32(length), 6));
/** The least length of each class. */
const classes = [0, 1, 2, 3, 4, 8, MOST_AGREEMENT];

export class Lookup {
  readonly #shortest: number;
  readonly #longest: number;
  readonly #text: number[] = [];
  /** Position after the last n-gram with this hash; 0: none. */
  readonly #table: Int32Array;
  /** Hashes of the last n tokens, [n]. */
  readonly #hashes: Int32Array;
  /** Position of the guessed next token; 0: there is none. */
  #source = 0;
  /** How many tokens before it equal the last ones of the text; each wrong guess halves it. */
  #agreement = 0;
  /** The last guess was wrong, and this source is gone on with. */
  #missed = false;
  /** Share of right guesses by class of the agreement. */
  readonly #hits = classes.map((length) => new Mean(16, (length + 1) / (length + 4), 2));

  /** @param tokens that the text may come to; beyond, n-grams replace older ones @throws UsageError for an option out of range */
  constructor({ shortest = 2, longest = Math.max(4, shortest) }: LookupOptions = {}, tokens = 4096) {
    const whole = Number.isInteger(shortest) && Number.isInteger(longest);
    if (!whole || shortest < 1 || longest < shortest || longest > MOST_AGREEMENT)
      throw new UsageError(
        `lookup of ${shortest} to ${longest} tokens is out of range; use whole numbers with 1 <= shortest <= longest <= ${MOST_AGREEMENT}`,
      );
    this.#shortest = shortest;
    this.#longest = longest;
    // A power of two, and at least one entry for each n-gram of the text.
    this.#table = new Int32Array(2 << Math.log2(tokens * (longest - shortest + 1)));
    this.#hashes = new Int32Array(longest + 1);
  }

  /** Takes in what is new of a text that begins as the one so far. */
  follow(text: readonly number[]): void {
    for (let at = this.#text.length; at < text.length; at++) this.#push(text[at]!);
  }

  #push(token: number): void {
    const text = this.#text;
    if (this.#source) {
      const hit = text[this.#source] === token;
      this.#hits[this.#classAt(0)]!.add(Number(hit));
      this.#source = hit || !this.#missed ? this.#source + 1 : 0;
      this.#agreement = hit ? this.#agreement + 1 : this.#agreement >> 1;
      this.#missed = !hit;
    }
    text.push(token);
    this.#hash();
    if (!this.#source || this.#missed) this.#search();
    for (let n = this.#shortest; n <= Math.min(this.#longest, text.length); n++)
      this.#table[this.#hashes[n]!] = text.length;
  }

  /** @returns `count` guesses of what comes next, or none; a source that reaches the end of the text goes on with the draft itself */
  draft(count: number): number[] {
    const draft: number[] = [];
    const period = this.#text.length - this.#source;
    for (let i = 0; this.#source && i < count; i++) draft.push(this.#text[this.#source + (i % period)]!);
    return draft;
  }

  /** Probability that guess `i` of a draft is right if those before it are; 0 where there is none. */
  chance(i: number): number {
    return this.#source ? this.#hits[this.#classAt(i)]!.value : 0;
  }

  #classAt(i: number): number {
    return i === 0 && this.#missed ? 0 : classOf(this.#agreement + i);
  }

  /** Hashes of the last 1, 2, ... longest tokens (Fibonacci hashing). */
  #hash(): void {
    let hash = -1;
    for (let n = 1; n <= Math.min(this.#longest, this.#text.length); n++) {
      hash = Math.imul(hash ^ this.#text[this.#text.length - n]!, 0x9e3779b1);
      hash ^= hash >>> 15;
      this.#hashes[n] = hash & (this.#table.length - 1);
    }
  }

  /** Looks for the longest n-gram at the end of the text that occurred before. */
  #search(): void {
    const { length } = this.#text;
    for (let n = Math.min(this.#longest, length - 1); n >= this.#shortest; n--) {
      const source = this.#table[this.#hashes[n]!]!;
      const agreement = this.#agreementAt(source);
      if (agreement < n) continue;
      this.#source = source;
      this.#agreement = agreement;
      this.#missed = false;
      return;
    }
  }

  /** How many tokens before `source` equal those at the end of the text; no more than matter. */
  #agreementAt(source: number): number {
    const text = this.#text;
    const most = Math.min(MOST_AGREEMENT, source);
    let length = 0;
    while (length < most && text[source - 1 - length] === text[text.length - 1 - length]) length++;
    return length;
  }
}
