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
import { existsSync } from 'node:fs';
import { ModelError } from '../schemas/error.ts';
import type { TokenizerSource } from './formats/source.ts';
import { fromGguf } from './tokenizer/gguf.ts';
import { readHuggingface } from './tokenizer/huggingface.ts';
import { PieceEncoder } from './tokenizer/merge.ts';
import { AddedTokenFinder, type TokenizerParts } from './tokenizer/parts.ts';
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
  /** Text of the tokens; control tokens give nothing, bytes that are no UTF-8 give U+FFFD. */
  decode(ids: readonly number[]): string;
  /** Bytes of one token, not necessarily whole characters; empty for control tokens and ids outside the vocabulary. */
  bytes(id: number): Uint8Array;
  /** Whether the token steers the model and is never printed. */
  isSpecial(id: number): boolean;
}

/** @throws ModelError if the source is missing, damaged or of an unsupported kind */
export function loadTokenizer(source: TokenizerSource): Tokenizer {
  if (source.kind === 'gguf') return new PartsTokenizer(fromGguf(source));
  const path = source.kind === 'tiktoken' ? source.ranks : source.tokenizer;
  if (!existsSync(path)) throw new ModelError(`${path} does not exist; the tokenizer must lie beside the model`);
  return new PartsTokenizer(source.kind === 'tiktoken' ? readTiktoken(path) : readHuggingface(path));
}

class PartsTokenizer implements Tokenizer {
  readonly vocabularySize: number;
  private readonly parts: TokenizerParts;
  private readonly encoder: PieceEncoder;
  private readonly special: ReadonlySet<number>;
  /** Tokens that are plain vocabulary, texts that are not split. */
  private readonly added: ReadonlySet<number>;
  private readonly allTokens: AddedTokenFinder;
  private readonly plainTokens: AddedTokenFinder;

  constructor(parts: TokenizerParts) {
    this.parts = parts;
    this.vocabularySize = parts.texts.length;
    this.encoder = new PieceEncoder(parts);
    const plain = parts.added.filter((token) => !token.special);
    this.added = new Set(plain.map((token) => token.id));
    this.special = new Set(parts.added.filter((token) => token.special).map((token) => token.id));
    this.allTokens = new AddedTokenFinder(parts.added);
    this.plainTokens = new AddedTokenFinder(plain);
  }

  encode(text: string, options: { readonly special: boolean }): number[] {
    const ids: number[] = [];
    let first = true;
    for (const stretch of (options.special ? this.allTokens : this.plainTokens).cut(text)) {
      if (typeof stretch === 'number') {
        ids.push(stretch);
      } else {
        let pieces = [stretch];
        for (const stage of this.parts.split) pieces = stage(pieces, first);
        for (const piece of pieces) this.encoder.encode(piece, ids);
      }
      first = false;
    }
    return ids;
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

  isSpecial(id: number): boolean {
    return this.special.has(id);
  }
}
