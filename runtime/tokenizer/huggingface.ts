/**
 * Reads Hugging Face's tokenizer.json: byte-level BPE (Llama-3, Falcon3, the demo model) and SentencePiece-like BPE with
 * byte fallback (1bitLLM, Llama-2); and what tokenizer_config.json adds to it. docs/tokenizers.md lists every part.
 * Source: huggingface/tokenizers, tokenizers/src/models/bpe/serialization.rs and its siblings; transformers,
 * tokenization_utils_tokenizers.py.
 */
import { ModelError } from '../../schemas/error.ts';
import type { TokenizerSource } from '../formats/source.ts';
import { decideAffixes, readPostProcessor } from './affixes.ts';
import { Fields, readJsonFile, show } from './json.ts';
import { readMerges } from './merge-list.ts';
import { bytesStep, readNormalizer } from './normalize.ts';
import { type AddedToken, longestAdded, longestToken, mostTokens, type TokenizerParts } from './parts.ts';
import { byteTokens } from './spelling.ts';
import { readPreTokenizer, toBytes } from './split.ts';

type HuggingfaceSource = Extract<TokenizerSource, { kind: 'huggingface' }>;

/** @throws ModelError if it is no BPE tokenizer, damaged, or uses something unsupported */
export function readHuggingface(source: HuggingfaceSource): TokenizerParts {
  const origin = source.tokenizer;
  const json = new Fields(readJsonFile(origin), `${origin}:`);
  const config = source.config === undefined ? undefined : new Fields(readJsonFile(source.config), `${source.config}:`);
  if ((json.text('version') ?? '1.0') !== '1.0')
    json.fail(`version ${show(json.raw('version'))} is not supported; known: 1.0`);
  // Truncation and padding are options of a call, which transformers switches off; a decoder makes text, not ids.
  json.ignore('truncation', 'padding', 'decoder');
  const model = readModel(json.raw('model'), `${origin}: model`);
  const { texts, ids } = model;
  const addedTexts = new Map<string, number>();
  const added = readAdded(json.list('added_tokens') ?? [], config, `${origin}: added_tokens`);
  for (const token of added) {
    place(token, texts, ids, origin);
    addedTexts.set(token.text, token.id);
    if (token.special) ids.delete(token.text);
  }

  const normalize = readNormalizer(json.raw('normalizer'), `${origin}: normalizer`);
  const split = readPreTokenizer(json.raw('pre_tokenizer'), `${origin}: pre_tokenizer`);
  const byteSteps = normalize.filter((step) => step === bytesStep).length + split.filter((s) => s === toBytes).length;
  if (byteSteps > 1) json.fail('has two ByteLevel steps, which spell bytes twice; that is not supported');
  const said = readPostProcessor(json.raw('post_processor'), `${origin}: post_processor`);
  json.end();
  // Whether a space is put in front shows on any text; this character is nobody's.
  const sample = split.reduce(
    (pieces, stage) => stage(pieces, true),
    [normalize.reduce((text, step) => step(text, 64), '\ue000')],
  );
  const prefixed = /^[ \u2581\u0120]/.test(sample.join(''));
  if (config) checkConfig(config, prefixed);
  return {
    ...model,
    added,
    normalize,
    split,
    spelling: byteSteps > 0 ? 'byte-level' : 'metaspace',
    prefixed,
    ...decideAffixes(config, said, (text) => addedTexts.get(text) ?? ids.get(text), source.bos),
  };
}

/** "model": the vocabulary and its merges. */
function readModel(value: unknown, where: string) {
  const model = new Fields(value, where);
  // Files written before 2021 have no type; vocabulary and merges together exist only in BPE.
  const type = model.choice('type', ['BPE'], 'BPE');
  for (const field of ['continuing_subword_prefix', 'end_of_word_suffix'] as const)
    if (model.text(field)) model.fail(`${field} = ${show(model.raw(field))} is not supported; it must be empty`);
  if ((model.raw('dropout') ?? 0) !== 0) model.fail('dropout is not 0: the same text would give other ids each time');
  const vocab = model.raw('vocab');
  if (typeof vocab !== 'object' || vocab === null || Array.isArray(vocab)) model.fail(`vocab of ${type} is no object`);
  const { texts, ids } = readVocabulary(vocab as Readonly<Record<string, unknown>>, model);
  const unknownText = model.text('unk_token');
  const fuse = model.flag('fuse_unk', false);
  const unknownId = unknownText === undefined ? undefined : ids.get(unknownText);
  const fallback = model.flag('byte_fallback', false) ? byteTokens(ids, where) : undefined;
  // Rust makes these before it merges; here they are made after all merges.
  const whole = new Set([...(fallback ?? []), ...(unknownId === undefined ? [] : [unknownId])]);
  const merges = readMerges(model.list('merges') ?? model.fail('has no list merges'), ids, where, { whole });
  const wholePieces = model.flag('ignore_merges', false);
  model.end();
  return {
    texts,
    ids,
    merges,
    wholePieces,
    ...(fallback ? { byteTokens: fallback } : {}),
    ...(unknownText === undefined ? {} : { unknown: { id: unknownId ?? -1, fuse, text: unknownText } }),
  };
}

function readVocabulary(vocab: Readonly<Record<string, unknown>>, model: Fields) {
  const texts: (string | undefined)[] = [];
  const ids = new Map<string, number>();
  // Not Object.entries: that took twice as long for 128,000 tokens.
  for (const text in vocab) {
    const id = vocab[text];
    if (!isTokenId(id))
      model.fail(
        `vocab: token ${show(text)} has id ${show(id)}; ids must be whole numbers from 0 to ${mostTokens - 1}`,
      );
    if (texts[id] !== undefined) model.fail(`vocab: ${show(texts[id])} and ${show(text)} have one id, ${id}`);
    if (text.length > longestToken)
      model.fail(`vocab: token ${id} has ${text.length} characters; ${longestToken} are the limit`);
    texts[id] = text;
    ids.set(text, id);
  }
  return { texts, ids };
}

const isTokenId = (id: unknown): id is number =>
  Number.isInteger(id) && (id as number) >= 0 && (id as number) < mostTokens;

/** "added_tokens", and those that only tokenizer_config.json has. */
function readAdded(list: readonly unknown[], config: Fields | undefined, where: string): AddedToken[] {
  const added = list.map((value) => readAddedToken(new Fields(value, where)));
  const known = new Set(added.map((token) => token.text));
  const decoder = config?.raw('added_tokens_decoder') === undefined ? undefined : config.object('added_tokens_decoder');
  for (const id of decoder?.keys() ?? []) {
    const token = readAddedToken(decoder!.object(id)!, Number(id));
    if (!known.has(token.text)) added.push(token);
  }
  return added;
}

function readAddedToken(fields: Fields, key?: number): AddedToken {
  const id = key ?? fields.raw('id');
  const text = fields.text('content') ?? fields.fail('has a token without content');
  if (!isTokenId(id))
    fields.fail(`has token ${show(text)} with id ${show(id)}; ids are whole numbers below ${mostTokens}`);
  if (text.length > longestAdded)
    fields.fail(`has a token of ${text.length} characters; ${longestAdded} are the limit`);
  const special = fields.flag('special', false);
  const token = {
    id,
    text,
    special,
    stripLeft: fields.flag('lstrip', false),
    stripRight: fields.flag('rstrip', false),
    singleWord: fields.flag('single_word', false),
    normalized: fields.flag('normalized', !special),
  };
  fields.ignore('__type');
  fields.end();
  return token;
}

/** Puts an added token into the vocabulary. Rust goes by the vocabulary's id where the two differ, silently. */
function place(
  token: AddedToken,
  texts: (string | undefined)[],
  ids: ReadonlyMap<string, number>,
  origin: string,
): void {
  const held = texts[token.id];
  const id = ids.get(token.text) ?? token.id;
  if (id !== token.id || (held !== undefined && held !== token.text))
    throw new ModelError(
      `${origin}: added token ${show(token.text)} has id ${token.id}, but in the vocabulary ` +
        `${id !== token.id ? `it has id ${id}` : `that id is ${show(held)}`}; the file is damaged`,
    );
  texts[token.id] = token.text;
}

/** What tokenizer_config.json may say against tokenizer.json. */
function checkConfig(config: Fields, prefixed: boolean): void {
  if (config.flag('split_special_tokens', false))
    config.fail('split_special_tokens is true, which is not supported; --no-special does the same');
  const wanted = config.flag('add_prefix_space', prefixed);
  if (wanted !== prefixed)
    config.fail(
      `add_prefix_space is ${wanted}, but tokenizer.json puts ${prefixed ? 'a' : 'no'} space before a text; one of them is wrong`,
    );
}
