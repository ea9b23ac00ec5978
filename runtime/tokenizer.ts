/**
 * Text to token ids and back. Between the command line (chat, prompts) and the engine, which knows only ids.
 *
 *   text -> added tokens cut out -> split into pieces -> byte-pair merges -> ids
 *   id -> bytes (text-stream.ts makes text of them)
 *
 * Our own and not @huggingface/tokenizers 0.2: that passes the same vectors, but cannot switch special tokens off per call,
 * gives no bytes of a token, and needs the list of merges (280,147 for Llama-3), which tokenizer.model does not have. It serves
 * as an oracle in the tests. Llama-3's vocabulary, Node 20 on one core of an AMD EPYC:
 *                 tokenizer.model   GGUF     tokenizer.json   WikiText-2 test (1.3 MB), first / second time
 *   this one      0.2 s             0.3 s    0.7 s            0.8 / 1.2 million tokens per second
 *   the library   -                 -        0.9-1.1 s        0.2 / 0.25 million tokens per second
 * JSON.parse alone is 0.27 s of tokenizer.json's time.
 */
import { UsageError } from '../schemas/error.ts';
import type { TokenizerSource } from './formats/source.ts';
import { AddedTokenFinder } from './tokenizer/added.ts';
import { fromGguf } from './tokenizer/gguf.ts';
import { readHuggingface } from './tokenizer/huggingface.ts';
import { PieceEncoder } from './tokenizer/merge.ts';
import { growsTooLong, mostGrowth } from './tokenizer/normalize.ts';
import type { TokenizerParts } from './tokenizer/parts.ts';
import { unspellBytes, unspellMetaspace } from './tokenizer/spelling.ts';
import { readTiktoken } from './tokenizer/tiktoken.ts';

/** Text to token ids and back. */
export interface Tokenizer {
  /** Largest token id + 1. The model's embedding may have more rows (padding). */
  readonly vocabularySize: number;
  /**
   * Ids of a text, without BOS.
   * @param options.special texts such as "<|eot_id|>" become that token; otherwise they are plain text (what users type)
   */
  encode(text: string, options: { readonly special: boolean }): number[];
  /**
   * Ids of a prompt: those of the text, and the ones that the tokenizer's files put before and after every text, mostly BOS. They
   * are not put there a second time.
   */
  prompt(text: string, options: { readonly special: boolean }): number[];
  /** Text of the tokens; control tokens give nothing, bytes that are no UTF-8 give U+FFFD. */
  decode(ids: readonly number[]): string;
  /** Bytes of one token, not necessarily whole characters; empty for control tokens and ids outside the vocabulary. */
  bytes(id: number): Uint8Array;
  /** How the token is spelt, for people: control tokens by their names. */
  spelling(id: number): string;
  /** Whether the token steers the model and is never printed. */
  isSpecial(id: number): boolean;
}

/** @throws ModelError if the source is missing, damaged or of an unsupported kind */
export function loadTokenizer(source: TokenizerSource): Tokenizer {
  switch (source.kind) {
    case 'gguf':
      return new PartsTokenizer(fromGguf(source));
    case 'tiktoken':
      return new PartsTokenizer(readTiktoken(source));
    case 'huggingface':
      return new PartsTokenizer(readHuggingface(source));
  }
}

class PartsTokenizer implements Tokenizer {
  readonly vocabularySize: number;
  private readonly parts: TokenizerParts;
  private readonly encoder: PieceEncoder;
  private readonly special: ReadonlySet<number>;
  /** Tokens that are plain vocabulary, texts that are not split. */
  private readonly added: ReadonlySet<number>;
  /** Added tokens in the text as it is, and in what the normalizers make of it. */
  private readonly inText: AddedTokenFinder;
  private readonly inNormalized: AddedTokenFinder;

  constructor(parts: TokenizerParts) {
    this.parts = parts;
    this.vocabularySize = parts.texts.length;
    this.encoder = new PieceEncoder(parts);
    const plain = parts.added.filter((token) => !token.special);
    this.added = new Set(plain.map((token) => token.id));
    this.special = new Set(parts.added.filter((token) => token.special).map((token) => token.id));
    this.inText = new AddedTokenFinder(parts.added.filter((token) => !token.normalized));
    const normalized = parts.added.filter((token) => token.normalized);
    this.inNormalized = new AddedTokenFinder(
      normalized.map((token) => ({ ...token, text: this.normalize(token.text) })),
    );
  }

  encode(text: string, options: { readonly special: boolean }): number[] {
    const { special } = options;
    const ids: number[] = [];
    try {
      let first = true;
      for (const stretch of this.inText.cut(text, special)) {
        const parts = typeof stretch === 'number' ? [stretch] : this.inNormalized.cut(this.normalize(stretch), special);
        for (const part of parts) {
          if (typeof part === 'number') ids.push(part);
          else this.encodePieces(part, first, ids);
          first = false;
        }
      }
    } catch (error) {
      // V8's expressions run out of space in a run of several million letters, and strings end at half a gigabyte.
      if (!(error instanceof RangeError)) throw error;
      throw new UsageError(
        `a text of ${text.length} characters cannot be tokenized at once (${error.message}); give it in parts of a million`,
        { cause: error },
      );
    }
    return ids;
  }

  prompt(text: string, options: { readonly special: boolean }): number[] {
    const { prefix, suffix } = this.parts;
    const ids = this.encode(text, options);
    const begun = prefix.every((id, i) => ids[i] === id);
    const ended = suffix.every((id, i) => ids[ids.length - suffix.length + i] === id);
    return [...(begun ? [] : prefix), ...ids, ...(ended ? [] : suffix)];
  }

  private normalize(text: string): string {
    const most = mostGrowth * (text.length + 1);
    let result = text;
    for (const step of this.parts.normalize) {
      result = step(result, most);
      if (result.length > most) throw growsTooLong();
    }
    return result;
  }

  private encodePieces(text: string, first: boolean, ids: number[]): void {
    let pieces = [text];
    for (const stage of this.parts.split) pieces = stage(pieces, first);
    for (const piece of pieces) this.encoder.encode(piece, ids);
  }

  decode(ids: readonly number[]): string {
    // Not TextDecoder: it would swallow a byte order mark at the beginning.
    const text = Buffer.concat(ids.map((id) => this.bytes(id))).toString('utf8');
    return this.parts.prefixed && text.startsWith(' ') ? text.slice(1) : text;
  }

  bytes(id: number): Uint8Array {
    const text = this.parts.texts[id];
    if (text === undefined || this.special.has(id)) return new Uint8Array(0);
    if (this.parts.spelling === 'metaspace') return unspellMetaspace(text);
    // Added tokens are spelt as they are, in a byte-level vocabulary too.
    return this.added.has(id) ? Buffer.from(text, 'utf8') : unspellBytes(text);
  }

  spelling(id: number): string {
    return this.special.has(id) ? (this.parts.texts[id] ?? '') : Buffer.from(this.bytes(id)).toString('utf8');
  }

  isSpecial(id: number): boolean {
    return this.special.has(id);
  }
}
