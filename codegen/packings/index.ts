/** The registry of packings: one line each, in the order in which the plan prefers them when costs are equal. */

import { PlanError } from '../../schemas/error.ts';
import type { Isa } from '../isa/isa.ts';
import { p2 } from './p2.ts';
import type { Packing } from './packing.ts';
import { vectorsOf } from './packing.ts';
import { t5 } from './t5.ts';
import { tl1 } from './tl1.ts';
import { tl2 } from './tl2.ts';
import { tmac } from './tmac.ts';

/** All packings. */
export const packings = {
  p2,
  t5r32: t5(32),
  t5r16: t5(16),
  t5r8: t5(8),
  t5r4: t5(4),
  tl1r128: tl1(128),
  tl1r32: tl1(32),
  tl2r128: tl2(128),
  tl2r32: tl2(32),
  tmacr128: tmac(128),
  tmacr32: tmac(32),
} as const satisfies Record<string, Packing>;

/** Does a line, or a column of it, fill whole vectors, and do those leave registers for what decoding holds beside them? */
function fits(p: Packing, isa: Isa): boolean {
  const vectors = p.lookUp ? p.rows / (4 * isa.lanes) : vectorsOf(p, isa);
  // Looking up, a vector holds two sums, two parts, weights, indices and signs, and clang looks ahead.
  const most = p.lookUp ? Math.min(8, isa.registers / 16) : Number.isFinite(isa.registers) ? p.mostVectors : undefined;
  return Number.isInteger(vectors) && vectors <= (most ?? vectors);
}

/** The packings that an ISA has words and registers for. */
export const packingsFor = (isa: Isa): Packing[] =>
  Object.values<Packing>(packings).filter((p) => p.needs.every((word) => isa.words[word]) && fits(p, isa));

/** The packing with this token (`p2r16x16`). */
export function packingOf(token: string): Packing {
  const found = Object.values<Packing>(packings).find((p) => p.token === token);
  if (!found) throw new PlanError(`unknown packing '${token}'; known: ${Object.values(packings).map((p) => p.token)}`);
  return found;
}
