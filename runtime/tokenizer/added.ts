/**
 * Finds added tokens in a text: leftmost first, the longest at one place. First step of ../tokenizer.ts.
 * Source: Hugging Face tokenizers, src/tokenizer/added_vocabulary.rs.
 */
import { ModelError } from '../../schemas/error.ts';
import type { AddedToken } from './parts.ts';

/** Characters of a text so far -> what may follow; Falcon3 has 2,000 tokens. */
interface Node {
  readonly next: Map<number, Node>;
  token?: AddedToken;
}

/** Where a token begins and ends in the input, the white space that it takes along included. */
interface Found {
  readonly token: AddedToken;
  readonly start: number;
  readonly end: number;
}

/** `\w` and `\s` of Rust's regular expressions. */
const wordBefore = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const wordAfter = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const isSpace = (unit: string): boolean => /^\p{White_Space}$/u.test(unit);

/** Characters of all tokens, as far as they differ from each other: some 200 bytes of memory each. */
const mostNodes = 2 ** 19;

export class AddedTokenFinder {
  private readonly root: Node = { next: new Map() };
  private readonly firstUnits = new Uint8Array(0x10000);

  /** Of two tokens with one text, the first counts. @throws ModelError if there are far too many */
  constructor(tokens: readonly AddedToken[]) {
    let nodes = 0;
    for (const token of tokens) {
      if (token.text === '') continue;
      this.firstUnits[token.text.charCodeAt(0)] = 1;
      let node = this.root;
      for (let i = 0; i < token.text.length; i++) {
        const unit = token.text.charCodeAt(i);
        let next = node.next.get(unit);
        if (!next) {
          if (++nodes > mostNodes) throw new ModelError(`the added tokens have more than ${mostNodes} characters`);
          next = { next: new Map() };
          node.next.set(unit, next);
        }
        node = next;
      }
      node.token ??= token;
    }
  }

  /** Cuts the text; neighbouring stretches of text never touch. @returns texts and, between them, token ids */
  cut(text: string, special: boolean): (string | number)[] {
    if (this.root.next.size === 0) return text === '' ? [] : [text];
    const parts: (string | number)[] = [];
    let done = 0;
    for (let found = this.next(text, 0, special); found; found = this.next(text, done, special)) {
      if (found.start > done) parts.push(text.slice(done, found.start));
      parts.push(found.token.id);
      done = found.end;
    }
    if (done < text.length) parts.push(text.slice(done));
    return parts;
  }

  private next(text: string, from: number, special: boolean): Found | undefined {
    for (let at = from; at < text.length; at++) {
      if (this.firstUnits[text.charCodeAt(at)] === 0) continue;
      const token = this.longest(text, at, special);
      if (!token) continue;
      let start = at;
      let end = at + token.text.length;
      // A token inside a word is passed over as a whole.
      if (
        token.singleWord &&
        (wordBefore.test(text.slice(Math.max(0, at - 2), at)) || wordAfter.test(text.slice(end, end + 2)))
      ) {
        at = end - 1;
        continue;
      }
      if (token.stripLeft) while (start > from && isSpace(text[start - 1]!)) start--;
      if (token.stripRight) while (end < text.length && isSpace(text[end]!)) end++;
      return { token, start, end };
    }
    return undefined;
  }

  private longest(text: string, at: number, special: boolean): AddedToken | undefined {
    let found: AddedToken | undefined;
    let node = this.root.next.get(text.charCodeAt(at));
    for (let i = at + 1; node; i++) {
      if (node.token && (special || !node.token.special)) found = node.token;
      node = i < text.length ? node.next.get(text.charCodeAt(i)) : undefined;
    }
    return found;
  }
}
