/**
 * The sweep: in each phase, for each distinct matrix of a model, candidates are compiled in parallel, checked for exactness, and
 * raced against what memory and arithmetic allow, cold from memory, for each number of threads; all within a budget of time.
 *
 *     contests.ts -> candidates.ts -> objects.ts -> examples.ts -> meter.ts (measure.c) -> halving.ts -> tokens.ts -> wisdom
 *                                                                                             thresholds.ts, where zeros are skipped
 */
import { rm } from 'node:fs/promises';
import { temporaryFolder } from '../../schemas/aside.ts';
import { CompileError } from '../../schemas/error.ts';
import type { CpuProfile, ModelShape } from '../../schemas/types.ts';
import type { Compiler } from '../compile.ts';
import { matrixNumbers, scratchBytes } from '../emit.ts';
import { kernelSource } from '../generate.ts';
import { problems } from '../graph.ts';
import { isaOf } from '../isa/index.ts';
import type { KernelSpec } from '../name.ts';
import { format } from '../name.ts';
import { packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bytesOf, tilesOf } from '../packings/packing.ts';
import type { Plan } from '../plan.ts';
import type { Phase, TuningEntry, Wisdom } from '../wisdom.ts';
import { adviceFor, counting, here, merge, nothing } from '../wisdom.ts';
import { type Candidate, type Field, fieldOf } from './candidates.ts';
import { type Contest, contestsOf, inTiles, isAbout, kernelOf, sharesTables } from './contests.ts';
import { type Example, writeExamples, writeLines } from './examples.ts';
import { titleOf } from './explain.ts';
import { newStanding, ofRoof, race, type Standing, winnerOf } from './halving.ts';
import type { Meter } from './meter.ts';
import { PEAK_PART, startMeter } from './meter.ts';
import { compileObjects } from './objects.ts';
import { median, spread } from './statistics.ts';
import { sweepThresholds, thresholdsLeft } from './thresholds.ts';
import { finals } from './tokens.ts';

/** Compiling and checking may take this part of a contest's time. */
const PREPARING = 0.5;
/** Bytes that a pass reads: so many times the last-level cache, and at least. */
const ARENA = { caches: 4, least: 64 << 20 } as const;

/** What a sweep is asked for. */
export interface Request {
  readonly shape: ModelShape;
  readonly cpu: CpuProfile;
  readonly compiler: Compiler;
  readonly phases: readonly Phase[];
  readonly threads: readonly number[];
  /** For everything: compiling, checking, measuring. */
  readonly seconds: number;
  /** What is known: phases that take the packing of an earlier one look here. */
  readonly wisdom?: Wisdom;
  /** Has this been measured before? It is left out then. */
  readonly isKnown?: (contest: Contest, threads: number) => boolean;
  readonly isThresholdKnown?: (phase: Phase, threads: number) => boolean;
  /** The C text of a kernel; tests plant bugs here. */
  readonly textOf?: (spec: KernelSpec) => string;
  readonly onProgress: (progress: Progress) => void;
  /** Called with what the user should know. */
  readonly onNote?: (note: string) => void;
  readonly signal: AbortSignal;
}

/** Where a sweep is. */
export interface Progress {
  readonly what: 'compiling' | 'checking' | 'timing' | 'building' | 'whole tokens' | 'thresholds';
  /** Of the contest, or the phase. */
  readonly title: string;
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

/** State of a sweep that all its contests share. */
interface Workshop {
  readonly request: Request;
  readonly meter: Meter;
  readonly folder: string;
  /** Index of each packing's arena, from when it is needed. */
  readonly arenas: Map<Packing, Promise<number>>;
  readonly examples: Map<string, Promise<Example[]>>;
  readonly until: number;
}

/** Part of the time that the final choices get, where the contests that lead to them get one. */
const FINAL = 1 / 3;
/** Part of all the time that thresholds get. */
const THRESHOLDS = 1 / 5;

const coldBytes = (cpu: CpuProfile) => Math.max(ARENA.caches * cpu.cache.l3, ARENA.least);

/** Progress of what is measured in whole tokens. */
const inTokens =
  ({ onProgress }: Request, until: number) =>
  (what: Progress['what'], title: Phase, done: number, total: number) =>
    onProgress({ what, title, done, total, ofRoof: 0, secondsLeft: secondsLeft(until) });

/**
 * Measures the kernels of every distinct matrix, then whole tokens; and where zeros are skipped, up to which share of live neurons. What
 * is found out comes as it is known.
 * @throws CompileError, LibraryError; AbortError after the last entry
 */
export async function* sweep(request: Request): AsyncGenerator<Partial<Wisdom>> {
  const until = performance.now() + 1000 * request.seconds;
  const left = thresholdsLeft(request);
  let wisdom = request.wisdom ?? nothing;
  const seconds = request.seconds * (left.length ? 1 - THRESHOLDS : 1);
  for await (const found of sweepKernels({ ...request, seconds })) {
    yield found;
    wisdom = merge(wisdom, { ...nothing, ...found });
  }
  const folder = temporaryFolder('tune');
  try {
    const paths = { folder, cold: coldBytes(request.cpu), onProgress: inTokens(request, until) };
    yield* sweepThresholds({ ...request, ...paths, wisdom, left, until });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function* sweepKernels(request: Request): AsyncGenerator<Partial<Wisdom>> {
  const { shape, cpu, compiler, signal, phases } = request;
  const until = performance.now() + 1000 * request.seconds;
  const unmeasured = inTiles(shape, cpu);
  /** For several tokens, by number of threads. */
  const plans = new Map<number, Plan>();
  const all = contestsOf(unmeasured, phases);
  const open = all.flatMap((contest) => {
    const threads = request.threads.filter((count) => !request.isKnown?.(contest, count));
    return threads.length ? [{ contest, threads }] : [];
  });
  if (!open.length) return;
  const largest = Math.max(
    ...open.flatMap(({ contest: { n, k } }) => packingsFor(isaOf(cpu.isa)).map((p) => bytesOf(p, n, k))),
  );
  const cold = coldBytes(cpu);
  const folder = temporaryFolder('tune');
  let wisdom = request.wisdom ?? nothing;
  const counts = new Set(open.flatMap(({ threads }) => threads));
  const contests = open.reduce((sum, { threads }) => sum + threads.length, 0);
  const final = (FINAL * contests) / (counts.size * phases.length);
  let left = (1 + FINAL) * contests;
  const share = (count: number) => performance.now() + (Math.max(0, until - performance.now()) * count) / left;
  let meter: Meter | undefined;
  try {
    meter = await startMeter(shape, cpu, compiler, Math.max(cold, 2 * largest), signal);
    const shop: Workshop = { request, meter, folder, arenas: new Map(), examples: new Map(), until };
    for (const { contest, threads } of open) {
      const prepared = new Map<string, Awaited<ReturnType<typeof prepare>>>();
      for (const [i, count] of threads.entries()) {
        if (contest.phase !== 'decode' && !plans.has(count)) plans.set(count, planInPackings(request, wisdom, count));
        const { matrices } = contest.phase === 'decode' ? unmeasured : plans.get(count)!;
        const preferred = kernelOf(matrices[contest.slot], contest, count);
        if (!preferred) {
          left--;
          continue;
        }
        const name = format(preferred);
        if (!prepared.has(name)) {
          const field = fieldOf(cpu, contest, preferred);
          prepared.set(name, await prepare(shop, contest, field, share((threads.length - i) * PREPARING)));
        }
        const entry = await measure(shop, contest, prepared.get(name)!, name, count, share(1));
        yield { entries: [entry] };
        signal.throwIfAborted();
        wisdom = merge(wisdom, { ...nothing, entries: [entry] });
        left--;
      }
    }
    await meter.close();
    meter = undefined;
    for (const threads of counts) {
      const found = counting(wisdom.entries, cpu, compiler).filter(({ key }) => key.threads === threads);
      const entries = all.flatMap((contest) => found.find(({ key }) => isAbout(key, contest)) ?? []);
      const last = {
        ...{ shape, cpu, compiler, threads, cold, folder, signal },
        until: () => share(final),
        onProgress: inTokens(request, until),
      };
      for await (const entry of finals({ ...last, entries })) yield { tokens: [entry] };
      left -= final * phases.length;
    }
  } finally {
    await meter?.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** The plan without measurements, but in the packings that decoding decided on. */
function planInPackings({ shape, cpu, compiler }: Request, wisdom: Wisdom, threads: number): Plan {
  const { matrices } = inTiles(shape, cpu, { advice: adviceFor(cpu, compiler, { shape, threads, wisdom: [wisdom] }) });
  const packing = Object.fromEntries(problems(shape).map(({ slots: [slot] }) => [slot!, matrices[slot!].packing]));
  return inTiles(shape, cpu, { packing });
}

/** Compiles and checks a field. */
async function prepare(shop: Workshop, contest: Contest, field: Field, until: number) {
  const { request, folder, meter, examples } = shop;
  const { n, k, tokens } = contest;
  const { cpu, compiler, signal, textOf = (spec: KernelSpec) => kernelSource(spec).text } = request;
  const isa = isaOf(cpu.isa);
  const title = titleOf(contest);
  const report = (what: Progress['what'], done: number, total: number) =>
    request.onProgress({ what, title, done, total, ofRoof: 0, secondsLeft: secondsLeft(shop.until) });
  const specs = new Map(
    field.candidates.flatMap(({ parts }) => Object.values(parts).map((spec) => [format(spec), spec] as const)),
  );
  const sources = [...specs].map(([name, spec]) => ({ name, text: () => textOf(spec) }));
  const objects = await compileObjects(sources, cpu, compiler, {
    until,
    signal,
    onProgress: (done, total) => report('compiling', done, total),
  });
  const exact: Loaded[] = [];
  const inexact: { kernel: string; problem: string }[] = [];
  const compiled = field.candidates.filter(({ parts }) => Object.values(parts).every((s) => objects.has(format(s))));
  for (const [i, candidate] of compiled.entries()) {
    const verdict = await admit(candidate);
    if (typeof verdict === 'number') exact.push({ ...candidate, kernel: verdict });
    else inexact.push({ kernel: candidate.name, problem: verdict });
    report('checking', i + 1, compiled.length);
  }

  async function admit({ packing: p, parts, tables }: Candidate): Promise<number | string> {
    const loaded: { member: string; name: string; file: string }[] = [];
    for (const [member, spec] of Object.entries(parts)) {
      const object = objects.get(format(spec))!;
      if ('problem' in object) return object.problem;
      loaded.push({ member, name: format(spec), file: object.file });
    }
    const kernel = await meter.addKernel({
      packing: await arenaOf(shop, p),
      tokens,
      scratch: scratchBytes(p, isa, tables),
      numbers: { ...matrixNumbers(p, n, k, isa, tables), gemm_tokens: parts.gemm?.tile[0] ?? 0 },
      parts: loaded,
    });
    if (typeof kernel === 'string') return kernel;
    const key = `${p.token} ${k}`;
    if (!examples.has(key)) examples.set(key, writeExamples(p, k, folder));
    for (const example of await examples.get(key)!) {
      const problem = await meter.gate(kernel, example);
      if (problem) return `${example.name}: ${problem}`;
    }
    return kernel;
  }
  if (!exact.length)
    throw new CompileError(
      `no exact kernel for ${n} x ${k} (${inexact[0]?.kernel}: ${inexact[0]?.problem}); the compiler '${compiler.label}' may be broken: try another with --cc`,
    );
  return { field, exact, inexact };
}

const secondsLeft = (until: number) => (until - performance.now()) / 1000;

/** The arena of a packing, filled when it is first asked for. */
function arenaOf({ arenas, meter, folder }: Workshop, p: Packing): Promise<number> {
  let arena = arenas.get(p);
  if (!arena) {
    arena = writeLines(p, folder).then((file) => meter.addPacking(p.lineBytes, file));
    arenas.set(p, arena);
  }
  return arena;
}

/** Races the exact kernels of a contest; an interruption ends it with what is known, if that is anything. */
async function measure(
  shop: Workshop,
  contest: Contest,
  prepared: Awaited<ReturnType<typeof prepare>>,
  preferred: string,
  threads: number,
  until: number,
): Promise<TuningEntry> {
  const { request, meter } = shop;
  const { phase, tokens, n, k } = contest;
  const { field, inexact } = prepared;
  const exact = prepared.exact.filter(({ tables, packing }) => !tables || sharesTables(packing, n, threads));
  const standing = newStanding(exact.length);
  const smallest = exact.reduce((best, c) => (c.bytes < best.bytes ? c : best));
  const read = await arenaOf(shop, smallest.packing);
  // What limits several tokens is also arithmetic: that of the families that take part.
  const peaks = tokens === 1 ? [] : meter.peaks.filter(({ name }) => name === 'dots' || exact.some((c) => c.tables));
  const reads: number[] = [];
  const rates: number[] = [];
  const contestants = {
    count: exact.length,
    until,
    time: async (who: readonly number[], rounds: number) => {
      const items = [
        ...who.map((i) => ({ kernel: exact[i]!.kernel })),
        { read },
        ...peaks.map(({ name }) => ({ peak: name })),
      ];
      const times = await meter.time(threads, rounds, items);
      const roof = times.map((row) => {
        const seconds = row.slice(who.length);
        const reading = (seconds.shift()! * smallest.bytes) / meter.arenaBytes;
        const rate = Math.max(0, ...peaks.map((p, i) => (threads * p.multiplyAdds * PEAK_PART) / seconds[i]!));
        reads.push(reading);
        if (rate) rates.push(rate);
        return Math.max(reading, rate ? (tokens * n * k) / rate : 0);
      });
      return { seconds: times.map((row) => row.slice(0, who.length)), roof };
    },
    onProgress: (out: number, _: number, share: number) =>
      request.onProgress({
        what: 'timing',
        title: titleOf(contest),
        done: out,
        total: exact.length,
        ofRoof: share,
        secondsLeft: secondsLeft(shop.until),
      }),
  };
  const finished = await race(contestants, standing).then(
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
      const { kernel, packing: p, tables, spec } = exact[i]!;
      if (tables) continue;
      const tile = await meter.cached(kernel, request.cpu.cache.l2 / 2);
      cached.set(i, (tile * tilesOf(p, n) * tokens) / spec.tile[0]!);
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
    key: { ...here(request.cpu, request.compiler, phase, threads), tokens, n, k },
    kernel: exact[winner]!.name,
    why: reason(standing, winner, fastest),
    finished,
    read_rate: smallest.bytes / median(reads),
    ...(rates.length ? { peak_rate: median(rates) } : {}),
    default_kernel: preferred,
    candidates,
    inexact,
    untried: field.candidates.length - prepared.exact.length - inexact.length,
    refused: field.refused,
    hopeless: field.hopeless,
  };
}

/** Why the winner was chosen, for people. */
function reason({ samples, atRoof }: Standing, winner: number, fastest: number): string {
  const behind = median(samples[winner]!) / median(samples[fastest]!) - 1;
  const how =
    winner === fastest
      ? 'the fastest of all that were measured'
      : `first in order of preference among those that are not measurably slower than the fastest (by ${(100 * behind).toFixed(1)} %)`;
  return atRoof ? `${how}; the search ended early, at the roof` : how;
}
