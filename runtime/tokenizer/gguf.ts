/**
 * Builds a tokenizer from a GGUF file's metadata: tokenizer.ggml.model "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE).
 * Source: llama.cpp, src/llama-vocab.cpp (llm_tokenizer_bpe, llm_tokenizer_spm); ggml, docs/gguf.md.
 */
import { ModelError } from '../../schemas/error.ts';
import type { TokenizerSource } from '../formats/source.ts';
import { concatenations } from './merge.ts';
import { readMerges } from './merge-list.ts';
import type { AddedToken, TokenizerParts } from './parts.ts';
import { byteTokens } from './spelling.ts';
import { ggufSplitters, toMetaspace } from './split.ts';

type GgufSource = Extract<TokenizerSource, { kind: 'gguf' }>;

/** Values of tokenizer.ggml.token_type. Missing types mean that every token is normal. */
const normal = 1;
const unknown = 2;
const control = 3;
const userDefined = 4;

/** @throws ModelError for an unknown model or pre-tokenizer, or lists that do not fit together */
export function fromGguf(source: GgufSource): TokenizerParts {
  const { tokens, types } = source;
  for (const [name, list] of [['token_type', types] as const, ['scores', source.scores] as const])
    if (list && list.length > 0 && list.length !== tokens.length)
      throw new ModelError(
        `tokenizer.ggml.${name} has ${list.length} entries; it must have one for each of the ${tokens.length} tokens`,
      );
  const ids = new Map<string, number>();
  const added: AddedToken[] = [];
  for (const [id, text] of tokens.entries()) {
    const type = types[id] ?? normal;
    // A text that occurs twice belongs to its first token.
    if ((type === normal || type === userDefined) && !ids.has(text)) ids.set(text, id);
    if (type === control || type === unknown || type === userDefined)
      added.push({ id, text, special: type !== userDefined });
  }
  if (source.model === 'gpt2') return byteLevel(source, ids, added);
  if (source.model === 'llama') return sentencePiece(source, ids, added);
  throw new ModelError(`tokenizer.ggml.model = ${JSON.stringify(source.model)} is not supported; known: gpt2, llama`);
}

function byteLevel(source: GgufSource, ids: Map<string, number>, added: AddedToken[]): TokenizerParts {
  return {
    texts: source.tokens,
    ids,
    added,
    ...ggufSplitters(source.pre),
    // Without a list of merges the id is the rank, as it is in tiktoken's vocabularies.
    merges: source.merges?.length
      ? readMerges(source.merges, ids, 'tokenizer.ggml.merges')
      : concatenations(
          ids,
          Int32Array.from(source.tokens, (_, id) => id),
        ),
    spelling: 'byte-level',
    prefixed: false,
  };
}

function sentencePiece(source: GgufSource, ids: Map<string, number>, added: AddedToken[]): TokenizerParts {
  const { scores, tokens, types } = source;
  if (!scores?.length) throw new ModelError('tokenizer.ggml.scores is missing; a "llama" tokenizer merges by score');
  // Higher score first. Equal scores must stay equal (then the leftmost pair goes first), so the rank is that of the score.
  const distinct = [...new Set(scores)].sort((a, b) => b - a);
  const rank = new Map(distinct.map((score, index) => [score, index]));
  // Byte tokens have a type of their own and are not in `ids`.
  const bytes = byteTokens(new Map(tokens.map((text, id) => [text, id])));
  const unknownId = types.indexOf(unknown);
  return {
    texts: tokens,
    ids,
    added,
    split: [toMetaspaceWithPrefix],
    merges: concatenations(
      ids,
      Int32Array.from(scores, (score) => rank.get(score)!),
    ),
    wholePieces: false,
    spelling: 'metaspace',
    ...(bytes ? { byteTokens: bytes } : {}),
    ...(unknownId < 0 ? {} : { unknown: { id: unknownId, fuse: true } }),
    prefixed: true,
  };
}

/** llama.cpp puts a space before every stretch of text, even if it starts with one (add_space_prefix, on by default). */
const toMetaspaceWithPrefix = (pieces: string[], first: boolean): string[] =>
  toMetaspace('never')(
    pieces.map((piece) => ` ${piece}`),
    first,
  );
