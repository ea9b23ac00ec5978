/** What the tests of the tokenizer share: the demo vocabulary in its forms, troublesome texts, files to load from. */
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TokenizerSource } from '../runtime/formats/source.ts';
import { loadTokenizer, type Tokenizer } from '../runtime/tokenizer.ts';
import { ModelError } from '../schemas/error.ts';

export interface Json {
  added_tokens: { id: number; content: string; special?: boolean; [key: string]: unknown }[];
  normalizer?: unknown;
  pre_tokenizer?: unknown;
  decoder?: unknown;
  post_processor?: unknown;
  model: { type?: string; vocab: Record<string, number>; merges: (string | string[])[]; [key: string]: unknown };
}
export type Gguf = Extract<TokenizerSource, { kind: 'gguf' }>;

export const demo = path.resolve(import.meta.dirname, '../models/demo/tokenizer.json');
export const demoJson = (): Json => JSON.parse(readFileSync(demo, 'utf8')) as Json;
export const plain = (tokenizer: Tokenizer, text: string): number[] => tokenizer.encode(text, { special: false });

/** A GGUF file's metadata; keys are named without "tokenizer.ggml.", undefined leaves one out. */
export function gguf(keys: Readonly<Record<string, unknown>>): Gguf {
  const given = Object.entries(keys).filter(([, value]) => value !== undefined);
  const metadata = new Map(given.map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
  return { kind: 'gguf', tokens: [], metadata };
}

/** The same tokenizer as a GGUF file would hold it. @param more further keys */
export function ggufOf(json: Json, more: Readonly<Record<string, unknown>> = {}): Gguf {
  const tokens: string[] = [];
  for (const [text, id] of Object.entries(json.model.vocab)) tokens[id] = text;
  const types = tokens.map(() => 1);
  for (const { id, content, special } of json.added_tokens) {
    tokens[id] = content;
    types[id] = special ? 3 : 4;
  }
  const merges = json.model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')));
  const bos_token_id = json.added_tokens[0]?.id;
  return gguf({ model: 'gpt2', tokens, token_type: types, merges, bos_token_id, ...more });
}

/** 20 kinds of trouble: white space of all sorts, other scripts, emoji sequences, control characters, special texts. */
export const texts = [
  '',
  ' ',
  'Hello, world!',
  "I'm sure you'Ll say it'ſ y'all'S",
  '  a   b\n\n \tc \r\n',
  'a\u0085b\ufeffc\u00a0d\u2028e\u3000f\u200bg',
  '1234567890 ½ Ⅷ ①٣٤ 3.14',
  'naïve cafe\u0301 Äpfel İı ﬁ',
  'Привет, мир! 你好，世界！ こんにちは 안녕 مرحبا नमस्ते สวัสดี',
  '🦙👨‍👩‍👧🇫🇷❤️ 𝕏',
  '\0\u007f\u0080\uffff\u{10ffff}',
  '<|begin_of_text|>User: Hey<|eot_id|>Assistant: <|eot_id',
  '\'\'\'```"""......!!!!??? --- === $x^2$',
  '#include <stdio.h>\nint main(void) { return 0; }\n',
  'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
  '\n\n\n   \n  x',
];

/** Loads a tokenizer from a file made of this content. */
function fromFile<T>(content: string | Uint8Array, load: (file: string) => T): T {
  const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-tokenizer-'));
  try {
    const file = path.join(folder, 'file');
    writeFileSync(file, content);
    return load(file);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
export const fromText = (content: string): Tokenizer =>
  fromFile(content, (tokenizer) => loadTokenizer({ kind: 'huggingface', tokenizer }));
export const fromJson = (json: Json): Tokenizer => fromText(JSON.stringify(json));
export const fromRanks = (content: string | Uint8Array): Tokenizer =>
  fromFile(content, (ranks) => loadTokenizer({ kind: 'tiktoken', ranks }));

export const refused = (load: () => unknown, message: RegExp): void =>
  assert.throws(load, (error) => error instanceof ModelError && message.test(error.message));
