/**
 * Added tokens of a Hugging Face folder: those that tokenizer.json lists beside its vocabulary, tokenizer_config.json by id, and
 * tokenizer.model of Llama 3 in no file at all. end-marks.ts finds among them what ends a text.
 */
import path from 'node:path';
import { ModelError } from '../../schemas/error.ts';
import type { NamedToken, SpecialToken } from './end-marks.ts';
import { isPresent, type ModelFile, withModelFile } from './file.ts';
import { isRecord, type Json, numberOf, parseJson, readJson } from './json.ts';
import type { TokenizerSource } from './source.ts';

/** What a folder's added tokens are. */
export interface AddedTokens {
  readonly special: readonly SpecialToken[];
  /** Spelling of any added token. */
  readonly texts: ReadonlyMap<number, string>;
  /** eos_token of tokenizer_config.json, which gives its spelling. */
  readonly eos?: NamedToken;
  /** Files that are damaged: a tokenizer is needed only by those who give text, and then says what is wrong with it. */
  readonly notes: readonly string[];
}

/** What the tokenizer's files name; of damaged ones nothing. */
export function readAddedTokens(folder: string, tokenizer: TokenizerSource | undefined): AddedTokens {
  try {
    return read(folder, tokenizer);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    return {
      special: [],
      texts: new Map(),
      notes: [`what ends a text is not known from the tokenizer: ${error.message}`],
    };
  }
}

function read(folder: string, tokenizer: TokenizerSource | undefined): AddedTokens {
  const file = path.join(folder, 'tokenizer_config.json');
  const config: Json = isPresent(file) ? readJson(file) : {};
  const decoder = isRecord(config.added_tokens_decoder) ? config.added_tokens_decoder : {};
  const entries: unknown[] = Object.entries(decoder).map(([id, token]) => (isRecord(token) ? { ...token, id } : token));
  if (tokenizer?.kind === 'huggingface') entries.push(...withModelFile(tokenizer.tokenizer, addedTokensOf));
  if (tokenizer?.kind === 'tiktoken') entries.push(...llama3Tokens(tokenizer.ranks));

  const texts = new Map<number, string>();
  const special = new Map<number, SpecialToken>();
  for (const entry of entries) {
    if (!isRecord(entry)) continue;
    const id = numberOf(entry.id);
    const text = entry.content;
    if (id === undefined || !Number.isInteger(id) || id < 0 || typeof text !== 'string') continue;
    texts.set(id, text);
    if (entry.special === true) special.set(id, { id, text });
  }
  // A text, or an object with the text.
  const eosText = isRecord(config.eos_token) ? config.eos_token.content : config.eos_token;
  const eos = [...texts].find(([, text]) => text === eosText)?.[0];
  return {
    special: [...special.values()],
    texts,
    notes: [],
    ...(eos === undefined ? {} : { eos: { from: 'tokenizer_config.json: eos_token', id: eos } }),
  };
}

/**
 * The list `added_tokens` of tokenizer.json. It is cut out of the file, as parsing the other 9 MB (Llama 3) would take longer
 * than everything else in opening a model.
 */
function addedTokensOf(file: ModelFile): unknown[] {
  const bytes = readWhole(file);
  const key = '"added_tokens"';
  for (let at = bytes.indexOf(key); at >= 0; at = bytes.indexOf(key, at + 1)) {
    // The same letters may stand in a text, or be a token of the vocabulary.
    if (bytes[at - 1] === 0x5c) continue;
    const start = after(bytes, after(bytes, at + key.length, ':'), '[');
    if (start < 0) continue;
    const list = bytes.subarray(start - 1, endOfList(bytes, start, file.name));
    const whole = Buffer.concat([Buffer.from('{"added_tokens":'), list, Buffer.from('}')]);
    return parseJson(whole, `${file.name}: added_tokens`).added_tokens as unknown[];
  }
  return [];
}

/** Position behind a character that follows `at`, blanks aside; -1 if it does not. */
function after(bytes: Buffer, at: number, character: string): number {
  if (at < 0) return -1;
  let next = at;
  while ([0x20, 0x09, 0x0a, 0x0d].includes(bytes[next] ?? -1)) next++;
  return bytes[next] === character.charCodeAt(0) ? next + 1 : -1;
}

/** Position behind the bracket that closes a list. @param start behind the one that opens it */
function endOfList(bytes: Buffer, start: number, where: string): number {
  let depth = 1;
  let inText = false;
  for (let at = start; at < bytes.length; at++) {
    const byte = bytes[at];
    if (inText) {
      if (byte === 0x5c) at++;
      else if (byte === 0x22) inText = false;
    } else if (byte === 0x22) inText = true;
    else if (byte === 0x5b || byte === 0x7b) depth++;
    else if ((byte === 0x5d || byte === 0x7d) && --depth === 0) return at + 1;
  }
  throw new ModelError(`${where}: the list added_tokens has no end; the file is truncated, download it again`);
}

/** Llama 3's special tokens follow the ranks: <|end_of_text|> is the second, <|eot_id|> the tenth of them. */
function llama3Tokens(ranks: string): unknown[] {
  const lines = withModelFile(ranks, (file) => countLines(readWhole(file)));
  return [
    { id: lines + 1, content: '<|end_of_text|>', special: true },
    { id: lines + 9, content: '<|eot_id|>', special: true },
  ];
}

/** Lines of a text, blank ones at its end aside. */
function countLines(bytes: Buffer): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1]! <= 0x20) end--;
  let count = 1;
  for (let i = 0; i < end; i++) if (bytes[i] === 0x0a) count++;
  return count;
}

/** tokenizer.json of Gemma 3, with 262,144 tokens, has 33 MB. */
const maxVocabularyBytes = 100_000_000;

function readWhole(file: ModelFile): Buffer {
  if (file.size <= maxVocabularyBytes) return file.read(0, file.size);
  throw new ModelError(`${file.name}: has ${file.size} bytes; a vocabulary has at most ${maxVocabularyBytes}`);
}
