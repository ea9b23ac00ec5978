/**
 * Generation with and without lookup: what drafts gain where a text copies itself, and what they cost where it does not. A random
 * model writes nothing that repeats, so the sampler dictates the text and ignores the logits that it asked for, one as greedy
 * decoding does. Both ways of each text are measured in rotation, on one engine; times are of the generated tokens.
 */
import type { Engine } from '../../runtime/engine.ts';
import type { Sampler } from '../../runtime/sampler.ts';
import type { LookupStatistics } from '../../runtime/speculation.ts';
import { about, type Ready, withEngines } from '../engines.ts';
import { randomWords } from '../random.ts';
import { type Measured, median, rotate } from '../rotation.ts';
import { formatTable } from '../table.ts';
import type { Request, Subject } from './subject.ts';

/** Tokens of one generation. */
const COUNT = 128;

/** Texts by name: prompt and generated tokens together, as indices of a random vocabulary. */
const texts: Readonly<Record<string, (length: number, prompt: number, random: Uint32Array) => number[]>> = {
  /** The prompt over again, from its middle on. */
  copy: (length, prompt) => Array.from({ length }, (_, i) => (i < prompt ? i : ((prompt >> 1) + i - prompt) % prompt)),
  /** The same with each 25th token exchanged for a new one. */
  edited: (length, prompt) =>
    Array.from({ length }, (_, i) => (i < prompt || i % 25 === 0 ? i : ((prompt >> 1) + i - prompt) % prompt)),
  /** Never the same token twice. */
  fresh: (length) => Array.from({ length }, (_, i) => i),
  /** Twelve tokens in random order: almost every pair occurred before, and foretells nothing. */
  misleading: (length, _, random) => Array.from({ length }, (_, i) => random[i]! % 12),
};

/** Draws the given tokens, one after another. */
function dictation(tokens: readonly number[]): Sampler {
  let at = 0;
  const next = () => tokens[at++]!;
  return { sample: next, candidates: () => 1, sampleTop: next };
}

class GenerationTimer implements Measured {
  readonly ms: number[] = [];
  statistics: LookupStatistics | undefined;
  readonly #engine: Engine;
  readonly #prompt: readonly number[];
  readonly #answer: readonly number[];
  readonly #lookup: boolean;

  constructor(engine: Engine, tokens: readonly number[], lookup: boolean) {
    this.#engine = engine;
    this.#prompt = tokens.slice(0, -COUNT);
    this.#answer = tokens.slice(-COUNT);
    this.#lookup = lookup;
  }

  async turn(): Promise<void> {
    this.#engine.rewind(0);
    const sampler = dictation(this.#answer);
    const options = { count: COUNT, sampler, lookup: this.#lookup };
    const { generationMs, lookup } = await this.#engine.generate(this.#prompt, undefined, options);
    this.ms.push(generationMs);
    this.statistics = lookup;
  }
}

/** A text on an engine, by its two ways. */
interface Pair extends Ready {
  readonly text: string;
  readonly plain: GenerationTimer;
  readonly lookup: GenerationTimer;
}

/** All texts on an engine; prompts are as long as its context. */
function pairs(ready: Ready): Pair[] {
  const { engine, context } = ready;
  const { vocabulary } = engine.source.shape;
  const random = randomWords(context + COUNT, 5);
  return Object.entries(texts).map(([text, write]) => {
    // Multiples of a number that is prime to the vocabulary do not repeat.
    const tokens = write(context + COUNT, context, random).map((i) => (i * 7919) % vocabulary);
    const timer = (lookup: boolean) => new GenerationTimer(engine, tokens, lookup);
    return { ...ready, text, plain: timer(false), lookup: timer(true) };
  });
}

/** Times are milliseconds of a generated token, medians. */
function rowOf({ text, plain, lookup, ...ready }: Pair) {
  // The first token is drawn from the prompt's logits.
  const [plainMs, lookupMs] = [plain, lookup].map(({ ms }) => median(ms) / (COUNT - 1)) as [number, number];
  return {
    ...about(ready),
    context: ready.context,
    text,
    plain_ms: plainMs,
    lookup_ms: lookupMs,
    speed_up: plainMs / lookupMs,
    ...lookup.statistics!,
    samples: plain.ms.length,
  };
}

type Row = ReturnType<typeof rowOf>;

const headers = ['target', 'packing', 'threads', 'kv', 'context', 'text'] as const;
const results = ['plain ms', 'lookup ms', 'speed-up', 'drafted', 'accepted', 'evaluations'];

const format = (rows: readonly Row[]): string =>
  formatTable(
    [...headers, ...results],
    rows.map((row) => [
      ...headers.map((key) => String(row[key])),
      ...[row.plain_ms, row.lookup_ms, row.speed_up].map((value) => value.toFixed(2)),
      ...[row.drafted, row.accepted, row.evaluations].map(String),
    ]),
  );

async function measure(request: Request): ReturnType<Subject['measure']> {
  const notes: string[] = [];
  const contexts = request.contexts ?? [128];
  const rows = await withEngines(request, { packings: 'planned', contexts, room: COUNT }, notes, async (engines) => {
    const all = engines.flatMap(pairs);
    const rounds = await rotate(
      all.flatMap(({ plain, lookup }) => [plain, lookup]),
      { seconds: request.seconds ?? (request.quick ? 20 : 40) },
      (...at) => request.onProgress('measuring, s', ...at),
      request.signal,
    );
    notes.push(`${rounds} rounds of ${COUNT} tokens; drafts of the last one`);
    return all.map(rowOf);
  });
  return { rows, text: format(rows), notes };
}

/** The subject. */
export const lookup: Subject = {
  summary: 'generation with drafts from the text itself, where it copies itself and where it does not',
  measure,
};
