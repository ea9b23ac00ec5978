/**
 * Expressions that cut texts into words in published vocabularies, and the names by which GGUF files call them. They are known
 * to take linear time in V8, whose engine backtracks but is 25 times as fast as one that cannot (matcher.ts): no alternative
 * can match one text in two ways, and after a failure at most one run of characters is looked at again.
 * Sources: OpenAI gpt-2, src/encoder.py; Meta llama3, tokenizer.py; OpenAI tiktoken, openai_public.py (cl100k, o200k); the
 * tokenizer.json of Qwen 2, Qwen 3.5 and Mistral's Tekken; llama.cpp, src/llama-vocab.cpp (names, flags, `default`).
 */
import { ModelError } from '../../schemas/error.ts';
import { show } from './json.ts';

/** Contractions, words, numbers and signs with one space before them, spaces. */
export const gpt2Pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const signsAndSpaces = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
/** Contractions, words with one character before them, up to three digits, signs, line ends, spaces. */
export const llama3Pattern = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|${signsAndSpaces}`;
const qwen2Pattern = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|${signsAndSpaces}`;
const qwen35Pattern = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

/** Words by case, with or without an ending; digits; signs with slashes behind them. */
const byCase = (ending: string, digits: string): string => {
  const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
  const lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
  const before = '[^\\r\\n\\p{L}\\p{N}]?';
  const words = `${before}${upper}*${lower}+${ending}|${before}${upper}+${lower}*${ending}`;
  return `${words}|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
};

/** llama.cpp's own splitter, the one it falls back to: four expressions, one after the other. Gaps between matches are pieces. */
const defaultPatterns = ['[\\p{P}\\$\\+<=>\\^~\\|]+', gpt2Pattern, '\\p{N}+', '[0-9][0-9][0-9]'];

/**
 * Known expression, as files have it -> as it is run. cl100k's quantifiers are possessive (?+, ++), which no engine here has; as
 * what follows them can match none of their characters, greedy ones are the same.
 */
export const knownPatterns: ReadonlyMap<string, string> = new Map([
  ...[gpt2Pattern, llama3Pattern, qwen2Pattern, qwen35Pattern, ...defaultPatterns, '\\p{N}{1,3}', '\\p{N}'].map(
    (pattern) => [pattern, pattern] as const,
  ),
  ...[byCase('', '\\p{N}'), byCase(`${contractions}?`, '\\p{N}{1,3}')].map((pattern) => [pattern, pattern] as const),
  [
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
  ],
]);

/** What a value of tokenizer.ggml.pre stands for. */
export interface PreTokenizer {
  /** One after the other. */
  readonly patterns: readonly string[];
  /** A piece that is a token as a whole is not looked at further. */
  readonly wholePieces: boolean;
  /** Texts start with BOS unless the file says otherwise. */
  readonly addBos: boolean;
}

const llama3: PreTokenizer = { patterns: [llama3Pattern], wholePieces: true, addBos: true };
const gpt2: PreTokenizer = { patterns: [gpt2Pattern], wholePieces: false, addBos: false };
const qwen2: PreTokenizer = { ...gpt2, patterns: [qwen2Pattern] };

/** As in llama.cpp; `falcon_e` is ik_llama.cpp's. */
const preTokenizers: Readonly<Record<string, PreTokenizer>> = {
  'llama-bpe': llama3,
  llama3,
  'llama-v3': llama3,
  falcon3: llama3,
  falcon_e: llama3,
  'gpt-2': gpt2,
  qwen2,
  'deepseek-r1-qwen': qwen2,
  qwen35: { ...gpt2, patterns: [qwen35Pattern] },
  default: { ...gpt2, patterns: defaultPatterns },
};

/** @throws ModelError for a name that is not known */
export function preTokenizerOf(name: string): PreTokenizer {
  const known = Object.hasOwn(preTokenizers, name) ? preTokenizers[name] : undefined;
  if (known) return known;
  throw new ModelError(
    `tokenizer.ggml.pre = ${show(name)} is an unknown pre-tokenizer; known: ${Object.keys(preTokenizers).join(', ')}`,
  );
}
