/** What one pass of a program's hottest loop costs: for the banner of the generated file, and for whoever compares tiles. */
import type { Isa } from '../isa/isa.ts';
import { pressure } from './check.ts';
import type { Program, Statement } from './record.ts';
import type { Word } from './words.ts';
import { words } from './words.ts';

export interface Cost {
  /** Statements by word. */
  readonly words: Readonly<Record<string, number>>;
  /** Bytes that vector loads fetch. */
  readonly loaded: number;
  /** Vector values that live at once. */
  readonly live: number;
}

/** Bytes of one element under an address word. */
const elementBytes: Readonly<Record<string, number>> = {
  load_bytes: 1,
  load_ints: 4,
  load_floats: 4,
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
      if (s.kind === 'note' || s.kind === 'loop') return sum + 1;
      return sum + (s.word === 'dot_next' || (s.kind === 'set' && s.word === 'fma') ? 1000 : 1);
    }, 0);
  const hot = innermost(program.body).reduce((best, body) => (weight(body) > weight(best) ? body : best));
  const counts: Record<string, number> = {};
  let loaded = 0;
  for (const s of hot) {
    if (s.kind === 'note' || s.kind === 'loop') continue;
    counts[s.word] = (counts[s.word] ?? 0) + 1;
    loaded += (elementBytes[s.word] ?? 0) * ((words[s.word] as Word).touches?.perLane ?? 0) * isa.lanes;
  }
  return { words: counts, loaded, live: pressure(hot) };
}
