/**
 * What has been measured (wisdom): a JSON file in the user's cache, in the form of schemas/tuning.schema.json, and those that are
 * shipped in schemas/wisdom. An entry counts only where CPU, features, caches, compiler and generator are those it was measured
 * with; whoever asks for advice is told what does not count, and why.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { PlanError } from '../schemas/error.ts';
import { cacheRoot, packageRoot } from '../schemas/files.ts';
import { hostCpu } from '../schemas/host.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { validate } from '../schemas/validate.ts';
import type { Compiler } from './compile.ts';
import { fingerprint } from './fingerprint.ts';

/** The phases of inference that are tuned. */
export type Phase = 'decode';

/** The circumstances of a measurement. */
export interface TuningKey {
  readonly cpu: string;
  readonly features: readonly string[];
  readonly caches: { readonly l1: number; readonly l2: number; readonly l3: number };
  /** Version line of the compiler. */
  readonly compiler: string;
  /** Hash of what determines the texts of kernels (fingerprint.ts). */
  readonly generator: string;
  readonly phase: Phase;
  readonly n: number;
  readonly k: number;
  readonly threads: number;
}

/** What one kernel took: seconds of a pass over the matrix, median and quartiles. */
export interface TuningSample {
  readonly kernel: string;
  readonly seconds: number;
  readonly low: number;
  readonly high: number;
  readonly rounds: number;
  /** Time of a plain read of the same bytes over this kernel's, median of the same rounds. */
  readonly roof: number;
  /** The same while the weights stay in the caches, one thread: what arithmetic allows. */
  readonly cached_seconds?: number;
}

/** One problem: the kernel that was chosen, why, and among which. */
export interface TuningEntry {
  readonly key: TuningKey;
  readonly kernel: string;
  readonly why: string;
  /** False when the sweep was interrupted. */
  readonly finished: boolean;
  /** Bytes a second of plain reads by as many threads in the same rounds. */
  readonly read_rate: number;
  /** What the plan takes without measurements. */
  readonly default_kernel: string;
  /** The fastest first. */
  readonly candidates: readonly TuningSample[];
  /** Not timed. */
  readonly inexact: readonly { readonly kernel: string; readonly problem: string }[];
  /** Candidates for which there was no time; that cannot be generated; that the estimate ruled out. */
  readonly untried: number;
  readonly refused: number;
  readonly hopeless: number;
}

/** The document (schemas/tuning.schema.json). */
export interface Wisdom {
  readonly version: 2;
  readonly entries: readonly TuningEntry[];
}

/** Where the user's wisdom is kept. */
export const wisdomFile = (): string => path.join(cacheRoot(), 'wisdom.json');

/** Key of a measurement on this machine. */
export const keyOf = (cpu: CpuProfile, compiler: Compiler, n: number, k: number, threads: number): TuningKey => ({
  cpu: hostCpu(),
  features: cpu.features,
  caches: cpu.cache,
  compiler: compiler.version,
  generator: fingerprint(cpu),
  phase: 'decode',
  n,
  k,
  threads,
});

/** @throws PlanError when the file is damaged, or of another version */
export function readWisdom(file = wisdomFile()): Wisdom {
  if (!existsSync(file)) return { version: 2, entries: [] };
  let document: unknown;
  try {
    document = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new PlanError(`wisdom '${file}' is not JSON: ${(error as Error).message}; delete it or restore it`);
  }
  const problem = validate('tuning', document);
  if (problem) throw new PlanError(`wisdom '${file}': ${problem}; delete it or restore it`);
  return document as Wisdom;
}

/** The wisdom that ships with the package. */
function shipped(): TuningEntry[] {
  const folder = path.join(packageRoot, 'schemas', 'wisdom');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .sort()
    .flatMap((name) => readWisdom(path.join(folder, name)).entries);
}

const same = (a: TuningKey, b: TuningKey) => JSON.stringify(a) === JSON.stringify(b);

/** Both, the later of two entries with the same key; an unfinished one gives way to a finished one. */
export function merge(a: Wisdom, b: Wisdom): Wisdom {
  const stays = (old: TuningEntry) => {
    const other = b.entries.find((entry) => same(entry.key, old.key));
    return !other || (old.finished && !other.finished);
  };
  const kept = a.entries.filter(stays);
  return {
    version: 2,
    entries: [...kept, ...b.entries.filter((entry) => !kept.some((old) => same(old.key, entry.key)))],
  };
}

/** Writes a document at once or not at all. */
export function writeWisdom(wisdom: Wisdom, file = wisdomFile()): void {
  mkdirSync(path.dirname(file), { recursive: true });
  const aside = `${file}.${process.pid}`;
  writeFileSync(aside, `${JSON.stringify(wisdom, null, 2)}\n`);
  renameSync(aside, file);
}

/** Adds entries to the user's wisdom. */
export const addWisdom = (entries: readonly TuningEntry[], file = wisdomFile()): void =>
  writeWisdom(merge(readWisdom(file), { version: 2, entries }), file);

/** What is known about a matrix under exactly these circumstances. */
export const entryFor = (wisdom: Wisdom, key: TuningKey): TuningEntry | undefined =>
  wisdom.entries.find((entry) => same(entry.key, key));

/** Why an entry does not count under a key: the first circumstance that differs. */
function difference(own: TuningKey, entry: TuningKey): string {
  if (own.cpu !== entry.cpu) return `measured on '${entry.cpu}', this is '${own.cpu}'`;
  if (`${own.features}` !== `${entry.features}`) return 'measured with other CPU features';
  if (JSON.stringify(own.caches) !== JSON.stringify(entry.caches)) return 'measured with other caches';
  if (own.compiler !== entry.compiler) return `measured with '${entry.compiler}', this is '${own.compiler}'`;
  return 'measured with other kernels than this version generates';
}

/** Those entries that count for builds by this compiler for this CPU. */
export const counting = (entries: readonly TuningEntry[], cpu: CpuProfile, compiler: Compiler): TuningEntry[] =>
  entries.filter(({ key }) => same(key, keyOf(cpu, compiler, key.n, key.k, key.threads)));

/** What was measured, for plans. */
export interface Advice {
  /** Name of the kernel chosen for a matrix, on the most threads that were measured; undefined when nothing counts. */
  kernel(phase: Phase, n: number, k: number): string | undefined;
  /** What the user's wisdom has about these matrices that does not count, in one line; undefined when there is no such thing. */
  ignored(matrices: readonly { readonly n: number; readonly k: number }[]): string | undefined;
}

/** Advice for builds by this compiler for this CPU: the user's own wisdom first, then the shipped. */
export function adviceFor(cpu: CpuProfile, compiler: Compiler, wisdom: Wisdom = readWisdom()): Advice {
  const about = (entries: readonly TuningEntry[], phase: Phase, n: number, k: number) =>
    entries.filter(({ key }) => key.phase === phase && key.n === n && key.k === k);
  const most = (entries: readonly TuningEntry[]) =>
    counting(entries, cpu, compiler).sort((a, b) => b.key.threads - a.key.threads)[0]?.kernel;
  return {
    kernel: (phase, n, k) => most(about(wisdom.entries, phase, n, k)) ?? most(about(shipped(), phase, n, k)),
    ignored: (matrices) => {
      const useless = matrices
        .map(({ n, k }) => about(wisdom.entries, 'decode', n, k))
        .filter((entries) => entries.length > 0 && !counting(entries, cpu, compiler).length);
      // Of this very CPU first: merged files also speak of others.
      const [nearest] = useless
        .flat()
        .sort((a, b) => Number(b.key.cpu === hostCpu()) - Number(a.key.cpu === hostCpu()));
      if (!nearest) return undefined;
      const { n, k, threads } = nearest.key;
      const why = difference(keyOf(cpu, compiler, n, k, threads), nearest.key);
      return `what was tuned for ${useless.length} of ${matrices.length} matrices is ignored: ${why}; run bitnet-tune again`;
    },
  };
}
