/**
 * Finding the fastest of many in a given time: successive halving (Karnin, Koren, Somekh, ICML 2013). All take part in some
 * rounds, the faster half in the next ones, and so on; each phase has the same share of the time, so that those that matter are
 * measured most. Within a round everything has its turn, plain reads too: what the machine does meanwhile happens to all.
 */
import { isFaster, median } from './statistics.ts';

/** So many are left for the final. */
const FINALISTS = 6;
/** Rounds of a phase, and of the final. */
const ROUNDS = { least: 3, most: 12 } as const;
const FINAL_ROUNDS = { least: 9, most: 60 } as const;
/** Rounds before a kernel is believed to be at the roof, and the part of it that counts as reached. */
const ROOF_ROUNDS = 6;
const ROOF = 0.98;
/** Seconds of one request to the measuring process: its threads are woken once in each. */
const REQUEST_SECONDS = 0.15;
/** Kernels within this of the fastest are as good, and those beyond the second are not, whatever the test says. */
const EQUAL = 1.01;
const WORSE = 1.03;

/** A race of candidates 0, 1, ... The first is the one to beat: it is never eliminated. */
export interface Race {
  readonly count: number;
  /** Seconds [rounds][who], and of the roof [rounds]: what no candidate can be faster than. */
  readonly time: (who: readonly number[], rounds: number) => Promise<{ seconds: number[][]; roof: number[] }>;
  /** `performance.now()` at which it ends, but for the least rounds. */
  readonly until: number;
  /** After each request: how many are out of the race, the fastest so far, and the part of the roof that it reaches. */
  readonly onProgress?: (out: number, best: number, ofRoof: number) => void;
}

/** What is known in the end, or at an interruption: samples and roof by round, all from the first round on. */
export interface Standing {
  /** [candidate][round] */
  readonly samples: readonly number[][];
  readonly roof: readonly number[];
  /** Those measured to the end. */
  finalists: readonly number[];
  /** At the roof: more time would have found nothing. */
  atRoof: boolean;
}

/** Median of a candidate's share of the roof in the rounds that it took part in. */
export const ofRoof = (samples: readonly number[], roof: readonly number[]): number =>
  median(samples.map((s, i) => roof[i]! / s));

/** The standing before anything is measured; `race` adds to it, so that it can be used when that is interrupted. */
export const newStanding = (count: number): Standing & { samples: number[][]; roof: number[] } => ({
  samples: Array.from({ length: count }, () => []),
  roof: [],
  finalists: [],
  atRoof: false,
});

/** Measures until the time is over, the final has all its rounds, or the roof is reached. */
export async function race(contest: Race, standing: ReturnType<typeof newStanding>): Promise<void> {
  const { samples, roof } = standing;
  const now = () => performance.now();
  const sorted = (who: readonly number[]) => [...who].sort((a, b) => median(samples[a]!) - median(samples[b]!));
  let field = Array.from({ length: contest.count }, (_, i) => i);
  let phases = Math.max(0, Math.ceil(Math.log2(contest.count / FINALISTS))) + 1;
  for (; ; phases--) {
    const final = field.length <= FINALISTS + 1 || phases <= 1;
    const limits = final ? FINAL_ROUNDS : ROUNDS;
    const end = now() + Math.max(0, contest.until - now()) / Math.max(1, phases);
    standing.finalists = field;
    let rounds = 0;
    let each = 1;
    while (rounds < limits.least || (rounds < limits.most && now() < end)) {
      const started = now();
      const count = Math.min(each, limits.most - rounds);
      const turns = await contest.time(field, count);
      for (const [i, who] of field.entries()) samples[who]!.push(...turns.seconds.map((row) => row[i]!));
      roof.push(...turns.roof);
      rounds += count;
      each = Math.max(1, Math.floor((count * REQUEST_SECONDS * 1000) / (now() - started)));
      const best = sorted(field)[0]!;
      const share = ofRoof(samples[best]!, roof);
      contest.onProgress?.(contest.count - field.length, best, share);
      standing.atRoof = roof.length >= ROOF_ROUNDS && share >= ROOF;
      if (standing.atRoof && rounds >= limits.least) break;
    }
    if (final) return;
    // At the roof only the final is left.
    const keep = standing.atRoof ? FINALISTS : Math.max(FINALISTS, Math.ceil(field.length / 2));
    if (standing.atRoof) phases = 2;
    const fastest = sorted(field).slice(0, keep);
    field = fastest.includes(0) ? fastest : [0, ...fastest];
  }
}

/**
 * The winner: of the finalists that are not measurably slower than the fastest, the first in order of preference. So chance does
 * not choose among equals, and another run chooses the same.
 * @returns the winner, and the fastest by its median
 */
export function winnerOf({ samples, finalists }: Standing): { winner: number; fastest: number } {
  const timed = finalists.filter((i) => samples[i]!.length > 0);
  const fastest = [...timed].sort((a, b) => median(samples[a]!) - median(samples[b]!))[0]!;
  const best = samples[fastest]!;
  const asGood = (i: number) => {
    const behind = median(samples[i]!) / median(best);
    return behind <= EQUAL || (behind <= WORSE && !isFaster(best, samples[i]!));
  };
  return { winner: Math.min(...timed.filter(asGood)), fastest };
}
