/**
 * Stages that cut a text into pieces before byte-pair encoding, and the readers of tokenizer.json's "normalizer" and
 * "pre_tokenizer" sections. Tokens never cross a piece's border.
 * Sources: Hugging Face tokenizers, src/normalizers and src/pre_tokenizers; llama.cpp, src/llama-vocab.cpp (names of GGUF's
 * tokenizer.ggml.pre); the Llama-3 expression is in Meta's llama3/tokenizer.py, GPT-2's in gpt-2/src/encoder.py.
 */
import { ModelError, UsageError } from '../../schemas/error.ts';
import type { Splitter } from './parts.ts';
import { escapeRegex, translateRegex } from './regex.ts';
import { metaspace, spellBytes } from './spelling.ts';

/** The pieces of Llama 3: contractions, words with one character before them, up to three digits, signs, line ends, spaces. */
export const llama3Pattern =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
/** The pieces of GPT-2: contractions, words, numbers and signs with one space before them, spaces. */
export const gpt2Pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** What becomes of the matches (tokenizer.json's "behavior"). */
const behaviors = ['Isolated', 'Removed', 'Contiguous', 'MergedWithPrevious', 'MergedWithNext'] as const;
type Behavior = (typeof behaviors)[number];

/** One JSON object of tokenizer.json; its fields are checked where they are read. */
export type JsonObject = { readonly [key: string]: unknown };

/** Cuts each piece at the matches of a global expression. @param invert what does not match counts as the match */
export function cutAt(regex: RegExp, behavior: Behavior = 'Isolated', invert = false): Splitter {
  return (pieces) => {
    const out: string[] = [];
    for (const piece of pieces) {
      let at = 0;
      // Whether the piece before was a match; each behaviour joins a new piece to the one before on its own terms.
      let before: boolean | undefined;
      const add = (text: string, matched: boolean): void => {
        const joined =
          before !== undefined &&
          ((behavior === 'Contiguous' && matched === before) ||
            (behavior === 'MergedWithPrevious' && matched && !before) ||
            (behavior === 'MergedWithNext' && before && !matched));
        if (joined) out.push(out.pop() + text);
        else if (behavior !== 'Removed' || !matched) out.push(text);
        before = matched;
      };
      try {
        for (const match of piece.matchAll(regex)) {
          if (match.index > at) add(piece.slice(at, match.index), invert);
          if (match[0] !== '') add(match[0], !invert);
          at = match.index + match[0].length;
        }
      } catch (error) {
        // V8's expressions run out of backtracking space in a run of several million letters.
        if (!(error instanceof RangeError)) throw error;
        throw new UsageError(
          `a text of ${piece.length} characters without a break cannot be cut into words; give it in parts of a million`,
          { cause: error },
        );
      }
      if (at < piece.length) add(piece.slice(at), invert);
    }
    return out;
  };
}

/** Each piece changed on its own. */
export function mapPieces(change: (piece: string) => string): Splitter {
  return (pieces) => pieces.map(change);
}

/** Bytes in the spelling of byte-level vocabularies. */
export const toBytes: Splitter = mapPieces(spellBytes);

/** SentencePiece's spaces. @param prefix 'first': a space before the text; 'always': before every stretch; 'never' */
export function toMetaspace(prefix: 'first' | 'always' | 'never', replacement = metaspace): Splitter {
  return (pieces, first) =>
    pieces.map((piece, index) => {
      const text = piece.replaceAll(' ', replacement);
      const wanted = prefix === 'always' || (prefix === 'first' && first && index === 0);
      return wanted && !text.startsWith(replacement) ? replacement + text : text;
    });
}

/** Value of tokenizer.ggml.pre -> expression. llama.cpp reads falcon3 like llama3, and ik_llama.cpp falcon_e too. */
const ggufPatterns: Readonly<Record<string, string>> = {
  'llama-bpe': llama3Pattern,
  llama3: llama3Pattern,
  'llama-v3': llama3Pattern,
  falcon3: llama3Pattern,
  falcon_e: llama3Pattern,
  'gpt-2': gpt2Pattern,
  default: gpt2Pattern,
};

/**
 * Pre-tokenizer of a GGUF file. A missing name means llama-bpe: the official 2B4T file has none and is Llama-3's.
 * @throws ModelError for a name that is not known
 */
export function ggufSplitters(pre = 'llama-bpe'): {
  readonly split: readonly Splitter[];
  readonly wholePieces: boolean;
} {
  const pattern = Object.hasOwn(ggufPatterns, pre) ? ggufPatterns[pre] : undefined;
  if (pattern === undefined)
    throw new ModelError(
      `tokenizer.ggml.pre = ${JSON.stringify(pre)} is an unknown pre-tokenizer; known: ${Object.keys(ggufPatterns).join(', ')}`,
    );
  return {
    split: [cutAt(translateRegex(pattern, `tokenizer.ggml.pre ${pre}`)), toBytes],
    wholePieces: pattern === llama3Pattern,
  };
}

/** Reads "normalizer" of tokenizer.json: stages that change text without cutting it. */
export function readNormalizer(config: JsonObject | null | undefined, origin: string): Splitter[] {
  if (!config) return [];
  const type = config.type;
  switch (type) {
    case 'Sequence':
      return list(config.normalizers).flatMap((step) => readNormalizer(step, origin));
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return [mapPieces((piece) => piece.normalize(type))];
    case 'Prepend':
      return [mapPieces((piece) => (piece === '' ? '' : String(config.prepend ?? '') + piece))];
    case 'Replace': {
      const regex = readPattern(config.pattern, origin);
      const content = String(config.content ?? '');
      return [mapPieces((piece) => piece.replace(regex, () => content))];
    }
    default:
      throw unknown(origin, 'normalizer', type, 'NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence');
  }
}

/** Reads "pre_tokenizer" of tokenizer.json. */
export function readPreTokenizer(config: JsonObject | null | undefined, origin: string): Splitter[] {
  if (!config) return [];
  const behavior = behaviors.find((name) => name === (config.behavior ?? 'Isolated'));
  if (!behavior) throw unknown(origin, 'behavior', config.behavior, behaviors.join(', '));
  switch (config.type) {
    case 'Sequence':
      return list(config.pretokenizers).flatMap((step) => readPreTokenizer(step, origin));
    case 'Split':
      return [cutAt(readPattern(config.pattern, origin), behavior, config.invert === true)];
    case 'Digits':
      return [cutAt(/\p{N}/gu, config.individual_digits === true ? 'Isolated' : 'Contiguous')];
    case 'Punctuation':
      return [cutAt(/[\p{P}!-/:-@[-`{-~]/gu, behavior)];
    case 'ByteLevel': {
      const stages: Splitter[] = [];
      if (config.add_prefix_space !== false)
        stages.push(mapPieces((piece) => (piece.startsWith(' ') ? piece : ` ${piece}`)));
      if (config.use_regex !== false) stages.push(cutAt(translateRegex(gpt2Pattern, origin)));
      return [...stages, toBytes];
    }
    case 'Metaspace': {
      const replacement = String(config.replacement ?? metaspace);
      const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? 'never' : 'always');
      if (scheme !== 'first' && scheme !== 'always' && scheme !== 'never')
        throw unknown(origin, 'prepend_scheme', scheme, 'first, always, never');
      const stages = [toMetaspace(scheme, replacement)];
      if (config.split !== false) stages.push(cutAt(new RegExp(escapeRegex(replacement), 'gu'), 'MergedWithNext'));
      return stages;
    }
    default:
      throw unknown(origin, 'pre_tokenizer', config.type, 'Split, ByteLevel, Digits, Punctuation, Metaspace, Sequence');
  }
}

function readPattern(pattern: unknown, origin: string): RegExp {
  const { Regex: regex, String: text } = (pattern ?? {}) as { Regex?: unknown; String?: unknown };
  if (typeof regex === 'string') return translateRegex(regex, origin);
  if (typeof text === 'string') return new RegExp(escapeRegex(text), 'gu');
  throw unknown(origin, 'pattern', pattern, '{"Regex": "..."}, {"String": "..."}');
}

function list(value: unknown): JsonObject[] {
  return Array.isArray(value) ? (value as JsonObject[]) : [];
}

function unknown(origin: string, field: string, value: unknown, known: string): ModelError {
  return new ModelError(`${origin}: ${field} ${JSON.stringify(value)} is not supported; known: ${known}`);
}
