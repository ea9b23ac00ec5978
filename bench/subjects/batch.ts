/**
 * Batches: n tokens evaluated at once, with a next token chosen after each of them, as whoever checks a guessed continuation does;
 * against ordinary decoding, n = 1.
 */
import type { Engine } from '../../runtime/engine.ts';
import { randomTokens } from '../engines.ts';
import { RunTimer, TOKENS, tokenTimer } from '../timers.ts';
import { formatRates, measureRates } from './rates.ts';
import type { Request, Subject } from './subject.ts';

/** One to warm up, one that is timed. */
const EVALUATIONS = 2;

/** The most probable token after each of these. */
const choose = (engine: Engine, tokens: readonly number[]): number[] =>
  engine.topAll(tokens, 1).map(({ ids }) => ids[0]!);

/** Evaluates n tokens at the engine's position, over and over. */
function batchTimer(engine: Engine, n: number): RunTimer {
  const tokens = randomTokens(n, engine.source.shape.vocabulary);
  const { position } = engine;
  return new RunTimer(engine, EVALUATIONS, () => {
    choose(engine, tokens);
    engine.rewind(position);
  });
}

async function measure(request: Request): ReturnType<Subject['measure']> {
  const notes: string[] = [];
  // n = 1 is what the others are compared with.
  const sizes = [...new Set([1, ...(request.sizes ?? [2, 4, 8, 16])])];
  const rates = await measureRates(
    request,
    {
      contexts: request.contexts ?? [128],
      sizes,
      room: Math.max(TOKENS, ...sizes),
      pace: { seconds: request.seconds ?? (request.quick ? 20 : 40) },
      timerOf: (engine, n) => (n === 1 ? tokenTimer(engine) : batchTimer(engine, n)),
    },
    notes,
  );
  const rows = rates.map((row, i) => ({ ...row, over_batch1: row.tok_s / rates[i - (i % sizes.length)]!.tok_s }));
  return { rows, text: formatRates(rows, { 'over n = 1': (row) => row.over_batch1.toFixed(2) }), notes };
}

/** The subject. */
export const batch: Subject = {
  summary: 'n tokens at once, a next one chosen after each: speed over n = 1, share of the arithmetic roof',
  measure,
};
