/**
 * Where zeros are skipped: from which share of live neurons on lists of what is live do not pay, and everything is read. Whole tokens by
 * lists and with everything read, in turn, with few to nearly all gates open (templates/tune/tokens.c); through two copies of the same
 * library, since each process has its luck with where its buffers lie.
 */
import { BATCH } from '../kernels/tables.ts';
import { isSparse, planOf } from '../plan.ts';
import type { Advice, Phase, ThresholdEntry } from '../wisdom.ts';
import { here, matricesOf } from '../wisdom.ts';
import type { Process } from './process.ts';
import { median } from './statistics.ts';
import { type Finals, fewLayers, LEVELS, startTokens, timeOf } from './tokens.ts';

/** Rounds for the least, and for a result that more would not change by a percent of the neurons. */
const ROUNDS = { least: 3, most: 60 } as const;
/** Less time than this is not worth the compilation of a library. */
const LEAST_MS = 4000;
const COPIES = 2;
/** Percent of the neurons that may be live. */
const mostLive = { listed: 100, whole: 0 } as const;
/** Tokens at once that stand for a phase. */
const tokensOf: Readonly<Record<Phase, number>> = { decode: 1, batch: 8, prefill: BATCH };

/** What thresholds are measured for, and from. */
export interface Thresholds extends Omit<Finals, 'entries' | 'until' | 'onProgress'> {
  readonly phases: readonly Phase[];
  readonly advice: Advice;
  /** `performance.now()` at which they should be there. */
  readonly until: number;
  readonly onProgress: (what: 'building' | 'thresholds', phase: Phase, done: number, total: number) => void;
}

/** What one phase took: seconds [level][round], and of all. */
interface Account {
  readonly phase: Phase;
  readonly levels: readonly { readonly listed: number[]; readonly whole: number[] }[];
  rounds: number;
  spent: number;
}

/**
 * Measures the threshold of each phase; of none where nothing is skipped. The phases take turns, so that a bad minute of the machine is
 * none of them's alone.
 * @throws CompileError, LibraryError, AbortError
 */
export async function thresholds(asked: Thresholds): Promise<ThresholdEntry[]> {
  const { shape, cpu, compiler, threads, phases, until } = asked;
  const plan = planOf(fewLayers(shape, cpu, asked.cold), cpu, { advice: asked.advice });
  if (!isSparse(plan) || until - performance.now() < LEAST_MS) return [];
  const programs: Process[] = [];
  try {
    while (programs.length < COPIES) {
      asked.onProgress('building', phases[0]!, programs.length, COPIES);
      programs.push(await startTokens(plan, asked));
    }
    const live: number[] = [];
    for (let level = 0; level < LEVELS; level++) live.push((await programs[0]!.rows(1, 'live', level))[0]![0]!);
    const accounts = phases.map(
      (phase): Account => ({ phase, levels: live.map(() => ({ listed: [], whole: [] })), rounds: 0, spent: 0 }),
    );
    for (;;) {
      const isOver = performance.now() >= until;
      const [next] = accounts
        .filter(({ rounds }) => rounds < (isOver ? ROUNDS.least : ROUNDS.most))
        .sort((a, b) => a.spent - b.spent);
      if (!next) break;
      await measureRound(next, programs[next.rounds % COPIES]!, threads);
      asked.onProgress('thresholds', next.phase, next.rounds, ROUNDS.most);
    }
    return accounts.map(({ phase, levels, rounds }) => {
      const shares = levels
        .map((sample, i) => ({ live: live[i]!, listed: median(sample.listed), whole: median(sample.whole), rounds }))
        .sort((a, b) => a.live - b.live);
      const key = { ...here(cpu, compiler, phase, threads), matrices: matricesOf(shape), tokens: tokensOf[phase] };
      return { key, most_live: crossing(shares), shares };
    });
  } finally {
    await Promise.all(programs.map((program) => program.close()));
  }
}

/** A round of a phase: all levels, by lists and with everything read. */
async function measureRound(account: Account, program: Process, threads: number): Promise<void> {
  const { phase, levels } = account;
  const start = performance.now();
  for (const [level, samples] of levels.entries())
    for (const which of ['listed', 'whole'] as const) {
      const rows = await program.rows(1, ...timeOf(level, mostLive[which], threads, phase, tokensOf[phase]));
      samples[which].push(rows[0]![0]!);
    }
  account.rounds++;
  account.spent += performance.now() - start;
}

/** Shares that the threshold is made of. */
const NEAREST = 5;

/**
 * Percent of live neurons at which both take as long: where the straight line through the ratios that are nearest to 1 (least squares)
 * is 1. One ratio alone is as uncertain as a tenth of the neurons; all together are no straight line.
 */
export function crossing(shares: ThresholdEntry['shares']): number {
  const points = shares
    .map(({ live, listed, whole }) => ({ x: live, y: listed / whole }))
    .sort((a, b) => Math.abs(a.y - 1) - Math.abs(b.y - 1))
    .slice(0, NEAREST);
  const mean = (of: (point: { x: number; y: number }) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean((p) => p.x), mean((p) => p.y)];
  const slope = mean((p) => (p.x - x) * (p.y - y)) / mean((p) => (p.x - x) ** 2);
  // Lists that take no longer for more are fast for all, or for none.
  const at = slope > 0 ? x + (1 - y) / slope : y < 1 ? 1 : 0;
  return Math.round(100 * Math.min(1, Math.max(0, at)));
}
