/**
 * The sweep: for each distinct matrix of a model, candidates are compiled in parallel, checked for exactness, and raced against
 * plain reads of the same bytes, cold from memory, for each number of threads; all within a budget of time.
 *
 *     candidates.ts -> objects.ts -> examples.ts -> meter.ts (measure.c) -> halving.ts -> wisdom
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CompileError } from '../../schemas/error.ts';
import type { CpuProfile, ModelShape } from '../../schemas/types.ts';
import type { Compiler } from '../compile.ts';
import { kernelSource } from '../generate.ts';
import type { Problem } from '../graph.ts';
import { problems } from '../graph.ts';
import { isaOf } from '../isa/index.ts';
import { activationStride } from '../kernels/ternary.ts';
import { format } from '../name.ts';
import { packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bytesOf, tileBytes, tilesOf } from '../packings/packing.ts';
import { type Plan, planOf } from '../plan.ts';
import { keyOf, type TuningEntry } from '../wisdom.ts';
import { type Candidate, type Field, fieldOf } from './candidates.ts';
import { type Example, writeExamples, writeLines } from './examples.ts';
import { newStanding, ofRoof, race, type Standing, winnerOf } from './halving.ts';
import type { Meter } from './meter.ts';
import { startMeter } from './meter.ts';
import { compileObjects } from './objects.ts';
import { median, spread } from './statistics.ts';

/** Compiling and checking may take this part of a matrix's time. */
const PREPARING = 0.5;
/** Bytes that a pass reads: so many times the last-level cache, and at least. */
const ARENA = { caches: 4, least: 64 << 20 } as const;

/** What a sweep is asked for. */
export interface Request {
  readonly shape: ModelShape;
  readonly cpu: CpuProfile;
  readonly compiler: Compiler;
  readonly threads: readonly number[];
  /** For everything: compiling, checking, measuring. */
  readonly seconds: number;
  /** Has this problem been measured before? It is left out then. */
  readonly isKnown?: (n: number, k: number, threads: number) => boolean;
  /** The C text of a candidate; tests plant bugs here. */
  readonly textOf?: (candidate: Candidate) => string;
  readonly onProgress: (progress: Progress) => void;
  readonly signal: AbortSignal;
}

/** Where a sweep is. */
export interface Progress {
  readonly what: 'compiling' | 'checking' | 'timing';
  readonly n: number;
  readonly k: number;
  /** Candidates that are through. */
  readonly done: number;
  readonly total: number;
  /** Of the fastest so far; 0: nothing was timed yet. */
  readonly ofRoof: number;
  readonly secondsLeft: number;
}

/** A candidate that passed the gate: its index in the measuring process. */
interface Loaded extends Candidate {
  readonly kernel: number;
}

/** State of a sweep that all its problems share. */
interface Workshop {
  readonly request: Request;
  readonly plan: Plan;
  readonly meter: Meter;
  readonly folder: string;
  /** Index of each packing's arena. */
  readonly arenas: ReadonlyMap<Packing, number>;
  readonly examples: Map<string, Promise<Example[]>>;
  readonly until: number;
}

/** Measures the decode kernels of every distinct matrix. @throws CompileError, LibraryError; AbortError after the last entry */
export async function* sweep(request: Request): AsyncGenerator<TuningEntry> {
  const { shape, cpu, compiler, signal } = request;
  const until = performance.now() + 1000 * request.seconds;
  const packings = packingsFor(isaOf(cpu.isa)).filter((p) => !p.lookUp);
  const all = problems(shape);
  const open = all
    .map((problem) => ({
      problem,
      threads: request.threads.filter((t) => !request.isKnown?.(problem.n, problem.k, t)),
    }))
    .filter(({ threads }) => threads.length > 0);
  if (!open.length) return;
  const largest = Math.max(...all.flatMap(({ n, k }) => packings.map((p) => bytesOf(p, n, k))));
  const arena = Math.max(ARENA.caches * cpu.cache.l3, ARENA.least, 2 * largest);
  const folder = await mkdtemp(path.join(tmpdir(), 'bitnet-tune-'));
  let meter: Meter | undefined;
  try {
    meter = await startMeter(shape, cpu, compiler, arena, signal);
    const arenas = new Map<Packing, number>();
    for (const p of packings) arenas.set(p, await meter.addPacking(p.lineBytes, await writeLines(p, folder)));
    const shop = { request, plan: planOf(shape, cpu), meter, folder, arenas, examples: new Map(), until };
    let contests = open.reduce((sum, { threads }) => sum + threads.length, 0);
    for (const { problem, threads } of open) {
      const share = (count: number) => performance.now() + (Math.max(0, until - performance.now()) * count) / contests;
      const field = fieldOf(cpu, problem.n, problem.k, format(shop.plan.matrices[problem.slots[0]!].gemv));
      const entrants = await prepare(shop, problem, field, share(threads.length * PREPARING));
      for (const count of threads) {
        yield await measure(shop, problem, field, entrants, count, share(1));
        signal.throwIfAborted();
        contests--;
      }
    }
  } finally {
    await meter?.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Compiles and checks the field of a problem. */
async function prepare(shop: Workshop, { n, k }: Problem, field: Field, until: number) {
  const { request, meter, arenas, examples, folder } = shop;
  const { cpu, compiler, signal, textOf = ({ spec }: Candidate) => kernelSource(spec).text } = request;
  const report = (what: Progress['what'], done: number, total: number) =>
    request.onProgress({ what, n, k, done, total, ofRoof: 0, secondsLeft: (shop.until - performance.now()) / 1000 });
  const sources = field.candidates.map((candidate) => ({ name: candidate.name, text: () => textOf(candidate) }));
  const objects = await compileObjects(sources, cpu, compiler, {
    until,
    signal,
    onProgress: (done, total) => report('compiling', done, total),
  });
  const exact: Loaded[] = [];
  const inexact: { kernel: string; problem: string }[] = [];
  let done = 0;
  for (const candidate of field.candidates) {
    const { name, packing: p } = candidate;
    const object = objects.get(name);
    if (!object) continue;
    const verdict = 'problem' in object ? object.problem : await admit(object.file, candidate);
    if (typeof verdict === 'number') exact.push({ ...candidate, kernel: verdict });
    else inexact.push({ kernel: name, problem: verdict });
    report('checking', ++done, objects.size);

    async function admit(file: string, { spec }: Candidate): Promise<number | string> {
      const key = `${p.token} ${k}`;
      if (!examples.has(key)) examples.set(key, writeExamples(p, k, folder));
      const sizes = { tiles: tilesOf(p, n), tileBytes: tileBytes(p, k), rows: p.rows, xBytes: activationStride(k) };
      const kernel = await meter.addKernel({ name: format(spec), file, packing: arenas.get(p)!, ...sizes });
      if (typeof kernel === 'string') return kernel;
      for (const { name: example, sum, period, file: data } of await examples.get(key)!) {
        const problem = await meter.gate(kernel, sum, period, data);
        if (problem) return `${example}: ${problem}`;
      }
      return kernel;
    }
  }
  if (!exact.length)
    throw new CompileError(
      `no exact kernel for ${n} x ${k} (${inexact[0]?.kernel}: ${inexact[0]?.problem}); the compiler '${compiler.label}' may be broken: try another with --cc`,
    );
  return { exact, inexact };
}

/** Races the exact kernels of a problem; an interruption ends it with what is known, if that is anything. */
async function measure(
  shop: Workshop,
  { n, k }: Problem,
  field: Field,
  { exact, inexact }: Awaited<ReturnType<typeof prepare>>,
  threads: number,
  until: number,
): Promise<TuningEntry> {
  const { request, meter, arenas, plan } = shop;
  const standing = newStanding(exact.length);
  const smallest = exact.reduce((best, c) => (c.bytes < best.bytes ? c : best));
  /** Seconds of reading as many bytes as a matrix has. */
  const scale = (bytes: number) => bytes / meter.arenaBytes;
  const contest = race(
    {
      count: exact.length,
      until,
      time: async (who, rounds) => {
        const items = [...who.map((i) => ({ kernel: exact[i]!.kernel })), { read: arenas.get(smallest.packing)! }];
        const times = await meter.time(threads, rounds, items);
        return {
          seconds: times.map((row) => row.slice(0, -1)),
          roof: times.map((row) => row.at(-1)! * scale(smallest.bytes)),
        };
      },
      onProgress: (out, _, share) =>
        request.onProgress({
          what: 'timing',
          n,
          k,
          done: out,
          total: exact.length,
          ofRoof: share,
          secondsLeft: (shop.until - performance.now()) / 1000,
        }),
    },
    standing,
  );
  const finished = await contest.then(
    () => true,
    (error) => {
      if (!request.signal.aborted || !standing.roof.length) throw error;
      return false;
    },
  );
  const { winner, fastest } = winnerOf(standing);
  const cached = new Map<number, number>();
  if (finished)
    for (const i of standing.finalists) {
      const { kernel, packing: p } = exact[i]!;
      cached.set(i, (await meter.cached(kernel, request.cpu.cache.l2 / 2)) * tilesOf(p, n));
    }
  const candidates = exact
    .map((candidate, i) => ({ candidate, i, samples: standing.samples[i]! }))
    .filter(({ samples }) => samples.length > 0)
    .map(({ candidate, i, samples }) => {
      const { median: seconds, low, high } = spread(samples);
      const ownRoof = standing.roof.map((r) => (r * candidate.bytes) / smallest.bytes);
      return {
        kernel: candidate.name,
        seconds,
        low,
        high,
        rounds: samples.length,
        roof: ofRoof(samples, ownRoof),
        ...(cached.has(i) ? { cached_seconds: cached.get(i)! } : {}),
      };
    })
    .sort((a, b) => a.seconds - b.seconds);
  return {
    key: keyOf(request.cpu, request.compiler, n, k, threads),
    kernel: exact[winner]!.name,
    why: reason(standing, winner, fastest),
    finished,
    read_rate: smallest.bytes / median(standing.roof),
    default_kernel: format(plan.matrices[problemSlot(plan, n, k)].gemv),
    candidates,
    inexact,
    untried: field.candidates.length - exact.length - inexact.length,
    refused: field.refused,
    hopeless: field.hopeless,
  };
}

/** A matrix of this size. */
const problemSlot = (plan: Plan, n: number, k: number) =>
  problems(plan.shape).find((problem) => problem.n === n && problem.k === k)!.slots[0]!;

/** Why the winner was chosen, for people. */
function reason({ samples, atRoof }: Standing, winner: number, fastest: number): string {
  const behind = median(samples[winner]!) / median(samples[fastest]!) - 1;
  const how =
    winner === fastest
      ? 'the fastest of all that were measured'
      : `first in order of preference among those that are not measurably slower than the fastest (by ${(100 * behind).toFixed(1)} %)`;
  return atRoof ? `${how}; the search ended early, at the roof` : how;
}
