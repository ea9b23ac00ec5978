/**
 * What the tests of the whole engine share: the targets of this machine, compiled libraries for model shapes, the driver
 * program (natively or under an emulator), packed weights, and a cache folder of their own.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { ensureBuilt } from '../codegen/build.ts';
import { findCompiler } from '../codegen/compile.ts';
import { missingFeatures, profileOf } from '../codegen/cpu.ts';
import { isaOf, isas } from '../codegen/isa/index.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { Engine, type EngineOptions } from '../runtime/engine.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import { type Library, openLibrary } from '../runtime/library.ts';
import type { KvBits } from '../runtime/memory.ts';
import { openWeights } from '../runtime/weights.ts';
import { LibraryError } from '../schemas/error.ts';
import { hostFeatures } from '../schemas/host.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';
import { skip } from './fixtures.ts';
import { sharedRoot } from './setup.ts';
import { isLong } from './tier.ts';
import { smallShape } from './write-model.ts';

export const demo = path.join(import.meta.dirname, '../models/demo');

/** A packing's token for all matrices, or one for each. */
type Packing = string | Readonly<Record<string, string>>;

/** Names of all targets, and of those that this machine runs, best first. */
export const targets: readonly string[] = Object.keys(isas);
export const nativeTargets: readonly string[] = Object.values<Isa>(isas)
  .filter((isa) => missingFeatures(isa).length === 0)
  .map((isa) => isa.name);
export const bestTarget = nativeTargets[0]!;

/** Builds outlive the tests, as objects do (setup.ts): they are keyed by content, and compiling is what takes the time. */
export const buildsRoot = path.join(sharedRoot, 'builds');

/**
 * Gives the tests of the enclosing suite a cache of their own (XDG_CACHE_HOME), whose builds are the shared ones.
 * @returns a function that tells a temporary folder, beside the cache and removed with it
 */
export function useCache(): () => string {
  let folder = '';
  let before_: string | undefined;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-test-'));
    mkdirSync(path.join(folder, 'bitnet-gen'));
    for (const name of ['builds', 'requests']) {
      mkdirSync(path.join(sharedRoot, name), { recursive: true });
      symlinkSync(path.join(sharedRoot, name), path.join(folder, 'bitnet-gen', name));
    }
    before_ = process.env.XDG_CACHE_HOME;
    process.env.XDG_CACHE_HOME = folder;
  });
  after(() => {
    if (before_ === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before_;
    rmSync(folder, { recursive: true, force: true });
  });
  return () => folder;
}

const once = <K, V>(make: (key: K) => V): ((key: K) => V) => {
  const made = new Map<K, V>();
  return (key) => {
    if (!made.has(key)) made.set(key, make(key));
    return made.get(key)!;
  };
};

/** The profile of a target, with those optional features that this machine has. */
export const profileHere = (target: string): CpuProfile => {
  const cpu = profileOf(target);
  const { optional } = isaOf(cpu.isa);
  return { ...cpu, features: [...cpu.features, ...optional.filter((f) => hostFeatures().has(f))] };
};

export type Built = Awaited<ReturnType<typeof ensureBuilt>>;

interface Asked {
  readonly shape: ModelShape;
  readonly target: string;
  readonly extra?: readonly string[];
  readonly cc?: string;
  readonly packing?: Packing;
  readonly sparse?: boolean;
  readonly kernel?: readonly string[];
}

/** The library for a shape, in any folder of builds. */
export function buildIn(
  root: string,
  { shape, target, extra = [], cc, ...plan }: Asked,
  onNote?: (note: string) => void,
): Promise<Built> {
  const cpu = profileHere(target);
  // Unrolled code without vectors takes clang ten times as long with the usual -O3, other code twice. The last option counts.
  const flags = [...(isaOf(cpu.isa).lanes === 1 ? ['-O0'] : isLong ? [] : ['-O1']), ...extra];
  return ensureBuilt(shape, cpu, {
    root,
    ...(cc ? { cc } : {}),
    extra: flags,
    ...plan,
    ...(onNote ? { onNote } : {}),
  });
}

const buildOf = once((key: string): Promise<Built> => buildIn(buildsRoot, JSON.parse(key)));

/**
 * The library for a shape. Name and number of positions are replaced by constants: the code does not depend on them, but its
 * comments do, and models that differ in nothing else shall share one build.
 */
export const buildFor = (
  shape: ModelShape,
  target: string,
  options: {
    extra?: readonly string[];
    cc?: string;
    packing?: Packing | undefined;
    sparse?: boolean | undefined;
    kernel?: readonly string[] | undefined;
  } = {},
): Promise<Built> => buildOf(JSON.stringify({ shape: { ...shape, name: 'test', context: 4096 }, target, ...options }));

const libraryOf = once((file: string): Promise<Library> => openLibrary(file));

/** The library of a build, loaded. */
export const libraryFor = (built: Built): Promise<Library> => libraryOf(built.library);

export interface Ready {
  readonly source: ModelSource;
  readonly built: Built;
  readonly library: Library;
  /** The library's number of the opened weights; the engine closes it. */
  readonly model: number;
  /** Path of the packed weights. */
  readonly weights: string;
}

/** A model on disk, built for a native target, packed (once) and opened. @param extra compiler flags */
export async function prepare(
  modelPath: string,
  target = bestTarget,
  extra: readonly string[] = [],
  packing?: Packing,
  sparse?: boolean,
  kernel?: readonly string[],
): Promise<Ready> {
  const source = openModel(modelPath);
  const built = await buildFor(source.shape, target, { extra, packing, sparse, kernel });
  const library = await libraryFor(built);
  const { model, file } = await openWeights(source, built.manifest.layout, library, 2);
  return { source, built, library, model, weights: file };
}

/** The packed weights of a model in the layout of a build for any target; the scalar library, which has all packings, writes them. */
export async function packedFor(modelPath: string, built: Built): Promise<string> {
  const packing = Object.fromEntries(Object.entries(built.manifest.matrices).map(([slot, m]) => [slot, m.packing]));
  const ready = await prepare(modelPath, 'scalar', [], packing);
  ready.library.close(ready.model);
  assert.equal(ready.built.manifest.layout.id, built.manifest.layout.id);
  return ready.weights;
}

/** Runs native-child.ts with an interface. @returns what it measured */
export async function inChild(
  ffi: 'ffi-napi' | 'koffi',
  mode: 'evaluate' | 'calls' | 'objects' | 'idle',
  args: readonly string[],
  input = '',
): Promise<unknown> {
  const script = path.join(import.meta.dirname, 'native-child.ts');
  const child = await execa(process.execPath, [...process.execArgv, script, mode, ...args], {
    input,
    env: { BITNET_FFI: ffi },
  });
  const { interface: used, result } = JSON.parse(child.stdout) as { interface: string; result: unknown };
  assert.equal(used, ffi);
  return result;
}

/** A shape below every tile, whose library compiles and runs fastest. */
export const smallestShape: ModelShape = smallShape({
  hidden: 36,
  heads: 8,
  kvHeads: 2,
  headSize: 20,
  intermediate: 44,
  vocabulary: 77,
});

/** Nothing here is a multiple of a vector or a tile: tails everywhere; SiLU, no sub-norms, a head of its own. */
export const oddShape: ModelShape = smallShape({
  hidden: 308,
  heads: 6,
  kvHeads: 2,
  headSize: 100,
  intermediate: 620,
  vocabulary: 283,
  activation: 'silu',
  subNorms: false,
  tiedEmbedding: false,
  context: 256,
});

/** Runs `use` with an engine for a model on a native target. */
export async function withEngine<T>(
  modelPath: string,
  target: string,
  options: EngineOptions & { readonly extra?: readonly string[]; packing?: Packing; kernel?: readonly string[] },
  use: (engine: Engine) => T | Promise<T>,
): Promise<T> {
  const { source, library, model } = await prepare(
    modelPath,
    target,
    options.extra,
    options.packing,
    undefined,
    options.kernel,
  );
  const engine = new Engine(source, library, model, options);
  try {
    return await use(engine);
  } finally {
    engine.dispose();
  }
}

/** Why a target's programs cannot be run here, or the command before them (empty, or an emulator). */
export const runnerOf = once((target: string): string | readonly string[] => {
  const isa = isaOf(target);
  const missing = missingFeatures(isa);
  if (!missing.length) return [];
  if (isa.family !== 'arm64' || process.arch === 'arm64') return `this machine lacks ${missing.join(', ')}`;
  const command = ['qemu-aarch64', 'qemu-aarch64-static'].find((c) => spawnSync(c, ['--version']).status === 0);
  return command
    ? [command, '-L', '/usr/aarch64-linux-gnu']
    : `this machine lacks ${missing.join(', ')}, and qemu-aarch64`;
});

/** The command before a target's programs; skips the test, saying why, where they cannot be built or run. */
export async function runnerFor(context: Mocha.Context, target: string): Promise<readonly string[]> {
  const runner = runnerOf(target);
  if (typeof runner === 'string') return skip(context, runner);
  try {
    await findCompiler(isaOf(target).family);
  } catch (error) {
    return skip(context, (error as Error).message);
  }
  return runner;
}

export interface DriverOptions {
  readonly threads?: number;
  readonly kv?: KvBits;
  /** Tokens of one call; default: all. */
  readonly chunk?: number;
  /** 0 mapped file, 2 copy in huge pages. */
  readonly pages?: 0 | 2;
  /** 0 exact, 1 fast. */
  readonly head?: 0 | 1;
  /** Instead of all logits this many of the largest of each token, by call: ids (as int32) [tokens][top], logits [tokens][top]. */
  readonly top?: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a build's driver program. @returns logits [tokens, vocabulary] */
export async function drive(
  built: Built,
  runner: readonly string[],
  weights: string,
  tokens: readonly number[],
  { threads = 1, kv = 8, chunk = 0, top = 0, pages = 0, head = 0, env = {} }: DriverOptions = {},
): Promise<Float32Array> {
  const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-driver-'));
  try {
    const input = path.join(folder, 'tokens');
    const output = path.join(folder, 'logits');
    writeFileSync(input, Int32Array.from(tokens));
    const numbers = [threads, kv, chunk, top, pages, head].map(String);
    const [command, ...args] = [...runner, built.driver, weights, input, output, ...numbers];
    const result = await execa(command!, args, { reject: false, env });
    assert.equal(result.exitCode, 0, `driver ended with ${result.exitCode ?? result.signal}: ${result.stderr}`);
    return readFloats(output);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A file of float32 numbers. */
export function readFloats(file: string): Float32Array {
  const bytes = readFileSync(file);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

/** Largest difference of two equally long vectors; NaN when one has a NaN. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

/** Fails unless two vectors have the same bits, naming the first element that differs. */
export function assertSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  const bytes = (v: Float32Array) => Buffer.from(v.buffer, v.byteOffset, v.byteLength);
  if (bytes(actual).equals(bytes(expected))) return;
  assert.equal(actual.length, expected.length, what);
  const at = actual.findIndex((value, i) => !Object.is(value, expected[i]));
  assert.fail(`${what}: element ${at} is ${actual[at]}, not ${expected[at]}`);
}

/** Fails unless a call is refused with the library's own message; a TypeError of the interface would be another class. */
export const refuses = (call: () => unknown, message: RegExp): void =>
  assert.throws(call, (error) => {
    assert.ok(error instanceof LibraryError, String(error));
    assert.match(error.message, message);
    return true;
  });

/** Calls `use` while BITNET_FFI has a value. */
export function withInterface<T>(name: string, use: () => T): T {
  const before = process.env.BITNET_FFI;
  process.env.BITNET_FFI = name;
  try {
    return use();
  } finally {
    if (before === undefined) delete process.env.BITNET_FFI;
    else process.env.BITNET_FFI = before;
  }
}
