/**
 * What every tokenizer is made of, whatever file it came from. The readers (huggingface.ts, tiktoken.ts, gguf.ts) build it;
 * ../tokenizer.ts runs it: added tokens are cut out first, `split` cuts the rest into pieces, `merges` joins each piece's
 * characters to tokens.
 */

/** A token that is found in the text before anything else is looked at. */
export interface AddedToken {
  readonly id: number;
  readonly text: string;
  /** A control token: recognised only on demand, never printed. Otherwise it is an ordinary word of the vocabulary. */
  readonly special: boolean;
  /** Takes white space before or after itself along. */
  readonly stripLeft?: boolean;
  readonly stripRight?: boolean;
  /** Not recognised inside a word. */
  readonly singleWord?: boolean;
}

/** Which two neighbouring tokens become one, and in what order. */
export interface MergeTable {
  /**
   * @param left token id, or -1 for a character outside the vocabulary
   * @param piece the text being encoded; the two tokens are piece[start, end)
   * @returns index into `priorities` and `results`, or -1
   */
  find(left: number, right: number, piece: string, start: number, end: number): number;
  /** Lower goes first; equal ones from left to right. Integers below 2^26. */
  readonly priorities: Int32Array;
  /** Token id that a merge makes. */
  readonly results: Int32Array;
}

/** Stages that turn a stretch of text into pieces. @param first the stretch is the beginning of the text */
export type Splitter = (pieces: string[], first: boolean) => string[];

/** Everything a tokenizer is made of, whichever file it was read from. */
export interface TokenizerParts {
  /** Spelling of each token by id; holes are allowed. */
  readonly texts: readonly (string | undefined)[];
  /** Id of each spelling that ordinary text may become: control tokens are not in it. */
  readonly ids: ReadonlyMap<string, number>;
  readonly added: readonly AddedToken[];
  readonly split: readonly Splitter[];
  readonly merges: MergeTable;
  /** A piece that is a token as a whole is not looked at further (`ignore_merges`, tiktoken). */
  readonly wholePieces: boolean;
  readonly spelling: 'byte-level' | 'metaspace';
  /** Ids of <0x00> ... <0xFF>, for characters outside the vocabulary. */
  readonly byteTokens?: Int32Array;
  /** Token for what cannot be spelt otherwise; `fuse`: one for a run of such characters. */
  readonly unknown?: { readonly id: number; readonly fuse: boolean };
  /** A space was put before the text, to be taken off again when it is decoded. */
  readonly prefixed: boolean;
}

/** Where a token text begins and ends in the input. */
interface Found {
  readonly token: AddedToken;
  readonly start: number;
  readonly end: number;
}

/**
 * Finds added tokens in a text: leftmost first, the longest at one place.
 * A candidate is looked for only at its first character, then by one map lookup per distinct length: Falcon3 has 2,000 of them.
 */
export class AddedTokenFinder {
  private readonly tokens = new Map<string, AddedToken>();
  private readonly firstUnits = new Uint8Array(0x10000);
  private readonly lengths: readonly number[];

  constructor(tokens: readonly AddedToken[]) {
    for (const token of tokens) {
      if (token.text === '') continue;
      this.tokens.set(token.text, token);
      this.firstUnits[token.text.charCodeAt(0)] = 1;
    }
    this.lengths = [...new Set([...this.tokens.keys()].map((text) => text.length))].sort((a, b) => b - a);
  }

  /** Cuts the text; neighbouring stretches of text never touch. @returns texts and, between them, token ids */
  cut(text: string): (string | number)[] {
    if (this.tokens.size === 0) return text === '' ? [] : [text];
    const parts: (string | number)[] = [];
    let done = 0;
    for (let found = this.next(text, 0); found; found = this.next(text, done)) {
      if (found.start > done) parts.push(text.slice(done, found.start));
      parts.push(found.token.id);
      done = found.end;
    }
    if (done < text.length) parts.push(text.slice(done));
    return parts;
  }

  private next(text: string, from: number): Found | undefined {
    for (let start = from; start < text.length; start++) {
      if (this.firstUnits[text.charCodeAt(start)] === 0) continue;
      for (const length of this.lengths) {
        const token = this.tokens.get(text.slice(start, start + length));
        if (token?.text.length !== length) continue;
        const end = start + length;
        if (
          token.singleWord &&
          (/\p{L}|\p{N}|_/u.test(text[start - 1] ?? '') || /\p{L}|\p{N}|_/u.test(text[end] ?? ''))
        )
          continue;
        const before = token.stripLeft ? text.slice(from, start).trimEnd().length + from : start;
        const after = token.stripRight ? text.length - text.slice(end).trimStart().length : end;
        return { token, start: before, end: after };
      }
    }
    return undefined;
  }
}
