/** Wisdom as a sweep would leave it, made up: for tests of what becomes of it. */
import type { Compiler } from '../codegen/compile.ts';
import { format } from '../codegen/name.ts';
import { type Candidate, fieldOf } from '../codegen/tune/candidates.ts';
import { type Contest, contestsOf, inTiles, kernelOf } from '../codegen/tune/contests.ts';
import type { Phase, TuningEntry } from '../codegen/wisdom.ts';
import { here } from '../codegen/wisdom.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';

/** What a contest might have found. @param kernels names, the chosen one first; the last is the plan's own */
export function entryOf(
  { phase, tokens, n, k }: Contest,
  threads: number,
  kernels: readonly string[],
  cpu: CpuProfile,
  compiler: Compiler,
): TuningEntry {
  return {
    key: { ...here(cpu, compiler, phase, threads), tokens, n, k },
    kernel: kernels[0]!,
    why: 'made up',
    finished: true,
    read_rate: 3e10,
    ...(tokens > 1 ? { peak_rate: 2e11 } : {}),
    default_kernel: kernels.at(-1)!,
    candidates: kernels.map((kernel, i) => {
      const seconds = 1e-6 * (1 + i / 100);
      return { kernel, seconds, low: seconds, high: seconds, rounds: 9, roof: 0.9 - i / 1000 };
    }),
    inexact: [],
    untried: 0,
    refused: 0,
    hopeless: 0,
  };
}

/** Entries in which another kernel in the plan's packing has won every contest of some phases, where there is one. */
export function othersWin(
  shape: ModelShape,
  cpu: CpuProfile,
  compiler: Compiler,
  phases: readonly Phase[],
  isWanted: (candidate: Candidate, contest: Contest) => boolean = () => true,
): TuningEntry[] {
  const plan = inTiles(shape, cpu);
  return contestsOf(plan, phases).map((contest) => {
    const preferred = kernelOf(plan.matrices[contest.slot], contest, 1)!;
    const own = format(preferred);
    const others = fieldOf(cpu, contest, preferred).candidates.filter(
      (candidate) =>
        candidate.name !== own && candidate.packing.token === preferred.weight && isWanted(candidate, contest),
    );
    return entryOf(contest, 1, [...others.slice(-1).map(({ name }) => name), own], cpu, compiler);
  });
}
