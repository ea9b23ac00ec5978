/** The registry of packings: one line each, in the order in which the plan prefers them when costs are equal. */
import { p2 } from './p2.ts';
import type { Packing } from './packing.ts';

/** All packings. */
export const packings = {
  p2,
} as const satisfies Record<string, Packing>;

/** The packing with this token (`p2r16x16`). */
export function packingOf(token: string): Packing {
  const found = Object.values<Packing>(packings).find((p) => p.token === token);
  if (!found) throw new Error(`unknown packing '${token}'; known: ${Object.values(packings).map((p) => p.token)}`);
  return found;
}
