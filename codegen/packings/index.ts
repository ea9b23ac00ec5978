/** The registry of packings: one line each, in the order in which the plan prefers them when costs are equal. */

import { PlanError } from '../../schemas/error.ts';
import type { Isa } from '../isa/isa.ts';
import type { Ordered } from './orders.ts';
import { orderedBytes, ordersOf } from './orders.ts';
import { p2 } from './p2.ts';
import type { Packing } from './packing.ts';
import { bytesOf, vectorsOf } from './packing.ts';
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
  tl1r64: tl1(64),
  tl1r32: tl1(32),
  tl2r128: tl2(128),
  tl2r32: tl2(32),
  tmacr128: tmac(128),
  tmacr64: tmac(64),
  tmacr32: tmac(32),
} as const satisfies Record<string, Packing>;

/** Does a line fill whole vectors, and do those leave registers for what decoding holds beside them? */
function fits(p: Packing, isa: Isa): boolean {
  const few = Number.isFinite(isa.registers);
  if (!p.lookUp)
    return (
      Number.isInteger(vectorsOf(p, isa)) && (!few || vectorsOf(p, isa) <= (p.mostVectors ?? Number.POSITIVE_INFINITY))
    );
  // A column should fill two vectors, which take a table together, and then weights, indices, parts and sums of both fit 16
  // registers; with signs they do not. Plain C has small vectors, and shares a table among eight.
  const together = few ? (p.lookUp.signs && isa.registers < 32 ? 1 : 2) : 8;
  return p.rows === together * 4 * isa.lanes;
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

/** One of each kind of byte among these: sizes of tiles make no difference where there are none. */
export const distinctCodings = (all: readonly Ordered[]): Ordered[] => {
  const kindOf = ({ token }: Ordered) => /^[a-z]+[0-9]+(?=r)/.exec(token)?.[0] ?? token;
  return all.filter((o, i) => all.findIndex((other) => kindOf(other) === kindOf(o)) === i);
};
