/**
 * Reads the list of merges of tokenizer.json and of GGUF into the pair table of merge.ts. A file of its own because of its
 * size: Llama-3 has 280,147 merges, each of which needs three look-ups of a text, and a user waits for it. With Map and
 * substrings that took 390 ms; hashing the characters where they are takes 280 ms (Node 20, table of pairs included).
 */
import { ModelError } from '../../schemas/error.ts';
import { show } from './json.ts';
import { pairs } from './merge.ts';
import { type MergeTable, mostMerges } from './parts.ts';

/** FNV-1a's start and multiplier (Fowler, Noll, Vo), over UTF-16 units instead of bytes. */
const fnvStart = 0x811c9dc5 | 0;
const fnvPrime = 0x01000193;

/**
 * @param list merges as "left right" or [left, right], in order of priority; not yet checked
 * @param origin file name for messages
 * @param options.whole tokens that no merge may take part of; `firstCounts`: of a pair that is listed twice, not the last
 * @throws ModelError if a merge is none, or names or makes a token that the vocabulary lacks
 */
export function readMerges(
  list: readonly unknown[],
  ids: ReadonlyMap<string, number>,
  origin: string,
  options: { readonly whole?: ReadonlySet<number>; readonly firstCounts?: boolean } = {},
): MergeTable {
  if (list.length > mostMerges) throw new ModelError(`${origin}: ${list.length} merges; ${mostMerges} are the limit`);
  const table = new SpellingTable(ids);
  const left = new Int32Array(list.length);
  const right = new Int32Array(list.length);
  const results = new Int32Array(list.length);
  for (let i = 0; i < list.length; i++) {
    const merge = list[i];
    // In "left right" both halves lie in one string, the space between them.
    const together = typeof merge === 'string';
    const [a, b]: readonly unknown[] = together ? [merge, merge] : Array.isArray(merge) ? merge : [];
    if (typeof a !== 'string' || typeof b !== 'string' || (!together && (merge as unknown[]).length !== 2))
      throw new ModelError(`${origin}: merge ${i} is ${show(merge)}, not "left right" or [left, right]`);
    const aEnd = together ? a.indexOf(' ', 1) : a.length;
    const bStart = together ? aEnd + 1 : 0;
    const aHash = hashOf(fnvStart, a, 0, aEnd);
    left[i] = table.find(aHash, a, 0, aEnd, '', 0, 0);
    right[i] = table.find(hashOf(fnvStart, b, bStart, b.length), '', 0, 0, b, bStart, b.length);
    results[i] = table.find(hashOf(aHash, b, bStart, b.length), a, 0, aEnd, b, bStart, b.length);
    if (aEnd < 0 || left[i]! < 0 || right[i]! < 0 || results[i]! < 0)
      throw new ModelError(
        `${origin}: merge ${i}, ${show(together ? a : `${a} ${b}`)}: both halves and the whole must be tokens of the vocabulary`,
      );
    if (options.whole?.has(left[i]!) || options.whole?.has(right[i]!))
      throw new ModelError(`${origin}: merge ${i} joins byte tokens or the unknown token, which is not supported`);
  }
  return pairs(left, right, results, options.firstCounts);
}

/** Goes on hashing: the hash of a concatenation is that of its second half, started from that of the first. */
function hashOf(start: number, text: string, from: number, to: number): number {
  let hash = start;
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ text.charCodeAt(i), fnvPrime);
  return hash;
}

/** Spelling -> id, for texts that lie in two parts inside other texts. */
class SpellingTable {
  private readonly texts: string[] = [];
  private readonly ids: Int32Array;
  private readonly slots: Int32Array;
  private readonly mask: number;

  constructor(ids: ReadonlyMap<string, number>) {
    this.mask = 2 ** Math.ceil(Math.log2(ids.size * 2 + 2)) - 1;
    this.slots = new Int32Array(this.mask + 1).fill(-1);
    this.ids = new Int32Array(ids.size);
    for (const [text, id] of ids) {
      const index = this.texts.length;
      this.texts.push(text);
      this.ids[index] = id;
      let slot = this.slotOf(hashOf(fnvStart, text, 0, text.length));
      while (this.slots[slot]! >= 0) slot = (slot + 1) & this.mask;
      this.slots[slot] = index;
    }
  }

  /** @returns the id of a[aStart, aEnd) + b[bStart, bEnd), whose hash is given, or -1 */
  find(hash: number, a: string, aStart: number, aEnd: number, b: string, bStart: number, bEnd: number): number {
    for (let slot = this.slotOf(hash); this.slots[slot]! >= 0; slot = (slot + 1) & this.mask) {
      const index = this.slots[slot]!;
      const text = this.texts[index]!;
      if (text.length !== aEnd - aStart + bEnd - bStart) continue;
      // If the first half differs, the second cannot make up for it: `at` then ends short of the length.
      let at = 0;
      for (let i = aStart; i < aEnd && text.charCodeAt(at) === a.charCodeAt(i); i++) at++;
      for (let i = bStart; i < bEnd && text.charCodeAt(at) === b.charCodeAt(i); i++) at++;
      if (at === text.length) return this.ids[index]!;
    }
    return -1;
  }

  private slotOf(hash: number): number {
    // FNV's low bits depend on the low bits of the text alone.
    return (hash ^ (hash >>> 15)) & this.mask;
  }
}
