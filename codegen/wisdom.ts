/**
 * What has been measured on this machine (wisdom): a JSON file in the user's cache, in the form of schemas/tuning.schema.json.
 * An entry counts only where CPU, features, compiler and generator are those it was measured with.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { PlanError } from '../schemas/error.ts';
import { cacheRoot, version } from '../schemas/files.ts';
import { hostCpu } from '../schemas/host.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { validate } from '../schemas/validate.ts';
import type { Compiler } from './compile.ts';

/** The circumstances of a measurement. */
export interface TuningKey {
  readonly cpu: string;
  readonly features: readonly string[];
  readonly compiler: string;
  readonly generator: string;
  /** `decode` or `prompt`. */
  readonly op: string;
  readonly n: number;
  readonly k: number;
  readonly threads: number;
}

/** The fastest kernel of one problem. */
export interface TuningEntry {
  readonly key: TuningKey;
  /** Name of the fastest kernel. */
  readonly kernel: string;
  /** Median seconds of one pass over the matrix, and of a plain read of the same bytes in the same run. */
  readonly seconds: number;
  readonly read_seconds: number;
  readonly rounds: number;
}

/** The document in the cache (schemas/tuning.schema.json). */
export interface Wisdom {
  readonly version: 1;
  readonly entries: readonly TuningEntry[];
}

/** Where wisdom is kept. */
export const wisdomFile = (): string => path.join(cacheRoot(), 'wisdom.json');

/** Key of a measurement on this machine. */
export const keyOf = (
  cpu: CpuProfile,
  compiler: Compiler,
  op: string,
  n: number,
  k: number,
  threads: number,
): TuningKey => ({
  cpu: hostCpu(),
  features: cpu.features,
  compiler: compiler.version,
  generator: version,
  op,
  n,
  k,
  threads,
});

/** @throws PlanError when the file is damaged */
export function readWisdom(file = wisdomFile()): Wisdom {
  if (!existsSync(file)) return { version: 1, entries: [] };
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

const same = (a: TuningKey, b: TuningKey) => JSON.stringify(a) === JSON.stringify(b);

/** Adds entries; a new measurement replaces one with the same key. */
export function addWisdom(entries: readonly TuningEntry[], file = wisdomFile()): Wisdom {
  const kept = readWisdom(file).entries.filter((old) => !entries.some((entry) => same(entry.key, old.key)));
  const wisdom: Wisdom = { version: 1, entries: [...kept, ...entries] };
  mkdirSync(path.dirname(file), { recursive: true });
  const aside = `${file}.${process.pid}`;
  writeFileSync(aside, `${JSON.stringify(wisdom, null, 2)}\n`);
  renameSync(aside, file);
  return wisdom;
}

/** Name of the kernel that was fastest for a matrix, on the most threads that were measured. */
export type Advice = (op: string, n: number, k: number) => string | undefined;

/** Advice for builds by this compiler for this CPU. */
export function adviceFor(cpu: CpuProfile, compiler: Compiler, wisdom: Wisdom = readWisdom()): Advice {
  return (op, n, k) =>
    wisdom.entries
      .filter((e) => same(e.key, keyOf(cpu, compiler, op, n, k, e.key.threads)))
      .sort((a, b) => b.key.threads - a.key.threads)[0]?.kernel;
}
