/** The registry of instruction sets: one line each. */
import { PlanError } from '../../schemas/error.ts';
import { avx2 } from './avx2.ts';
import { avx512 } from './avx512.ts';
import type { Isa } from './isa.ts';
import { neon } from './neon.ts';
import { neoni8mm } from './neon-i8mm.ts';
import { scalar } from './scalar.ts';

/** All instruction sets, the preferred first. */
export const isas = {
  avx512,
  avx2,
  neoni8mm,
  neon,
  scalar,
} as const satisfies Record<string, Isa>;

/** The instruction set with this name. @throws PlanError */
export function isaOf(name: string): Isa {
  const found = Object.hasOwn(isas, name) && (isas as Record<string, Isa>)[name];
  if (!found) throw new PlanError(`unknown target '${name}'; known targets: ${Object.keys(isas).join(', ')}, native`);
  return found;
}
