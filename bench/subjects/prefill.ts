/** Prefill: how fast a prompt is read, from its first token to the logits of its last one, into an empty cache. */
import { randomTokens } from '../engines.ts';
import { RunTimer } from '../timers.ts';
import { formatRates, measureRates } from './rates.ts';
import type { Request, Subject } from './subject.ts';

async function measure(request: Request): ReturnType<Subject['measure']> {
  const { quick, shape, signal } = request;
  const notes: string[] = [];
  const sizes = request.sizes ?? (quick ? [128, 512] : [32, 128, 512, 2048]);
  const rows = await measureRates(
    request,
    {
      contexts: [0],
      sizes,
      room: Math.max(...sizes),
      // Long prompts take seconds: a quick look has one turn of each at least.
      pace: { seconds: request.seconds ?? (quick ? 30 : 40), least: quick ? 1 : 3, even: true },
      timerOf: (engine, n) => {
        const tokens = randomTokens(n, shape.vocabulary);
        return new RunTimer(engine, 1, () => engine.prompt(tokens, { signal }));
      },
    },
    notes,
  );
  return { rows, text: formatRates(rows), notes };
}

/** The subject. */
export const prefill: Subject = {
  summary: 'reading a prompt: tokens a second, share of the arithmetic roof, time by operation',
  measure,
};
