/**
 * Where zeros are skipped: from which share of live neurons on lists of what is live do not pay, and everything is read. Whole tokens by
 * lists and with everything read, in turn in the same process, with few to nearly all gates open (templates/tune/tokens.c).
 */
import { skippingFingerprint } from '../fingerprint.ts';
import { BATCH } from '../kernels/tables.ts';
import { isSparse, planOf } from '../plan.ts';
import type { Advice, Phase, ThresholdEntry, Wisdom } from '../wisdom.ts';
import { adviceFor, here, matricesOf, nothing, shippedWisdom } from '../wisdom.ts';
import { threadsOf } from './explain.ts';
import type { Process } from './process.ts';
import { median } from './statistics.ts';
import type { Request } from './sweep.ts';
import { type Finals, fewLayers, LEVELS, startTokens, timeOf } from './tokens.ts';

/** Rounds for the least, and for a result that more would not change by a percent of the neurons. */
const ROUNDS = { least: 2, most: 60 } as const;
/** Less time than this is not worth the compilation of a library. */
const LEAST_MS = 4000;
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

/** What one phase took: seconds [level][round], and milliseconds of all. */
interface Account {
  readonly phase: Phase;
  readonly levels: readonly { readonly listed: number[]; readonly whole: number[] }[];
  rounds: number;
  spent: number;
}

/** The phase whose turn it is: that which had least time. Once time is over, what was begun is ended, and nothing is begun. */
function nextOf(accounts: readonly Account[], isOver: boolean): Account | undefined {
  const left = accounts.filter(({ rounds }) => (isOver ? rounds > 0 && rounds < ROUNDS.least : rounds < ROUNDS.most));
  return left.sort((a, b) => a.spent - b.spent)[0];
}

/**
 * Measures the threshold of each phase for which there is time; of none where nothing is skipped. The phases take turns, so that a bad
 * minute of the machine does not fall on one of them alone. An interruption ends it with what is known, if that is anything.
 * @throws CompileError, LibraryError, AbortError
 */
export async function thresholds(asked: Thresholds): Promise<ThresholdEntry[]> {
  const { shape, cpu, compiler, threads, until, signal } = asked;
  const plan = planOf(fewLayers(shape, cpu, asked.cold), cpu, { advice: asked.advice });
  if (!isSparse(plan) || until - performance.now() < LEAST_MS) return [];
  const { packing, tables } = plan.matrices.ffn_up;
  // Without tables prompts are multiplied as batches are.
  const phases = asked.phases.filter((phase) => phase !== 'prefill' || tables);
  asked.onProgress('building', asked.phases[0]!, 0, 1);
  const program = await startTokens(plan, asked);
  try {
    const live: number[] = [];
    for (let level = 0; level < LEVELS; level++) live.push((await program.rows(1, 'live', level, threads))[0]![0]!);
    const accounts = phases.map(
      (phase): Account => ({ phase, levels: live.map(() => ({ listed: [], whole: [] })), rounds: 0, spent: 0 }),
    );
    try {
      for (;;) {
        const next = nextOf(accounts, performance.now() >= until);
        if (!next) break;
        await measureRound(next, program, threads);
        asked.onProgress('thresholds', next.phase, next.rounds, ROUNDS.most);
      }
    } catch (error) {
      if (!signal.aborted || accounts.every(({ rounds }) => rounds < ROUNDS.least)) throw error;
    }
    return accounts
      .filter(({ rounds }) => rounds >= ROUNDS.least)
      .map(({ phase, levels, rounds }) => {
        const shares = levels
          .map(({ listed, whole }, i) => ({ live: live[i]!, listed: median(listed), whole: median(whole), rounds }))
          .sort((a, b) => a.live - b.live);
        const circumstances = { ...here(cpu, compiler, phase, threads), generator: skippingFingerprint(cpu, phase) };
        const key = { ...circumstances, matrices: matricesOf(shape), tokens: tokensOf[phase], packing };
        return { key, most_live: crossing(shares), shares };
      });
  } finally {
    await program.close();
  }
}

/** As builds will take it. */
const adviceThere = (
  { shape, cpu, compiler }: Pick<Thresholds, 'shape' | 'cpu' | 'compiler'>,
  threads: number,
  known: Wisdom,
) => adviceFor(cpu, compiler, { shape, threads, wisdom: [known, shippedWisdom()] });

/** Numbers of threads, and the phases whose thresholds are to be measured on them. */
export type ThresholdsLeft = readonly { readonly threads: number; readonly phases: readonly Phase[] }[];

/** Those that a sweep has to measure. */
export function thresholdsLeft(request: Request): ThresholdsLeft {
  return request.threads.flatMap((threads) => {
    const phases = request.phases.filter((phase) => !request.isThresholdKnown?.(phase, threads));
    const advice = adviceThere(request, threads, request.wisdom ?? nothing);
    return phases.length && isSparse(planOf(request.shape, request.cpu, { advice })) ? [{ threads, phases }] : [];
  });
}

/** Measures what is left, each number of threads in its share of the time. @throws as `thresholds` */
export async function* sweepThresholds(
  asked: Omit<Thresholds, 'threads' | 'phases' | 'advice'> &
    Pick<Request, 'onNote'> & { readonly wisdom: Wisdom; readonly left: ThresholdsLeft },
): AsyncGenerator<Partial<Wisdom>> {
  const { left, wisdom } = asked;
  for (const [i, { threads, phases }] of left.entries()) {
    const start = performance.now();
    const until = start + (asked.until - start) / (left.length - i);
    const found = await thresholds({ ...asked, threads, phases, advice: adviceThere(asked, threads, wisdom), until });
    yield { thresholds: found };
    asked.signal.throwIfAborted();
    if (found.length) continue;
    const what = `thresholds of skipped zeros on ${threadsOf(threads)}`;
    asked.onNote?.(`no time was left for ${what}: give more with --budget, or the same again with --resume`);
  }
}

/** A round of a phase: all levels, by lists and with everything read, one first and then the other. */
async function measureRound(account: Account, program: Process, threads: number): Promise<void> {
  const { phase, levels, rounds } = account;
  const start = performance.now();
  const both = ['listed', 'whole'] as const;
  for (const [level, samples] of levels.entries())
    for (const which of (level + rounds) % 2 ? both : both.toReversed()) {
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
