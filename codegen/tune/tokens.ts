/**
 * The final choice: kernels that won their races, against those that the plan takes by itself, in whole tokens through libraries
 * that differ in nothing else; in turn, on random weights of the model's shapes. A matrix alone may be fastest with a kernel that
 * does its neighbours harm: code that leaves no room in the caches, prefetches beyond the end.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import type { CpuProfile, ModelShape } from '../../schemas/types.ts';
import type { Compiler } from '../compile.ts';
import { emit } from '../emit.ts';
import { problems } from '../graph.ts';
import { layoutOf } from '../layout.ts';
import { parse } from '../name.ts';
import { packingOf } from '../packings/index.ts';
import { bytesOf } from '../packings/packing.ts';
import type { Plan } from '../plan.ts';
import type { Advice, Phase, TokenEntry, TuningEntry } from '../wisdom.ts';
import { here, matricesOf } from '../wisdom.ts';
import { inTiles } from './contests.ts';
import { newStanding, winnerOf } from './halving.ts';
import { type Process, startProcess } from './process.ts';
import { median, spread } from './statistics.ts';

/** Levels of open gates that tokens.c knows; the first is that of random gates: half of them. */
export const LEVELS = 9;
/** Positions before a token or a few, as in a short conversation; a prompt begins at none. */
const CONTEXT = 128;
/** Tokens of a few layers take milliseconds, and many of them tell sets apart that differ by a percent; prompts end by the time. */
const ROUNDS = { least: 7, most: 300 } as const;
/** Less time than this is not worth the compilation of a few libraries. */
const LEAST_MS = 4000;
/** The best kernels of another packing are tried if none of them is further behind than this. */
const CLOSE = 1.1;

/** Kernels by phase, number of tokens, and size of the matrix. */
type Choice = ReadonlyMap<string, string>;
const placeOf = (phase: Phase, tokens: number, n: number, k: number) => `${phase} ${tokens} ${n}x${k}`;
const adviceOf = (choice: Choice): Advice => ({
  kernel: (...place) => choice.get(placeOf(...place)),
  mostLive: () => ({}),
  ignored: () => undefined,
});
const choiceOf = (entries: readonly TuningEntry[], kernel: (entry: TuningEntry) => string | undefined): Choice =>
  new Map(
    entries.flatMap((entry) => {
      const { phase, tokens, n, k } = entry.key;
      const name = kernel(entry);
      return name ? [[placeOf(phase, tokens, n, k), name] as const] : [];
    }),
  );

/** What the final choice is made for, and from. */
export interface Finals {
  readonly shape: ModelShape;
  readonly cpu: CpuProfile;
  readonly compiler: Compiler;
  readonly threads: number;
  /** Of these threads: all matrices of each phase. */
  readonly entries: readonly TuningEntry[];
  /** Bytes of weights that are more than the caches hold. */
  readonly cold: number;
  /** For weights; a file for each layout. */
  readonly folder: string;
  /** `performance.now()` at which a phase's choice should be made. */
  readonly until: (phase: Phase) => number;
  readonly onProgress: (what: 'building' | 'whole tokens', phase: Phase, done: number, total: number) => void;
  readonly signal: AbortSignal;
}

/** Tokens of the embedding: of each level some (templates/tune/tokens.c). */
const VOCABULARY = 64 * LEVELS;

/** The same layers, no more than are needed, and a head that takes no memory. */
export function fewLayers(shape: ModelShape, cpu: CpuProfile, cold: number): ModelShape {
  const bytes = problems(shape).reduce((sum, { n, k, slots }) => {
    const { packing } = inTiles(shape, cpu).matrices[slots[0]!];
    return sum + slots.length * bytesOf(packingOf(packing), n, k);
  }, 0);
  const layers = Math.min(shape.layers, Math.ceil(cold / bytes));
  return { ...shape, layers, vocabulary: VOCABULARY, embeddingType: 'f32', headType: 'f32', tiedEmbedding: true };
}

/** Percent of the neurons that may be live: a number that changes takes the place of the plan's. */
const REPLACED = `
extern int bn_most_live;
#define BN_MOST_LIVE bn_most_live
#define BN_MOST_LIVE_OF_BATCH bn_most_live
#define BN_MOST_LIVE_OF_PROMPT bn_most_live
`;

/** A library of the plan, with weights in its layout. */
export async function startTokens(
  plan: Plan,
  { cpu, compiler, threads, folder, signal }: Pick<Finals, 'cpu' | 'compiler' | 'threads' | 'folder' | 'signal'>,
): Promise<Process> {
  const weights = path.join(folder, `${layoutOf(plan).id.slice(0, 16)}.bnw`);
  const files = emit(plan);
  files.set('plan.h', `${files.get('plan.h')!.replaceAll(/ *BN_MOST_LIVE\w* = \d+,\n/g, '')}${REPLACED}`);
  const program = await startProcess('tokens.c', files, [weights], cpu, compiler, signal);
  // The first one packs the weights.
  await program.rows(1, ...timeOf(0, 0, threads, 'decode', 1));
  if (!existsSync(weights)) throw new Error(`there are no weights in ${weights}`);
  return program;
}

/** A request for the time of some tokens at once, with so many gates open as the level says, and up to so many percent live. */
export const timeOf = (level: number, mostLive: number, threads: number, phase: Phase, tokens: number) =>
  ['time', level, mostLive, threads, tokens, phase === 'prefill' ? 0 : CONTEXT, 1] as const;

/** A set of kernels, and the process that has them. */
interface Rival {
  readonly name: string;
  readonly choice: Choice;
  readonly program: Process;
}

/** The sets of kernels of a phase: the plan's own first, then the winners, for one token also the best of each packing. */
function setsOf(phase: Phase, entries: readonly TuningEntry[]): Map<string, Choice> {
  const sets = new Map([
    ['plan', choiceOf(entries, (entry) => entry.default_kernel)],
    ['winners', choiceOf(entries, (entry) => entry.kernel)],
  ]);
  const weightOf = (kernel: string) => parse(kernel).weight;
  const packings = new Set(entries.flatMap(({ candidates }) => candidates.map((c) => weightOf(c.kernel))));
  for (const packing of phase === 'decode' ? packings : []) {
    const best = choiceOf(entries, ({ candidates }) => {
      const own = candidates.find((c) => weightOf(c.kernel) === packing);
      return own && own.seconds <= CLOSE * candidates[0]!.seconds ? own.kernel : undefined;
    });
    const isNew = ![...sets.values()].some((known) =>
      [...best].every(([place, name]) => weightOf(known.get(place)!) === weightOf(name)),
    );
    if (best.size === entries.length && isNew) sets.set(packing, best);
  }
  return sets;
}

/** Makes the final choice of each phase for which the winners differ from the plan's own kernels. @throws CompileError, LibraryError, AbortError */
export async function* finals(asked: Finals): AsyncGenerator<TokenEntry> {
  const { shape, cpu, compiler, threads, entries } = asked;
  const reduced = fewLayers(shape, cpu, asked.cold);
  let chosen = choiceOf(entries, (entry) => entry.default_kernel);
  for (const phase of new Set(entries.map(({ key }) => key.phase))) {
    const own = entries.filter(({ key }) => key.phase === phase);
    const sets = setsOf(phase, own);
    const time = asked.until(phase) - performance.now();
    if (own.every(({ kernel, default_kernel }) => kernel === default_kernel) || time < LEAST_MS) continue;
    const rivals: Rival[] = [];
    try {
      for (const [name, choice] of sets) {
        asked.onProgress('building', phase, rivals.length, sets.size);
        const plan = inTiles(reduced, cpu, { advice: adviceOf(new Map([...chosen, ...choice])) });
        rivals.push({ name, choice, program: await startTokens(plan, asked) });
      }
      for (const tokens of new Set(own.map(({ key }) => key.tokens))) {
        const entry = await choose(phase, tokens, rivals);
        const { choice } = rivals.find(({ name }) => name === entry.chosen)!;
        chosen = new Map([...chosen, ...[...choice].filter(([place]) => place.startsWith(`${phase} ${tokens} `))]);
        yield entry;
      }
    } finally {
      await Promise.all(rivals.map(({ program }) => program.close()));
    }
  }

  async function choose(phase: Phase, tokens: number, rivals: readonly Rival[]): Promise<TokenEntry> {
    const standing = newStanding(rivals.length);
    standing.finalists = rivals.map((_, i) => i);
    const until = asked.until(phase);
    for (let round = 0; round < ROUNDS.most && (round < ROUNDS.least || performance.now() < until); round++) {
      for (const step of rivals.keys()) {
        const who = (step + round) % rivals.length;
        const rows = await rivals[who]!.program.rows(1, ...timeOf(0, 0, threads, phase, tokens));
        standing.samples[who]!.push(rows[0]![0]!);
      }
      asked.onProgress('whole tokens', phase, round + 1, ROUNDS.most);
    }
    const { winner, fastest } = winnerOf(standing);
    const sets = rivals.map(({ name, choice }, i) => {
      const { median: seconds, low, high } = spread(standing.samples[i]!);
      const prefix = `${phase} ${tokens} `;
      const kernels = [...choice].flatMap(([place, kernel]) =>
        place.startsWith(prefix) ? [[place.slice(prefix.length), kernel] as const] : [],
      );
      return { name, kernels: Object.fromEntries(kernels), seconds, low, high, rounds: standing.samples[i]!.length };
    });
    const behind = median(standing.samples[winner]!) / median(standing.samples[fastest]!) - 1;
    return {
      key: { ...here(cpu, compiler, phase, threads), matrices: matricesOf(shape), tokens },
      chosen: rivals[winner]!.name,
      why:
        winner === fastest
          ? 'the fastest in whole tokens'
          : `not measurably slower than the fastest set, '${rivals[fastest]!.name}' (by ${(100 * behind).toFixed(1)} %)`,
      sets,
    };
  }
}
