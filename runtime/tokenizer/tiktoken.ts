/**
 * Reads tokenizer.model in tiktoken's form, as Meta ships Llama-3 and Microsoft the GPU version of BitNet 2B4T: one line
 * "base64-of-bytes rank" per token, rank = token id = merge priority. The 256 special tokens are in no file; their names and
 * order are Llama-3's (meta-llama/llama3, llama/tokenizer.py; microsoft/BitNet, gpu/tokenizer.py).
 */
import { ModelError } from '../../schemas/error.ts';
import type { TokenizerSource } from '../formats/source.ts';
import { Fields, readJsonFile, readTokenizerFile } from './json.ts';
import { concatenations } from './merge.ts';
import { type AddedToken, longestToken, mostTokens, type TokenizerParts } from './parts.ts';
import { preTokenizerOf } from './patterns.ts';
import { byteCharacters } from './spelling.ts';
import { ggufStages } from './split.ts';

/** Names of the special tokens in order of id; `count` of them. Unnamed ids are reserved_special_token_0, _1, ... */
function specialNames(count: number): string[] {
  const named: Readonly<Record<number, string>> = {
    0: 'begin_of_text',
    1: 'end_of_text',
    6: 'start_header_id',
    7: 'end_header_id',
    9: 'eot_id',
  };
  let reserved = 0;
  return Array.from({ length: count }, (_, i) => `<|${named[i] ?? `reserved_special_token_${reserved++}`}|>`);
}

/** Value of each base64 digit, -1 for anything else. */
const digits = new Int8Array(256).fill(-1);
for (const [value, digit] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'].entries())
  digits[digit.charCodeAt(0)] = value;

/**
 * @throws ModelError if it is not such a file; a SentencePiece tokenizer.model, which has the same name, is told apart
 */
export function readTiktoken(source: Extract<TokenizerSource, { kind: 'tiktoken' }>): TokenizerParts {
  const path = source.ranks;
  const file = readTokenizerFile(path);
  const config = source.config === undefined ? undefined : new Fields(readJsonFile(source.config), `${source.config}:`);
  const texts: string[] = [];
  const ids = new Map<string, number>();
  // One pass over the bytes, base64 included: no string is made per line but the token's spelling.
  for (let at = 0, line = 1; at < file.length; line++) {
    let text = '';
    let bits = 0;
    let held = 0;
    for (; digits[file[at] ?? 0]! >= 0; at++) {
      held = ((held << 6) | digits[file[at]!]!) & 0xffff;
      bits += 6;
      if (bits < 8) continue;
      bits -= 8;
      text += byteCharacters[(held >> bits) & 0xff];
    }
    while (file[at] === 0x3d) at++;
    let rank = file[at++] === 0x20 && text !== '' ? 0 : Number.NaN;
    const start = at;
    for (; at < file.length && file[at]! >= 0x30 && file[at]! <= 0x39; at++) rank = rank * 10 + file[at]! - 0x30;
    if (Number.isNaN(rank) || at === start || (at < file.length && file[at] !== 0x0a && file[at] !== 0x0d))
      throw notRanks(path, line, file);
    while (file[at] === 0x0a || file[at] === 0x0d) at++;
    if (rank !== texts.length || ids.has(text))
      throw new ModelError(
        `${path}, line ${line}: rank ${rank} is out of order; ranks must count 0, 1, 2, ... without repeats`,
      );
    if (text.length > longestToken || rank >= mostTokens)
      throw new ModelError(
        `${path}, line ${line}: a token of ${text.length} bytes; at most ${longestToken}, and ${mostTokens} tokens, can be right`,
      );
    texts.push(text);
    ids.set(text, rank);
  }
  const missing = byteCharacters.findIndex((character) => !ids.has(character));
  if (missing >= 0) throw new ModelError(`${path}: byte ${missing} is no token; a byte-level vocabulary needs all 256`);
  const priorities = Int32Array.from(texts, (_, id) => id);
  const added: AddedToken[] = specialNames(256).map((text, i) => ({ id: ids.size + i, text, special: true }));
  for (const token of added) texts.push(token.text);
  return {
    texts,
    ids,
    added,
    normalize: [],
    split: ggufStages(preTokenizerOf('llama-bpe')),
    merges: concatenations(ids, priorities),
    wholePieces: true,
    spelling: 'byte-level',
    prefixed: false,
    // Llama 3's code puts <|begin_of_text|> before every text.
    prefix: (config?.flag('add_bos_token', true) ?? true) ? [ids.size] : [],
    suffix: [],
  };
}

function notRanks(path: string, line: number, file: Buffer): ModelError {
  // A SentencePiece model is a protobuf; it starts with field 1, length-delimited.
  if (file[0] === 0x0a)
    return new ModelError(
      `${path} is a SentencePiece model; it is read from tokenizer.json or from a GGUF file: put one of them beside the model`,
    );
  return new ModelError(
    `${path}, line ${line}: not a list of ranks; every line must be "base64 rank", such as "IQ== 0"`,
  );
}
