/** What one pass of a program's hottest loop costs: for the banner of the generated file, and for whoever compares tiles. */
import type { Isa } from '../isa/isa.ts';
import { pressure } from './check.ts';
import type { Program, Statement } from './record.ts';
import type { Word, WordName } from './words.ts';
import { words } from './words.ts';

/** What one pass of an innermost loop costs. */
export interface Cost {
  /** Statements by word. */
  readonly words: Readonly<Record<string, number>>;
  /** Bytes that vector loads fetch. */
  readonly loaded: number;
  /** Vector values that live at once. */
  readonly live: number;
}

/** Loads, stores and hints: what memory serves. */
const touchesMemory = (word: string): boolean => (words[word as WordName] as Word).touches !== undefined;

/**
 * Cycles that one weight of a decode kernel takes, at least: the slower of reading it and computing with it. A core that shares
 * its memory gets about 4 bytes in a cycle, and executes 4 vector operations; where both matter is close, the tuner decides.
 * Infinity for a kernel without dot steps: what look-ups cost differs too much between cores to be guessed.
 * @param bytes of the packed matrix for each weight
 */
export function decodeCycles(program: Program, isa: Isa, bytes: number): number {
  const counted = hotLoopCost(program, isa).words;
  const operations = Object.entries(counted).reduce((sum, [word, n]) => (touchesMemory(word) ? sum : sum + n), 0);
  const weights = (counted.dot_next ?? 0) * 4 * isa.lanes;
  return Math.max(bytes / 4, operations / weights / 4);
}

/** Bytes of one element under an address word. */
const elementBytes: Readonly<Record<string, number>> = {
  load_bytes: 1,
  load_ints: 4,
  load_floats: 4,
  load_shorts: 1,
  load_halves: 2,
  load_bfloats: 2,
};

type Body = readonly Statement[];

/** Innermost loop bodies; the whole program when it has no loop. */
function innermost(body: Body): Body[] {
  const loops = body.filter((s) => s.kind === 'loop');
  return loops.length ? loops.flatMap((loop) => innermost(loop.body)) : [body];
}

/** Cost of the innermost loop with the most multiply-adds, or else the most statements. */
export function hotLoopCost(program: Program, isa: Isa): Cost {
  const weight = (body: Body) =>
    body.reduce((sum, s) => {
      if (s.kind === 'note' || s.kind === 'loop' || s.kind === 'indices') return sum + 1;
      return sum + ((words[s.word] as Word).products || (s.kind === 'set' && s.word === 'fma') ? 1000 : 1);
    }, 0);
  const hot = innermost(program.body).reduce((best, body) => (weight(body) > weight(best) ? body : best));
  const counts: Record<string, number> = {};
  let loaded = 0;
  for (const s of hot) {
    if (s.kind === 'note' || s.kind === 'loop' || s.kind === 'indices') continue;
    counts[s.word] = (counts[s.word] ?? 0) + 1;
    loaded += (elementBytes[s.word] ?? 0) * ((words[s.word] as Word).touches?.perLane ?? 0) * isa.lanes;
  }
  return { words: counts, loaded, live: pressure(hot, isa.lanes) };
}
