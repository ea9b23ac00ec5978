/**
 * A loaded model that evaluates tokens and generates text. It owns the library's model and one context; the composition roots
 * (index.ts, cli.ts) build the library and the packed weights beforehand.
 *
 * An engine holds one text and does one thing at a time: while `generate` or `prompt` runs, everything else that would change the text
 * is refused.
 */
import { LibraryError } from '../schemas/error.ts';
import { defaultThreads, usableCpus } from '../schemas/host.ts';
import {
  abortSignal,
  anyText,
  callback,
  checkAllOptions,
  checkOptions,
  checkValue,
  listOf,
  MOST_POSITIONS,
  MOST_THREADS,
  oneOf,
  type Rule,
  type Rules,
  wholeNumber,
  yesOrNo,
} from '../schemas/options.ts';
import { DraftLength } from './draft-length.ts';
import { DISPOSED, type Draw, Evaluator, type ReadOptions } from './evaluator.ts';
import type { ModelSource } from './formats/source.ts';
import {
  type DeadNeurons,
  type Library,
  type LiveShares,
  type Pages,
  type Profile,
  pages,
  type TopMode,
  want,
} from './library.ts';
import type { LookupOptions } from './lookup.ts';
import { contextSize, DEFAULT_KV, type KvBits, kvTypes } from './memory.ts';
import type { Candidates, Sampler } from './sampler.ts';
import { type LookupStatistics, Speculation } from './speculation.ts';
import { createTextStream } from './text-stream.ts';
import type { Tokenizer } from './tokenizer.ts';

/**
 * How the next token is found. `exact`: where the sampler looks at the largest logits only, the library finds them without computing the others; `full`: all
 * logits, always. The tokens are the same. `fast`: as `exact`, but by 4-bit rows, half the bytes, whose error bound is likely and not
 * certain: the logits found are the same, but one of the largest may be missing, so that tokens may differ.
 */
export const headModes = ['exact', 'fast', 'full'] as const satisfies readonly (TopMode | 'full')[];
export type HeadMode = (typeof headModes)[number];

export interface EngineOptions {
  /** Default: physical cores that this process may use, and no more than a model of this size gains from. */
  readonly threads?: number;
  /** Positions; 0: the model's; default: the model's, at most 4096. */
  readonly context?: number;
  /** Where decoding reads the weights; default: in huge pages, where need be and where it is worth it in a copy. */
  readonly pages?: Pages;
  /** How the next token is found; default `exact`. */
  readonly head?: HeadMode;
  /** Bits of a key-value cache element: 8 (codes with scales), 16 or 32 (floats); default 8. */
  readonly kv?: KvBits;
  /** Several engines share the model: its owner closes it. */
  readonly shared?: boolean;
}

/** What `EngineOptions` must be. */
export const engineRules: Rules<EngineOptions> = {
  threads: wholeNumber(1, MOST_THREADS),
  context: wholeNumber(0, MOST_POSITIONS, " (0: the model's)"),
  pages: oneOf(Object.keys(pages)),
  head: oneOf(headModes),
  kv: oneOf(Object.values(kvTypes)),
  shared: yesOrNo,
};

/** Why generation ended. */
export type StopReason = 'eos' | 'length' | 'stop' | 'context' | 'interrupt';

export interface GenerateOptions extends ReadOptions {
  /** Tokens to generate at most; may be infinite. */
  readonly count: number;
  readonly sampler: Sampler;
  /** Texts that end the generation; they are not part of the result. */
  readonly stop?: readonly string[];
  /** Guess tokens from repetitions in the text and verify them together: the same tokens, sooner where the text copies itself. */
  readonly lookup?: boolean | LookupOptions;
  /** Receives printable text as it is generated. */
  readonly onText?: (text: string) => void;
}

const isSampler: Rule = {
  is: (value) => ['sample', 'candidates', 'sampleTop'].every((name) => typeof (value as never)?.[name] === 'function'),
  must: 'a sampler: greedy, or what createSampler makes',
};
const count = wholeNumber(0);
const readRules: Rules<ReadOptions> = { signal: abortSignal, onPrompt: callback };
const generateRules: Rules<GenerateOptions> = {
  ...readRules,
  count: { is: (value) => value === Number.POSITIVE_INFINITY || count.is(value), must: `${count.must}, or Infinity` },
  sampler: isSampler,
  stop: listOf(anyText),
  lookup: { is: (value) => typeof value === 'boolean' || typeof value === 'object', must: 'true, false or an object' },
  onText: callback,
};

export interface Generation {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly stopReason: StopReason;
  /** What the guesses came to, if `lookup` was asked for. */
  readonly lookup?: Readonly<LookupStatistics>;
  /** Milliseconds for the prompt and for the generated tokens. */
  readonly promptMs: number;
  readonly generationMs: number;
}

export class Engine implements Disposable {
  readonly source: ModelSource;
  readonly threads: number;
  readonly context: number;
  readonly kv: KvBits;
  readonly head: HeadMode;
  readonly #library: Library;
  /** The model, which the engine closes; undefined if it does not, or has. */
  #model: number | undefined;
  readonly #evaluator: Evaluator;
  readonly #draftLength = new DraftLength();
  /** `generate` or `prompt`, while it runs. */
  #running: string | undefined;

  /**
   * @param model a model that `library` opened; the engine closes it unless it is shared
   * @throws UsageError for an option out of range; LibraryError when memory does not suffice
   */
  constructor(source: ModelSource, library: Library, model: number, options: EngineOptions = {}) {
    checkOptions(options, engineRules);
    const {
      threads = defaultThreads(source.shape),
      kv = kvTypes[DEFAULT_KV],
      head = 'exact',
      pages = 'auto',
    } = options;
    this.source = source;
    this.threads = threads;
    this.kv = kv;
    this.head = head;
    this.context = contextSize(source.shape, kv, options.context);
    this.#library = library;
    this.#model = options.shared ? undefined : model;
    const topMode = head === 'fast' ? 'fast' : 'exact';
    const context = library.context(model, this.context, threads, kv, threads <= usableCpus(), pages, topMode);
    const sizes = { vocabulary: source.shape.vocabulary, positions: this.context };
    this.#evaluator = new Evaluator(library, context, sizes, head !== 'full');
  }

  /** Megabytes of weights in huge pages. */
  get hugePages(): number {
    return this.#library.hugePages(this.#evaluator.context);
  }

  /** Tokens of the text so far. */
  get position(): number {
    return this.#evaluator.position;
  }

  /** The text, for one call. @throws LibraryError while something else is at work on it */
  #free(): Evaluator {
    if (this.#running)
      throw new LibraryError(`this engine is at work: wait for the end of ${this.#running}(), or load the model again`);
    if (this.#evaluator.disposed) throw new LibraryError(DISPOSED);
    return this.#evaluator;
  }

  /** The text, while `work` runs. */
  async #alone<T>(what: string, work: (evaluator: Evaluator) => Promise<T>): Promise<T> {
    const evaluator = this.#free();
    this.#running = what;
    try {
      return await work(evaluator);
    } finally {
      this.#running = undefined;
    }
  }

  /** Forgets everything from `position` on. */
  rewind(position: number): void {
    this.#free().rewind(position);
  }

  /** Evaluates one token after the text. @returns its logits [vocabulary], valid until the next call */
  step(token: number): Float32Array {
    return this.#free().step(token);
  }

  /** Evaluates tokens, at least one, after the text. @returns logits of the last one, or [tokens][vocabulary] with `all` */
  evaluate(tokens: readonly number[], all = false): Float32Array {
    return this.#free().evaluate(tokens, all);
  }

  /**
   * Evaluates one token, or none, and finds the largest logits of the last one evaluated, in one foreign call.
   * @param count at most 1024 and the vocabulary @returns valid until the next call
   */
  top(count: number, token?: number): Candidates {
    return this.#free().top(count, token);
  }

  /** Evaluates tokens, at least one. @param count as for `top` @returns the largest logits of each, valid until the next call */
  topAll(tokens: readonly number[], count: number): Candidates[] {
    return this.#free().topAll(tokens, count);
  }

  /** Draws the token after `token`, which is evaluated first; without it, after the token evaluated last. One foreign call. */
  draw(sampler: Sampler, history: readonly number[], token?: number): number {
    return this.#free().draw(sampler, history, token);
  }

  /** Evaluates the last token of `history` and a draft of what follows, in one foreign call. @returns a draw after each of them */
  drawAll(sampler: Sampler, history: readonly number[], draft: readonly number[]): Draw[] {
    return this.#free().drawAll(sampler, history, draft);
  }

  /** Evaluates tokens after the text in pieces, with pauses for signals and progress. @returns logits of the last one */
  async prompt(tokens: readonly number[], options: ReadOptions = {}): Promise<Float32Array> {
    checkAllOptions(options, readRules);
    return this.#alone('prompt', (evaluator) => evaluator.read(tokens, want.last, options));
  }

  /**
   * Begins a text with a prompt and continues it. It is a text of its own: the result is the same whatever the engine did before. To go
   * on with a text, give it whole, with what was generated: as much of its beginning as the engine has evaluated last is not
   * evaluated again.
   * @param prompt at least one token @param tokenizer absent: tokens only, no text
   * @throws UsageError for an option out of range; LibraryError for a prompt that is too long or no list of tokens, and while the
   *   engine is at work
   */
  async generate(
    prompt: readonly number[],
    tokenizer: Tokenizer | undefined,
    options: GenerateOptions,
  ): Promise<Generation> {
    checkAllOptions(options, generateRules);
    for (const name of ['count', 'sampler'] as const) checkValue(name, options[name], generateRules[name]);
    return this.#alone('generate', (evaluator) => this.#generate(evaluator, prompt, tokenizer, options));
  }

  /** Makes `prompt` the text. @param logits those of its last token are wanted */
  async #begin(evaluator: Evaluator, prompt: readonly number[], logits: boolean, options: ReadOptions): Promise<void> {
    const kept = Math.min(evaluator.common(prompt), prompt.length - 1);
    evaluator.rewind(kept);
    await evaluator.read(prompt.slice(kept), logits ? want.last : want.none, {
      ...options,
      onPrompt: (done) => options.onPrompt?.(kept + done, prompt.length),
    });
  }

  async #generate(
    evaluator: Evaluator,
    prompt: readonly number[],
    tokenizer: Tokenizer | undefined,
    options: GenerateOptions,
  ): Promise<Generation> {
    if (!evaluator.check(prompt).length) throw new LibraryError('the prompt is empty; give at least one token');
    if (prompt.length > this.context)
      throw new LibraryError(
        `the prompt has ${prompt.length} tokens, but the context holds ${this.context}; shorten it or load with a larger context`,
      );
    const stream = createTextStream(options.stop);
    const eos = new Set(this.source.eos);
    const history = [...prompt];
    const tokens: number[] = [];
    let text = '';
    let stopReason: StopReason = 'length';
    const emit = (piece: string) => {
      text += piece;
      if (piece) options.onText?.(piece);
    };
    const { sampler, lookup } = options;
    const speculation = lookup
      ? new Speculation(evaluator, this.#draftLength, lookup === true ? {} : lookup)
      : undefined;
    const started = performance.now();
    let evaluated = started;
    try {
      await this.#begin(evaluator, prompt, !evaluator.needed(sampler, history), options);
      evaluated = performance.now();
      // Tokens that can still be evaluated.
      const room = this.context - evaluator.position;
      while (tokens.length < options.count) {
        if (options.signal?.aborted) {
          stopReason = 'interrupt';
          break;
        }
        if (tokens.length > room) {
          stopReason = 'context';
          break;
        }
        const most = Math.min(options.count, room + 1) - tokens.length;
        const token =
          speculation && tokens.length
            ? speculation.draw(sampler, history, most)
            : evaluator.draw(sampler, history, tokens.at(-1));
        if (eos.has(token)) {
          stopReason = 'eos';
          break;
        }
        tokens.push(token);
        history.push(token);
        if (tokenizer) {
          const piece = stream.push(tokenizer.bytes(token));
          emit(piece.text);
          if (piece.stopped) {
            stopReason = 'stop';
            break;
          }
        }
        // A breath for Ctrl-C and for the terminal.
        if (options.onText || tokens.length % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
    } catch (error) {
      if (!options.signal?.aborted) throw error;
      evaluated = performance.now();
      stopReason = 'interrupt';
    } finally {
      if (!evaluator.disposed) speculation?.settle();
    }
    if (stopReason !== 'stop') emit(stream.end());
    return {
      text,
      tokens,
      stopReason,
      ...(speculation ? { lookup: speculation.statistics } : {}),
      promptMs: evaluated - started,
      generationMs: performance.now() - evaluated,
    };
  }

  /** Seconds by operation since the last call. @param on go on taking the time, or stop */
  profile(on: boolean): Profile {
    return this.#library.profile(this.#evaluator.context, on);
  }

  /**
   * What the tokens that were evaluated one at a time since the last call left of the MLP, by layer; empty where there were none.
   * @param on go on counting, or stop
   */
  live(on: boolean): LiveShares[] {
    return this.#library.live(this.#evaluator.context, on);
  }

  /** Neurons that weights of zero alone make zero, by layer; empty unless the library skips zeros in `up` and `down`. */
  dead(): DeadNeurons[] {
    return this.#library.dead(this.#evaluator.context);
  }

  /**
   * Frees the context and closes the model, unless it is shared. Whatever is called afterwards, or still runs, fails with a
   * LibraryError; a second time does nothing.
   */
  dispose(): void {
    this.#evaluator.dispose();
    if (this.#model !== undefined && !this.#library.disposed) this.#library.close(this.#model);
    this.#model = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
