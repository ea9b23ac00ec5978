/**
 * What has been measured (wisdom): a JSON file in the user's cache, in the form of schemas/tuning.schema.json, and those that are
 * shipped in schemas/wisdom. An entry counts only where CPU, features, caches, compiler and generator are those it was measured
 * with; whoever asks for advice is told what does not count, and why.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { writeWhole } from '../schemas/aside.ts';
import { PlanError } from '../schemas/error.ts';
import { cacheRoot, packageRoot } from '../schemas/files.ts';
import { cpuName, hostBrand, hostId } from '../schemas/host.ts';
import { makeFolder, readTrusted } from '../schemas/trust.ts';
import type { CpuId, CpuProfile, ModelShape } from '../schemas/types.ts';
import { validate } from '../schemas/validate.ts';
import type { Compiler } from './compile.ts';
import { fingerprint, skippingFingerprint } from './fingerprint.ts';
import { layerSlots } from './graph.ts';
import type { MostLive } from './plan.ts';

/** The phases of inference that are tuned: one token; a few at once; many, of a prompt. */
export const phases = ['decode', 'batch', 'prefill'] as const;
export type Phase = (typeof phases)[number];

/** The circumstances of any measurement. */
export interface Circumstances {
  /** A string is the brand of a CPU that is known by nothing else: of files of version 3, and where the system tells no more. */
  readonly cpu: CpuId | string;
  readonly features: readonly string[];
  readonly caches: { readonly l1: number; readonly l2: number; readonly l3: number };
  /** Version line of the compiler. */
  readonly compiler: string;
  /** Hash of what determines the texts of the phase's kernels (fingerprint.ts). */
  readonly generator: string;
  readonly phase: Phase;
  readonly threads: number;
}

/** What was measured: y[tokens][n] = W[n][k] . x[tokens][k]; for prompts, W is all matrices with the same input. */
export interface TuningKey extends Circumstances {
  readonly tokens: number;
  readonly n: number;
  readonly k: number;
}

/** Seconds, median and quartiles over so many rounds. */
export interface Timed {
  readonly seconds: number;
  readonly low: number;
  readonly high: number;
  readonly rounds: number;
}

/** What one kernel took for a pass over the matrix. */
export interface TuningSample extends Timed {
  readonly kernel: string;
  /** Time of the roof (see TuningEntry) over this kernel's, median of the same rounds. */
  readonly roof: number;
  /** A pass while the weights stay in the caches, one thread: what arithmetic allows. */
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
  /** Several tokens: most multiply-adds a second of any family's innermost step on registers. The roof is the slower of both. */
  readonly peak_rate?: number;
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

/** Kernels for all matrices of a layer, by `NxK`, and what whole tokens took with them. */
export interface TokenSample extends Timed {
  readonly name: string;
  readonly kernels: Readonly<Record<string, string>>;
}

/** The final choice of a phase: whole tokens through layers of a shape, with sets of kernels in turn. */
export interface TokenEntry {
  readonly key: Circumstances & { readonly matrices: string; readonly tokens: number };
  /** Name of the set that was chosen, and why. */
  readonly chosen: string;
  readonly why: string;
  /** What the plan takes without measurements first. */
  readonly sets: readonly TokenSample[];
}

/** Whole tokens by lists of what is live, and with everything read: from which share of live neurons on the lists do not pay. */
export interface ThresholdEntry {
  /** `generator`: also of the kernels that skip zeros; `packing`: of `up`, whose rows are skipped. */
  readonly key: TokenEntry['key'] & { readonly packing: string };
  /** Percent. */
  readonly most_live: number;
  /** By rising share: of neurons, mean of the rows of `up` and the columns of `down`. Median seconds. */
  readonly shares: readonly {
    readonly live: number;
    readonly listed: number;
    readonly whole: number;
    readonly rounds: number;
  }[];
}

/** The document (schemas/tuning.schema.json). */
export interface Wisdom {
  readonly version: 4;
  readonly entries: readonly TuningEntry[];
  readonly tokens: readonly TokenEntry[];
  readonly thresholds: readonly ThresholdEntry[];
}

/** Wisdom about nothing. */
export const nothing: Wisdom = { version: 4, entries: [], tokens: [], thresholds: [] };

/** Where the user's wisdom is kept. */
export const wisdomFile = (): string => path.join(cacheRoot(), 'wisdom.json');

/** This machine's CPU. */
const hostKey = (): CpuId | string => hostId() ?? hostBrand();
/** A CPU of a key, for people. */
export const keyName = (cpu: CpuId | string): string => (typeof cpu === 'string' ? `'${cpu}'` : cpuName(cpu));

/**
 * The CPU that a file of version 3 names by its brand: this one, where the brands are equal and name one product (by a number like
 * 7950X, 8481C, 9R14). `AMD EPYC` and `Intel(R) Xeon(R) Processor @ 2.10GHz`, as in virtual machines, are several, and stay as they are.
 */
export const cpuOfBrand = (brand: string, host = hostBrand(), id = hostId()): CpuId | string =>
  id && brand === host && /\b[a-z]*(?:\d[a-z]*){3,}\b/i.test(brand.replace(/@.*/, '')) ? id : brand;

/** Circumstances on this machine. */
export const here = (cpu: CpuProfile, compiler: Compiler, phase: Phase, threads: number): Circumstances => ({
  cpu: hostKey(),
  features: cpu.features,
  caches: cpu.cache,
  compiler: compiler.version,
  generator: fingerprint(cpu, phase),
  phase,
  threads,
});

/** @throws PlanError when the file is damaged, or of another version */
export function readWisdom(file = wisdomFile()): Wisdom {
  if (!existsSync(file)) return nothing;
  const text = file === wisdomFile() ? readTrusted(file) : readFileSync(file);
  if (!text) throw new PlanError(`wisdom '${file}' is not a file; remove it or restore it`);
  let document: unknown;
  try {
    document = JSON.parse(`${text}`);
  } catch (error) {
    throw new PlanError(`wisdom '${file}' is not JSON: ${(error as Error).message}; delete it or restore it`);
  }
  const version = (document as { version?: unknown } | null)?.version;
  if (version !== undefined && version !== 3 && version !== nothing.version)
    throw new PlanError(
      `wisdom '${file}' is of version ${version}, and this program knows versions 3 and ${nothing.version}; delete it or restore it`,
    );
  // Files of version 3 name a CPU by its brand, and older ones among them know nothing of thresholds.
  const whole = version === 3 ? { thresholds: [], ...(document as object), version: nothing.version } : document;
  const problem = validate('tuning', whole);
  if (problem) throw new PlanError(`wisdom '${file}': ${problem}; delete it or restore it`);
  return version === 3 ? withIds(whole as Wisdom) : (whole as Wisdom);
}

/** Brands become CPUs where they tell which. @param identify the CPU of a brand */
export function withIds(wisdom: Wisdom, identify: (brand: string) => CpuId | string = cpuOfBrand): Wisdom {
  const identified = <T extends Keyed<Circumstances>>(entry: T): T => {
    const { cpu } = entry.key;
    return { ...entry, key: { ...entry.key, cpu: typeof cpu === 'string' ? identify(cpu) : cpu } };
  };
  return {
    ...wisdom,
    entries: wisdom.entries.map(identified),
    tokens: wisdom.tokens.map(identified),
    thresholds: wisdom.thresholds.map(identified),
  };
}

/** The wisdom that ships with the package: tests hold it against its schema, which takes longer than all else at a start. */
export function shippedWisdom(): Wisdom {
  const folder = path.join(packageRoot, 'schemas', 'wisdom');
  if (!existsSync(folder)) return nothing;
  return readdirSync(folder)
    .sort()
    .map((name): Wisdom => JSON.parse(readFileSync(path.join(folder, name), 'utf8')))
    .reduce(merge, nothing);
}

interface Keyed<K = object> {
  readonly key: K;
}
const same = (a: object, b: object) => JSON.stringify(a) === JSON.stringify(b);

/** Both lists, the later of two with the same key where `prefers` does not say otherwise. */
function joined<T extends Keyed>(a: readonly T[], b: readonly T[], prefers: (old: T, other: T) => boolean): T[] {
  const kept = a.filter((old) => {
    const other = b.find((entry) => same(entry.key, old.key));
    return !other || prefers(old, other);
  });
  return [...kept, ...b.filter((entry) => !kept.some((old) => same(old.key, entry.key)))];
}

/** Was a final choice made between the kernels that an entry speaks of? */
function isBetween({ key }: TokenEntry, entry: TuningEntry): boolean {
  const { matrices: _, ...own } = key;
  const { n: __, k: ___, ...other } = entry.key;
  return same(own, other);
}

/**
 * Both, the later of two entries with the same key; an unfinished one gives way to a finished one. A final choice goes when its
 * kernels are measured anew.
 */
export const merge = (a: Wisdom, b: Wisdom): Wisdom => ({
  version: 4,
  entries: joined(a.entries, b.entries, (old, other) => old.finished && !other.finished),
  tokens: joined(
    a.tokens.filter((choice) => !b.entries.some((entry) => isBetween(choice, entry))),
    b.tokens,
    () => false,
  ),
  thresholds: joined(a.thresholds, b.thresholds, () => false),
});

/** What is worth passing on: of each entry the kernel that was chosen, the plan's own and the fastest few. */
export const brief = (wisdom: Wisdom, few: number): Wisdom => ({
  ...wisdom,
  entries: wisdom.entries.map((entry) => ({
    ...entry,
    candidates: entry.candidates.filter(
      ({ kernel }, i) => i < few || kernel === entry.kernel || kernel === entry.default_kernel,
    ),
  })),
});

/** Writes a document at once or not at all. @throws LibraryError; the system's error */
export function writeWisdom(wisdom: Wisdom, file = wisdomFile()): void {
  if (file === wisdomFile()) makeFolder(path.dirname(file));
  writeWhole(file, `${JSON.stringify(wisdom, null, 2)}\n`);
}

/** Adds to the user's wisdom. */
export const addWisdom = (more: Partial<Wisdom>, file = wisdomFile()): void =>
  writeWisdom(merge(readWisdom(file), { ...nothing, ...more }), file);

/** Was it measured on a CPU like this one? */
const isHere = ({ cpu }: Circumstances): boolean => same([cpu], [hostKey()]);

/** Why something measured does not count for builds by this compiler for this CPU: the first circumstance that differs. */
export function foreign(
  key: Circumstances,
  cpu: CpuProfile,
  compiler: Compiler,
  generator = fingerprint(cpu, key.phase),
): string | undefined {
  if (!isHere(key))
    return key.cpu === hostBrand()
      ? `measured on a CPU of which only the name '${key.cpu}' is known, and several have it`
      : `measured on ${keyName(key.cpu)}, this is ${keyName(hostKey())}`;
  if (`${key.features}` !== `${cpu.features}`) return 'measured with other CPU features';
  if (!same(key.caches, cpu.cache)) return 'measured with other caches';
  if (key.compiler !== compiler.version) return `measured with '${key.compiler}', this is '${compiler.version}'`;
  if (key.generator !== generator) return 'measured with other kernels than this version generates';
  return undefined;
}

/** Those that count for builds by this compiler for this CPU. */
export const counting = <T extends { readonly key: Circumstances }>(
  entries: readonly T[],
  cpu: CpuProfile,
  compiler: Compiler,
): T[] => entries.filter(({ key }) => !foreign(key, cpu, compiler));

/** The same of thresholds. */
export const countingThresholds = (
  thresholds: readonly ThresholdEntry[],
  cpu: CpuProfile,
  compiler: Compiler,
): ThresholdEntry[] =>
  thresholds.filter(({ key }) => !foreign(key, cpu, compiler, skippingFingerprint(cpu, key.phase)));

/** The matrices of a layer, for a key. */
export const matricesOf = (shape: ModelShape): string =>
  layerSlots(shape)
    .filter(({ kind }) => kind === 'ternary')
    .map(({ rows, cols }) => `${rows}x${cols}`)
    .join(' ');

/** What was measured, for plans. */
export interface Advice {
  /** Name of the kernel chosen for so many tokens and a matrix; undefined when nothing counts. */
  kernel(phase: Phase, tokens: number, n: number, k: number): string | undefined;
  /** Percent of the neurons that may be live, of the phases for which it was measured with this packing of `up`. */
  mostLive(packing: string): Partial<MostLive>;
  /** What the user's wisdom has about these matrices that does not count, in one line; undefined when there is no such thing. */
  ignored(matrices: readonly { readonly n: number; readonly k: number }[]): string | undefined;
}

/** What is asked of wisdom: for which shape and number of threads, and of which documents; the first that knows something counts. */
export interface AdviceOptions {
  readonly shape?: ModelShape | undefined;
  readonly threads?: number | undefined;
  readonly wisdom?: readonly Wisdom[];
}

/**
 * Advice for builds by this compiler for this CPU: of the user's own wisdom, then of the shipped; of what was measured on as many
 * threads, or else on the most. Where whole tokens were measured, the set that they chose.
 */
export function adviceFor(cpu: CpuProfile, compiler: Compiler, options: AdviceOptions = {}): Advice {
  const { shape, threads, wisdom = [readWisdom(), shippedWisdom()] } = options;
  const nearestOf = <T extends { readonly key: Circumstances }>(entries: readonly T[]): T | undefined =>
    [...entries].sort(
      (a, b) => Number(b.key.threads === threads) - Number(a.key.threads === threads) || b.key.threads - a.key.threads,
    )[0];
  const nearest = <T extends { readonly key: Circumstances }>(entries: readonly T[]): T | undefined =>
    nearestOf(counting(entries, cpu, compiler));
  const kernelIn = ({ entries, tokens }: Wisdom, phase: Phase, count: number, n: number, k: number) => {
    const entry = nearest(
      entries.filter(({ key }) => key.phase === phase && key.tokens === count && key.n === n && key.k === k),
    );
    const token =
      shape &&
      nearest(
        tokens.filter(({ key }) => key.phase === phase && key.tokens === count && key.matrices === matricesOf(shape)),
      );
    if (!token || (entry && token.key.threads !== entry.key.threads)) return entry?.kernel;
    return token.sets.find(({ name }) => name === token.chosen)!.kernels[`${n}x${k}`];
  };
  return {
    kernel: (...what) => wisdom.map((document) => kernelIn(document, ...what)).find((kernel) => kernel !== undefined),
    mostLive: (packing) => {
      const found = phases.flatMap((phase) => {
        const isIt = ({ key }: ThresholdEntry) =>
          key.phase === phase && key.packing === packing && shape && key.matrices === matricesOf(shape);
        const entry = wisdom
          .map(({ thresholds }) => nearestOf(countingThresholds(thresholds.filter(isIt), cpu, compiler)))
          .find((known) => known);
        return entry ? [[phase, entry.most_live] as const] : [];
      });
      return Object.fromEntries(found);
    },
    ignored: (matrices) => {
      const useless = matrices
        .map(({ n, k }) => wisdom[0]!.entries.filter(({ key }) => key.n === n && key.k === k))
        .filter((entries) => entries.length > 0 && !counting(entries, cpu, compiler).length);
      // Of this very CPU first: merged files also speak of others.
      const [closest] = useless.flat().sort((a, b) => Number(isHere(b.key)) - Number(isHere(a.key)));
      if (!closest) return undefined;
      const why = foreign(closest.key, cpu, compiler);
      return `what was tuned for ${useless.length} of ${matrices.length} matrices is ignored: ${why}; run bitnet-tune again`;
    },
  };
}
