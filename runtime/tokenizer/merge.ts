/**
 * Byte-pair encoding of one piece of text: the innermost stage of the tokenizer. Starting from single characters, the
 * neighbours whose merge has the lowest priority number are joined, leftmost first, until none is left.
 * Sources: Sennrich et al. 2016 (arXiv 1508.07909); OpenAI tiktoken, src/lib.rs; Hugging Face tokenizers, models/bpe/word.rs.
 *
 * Two tables say what may be joined: `concatenations` (two tokens join if their texts together are a token: tiktoken's ranks,
 * SentencePiece's scores) and `pairs` (the list of merges in tokenizer.json and GGUF).
 */
import { ModelError, UsageError } from '../../schemas/error.ts';
import { show } from './json.ts';
import type { MergeTable, TokenizerParts } from './parts.ts';

/** Heap keys are priority * 2^26 + position: exact in a double (2^26 * 2^26 < 2^53) and ordered by both at once. */
const positions = 2 ** 26;

/** Pieces up to this length are remembered; longer ones hardly come twice. */
const cachedLength = 64;
const cachedPieces = 16384;

/**
 * Tokens join if their concatenation is a token.
 * @param priorities by token id, lower first: tiktoken's rank is the id itself
 */
export function concatenations(ids: ReadonlyMap<string, number>, priorities: Int32Array): MergeTable {
  let longest = 0;
  for (const text of ids.keys()) longest = Math.max(longest, text.length);
  return {
    find: (_left, _right, piece, start, end) => (end - start > longest ? -1 : (ids.get(piece.slice(start, end)) ?? -1)),
    priorities,
    results: Int32Array.from({ length: priorities.length }, (_, id) => id),
  };
}

/**
 * Exactly the listed pairs join, earlier ones first. An open hash table in typed arrays: Llama-3 has 280,147 pairs, and no
 * object is made for any of them.
 * @param left @param right @param results ids of merge number i
 * @param firstCounts a pair listed twice counts with its first place (llama.cpp) instead of its last (Rust's `tokenizers`)
 */
export function pairs(left: Int32Array, right: Int32Array, results: Int32Array, firstCounts = false): MergeTable {
  const bits = Math.max(4, 32 - Math.clz32(left.length * 2));
  const mask = (1 << bits) - 1;
  const slots = new Int32Array(mask + 1).fill(-1);
  const slotOf = (l: number, r: number): number => {
    // Multipliers: the golden ratio and a large prime (Knuth, TAOCP 3, 6.4); the high bits are the well-mixed ones.
    let slot = (Math.imul(l, 0x9e3779b1) ^ Math.imul(r, 0x85ebca6b)) >>> (32 - bits);
    while (slots[slot]! >= 0 && (left[slots[slot]!] !== l || right[slots[slot]!] !== r)) slot = (slot + 1) & mask;
    return slot;
  };
  for (let merge = 0; merge < left.length; merge++) {
    const slot = slotOf(left[merge]!, right[merge]!);
    if (!firstCounts || slots[slot]! < 0) slots[slot] = merge;
  }
  return {
    find: (l, r) => slots[slotOf(l, r)]!,
    priorities: Int32Array.from({ length: left.length }, (_, merge) => merge),
    results,
  };
}

/** Encodes pieces; holds the work space and a bounded cache. */
export class PieceEncoder {
  private readonly parts: TokenizerParts;
  private readonly cache = new Map<string, readonly number[]>();
  private readonly heap: number[] = [];
  /** Doubly linked list of the piece's current tokens; index = number of the first character. */
  private token = new Int32Array(0);
  private start = new Int32Array(0);
  private previous = new Int32Array(0);
  private following = new Int32Array(0);
  /** Best merge of a token with its right neighbour: index into the merge table, or -1. */
  private merge = new Int32Array(0);

  constructor(parts: TokenizerParts) {
    this.parts = parts;
  }

  /** Appends the piece's token ids to `out`. */
  encode(piece: string, out: number[]): void {
    if (this.parts.wholePieces) {
      const id = this.parts.ids.get(piece);
      if (id !== undefined) {
        out.push(id);
        return;
      }
    }
    const known = this.cache.get(piece);
    if (known) {
      for (const id of known) out.push(id);
      return;
    }
    const from = out.length;
    this.mergePiece(piece, out);
    if (piece.length > cachedLength) return;
    if (this.cache.size >= cachedPieces) this.cache.clear();
    // A slice keeps the whole text it was cut from alive; the key has to be a copy.
    this.cache.set(Buffer.from(piece, 'utf16le').toString('utf16le'), out.slice(from));
  }

  private mergePiece(piece: string, out: number[]): void {
    const count = this.load(piece);
    const { merges } = this.parts;
    const { priorities, results } = merges;
    const { heap, token, start, previous, following, merge } = this;
    const endOf = (node: number): number => (node < count ? start[node]! : piece.length);
    const consider = (node: number): void => {
      const right = following[node]!;
      const found =
        right < count ? merges.find(token[node]!, token[right]!, piece, start[node]!, endOf(following[right]!)) : -1;
      merge[node] = found;
      if (found >= 0) push(heap, priorities[found]! * positions + node);
    };
    for (let node = 0; node + 1 < count; node++) consider(node);
    while (heap.length > 0) {
      const key = pop(heap);
      const node = key % positions;
      const chosen = merge[node]!;
      // Entries are not removed when a neighbour changes; one that no longer tells the node's best merge is stale.
      if (chosen < 0 || priorities[chosen] !== Math.floor(key / positions)) continue;
      const right = following[node]!;
      token[node] = results[chosen]!;
      merge[right] = -1;
      following[node] = following[right]!;
      if (following[node]! < count) previous[following[node]!] = node;
      consider(node);
      if (node > 0) consider(previous[node]!);
    }
    let afterUnknown = false;
    for (let node = 0; node < count; node = following[node]!) {
      const id = token[node]!;
      if (id >= 0) out.push(id);
      else this.spellOut(piece.slice(start[node]!, endOf(following[node]!)), afterUnknown, out);
      afterUnknown = id < 0;
    }
  }

  /** Fills the list with the piece's characters. @returns how many */
  private load(piece: string): number {
    if (piece.length >= positions)
      throw new UsageError(
        `a text of ${piece.length} characters is too long to tokenize at once; the limit is ${positions - 1}`,
      );
    if (this.token.length < piece.length) {
      const capacity = Math.max(64, 2 ** Math.ceil(Math.log2(piece.length)));
      for (const name of ['token', 'start', 'previous', 'following', 'merge'] as const)
        this[name] = new Int32Array(capacity);
    }
    let count = 0;
    for (let at = 0; at < piece.length; count++) {
      const width = piece.codePointAt(at)! > 0xffff ? 2 : 1;
      this.token[count] = this.parts.ids.get(piece.slice(at, at + width)) ?? -1;
      this.start[count] = at;
      this.previous[count] = count - 1;
      this.following[count] = count + 1;
      at += width;
    }
    return count;
  }

  /** A character outside the vocabulary: its bytes, else the unknown token, else nothing (as the Rust `tokenizers`). */
  private spellOut(character: string, afterUnknown: boolean, out: number[]): void {
    const { byteTokens, unknown } = this.parts;
    if (byteTokens) for (const byte of Buffer.from(character, 'utf8')) out.push(byteTokens[byte]!);
    else if (unknown) {
      if (unknown.id < 0)
        throw new ModelError(
          `the tokenizer has neither ${show(character)} nor its unknown token ${show(unknown.text)}; leave the character out`,
        );
      if (!(unknown.fuse && afterUnknown)) out.push(unknown.id);
    }
  }
}

/** Binary heap of numbers, smallest first. */
function push(heap: number[], key: number): void {
  let at = heap.length;
  heap.push(key);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (heap[parent]! <= key) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = key;
}

function pop(heap: number[]): number {
  const top = heap[0]!;
  const key = heap.pop()!;
  const size = heap.length;
  if (size === 0) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= size) break;
    if (child + 1 < size && heap[child + 1]! < heap[child]!) child++;
    if (heap[child]! >= key) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = key;
  return top;
}
