/**
 * What every tokenizer is made of, whatever file it came from. The readers (huggingface.ts, tiktoken.ts, gguf.ts) build it;
 * ../tokenizer.ts runs it: added tokens are cut out first, `normalize` changes the rest, `split` cuts it into pieces, `merges`
 * joins each piece's characters to tokens.
 */

/** Token ids are below this: four times the largest vocabulary of a language model (262,144). */
export const mostTokens = 2 ** 20;
/** Llama 3 has 280,147 merges. */
export const mostMerges = 2 ** 22;
/** UTF-16 units of a token's text. Llama 3's longest has 128. */
export const longestToken = 1024;
/** The same of a token that is looked for everywhere. */
export const longestAdded = 256;

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
  /** Looked for after the normalizers, in what they make of its text. */
  readonly normalized?: boolean;
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

/** Changes a stretch of text. @param most characters that may come out @throws ModelError beyond them */
export type Normalizer = (text: string, most: number) => string;

/** Stages that turn a stretch of text into pieces. @param first the stretch is the beginning of the text */
export type Splitter = (pieces: string[], first: boolean) => string[];

/** Everything a tokenizer is made of, whichever file it was read from. */
export interface TokenizerParts {
  /** Spelling of each token by id; holes are allowed. */
  readonly texts: readonly (string | undefined)[];
  /** Id of each spelling that ordinary text may become: control tokens are not in it. */
  readonly ids: ReadonlyMap<string, number>;
  readonly added: readonly AddedToken[];
  readonly normalize: readonly Normalizer[];
  readonly split: readonly Splitter[];
  readonly merges: MergeTable;
  /** A piece that is a token as a whole is not looked at further (`ignore_merges`, tiktoken). */
  readonly wholePieces: boolean;
  readonly spelling: 'byte-level' | 'metaspace';
  /** Ids of <0x00> ... <0xFF>, for characters outside the vocabulary. */
  readonly byteTokens?: Int32Array;
  /** Token for what cannot be spelt otherwise, -1 if it is named but missing; `fuse`: one for a run of such characters. */
  readonly unknown?: { readonly id: number; readonly text: string; readonly fuse: boolean };
  /** A space was put before the text, to be taken off again when it is decoded. */
  readonly prefixed: boolean;
  /** Ids that belong before and after a prompt: BOS, EOS. */
  readonly prefix: readonly number[];
  readonly suffix: readonly number[];
}
