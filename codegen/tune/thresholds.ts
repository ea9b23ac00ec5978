/**
 * Where zeros are skipped: from which share of live neurons on lists of what is live do not pay, and everything is read. Whole tokens by
 * lists and with everything read, in turn, through libraries that differ in nothing else, with few to nearly all gates open
 * (templates/tune/tokens.c).
 */
import { BATCH } from '../kernels/tables.ts';
import type { MostLive } from '../plan.ts';
import { isSparse, planOf } from '../plan.ts';
import type { Advice, Phase, ThresholdEntry } from '../wisdom.ts';
import { here, matricesOf } from '../wisdom.ts';
import type { Process } from './process.ts';
import { median } from './statistics.ts';
import { type Finals, fewLayers, LEVELS, startTokens, timeOf } from './tokens.ts';

/** Rounds for the least, and for a result that more would not change by a percent of the neurons. */
const ROUNDS = { least: 3, most: 60 } as const;
/** Less time than this is not worth the compilation of two libraries. */
const LEAST_MS = 4000;
/** Tokens at once that stand for a phase. */
const tokensOf: Readonly<Record<Phase, number>> = { decode: 1, batch: 8, prefill: BATCH };

/** What thresholds are measured for, and from. */
export interface Thresholds extends Omit<Finals, 'entries' | 'onProgress'> {
  readonly phases: readonly Phase[];
  readonly advice: Advice;
  readonly onProgress: (what: 'building' | 'thresholds', phase: Phase, done: number, total: number) => void;
}

/** The same for all phases. */
const always = (percent: number): MostLive => ({ decode: percent, batch: percent, prefill: percent });

/** Measures the threshold of each phase; of none where nothing is skipped. @throws CompileError, LibraryError, AbortError */
export async function* thresholds(asked: Thresholds): AsyncGenerator<ThresholdEntry> {
  const { shape, cpu, compiler, threads, phases } = asked;
  const plan = planOf(fewLayers(shape, cpu, asked.cold), cpu, { advice: asked.advice });
  if (!isSparse(plan) || asked.until(phases[0]!) - performance.now() < LEAST_MS) return;
  const programs: Process[] = [];
  try {
    for (const percent of [100, 0]) {
      asked.onProgress('building', phases[0]!, programs.length, 2);
      programs.push(await startTokens({ ...plan, mostLive: always(percent) }, asked));
    }
    const [listed, whole] = programs as [Process, Process];
    const live: number[] = [];
    for (let level = 0; level < LEVELS; level++) live.push((await listed.rows(1, 'live', level))[0]![0]!);
    for (const phase of phases) {
      const until = asked.until(phase);
      const samples = live.map(() => ({ listed: [] as number[], whole: [] as number[] }));
      for (let round = 0; round < ROUNDS.most && (round < ROUNDS.least || performance.now() < until); round++) {
        for (const level of live.keys())
          for (const which of round % 2 ? (['whole', 'listed'] as const) : (['listed', 'whole'] as const)) {
            const program = which === 'listed' ? listed : whole;
            const rows = await program.rows(1, ...timeOf(level, threads, phase, tokensOf[phase]));
            samples[level]![which].push(rows[0]![0]!);
          }
        asked.onProgress('thresholds', phase, round + 1, ROUNDS.most);
      }
      const shares = samples
        .map((sample, level) => ({
          live: live[level]!,
          listed: median(sample.listed),
          whole: median(sample.whole),
          rounds: sample.listed.length,
        }))
        .sort((a, b) => a.live - b.live);
      const key = { ...here(cpu, compiler, phase, threads), matrices: matricesOf(shape), tokens: tokensOf[phase] };
      yield { key, most_live: crossing(shares), shares };
    }
  } finally {
    await Promise.all(programs.map((program) => program.close()));
  }
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
