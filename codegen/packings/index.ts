/** The registry of packings: one line each, in the order in which the plan prefers them when costs are equal. */

import { PlanError } from '../../schemas/error.ts';
import type { Isa } from '../isa/isa.ts';
import type { Ordered } from './orders.ts';
import { orderedBytes, ordersOf } from './orders.ts';
import { p2 } from './p2.ts';
import type { Packing } from './packing.ts';
import { bytesOf, vectorsOf } from './packing.ts';
import { t5 } from './t5.ts';

/** All packings. */
export const packings = {
  p2,
  t5r32: t5(32),
  t5r16: t5(16),
  t5r8: t5(8),
  t5r4: t5(4),
} as const satisfies Record<string, Packing>;

/** The packings that an ISA has words and registers for. */
export const packingsFor = (isa: Isa): Packing[] =>
  Object.values<Packing>(packings).filter(
    (p) =>
      p.needs.every((word) => isa.words[word]) &&
      Number.isInteger(vectorsOf(p, isa)) &&
      (vectorsOf(p, isa) <= (p.mostVectors ?? Number.POSITIVE_INFINITY) || !Number.isFinite(isa.registers)),
  );

/** The packing with this token (`p2r16x16`). */
export function packingOf(token: string): Packing {
  const found = Object.values<Packing>(packings).find((p) => p.token === token);
  if (!found) throw new PlanError(`unknown packing '${token}'; known: ${Object.values(packings).map((p) => p.token)}`);
  return found;
}

const ordered = () => Object.values<Packing>(packings).flatMap(ordersOf);

/** The packing of this name, where it is one in the order of rows or columns. */
export const findOrdered = (token: string): Ordered | undefined => ordered().find((o) => o.token === token);

/** As `findOrdered`, for a name that is one. */
export function orderedOf(token: string): Ordered {
  const found = findOrdered(token);
  if (!found) throw new PlanError(`unknown packing '${token}'; known: ${ordered().map((o) => o.token)}`);
  return found;
}

/** The packings in an order that an ISA has words and registers for. */
export const orderedPackings = (isa: Isa, order: Ordered['order']): Ordered[] =>
  ordered().filter((o) => o.order === order && packingsFor(isa).includes(o.coding));

/** The row tiles that a matrix's product kernels read: those of its packing, or of its panels. */
export const tilesFor = (token: string): Packing => findOrdered(token)?.tiles ?? packingOf(token);
/** Bytes of a packed matrix [n, k]. */
export function matrixBytes(token: string, n: number, k: number): number {
  const found = findOrdered(token);
  return found ? orderedBytes(found, n, k) : bytesOf(packingOf(token), n, k);
}
