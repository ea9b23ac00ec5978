/**
 * Finds the matches of an expression in a text. Two engines: V8's for expressions that are known to take linear time in it, and
 * RE2's (re2js), which never backtracks, for all others: a file of a stranger may hold one that takes V8 years.
 * WikiText-like English, Llama-3's expression, one core of an AMD EPYC: V8 53 MB/s, RE2 2 MB/s.
 * Source: Cox, Regular Expression Matching Can Be Simple And Fast, 2007.
 */
import { RE2JS } from 're2js';
import { ModelError, UsageError } from '../../schemas/error.ts';
import { knownPatterns } from './patterns.ts';
import { type Dialect, refusal, translateRegex } from './regex.ts';

/** Matches from left to right, not overlapping; empty ones, too. `0` is the text of the match. */
export type Find = (text: string) => Iterable<{ readonly index: number; readonly 0: string }>;

const hexadecimal = (code: number): string => code.toString(16).toUpperCase();
const v8: Dialect = {
  character: (code) => `\\u{${hexadecimal(code)}}`,
  lineStart: '(?<![^\\n])',
  lineEnd: '(?![^\\n])',
  lookahead: true,
};
const re2: Dialect = {
  character: (code) => `\\x{${hexadecimal(code)}}`,
  lineStart: '(?m:^)',
  lineEnd: '(?m:$)',
  lookahead: false,
};

/** @param origin where the expression was found, for messages @throws ModelError if it cannot be run */
export function findPattern(pattern: string, origin: string): Find {
  const known = knownPatterns.get(pattern);
  return known === undefined ? findLinear(pattern, origin) : findFast(known, origin);
}

/** By V8, for expressions known to be harmless. */
export function findFast(pattern: string, origin: string): Find {
  const regex = new RegExp(translateRegex(pattern, v8, origin), 'gu');
  return (text) => text.matchAll(regex);
}

/** All spaces but the last one before something else. Real expressions end so, and RE2 has no look-ahead: a group marks them. */
const endsInSpaces = /^(?:(.*(?<!\\))\|)?\\s\+\(\?!\\S\)\|\\s\+$/s;

/** By RE2, for any expression. @param patience milliseconds for a text, beside 20 us a character, before it is given up */
export function findLinear(pattern: string, origin: string, patience = 5000): Find {
  const spaces = endsInSpaces.exec(pattern);
  const translate = (part: string): string => translateRegex(part, re2, origin);
  const before = spaces?.[1] === undefined ? '' : `${translate(spaces[1])}|`;
  const regex = compile(spaces ? `${before}(${translate('\\s+')})` : translate(pattern), pattern, origin);
  return function* (text) {
    const matcher = regex.matcher(text);
    // A match takes linear time, but all of them can take quadratic time: [a-z]*!|[a-z] looks ahead to the end for each letter.
    const deadline = performance.now() + patience + text.length / 50;
    for (let found = matcher.find(); found; ) {
      const index = matcher.start();
      let end = matcher.end();
      // The group caught a run of spaces: the last one belongs to what follows.
      const shorter = spaces !== null && matcher.start(1) >= 0 && end < text.length && end - index > 1;
      if (shorter) end--;
      yield { index, 0: text.slice(index, end) };
      if (performance.now() > deadline)
        throw new UsageError(`${origin}: its regular expression takes too long on a text of ${text.length} characters`);
      found = shorter ? matcher.find(end) : matcher.find();
    }
  };
}

/** A literal text. @throws ModelError if it is empty */
export function findText(text: string, origin: string): Find {
  if (text === '') throw new ModelError(`${origin}: an empty text cannot be looked for`);
  return function* (inside) {
    for (let index = inside.indexOf(text); index >= 0; index = inside.indexOf(text, index + text.length))
      yield { index, 0: text };
  };
}

function compile(source: string, pattern: string, origin: string): RE2JS {
  try {
    return RE2JS.compile(source);
  } catch (error) {
    throw refusal(pattern, origin, (error as Error).message);
  }
}
