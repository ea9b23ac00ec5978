/**
 * Builds a tokenizer from a GGUF file's metadata: tokenizer.ggml.model "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE).
 * gguf-keys.ts says which keys there are; docs/tokenizers.md lists what becomes of each.
 * Source: llama.cpp, src/llama-vocab.cpp (llm_tokenizer_bpe, llm_tokenizer_spm); ggml, docs/gguf.md.
 */
import { ModelError } from '../../schemas/error.ts';
import type { TokenizerSource } from '../formats/source.ts';
import { GgufKeys } from './gguf-keys.ts';
import { show } from './json.ts';
import { concatenations } from './merge.ts';
import { readMerges } from './merge-list.ts';
import { type AddedToken, longestAdded, longestToken, mostTokens, type TokenizerParts } from './parts.ts';
import { preTokenizerOf } from './patterns.ts';
import { byteTokens } from './spelling.ts';
import { ggufStages, toMetaspace } from './split.ts';

type GgufSource = Extract<TokenizerSource, { kind: 'gguf' }>;

/** Values of tokenizer.ggml.token_type. Missing types mean that every token is normal. */
const unknown = 2;
const control = 3;
const userDefined = 4;
const byte = 6;

/** What both models have. */
interface Vocabulary {
  readonly texts: readonly string[];
  readonly ids: Map<string, number>;
  readonly added: readonly AddedToken[];
  readonly types: readonly number[] | undefined;
}

/** @throws ModelError for an unknown model, pre-tokenizer or key, or lists that do not fit together */
export function fromGguf(source: GgufSource): TokenizerParts {
  const keys = new GgufKeys(source.metadata);
  const vocabulary = readVocabulary(keys);
  const model = keys.text('model');
  if (model === 'gpt2') return byteLevel(keys, vocabulary);
  if (model === 'llama') return sentencePiece(keys, vocabulary);
  throw new ModelError(`tokenizer.ggml.model = ${show(model)} is not supported; known: gpt2, llama`);
}

function readVocabulary(keys: GgufKeys): Vocabulary {
  const texts = keys.texts('tokens') ?? keys.fail('tokens', 'is missing');
  if (texts.length > mostTokens) keys.fail('tokens', `has ${texts.length} entries; ${mostTokens} are the limit`);
  const types = keys.numbers('token_type', texts.length);
  const ids = new Map<string, number>();
  const added: AddedToken[] = [];
  for (const [id, text] of texts.entries()) {
    const type = types?.[id] ?? 1;
    if (!(Number.isInteger(type) && type >= 0 && type <= byte))
      keys.fail('token_type', `of token ${id} is ${type}; known are 0 to ${byte}`);
    const isAdded = type === control || type === unknown || type === userDefined;
    const longest = isAdded ? longestAdded : longestToken;
    if (text.length > longest)
      keys.fail('tokens', `has a token of ${text.length} characters, ${id}; ${longest} are the limit`);
    if (isAdded) added.push({ id, text, special: type !== userDefined });
    if (type === control || type === unknown || type === byte || text === '') continue;
    const first = ids.get(text);
    if (first !== undefined) keys.fail('tokens', `has ${show(text)} twice, ${first} and ${id}; the file is damaged`);
    ids.set(text, id);
  }
  return { texts, ids, added, types };
}

function byteLevel(keys: GgufKeys, { texts, ids, added }: Vocabulary): TokenizerParts {
  const pre = preTokenizerOf(keys.text('pre') ?? guessPre(keys, texts));
  const merges = keys.texts('merges');
  // The ids of tiktoken's vocabularies are ranks. Of others that is not known.
  if (!merges?.length && !pre.wholePieces) keys.fail('merges', 'is missing; a "gpt2" tokenizer merges by that list');
  return {
    texts,
    ids,
    added,
    normalize: [],
    split: ggufStages(pre),
    merges: merges?.length
      ? readMerges(merges, ids, 'tokenizer.ggml.merges', { firstCounts: true })
      : concatenations(
          ids,
          Int32Array.from(texts, (_, id) => id),
        ),
    wholePieces: pre.wholePieces,
    spelling: 'byte-level',
    prefixed: false,
    ...affixes(keys, texts.length, pre.addBos),
  };
}

/**
 * The official file of BitNet 2B4T names no pre-tokenizer. Its vocabulary is Llama 3's, as the marks of turns show, and so are its
 * pieces; llama.cpp falls back to another splitter, which gives other tokens than the model was trained with.
 */
function guessPre(keys: GgufKeys, texts: readonly string[]): string {
  const marks = ['<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'];
  if (marks.every((mark) => texts.includes(mark))) return 'llama-bpe';
  return keys.fail(
    'pre',
    "is missing, and the vocabulary is not Llama 3's, which goes without; a guess would quietly give wrong tokens: " +
      'set it to the name of the pre-tokenizer, or give token ids with --tokens',
  );
}

function sentencePiece(keys: GgufKeys, { texts, ids, added, types }: Vocabulary): TokenizerParts {
  const scores = keys.numbers('scores', texts.length);
  if (!scores?.length) return keys.fail('scores', 'is missing; a "llama" tokenizer merges by score');
  if (!scores.every(Number.isFinite)) keys.fail('scores', 'has a score that is no number');
  // Higher score first. Equal scores must stay equal (then the leftmost pair goes first), so the rank is that of the score.
  const distinct = [...new Set(scores)].sort((a, b) => b - a);
  const rank = new Map(distinct.map((score, index) => [score, index]));
  // Byte tokens have a type of their own and are not in `ids`.
  const bytes = byteTokens(new Map(texts.map((text, id) => [text, id])), 'tokenizer.ggml.tokens');
  const unknownId = keys.id('unknown_token_id', texts.length) ?? types?.indexOf(unknown) ?? -1;
  if (!bytes && unknownId < 0)
    keys.fail(
      'unknown_token_id',
      'is missing, and there are no byte tokens; one of them must stand for unknown characters',
    );
  const prefixed = keys.flag('add_space_prefix') ?? true;
  const spaces = toMetaspace('never');
  return {
    texts,
    ids,
    added,
    normalize: [],
    // llama.cpp puts a space before every stretch of text, even if it starts with one.
    split: [(pieces, first) => spaces(prefixed ? pieces.map((piece) => ` ${piece}`) : pieces, first)],
    merges: concatenations(
      ids,
      Int32Array.from(scores, (score) => rank.get(score)!),
    ),
    wholePieces: false,
    spelling: 'metaspace',
    ...(bytes ? { byteTokens: bytes } : {}),
    ...(unknownId < 0 ? {} : { unknown: { id: unknownId, text: texts[unknownId]!, fuse: true } }),
    prefixed,
    // The default of llama.cpp's "llama" models is token 1.
    ...affixes(keys, texts.length, true, types?.[1] === control ? 1 : undefined),
  };
}

/** BOS and EOS. @param addBos whether BOS is added where the file does not say @param bos its id if the file does not say */
function affixes(keys: GgufKeys, vocabulary: number, addBos: boolean, bos?: number) {
  const one = (add: boolean, key: string, fallback?: number): number[] => {
    if (!add) return [];
    const id = keys.id(key, vocabulary) ?? fallback;
    return [id ?? keys.fail(key, 'is missing, but this tokenizer adds that token to every text')];
  };
  return {
    prefix: one(keys.flag('add_bos_token') ?? addBos, 'bos_token_id', bos),
    suffix: one(keys.flag('add_eos_token') ?? false, 'eos_token_id'),
  };
}
