/**
 * A loaded model that evaluates tokens and generates text. It owns the library's model and one context; the composition roots
 * (index.ts, cli.ts) build the library and the packed weights beforehand.
 */
import { defaultThreads, usableCpus } from '../schemas/host.ts';
import { DraftLength } from './draft-length.ts';
import type { ModelSource } from './formats/source.ts';
import {
  type DeadNeurons,
  type Library,
  type LiveShares,
  type Pages,
  type Profile,
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
  /** Default: physical cores that this process may use. */
  readonly threads?: number;
  /** Positions; default: the model's, at most 4096. */
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

/** Why generation ended. */
export type StopReason = 'eos' | 'length' | 'stop' | 'context' | 'interrupt';

export interface GenerateOptions {
  /** Tokens to generate at most. */
  readonly count: number;
  readonly sampler: Sampler;
  /** Texts that end the generation; they are not part of the result. */
  readonly stop?: readonly string[];
  /** Guess tokens from repetitions in the text and verify them together: the same tokens, sooner where the text copies itself. */
  readonly lookup?: boolean | LookupOptions;
  readonly signal?: AbortSignal;
  /** Receives printable text as it is generated. */
  readonly onText?: (text: string) => void;
  /** Prompt tokens evaluated so far. */
  readonly onPrompt?: (done: number, total: number) => void;
}

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

/** Prompt tokens of one foreign call: Ctrl-C and progress get through between calls. */
const PROMPT_CHUNK = 256;
/** Most logits of one bn_top, if the vocabulary is as large. */
const MOST_TOP = 1024;

/** Draws the token after an evaluated position, given the tokens up to it; valid until the next evaluation. */
export type Draw = (history: readonly number[]) => number;

export class Engine {
  readonly source: ModelSource;
  readonly threads: number;
  readonly context: number;
  readonly kv: KvBits;
  readonly head: HeadMode;
  readonly #library: Library;
  readonly #model: number;
  readonly #context: number;
  readonly #shared: boolean;
  readonly #logits: Float32Array;
  #tokens = new Int32Array(1);
  #topIds: Int32Array;
  #topLogits: Float32Array;
  readonly #draftLength = new DraftLength();
  #position = 0;

  /** @param model a model that `library` opened; the engine closes it unless it is shared @throws LibraryError when memory does not suffice */
  constructor(source: ModelSource, library: Library, model: number, options: EngineOptions = {}) {
    this.source = source;
    this.#library = library;
    this.#model = model;
    this.threads = options.threads ?? defaultThreads();
    this.kv = options.kv ?? kvTypes[DEFAULT_KV];
    this.head = options.head ?? 'exact';
    this.#shared = options.shared ?? false;
    this.context = contextSize(source.shape, this.kv, options.context);
    this.#context = library.context(
      model,
      this.context,
      this.threads,
      this.kv,
      this.threads <= usableCpus(),
      options.pages ?? 'auto',
      this.head === 'fast' ? 'fast' : 'exact',
    );
    const { vocabulary } = source.shape;
    this.#logits = new Float32Array(vocabulary);
    this.#topIds = new Int32Array(Math.min(MOST_TOP, vocabulary));
    this.#topLogits = new Float32Array(this.#topIds.length);
  }

  /** Megabytes of weights in huge pages. */
  get hugePages(): number {
    return this.#library.hugePages(this.#context);
  }

  /** Positions filled so far. */
  get position(): number {
    return this.#position;
  }

  /** Forgets everything from `position` on. */
  rewind(position: number): void {
    this.#library.rewind(this.#context, position);
    this.#position = position;
  }

  /** Evaluates one token. @returns its logits [vocabulary], valid until the next call */
  step(token: number): Float32Array {
    this.#tokens[0] = token;
    this.#position = this.#library.evaluate(this.#context, this.#tokens, 1, want.last, this.#logits);
    return this.#logits;
  }

  /** Evaluates tokens. @returns logits of the last one, or [tokens][vocabulary] with `all` */
  evaluate(tokens: readonly number[], all = false): Float32Array {
    const logits = all ? new Float32Array(tokens.length * this.#logits.length) : this.#logits;
    this.#position = this.#library.evaluate(
      this.#context,
      Int32Array.from(tokens),
      tokens.length,
      all ? want.all : want.last,
      logits,
    );
    return logits;
  }

  /**
   * Evaluates one token, or none, and finds the largest logits of the last one evaluated, in one foreign call.
   * @param count at most 1024 and the vocabulary @returns valid until the next call
   */
  top(count: number, token?: number): Candidates {
    if (token !== undefined) this.#tokens[0] = token;
    const [ids, logits] = [this.#topIds, this.#topLogits];
    const n = token === undefined ? 0 : 1;
    this.#position = this.#library.top(this.#context, this.#tokens, n, count, want.last, ids, logits);
    return { ids, logits, count };
  }

  /** Evaluates tokens. @param count as for `top` @returns the largest logits of each, valid until the next call */
  topAll(tokens: readonly number[], count: number): Candidates[] {
    const [n, all] = [tokens.length, tokens.length * count];
    // Buffers are kept, since the first call with a new one is slow (0.1 ms).
    if (this.#tokens.length < n) this.#tokens = new Int32Array(n);
    if (this.#topIds.length < all) [this.#topIds, this.#topLogits] = [new Int32Array(all), new Float32Array(all)];
    this.#tokens.set(tokens);
    const [ids, logits] = [this.#topIds, this.#topLogits];
    this.#position = this.#library.top(this.#context, this.#tokens, n, count, want.all, ids, logits);
    const row = (i: number) => [i * count, (i + 1) * count] as const;
    return tokens.map((_, i) => ({ ids: ids.subarray(...row(i)), logits: logits.subarray(...row(i)), count }));
  }

  /** How many of the largest logits decide the next token; 0: all must be there. */
  #needed(sampler: Sampler, history: readonly number[]): number {
    const count = this.head !== 'full' ? sampler.candidates(this.#logits.length, history) : 0;
    return count <= MOST_TOP ? count : 0;
  }

  /** Draws the token after `token`, which is evaluated first; without it, after the token evaluated last. One foreign call. */
  draw(sampler: Sampler, history: readonly number[], token?: number): number {
    const count = this.#needed(sampler, history);
    if (count) return sampler.sampleTop(this.top(count, token), history);
    return sampler.sample(token === undefined ? this.#logits : this.step(token), history);
  }

  /** Evaluates the last token of `history` and a draft of what follows, in one foreign call. @returns a draw after each of them */
  drawAll(sampler: Sampler, history: readonly number[], draft: readonly number[]): Draw[] {
    const tokens = [history.at(-1)!, ...draft];
    const counts = tokens.map((_, i) => this.#needed(sampler, [...history, ...draft.slice(0, i)]));
    if (!counts.includes(0))
      return this.topAll(tokens, Math.max(...counts)).map((top) => (past) => sampler.sampleTop(top, past));
    const logits = this.evaluate(tokens, true);
    const vocabulary = this.#logits.length;
    return tokens.map((_, i) => (past) => sampler.sample(logits.subarray(i * vocabulary, (i + 1) * vocabulary), past));
  }

  /** Evaluates a prompt in pieces, with pauses for signals and progress. @returns logits of its last token */
  async prompt(
    tokens: readonly number[],
    options: Pick<GenerateOptions, 'signal' | 'onPrompt'> = {},
  ): Promise<Float32Array> {
    await this.#read(tokens, want.last, options);
    return this.#logits;
  }

  /** @param last which logits of the last piece are wanted */
  async #read(
    tokens: readonly number[],
    last: typeof want.none | typeof want.last,
    options: Pick<GenerateOptions, 'signal' | 'onPrompt'>,
  ): Promise<void> {
    for (let done = 0; done < tokens.length; done += PROMPT_CHUNK) {
      options.signal?.throwIfAborted();
      const piece = Int32Array.from(tokens.slice(done, done + PROMPT_CHUNK));
      const end = done + piece.length;
      const which = end === tokens.length ? last : want.none;
      this.#position = this.#library.evaluate(this.#context, piece, piece.length, which, this.#logits);
      options.onPrompt?.(end, tokens.length);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Continues a prompt. `tokenizer` absent: tokens only, no text. */
  async generate(
    prompt: readonly number[],
    tokenizer: Tokenizer | undefined,
    options: GenerateOptions,
  ): Promise<Generation> {
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
    const speculation = lookup ? new Speculation(this, this.#draftLength, lookup === true ? {} : lookup) : undefined;
    const started = performance.now();
    let evaluated = started;
    try {
      await this.#read(prompt, this.#needed(sampler, history) ? want.none : want.last, options);
      evaluated = performance.now();
      // Tokens that can still be evaluated.
      const room = this.context - this.#position;
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
            : this.draw(sampler, history, tokens.at(-1));
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
      speculation?.settle();
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
    return this.#library.profile(this.#context, on);
  }

  /**
   * What the tokens that were evaluated one at a time since the last call left of the MLP, by layer; empty where there were none.
   * @param on go on counting, or stop
   */
  live(on: boolean): LiveShares[] {
    return this.#library.live(this.#context, on, this.source.shape.layers);
  }

  /** Neurons that weights of zero alone make zero, by layer; empty unless the library skips zeros in `up` and `down`. */
  dead(): DeadNeurons[] {
    return this.#library.dead(this.#context, this.source.shape.layers);
  }

  /** Frees the context and closes the model, unless it is shared. */
  dispose(): void {
    this.#library.release(this.#context);
    if (!this.#shared) this.#library.close(this.#model);
  }
}
