/**
 * Reads Hugging Face's tokenizer.json: byte-level BPE (Llama-3, Falcon3, the demo model) and SentencePiece-like BPE with
 * byte fallback (1bitLLM, Llama-2). Truncation, padding and the post-processor (which would add BOS) are not used.
 * Source: huggingface/tokenizers, tokenizers/src/models/bpe/serialization.rs and its siblings.
 */
import { readFileSync } from 'node:fs';
import { ModelError } from '../../schemas/error.ts';
import { readMerges } from './merge-list.ts';
import type { AddedToken, TokenizerParts } from './parts.ts';
import { byteTokens } from './spelling.ts';
import { type JsonObject, readNormalizer, readPreTokenizer } from './split.ts';

/** The parts of tokenizer.json that are used. */
interface TokenizerJson {
  readonly added_tokens?: readonly {
    readonly id: number;
    readonly content: string;
    readonly special?: boolean;
    readonly lstrip?: boolean;
    readonly rstrip?: boolean;
    readonly single_word?: boolean;
  }[];
  readonly normalizer?: JsonObject | null;
  readonly pre_tokenizer?: JsonObject | null;
  readonly model?: {
    readonly type?: string;
    readonly vocab?: Readonly<Record<string, number>>;
    readonly merges?: readonly (string | readonly string[])[];
    readonly unk_token?: string | null;
    readonly fuse_unk?: boolean;
    readonly byte_fallback?: boolean;
    readonly ignore_merges?: boolean;
    readonly continuing_subword_prefix?: string | null;
    readonly end_of_word_suffix?: string | null;
  };
}

/** @param path tokenizer.json @throws ModelError if it is no BPE tokenizer or uses something unsupported */
export function readHuggingface(path: string): TokenizerParts {
  let json: TokenizerJson;
  try {
    json = JSON.parse(readFileSync(path, 'utf8')) as TokenizerJson;
  } catch (error) {
    throw new ModelError(`${path}: not a readable tokenizer.json: ${(error as Error).message}`, { cause: error });
  }
  return fromJson(json, path);
}

/** @param origin file name for messages */
export function fromJson(json: TokenizerJson, origin: string): TokenizerParts {
  const { model } = json;
  // Files written before 2021 have no type; vocabulary and merges together exist only in BPE.
  if (!model?.vocab || !model.merges || (model.type ?? 'BPE') !== 'BPE')
    throw new ModelError(`${origin}: tokenizer model ${JSON.stringify(model?.type)} is not supported; known: BPE`);
  for (const field of ['continuing_subword_prefix', 'end_of_word_suffix'] as const)
    if (model[field])
      throw new ModelError(
        `${origin}: model.${field} = ${JSON.stringify(model[field])} is not supported; it must be empty`,
      );

  const texts: string[] = [];
  const ids = new Map<string, number>();
  // Not Object.entries: that took twice as long for 128,000 tokens.
  for (const text in model.vocab) {
    const id = model.vocab[text]!;
    if (!Number.isInteger(id) || id < 0 || id >= 2 ** 24)
      throw new ModelError(
        `${origin}: token ${JSON.stringify(text)} has id ${id}; ids must be whole numbers from 0 to 2^24 - 1`,
      );
    texts[id] = text;
    ids.set(text, id);
  }
  const merges = readMerges(model.merges, ids, origin);
  const unknownId = model.unk_token == null ? undefined : ids.get(model.unk_token);
  const fallback = model.byte_fallback ? byteTokens(ids) : undefined;

  const added: AddedToken[] = (json.added_tokens ?? []).map((token) => ({
    id: token.id,
    text: token.content,
    special: token.special === true,
    stripLeft: token.lstrip === true,
    stripRight: token.rstrip === true,
    singleWord: token.single_word === true,
  }));
  for (const token of added) {
    texts[token.id] = token.text;
    if (token.special) ids.delete(token.text);
  }

  const preTokenizer = readPreTokenizer(json.pre_tokenizer, origin);
  const split = [...readNormalizer(json.normalizer, origin), ...preTokenizer];
  const byteLevel = mentions(json.pre_tokenizer, 'ByteLevel');
  // Whether a space is put in front shows on any text.
  const sample = split.reduce((pieces, stage) => stage(pieces, true), ['a']).join('');
  return {
    texts,
    ids,
    added,
    split,
    merges,
    wholePieces: model.ignore_merges === true,
    spelling: byteLevel ? 'byte-level' : 'metaspace',
    ...(fallback ? { byteTokens: fallback } : {}),
    ...(unknownId === undefined ? {} : { unknown: { id: unknownId, fuse: model.fuse_unk === true } }),
    prefixed: sample !== 'a',
  };
}

/** Whether a stage of this type occurs anywhere in a (nested) section. */
function mentions(config: unknown, type: string): boolean {
  if (typeof config !== 'object' || config === null) return false;
  return (config as JsonObject).type === type || Object.values(config).some((value) => mentions(value, type));
}
