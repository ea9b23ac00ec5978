/**
 * Stages that cut a text into pieces before byte-pair encoding, and the reader of tokenizer.json's "pre_tokenizer". Tokens never
 * cross a piece's border.
 * Source: Hugging Face tokenizers, src/pre_tokenizers.
 */
import { Fields } from './json.ts';
import { type Find, findFast, findPattern, findText } from './matcher.ts';
import { deepestSequence, mostSteps, readPattern } from './normalize.ts';
import type { Splitter } from './parts.ts';
import { gpt2Pattern, type PreTokenizer } from './patterns.ts';
import { metaspace, spellBytes } from './spelling.ts';

/** What becomes of the matches (tokenizer.json's "behavior"). */
const behaviors = ['Isolated', 'Removed', 'Contiguous', 'MergedWithPrevious', 'MergedWithNext'] as const;
type Behavior = (typeof behaviors)[number];

/** Cuts each piece at the matches. @param invert what does not match counts as the match */
export function cutAt(find: Find, behavior: Behavior = 'Isolated', invert = false): Splitter {
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
      for (const match of find(piece)) {
        if (match.index > at) add(piece.slice(at, match.index), invert);
        if (match[0] !== '') add(match[0], !invert);
        at = match.index + match[0].length;
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

/** The stages of a GGUF file's pre-tokenizer. */
export function ggufStages(pre: PreTokenizer): Splitter[] {
  return [...pre.patterns.map((pattern) => cutAt(findFast(pattern, 'tokenizer.ggml.pre'))), toBytes];
}

/** Reads "pre_tokenizer" of tokenizer.json, which may be missing. @throws ModelError for what cannot be done exactly */
export function readPreTokenizer(value: unknown, where: string, depth = 0): Splitter[] {
  if (value === undefined || value === null) return [];
  const fields = new Fields(value, where);
  if (depth > deepestSequence) fields.fail(`has sequences more than ${deepestSequence} deep`);
  const stages = read(fields, depth);
  fields.end();
  if (stages.length > mostSteps) fields.fail(`has ${stages.length} steps; ${mostSteps} are the limit`);
  return stages;
}

const types = ['Sequence', 'Split', 'ByteLevel', 'Digits', 'Punctuation', 'Metaspace'] as const;

function read(fields: Fields, depth: number): Splitter[] {
  switch (fields.choice('type', types, '' as (typeof types)[number])) {
    case 'Sequence':
      return (fields.list('pretokenizers') ?? fields.fail('has no list pretokenizers')).flatMap((step) =>
        readPreTokenizer(step, fields.where, depth + 1),
      );
    case 'Split':
      return [
        cutAt(readPattern(fields), fields.choice('behavior', behaviors, 'Isolated'), fields.flag('invert', false)),
      ];
    case 'Digits':
      return [cutAt(inText(/\p{N}/gu), fields.flag('individual_digits', false) ? 'Isolated' : 'Contiguous')];
    case 'Punctuation':
      return [cutAt(inText(/[\p{P}!-/:-@[-`{-~]/gu), fields.choice('behavior', behaviors, 'Isolated'))];
    case 'ByteLevel': {
      // Offsets are nothing to ids.
      fields.ignore('trim_offsets');
      const stages: Splitter[] = [];
      if (fields.flag('add_prefix_space', true))
        stages.push(mapPieces((piece) => (piece.startsWith(' ') ? piece : ` ${piece}`)));
      if (fields.flag('use_regex', true)) stages.push(cutAt(findPattern(gpt2Pattern, fields.where)));
      return [...stages, toBytes];
    }
    case 'Metaspace':
      return metaspaceStages(fields);
  }
}

const inText =
  (regex: RegExp): Find =>
  (text) =>
    text.matchAll(regex);

function metaspaceStages(fields: Fields): Splitter[] {
  const replacement = fields.text('replacement') ?? metaspace;
  if ([...replacement].length !== 1) fields.fail('replacement is not one character');
  // What older files call prepend_scheme.
  const prefix = fields.flag('add_prefix_space', true);
  const scheme = fields.choice('prepend_scheme', ['first', 'always', 'never'], prefix ? 'always' : 'never');
  if (!prefix && scheme !== 'never') fields.fail(`add_prefix_space false contradicts prepend_scheme "${scheme}"`);
  const stages = [toMetaspace(scheme, replacement)];
  fields.ignore('str_rep');
  if (fields.flag('split', true)) stages.push(cutAt(findText(replacement, fields.where), 'MergedWithNext'));
  return stages;
}
