/**
 * Who takes part in a contest: every kernel that a registered family offers, less those that cannot be generated (register
 * pressure, a missing word) and those that the roofline estimate rules out. For one token in any packing; for several in the one
 * that decoding decides on.
 */
import type { CpuProfile } from '../../schemas/types.ts';
import { familyOf } from '../generate.ts';
import { decodeCycles, hotLoopCost } from '../ir/cost.ts';
import { isaOf } from '../isa/index.ts';
import type { KernelSpec } from '../name.ts';
import { format } from '../name.ts';
import { packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bytesOf } from '../packings/packing.ts';
import type { TableSteps } from '../space.ts';
import {
  attempt,
  batchCandidates,
  candidates,
  kernelsOfTables,
  refusal,
  tableCandidates,
  tableSteps,
} from '../space.ts';
import type { Contest } from './contests.ts';

/** The estimate (ir/cost.ts) may be wrong by this factor before a kernel is left out unmeasured. */
const SLACK = 1.6;
/** Statements of a loop from which on it takes a second and more to compile (clang 19). */
const LONG = 1500;

/** A kernel that may be measured, named after the one that the family offers. */
export interface Candidate {
  readonly name: string;
  readonly spec: KernelSpec;
  readonly packing: Packing;
  /** Bytes of the packed matrix. */
  readonly bytes: number;
  /** The functions that it consists of, by member of bn_matrix (templates/internal.h). */
  readonly parts: Readonly<Record<string, KernelSpec>>;
  /** The steps of products by tables, if it is such. */
  readonly tables?: TableSteps;
}

/** The functions by which a kernel does a contest's work. */
function partsOf(spec: KernelSpec, { tokens, n }: Contest): Pick<Candidate, 'parts' | 'tables'> {
  const tabulate = familyOf(spec).product?.tabulate?.(spec);
  if (tabulate) return { parts: { gemv: spec, tabulate } };
  if (!familyOf(spec).tables) return { parts: { [tokens === 1 ? 'gemv' : 'gemm']: spec } };
  const { last, ...steps } = tableSteps(spec, n);
  const tables = { ...steps, ...(last ? { last } : {}) };
  return { parts: { ...steps, ...(last ? { last_offsets: last.offsets, last_sums: last.sums } : {}) }, tables };
}

/** Everything that is offered in a packing. */
function offeredFor(cpu: CpuProfile, p: Packing, { phase, tokens, n, k }: Contest): KernelSpec[] {
  if (phase === 'decode') return candidates(cpu, p, n, k);
  const dots = batchCandidates(cpu, p, n, k);
  if (phase === 'batch') return dots.filter((spec) => spec.tile[0] === tokens);
  const most = dots.at(-1)?.tile[0];
  const several = [...tableCandidates(cpu, p, k), ...dots.filter((spec) => spec.tile[0] === most)];
  return several.length ? several : candidates(cpu, p, n, k).slice(0, 1);
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
 * The field of a contest: `preferred` first, then each family's and packing's own preference, then the rest of all in turn, so
 * that a short sweep has seen something of everything; last what takes long to compile.
 * @param preferred the kernel that the plan takes without measurements
 */
export function fieldOf(cpu: CpuProfile, contest: Contest, preferred: KernelSpec): Field {
  const isa = isaOf(cpu.isa);
  const { phase, n, k } = contest;
  let refused = 0;
  const groups = new Map<string, (Candidate & { cycles: number; statements: number })[]>();
  for (const packing of packingsFor(isa)) {
    if (phase !== 'decode' && packing.token !== preferred.weight) continue;
    for (const spec of offeredFor(cpu, packing, contest)) {
      const program = attempt(spec);
      const { parts, tables } = partsOf(spec, contest);
      if (typeof program === 'string' || (tables && kernelsOfTables(tables).some(refusal))) {
        refused++;
        continue;
      }
      const bytes = bytesOf(packing, n, k);
      const cycles = decodeCycles(program, isa, bytes / (n * k));
      const statements = Object.values(hotLoopCost(program, isa).words).reduce((sum, count) => sum + count, 0);
      const key = `${spec.op} ${packing.token}`;
      const candidate = { name: format(spec), spec, packing, bytes, parts, ...(tables ? { tables } : {}) };
      groups.set(key, [...(groups.get(key) ?? []), { ...candidate, cycles, statements }]);
    }
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
  const first = format(preferred);
  const rank = (c: (typeof inTurn)[number]) => (c.name === first ? 0 : c.statements < LONG ? 1 : 2);
  return {
    candidates: [...inTurn].sort((a, b) => rank(a) - rank(b)),
    refused,
    hopeless: all.length - inTurn.length,
  };
}
