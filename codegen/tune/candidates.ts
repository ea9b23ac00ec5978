/**
 * Who takes part in a sweep: every kernel that a registered family offers for a matrix in any packing, less those that cannot be
 * generated (register pressure, a missing word) and those that the roofline estimate rules out.
 */
import type { CpuProfile } from '../../schemas/types.ts';
import { decodeCycles, hotLoopCost } from '../ir/cost.ts';
import { isaOf } from '../isa/index.ts';
import type { KernelSpec } from '../name.ts';
import { format } from '../name.ts';
import { packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bytesOf } from '../packings/packing.ts';
import { attempt, candidates } from '../space.ts';

/** The estimate (ir/cost.ts) may be wrong by this factor before a kernel is left out unmeasured. */
const SLACK = 1.6;
/** Statements of a loop from which on it takes a second and more to compile (clang 19). */
const LONG = 1500;

/** A kernel that may be measured. */
export interface Candidate {
  readonly name: string;
  readonly spec: KernelSpec;
  readonly packing: Packing;
  /** Bytes of the packed matrix. */
  readonly bytes: number;
}

/** Candidates in the order in which they are tried and preferred, and how many were left out. */
export interface Field {
  readonly candidates: readonly Candidate[];
  /** Cannot be generated. */
  readonly refused: number;
  /** Cannot win, by the estimate. */
  readonly hopeless: number;
}

/** A list from its first item in steps of the golden ratio, so that every beginning of it is spread over all of it. */
function scattered<T>(items: readonly T[]): T[] {
  const place = (i: number) => (i * 0.6180339887) % 1;
  return items
    .map((item, i) => ({ item, at: place(i) }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

/**
 * The field of a matrix: `preferred` first, then each family's and packing's own preference, then the rest of all in turn, so
 * that a short sweep has seen something of everything; last what takes long to compile.
 * @param preferred name of the kernel that the plan takes without measurements
 */
export function fieldOf(cpu: CpuProfile, n: number, k: number, preferred: string): Field {
  const isa = isaOf(cpu.isa);
  let refused = 0;
  const groups = new Map<string, (Candidate & { cycles: number; statements: number })[]>();
  // The measuring process makes no tables to look up in.
  for (const packing of packingsFor(isa).filter((p) => !p.lookUp))
    for (const spec of candidates(cpu, packing, n, k)) {
      const program = attempt(spec);
      if (typeof program === 'string') {
        refused++;
        continue;
      }
      const bytes = bytesOf(packing, n, k);
      const cycles = decodeCycles(program, isa, bytes / (n * k));
      const statements = Object.values(hotLoopCost(program, isa).words).reduce((sum, count) => sum + count, 0);
      const key = `${spec.op} ${packing.token}`;
      groups.set(key, [...(groups.get(key) ?? []), { name: format(spec), spec, packing, bytes, cycles, statements }]);
    }
  const all = [...groups.values()].flat();
  const bound = SLACK * Math.min(...all.map(({ cycles }) => cycles));
  // What a family prefers is measured in any case; so is what the estimate does not know how to count.
  const hopeful = [...groups.values()].map((group) =>
    group.filter(({ cycles }, i) => i === 0 || cycles <= bound || !Number.isFinite(cycles)),
  );
  const lists = hopeful.map(scattered);
  const longest = Math.max(0, ...lists.map((list) => list.length));
  const inTurn = Array.from({ length: longest }, (_, i) => lists.flatMap((list) => list[i] ?? [])).flat();
  const rank = (c: (typeof inTurn)[number]) => (c.name === preferred ? 0 : c.statements < LONG ? 1 : 2);
  return {
    candidates: [...inTurn].sort((a, b) => rank(a) - rank(b)),
    refused,
    hopeless: all.length - inTurn.length,
  };
}
