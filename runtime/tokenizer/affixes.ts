/**
 * The ids that stand before and after a text, BOS and EOS mostly, as a Hugging Face tokenizer's own files say:
 *
 *   1. a tokenizer_class whose code sets them itself (Llama's, Gemma's, Cohere's): add_bos_token and add_eos_token, where
 *      tokenizer_config.json has them
 *   2. "post_processor" of tokenizer.json, if it has a template
 *   3. add_bos_token and add_eos_token of any other class; without them such a Llama class adds BOS, any other nothing
 *
 * config.json is asked for the id of a BOS only that tokenizer_config.json wants but does not name.
 * Source: transformers, tokenization_utils_tokenizers.py, models/llama/tokenization_llama_fast.py; Hugging Face tokenizers,
 * src/processors.
 */
import { Fields, show } from './json.ts';
import { deepestSequence } from './normalize.ts';
import { mostTokens } from './parts.ts';

export interface Affixes {
  readonly prefix: readonly number[];
  readonly suffix: readonly number[];
}

const classesOfTheirOwn = /^(Llama|CodeLlama|Gemma|Cohere)Tokenizer(Fast)?$/;

/** @returns undefined if the section says nothing about added ids @throws ModelError for what cannot be honoured */
export function readPostProcessor(value: unknown, where: string, depth = 0): Affixes | undefined {
  if (value === undefined || value === null) return undefined;
  const fields = new Fields(value, where);
  if (depth > deepestSequence) fields.fail(`has sequences more than ${deepestSequence} deep`);
  const affixes = read(fields, depth);
  fields.end();
  return affixes;
}

const types = ['Sequence', 'TemplateProcessing', 'ByteLevel', 'BertProcessing', 'RobertaProcessing'] as const;

function read(fields: Fields, depth: number): Affixes | undefined {
  const type = fields.choice('type', types, '' as (typeof types)[number]);
  switch (type) {
    case 'Sequence': {
      let all: Affixes | undefined;
      for (const step of fields.list('processors') ?? fields.fail('has no list processors')) {
        const more = readPostProcessor(step, fields.where, depth + 1);
        // Each wraps what the ones before made.
        if (more)
          all = { prefix: [...more.prefix, ...(all?.prefix ?? [])], suffix: [...(all?.suffix ?? []), ...more.suffix] };
      }
      return all;
    }
    case 'TemplateProcessing':
      return template(fields);
    case 'ByteLevel':
      // Shifts offsets alone.
      fields.ignore('add_prefix_space', 'trim_offsets', 'use_regex');
      return undefined;
    default:
      fields.ignore('add_prefix_space', 'trim_offsets');
      return { prefix: [pairId(fields, 'cls')], suffix: [pairId(fields, 'sep')] };
  }
}

/** [text, id] */
function pairId(fields: Fields, key: string): number {
  const pair = fields.list(key);
  return pair?.length === 2 ? tokenId(pair[1], fields, key) : fields.fail(`${key} is not [text, id]`);
}

function tokenId(value: unknown, fields: Fields, key: string): number {
  const known = typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < mostTokens;
  return known ? value : fields.fail(`${key} has an id that is no token's`);
}

function template(fields: Fields): Affixes {
  // For texts in pairs, which nobody gives here.
  fields.ignore('pair');
  const tokens = fields.object('special_tokens');
  const sides: [number[], number[]] = [[], []];
  let texts = 0;
  for (const item of fields.list('single') ?? fields.fail('has no list single')) {
    const part = new Fields(item, `${fields.where} single`);
    const [text, token] = [part.object('Sequence'), part.object('SpecialToken')];
    part.end();
    if (text?.raw('id') === 'A') texts++;
    const name = token?.text('id');
    if (text ? text.raw('id') !== 'A' : name === undefined) part.fail('has a part that is neither a token nor text A');
    if (name === undefined) continue;
    const ids = tokens?.object(name)?.list('ids') ?? fields.fail(`special_tokens has no ids of ${show(name)}`);
    for (const id of ids) sides[texts ? 1 : 0].push(tokenId(id, fields, 'special_tokens'));
  }
  if (texts !== 1) fields.fail(`single has text A ${texts} times, not once`);
  return { prefix: sides[0], suffix: sides[1] };
}

/**
 * @param config tokenizer_config.json, if there is one
 * @param said what the post-processor says
 * @param idOf id of a token's text
 * @param bos config.json's
 */
export function decideAffixes(
  config: Fields | undefined,
  said: Affixes | undefined,
  idOf: (text: string) => number | undefined,
  bos: number | undefined,
): Affixes {
  const nothing: Affixes = { prefix: [], suffix: [] };
  const ownClass = classesOfTheirOwn.test(config?.text('tokenizer_class') ?? '');
  if (!config || (said && !ownClass)) return said ?? nothing;
  const flag = (key: string): boolean | undefined =>
    config.raw(key) === undefined ? undefined : config.flag(key, false);
  const token = (key: string, otherwise?: number): number => {
    const text = tokenText(config, key);
    const id = text === undefined ? undefined : idOf(text);
    return id ?? otherwise ?? config.fail(`adds ${key}, but names none of the vocabulary`);
  };
  const { prefix, suffix } = said ?? nothing;
  const addBos =
    flag('add_bos_token') ?? (!said && ownClass && tokenText(config, 'bos_token') !== undefined ? true : undefined);
  const addEos = flag('add_eos_token');
  return {
    prefix: addBos === undefined ? prefix : addBos ? [token('bos_token', bos)] : [],
    suffix: addEos === undefined ? suffix : addEos ? [token('eos_token')] : [],
  };
}

/** A token by its text, or as an object that has it. */
function tokenText(config: Fields, key: string): string | undefined {
  const value = config.raw(key);
  return typeof value === 'object' ? config.object(key)?.text('content') : config.text(key);
}
