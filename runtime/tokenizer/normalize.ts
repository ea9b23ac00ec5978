/**
 * Reads "normalizer" of tokenizer.json: steps that change text without cutting it, before split.ts cuts it.
 * Source: Hugging Face tokenizers, src/normalizers.
 */
import { ModelError } from '../../schemas/error.ts';
import { Fields } from './json.ts';
import { type Find, findPattern, findText } from './matcher.ts';
import type { Normalizer } from './parts.ts';
import { spellBytes } from './spelling.ts';

/** Steps of a normalizer or a pre-tokenizer; published ones have at most 6. */
export const mostSteps = 32;
/** Sequences within sequences. */
export const deepestSequence = 8;
/** Characters that all steps together may make of one; 18 is the most that Unicode's own do. */
export const mostGrowth = 32;
/** Characters that "Prepend" and "Replace" may insert; published ones insert 1. */
const longestInsert = 64;

/** Bytes in the spelling of byte-level vocabularies. A constant, so that it can be recognised among the steps. */
export const bytesStep: Normalizer = spellBytes;

/** @param value the section, which may be missing @throws ModelError for what cannot be done exactly */
export function readNormalizer(value: unknown, where: string, depth = 0): Normalizer[] {
  if (value === undefined || value === null) return [];
  const fields = new Fields(value, where);
  if (depth > deepestSequence) fields.fail(`has sequences more than ${deepestSequence} deep`);
  const steps = read(fields, depth);
  fields.end();
  if (steps.length > mostSteps) fields.fail(`has ${steps.length} steps; ${mostSteps} are the limit`);
  return steps;
}

function read(fields: Fields, depth: number): Normalizer[] {
  const type = fields.choice('type', types, '' as (typeof types)[number]);
  switch (type) {
    case 'Sequence':
      return (fields.list('normalizers') ?? fields.fail('has no list normalizers')).flatMap((step) =>
        readNormalizer(step, fields.where, depth + 1),
      );
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return [(text) => text.normalize(type)];
    case 'Lowercase':
      // Character by character, so that a final sigma stays an ordinary one, as in Rust.
      return [(text) => text.replace(/./gsu, (character) => character.toLowerCase())];
    case 'StripAccents':
      return [(text) => text.replace(/\p{M}+/gu, '')];
    case 'Strip': {
      const left = fields.flag('strip_left', true);
      const right = fields.flag('strip_right', true);
      return [
        (text) => {
          const start = left ? (/^\p{White_Space}+/u.exec(text)?.[0].length ?? 0) : 0;
          let end = text.length;
          if (right) while (end > start && /\p{White_Space}/u.test(text[end - 1]!)) end--;
          return text.slice(start, end);
        },
      ];
    }
    case 'Prepend': {
      const text = insert(fields, 'prepend');
      return [(rest) => (rest === '' ? '' : text + rest)];
    }
    case 'Replace':
      return [replacing(readPattern(fields), insert(fields, 'content'))];
    case 'ByteLevel':
      return [bytesStep];
  }
}

const types = [
  'Sequence',
  'NFC',
  'NFD',
  'NFKC',
  'NFKD',
  'Lowercase',
  'StripAccents',
  'Strip',
  'Prepend',
  'Replace',
  'ByteLevel',
] as const;

/** "pattern" of a step: {"Regex": "..."} or {"String": "..."}. */
export function readPattern(fields: Fields): Find {
  const pattern = fields.object('pattern') ?? fields.fail('has no pattern');
  const [regex, text] = [pattern.text('Regex'), pattern.text('String')];
  pattern.end();
  if (regex !== undefined && text === undefined) return findPattern(regex, fields.where);
  if (text !== undefined && regex === undefined) return findText(text, fields.where);
  return fields.fail('pattern is not supported; known: {"Regex": "..."}, {"String": "..."}');
}

function insert(fields: Fields, key: string): string {
  const text = fields.text(key) ?? fields.fail(`has no ${key}`);
  if (text.length > longestInsert) fields.fail(`${key} has ${text.length} characters; ${longestInsert} are the limit`);
  return text;
}

function replacing(find: Find, content: string): Normalizer {
  return (text, most) => {
    let out = '';
    let at = 0;
    for (const match of find(text)) {
      out += text.slice(at, match.index) + content;
      at = match.index + match[0].length;
      if (out.length > most) throw growsTooLong();
    }
    return at === 0 && out === '' ? text : out + text.slice(at);
  };
}

/** A text that grows without end. */
export function growsTooLong(): ModelError {
  return new ModelError(
    `the tokenizer's normalizer makes a text more than ${mostGrowth} times as long; such a one is not supported`,
  );
}
