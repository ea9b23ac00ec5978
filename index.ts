/**
 * The library's public face, and the place where generator and runtime meet: a model on disk becomes a compiled library, packed
 * weights and an engine.
 *
 *     import { load } from 'bitnet-gen';
 *     const { engine, tokenizer } = await load('path/to/model');
 */
import { existsSync } from 'node:fs';
import { adviceHere, ensureBuilt } from './codegen/build.ts';
import { CLANG_ADVICE, isSlower } from './codegen/compile.ts';
import { missingFeatures, nativeProfile, runnableProfile } from './codegen/cpu.ts';
import { manifestOf } from './codegen/emit.ts';
import { fastBytes } from './codegen/graph.ts';
import { isaOf, isas } from './codegen/isa/index.ts';
import { planOf } from './codegen/plan.ts';
import { Engine, type EngineOptions, engineRules, type HeadMode } from './runtime/engine.ts';
import { type OpenOptions, openModel } from './runtime/formats/open.ts';
import type { ModelSource, TokenizerSource } from './runtime/formats/source.ts';
import type { ModelInfo } from './runtime/info.ts';
import { type Library, openLibrary } from './runtime/library.ts';
import { contextSize, DEFAULT_KV, kvTypes, positionBytes, shortageNote } from './runtime/memory.ts';
import { loadTokenizer, type Tokenizer } from './runtime/tokenizer.ts';
import { openWeights, type PackStep } from './runtime/weights.ts';
import { LibraryError, ModelError } from './schemas/error.ts';
import { demoModel } from './schemas/files.ts';
import { defaultThreads } from './schemas/host.ts';
import {
  abortSignal,
  anyText,
  callback,
  checkAllOptions,
  checkOptions,
  checkValue,
  listOf,
  type Rules,
  yesOrNo,
} from './schemas/options.ts';

export { createSampler, greedy, type Sampler, type SamplerOptions } from './runtime/sampler.ts';
export * from './schemas/error.ts';
export type { CpuProfile, ModelShape } from './schemas/types.ts';
export type { Engine, HeadMode, Library, ModelInfo, ModelSource, Tokenizer };

/** What `target` may be. */
export const targets: readonly string[] = ['native', ...Object.keys(isas)];

/** How a model is opened. */
export interface LoadOptions extends EngineOptions, OpenOptions {
  /** Skip what zeros of squared ReLU let off; default: in large models. The logits are the same. */
  readonly sparse?: boolean;
  /** Packing of all ternary matrices, a token or its beginning (`p2`); default: the plan's choice. */
  readonly packing?: string;
  /** Decode kernels: names, each for the matrices of its size, or an operation for those that are left; default: the plan's choice. */
  readonly kernel?: readonly string[];
  /** false: a tokenizer that cannot be read is noted, and left out; default true. */
  readonly needsTokenizer?: boolean;
  /** Instruction set or `native`. */
  readonly target?: string;
  /** C compiler command. */
  readonly cc?: string;
  /** Progress of compiling, packing, and reading files to see whether they are what was packed. */
  readonly onProgress?: (what: 'compiling' | PackStep, done: number, total: number) => void;
  /** What the user should know: ids that are ignored, measurements that do not count, a kernel that rounds, a damaged cache, too little memory. */
  readonly onNote?: (note: string) => void;
  readonly signal?: AbortSignal;
}

const planRules: Rules<Pick<LoadOptions, 'sparse' | 'packing' | 'kernel' | 'target' | 'cc'>> = {
  sparse: yesOrNo,
  packing: anyText,
  kernel: listOf(anyText),
  target: anyText,
  cc: anyText,
};
const openRules: Rules<OpenOptions> = { allowConfig: listOf(anyText) };
const loadRules: Rules<LoadOptions> = {
  ...engineRules,
  ...planRules,
  ...openRules,
  needsTokenizer: yesOrNo,
  onProgress: callback,
  onNote: callback,
  signal: abortSignal,
};

/** An opened model and what serves it. `using loaded = await load(...)` frees it all, `engine.dispose()` the engine and its model. */
export interface Loaded extends Disposable {
  readonly engine: Engine;
  readonly library: Library;
  /** Absent when the model has none, or none that can be read. */
  readonly tokenizer: Tokenizer | undefined;
  readonly source: ModelSource;
  readonly manifest: Awaited<ReturnType<typeof ensureBuilt>>['manifest'];
  /** `clang 19.1.7` */
  readonly compiler: string;
  /** One line for the user after a fresh build: how to get a faster one. */
  readonly advice: string | undefined;
  /** Path of the packed weights. */
  readonly weights: string;
}

/** Builds and packs what is missing of a model, and opens it. @param verify read everything that is there already */
async function prepare(modelPath: string, options: LoadOptions, verify = false) {
  checkValue('modelPath', modelPath, anyText);
  checkAllOptions(options, loadRules);
  const source = openModel(modelPath, options);
  for (const note of source.notes) options.onNote?.(note);
  const cpu = runnableProfile(options.target ?? 'native');
  const missing = missingFeatures(isaOf(cpu.isa));
  if (missing.length)
    throw new LibraryError(
      `this machine cannot run target '${cpu.isa}': it lacks ${missing.join(', ')}; use --target native`,
    );
  // Before the work of building and packing.
  const { kv = kvTypes[DEFAULT_KV] } = options;
  const cacheBytes = contextSize(source.shape, kv, options.context) * positionBytes(source.shape, kv);
  const ensure = () =>
    ensureBuilt(source.shape, cpu, {
      ...(options.cc ? { cc: options.cc } : {}),
      packing: options.packing,
      kernel: options.kernel,
      sparse: options.sparse,
      threads: options.threads ?? defaultThreads(source.shape),
      ...(options.signal ? { signal: options.signal } : {}),
      ...(options.onNote ? { onNote: options.onNote } : {}),
      onProgress: (done, total) => options.onProgress?.('compiling', done, total),
    });
  let build = await ensure();
  options.signal?.throwIfAborted();
  const shortage = shortageNote(build.manifest.layout.fileBytes, cacheBytes);
  if (shortage) options.onNote?.(shortage);
  const library = await openLibrary(build.library).catch(async (error) => {
    // Someone may have cleared the cache meanwhile.
    if (existsSync(build.library)) throw error;
    build = await ensure();
    return openLibrary(build.library);
  });
  const weights = await openWeights(source, build.manifest.layout, library, defaultThreads(), {
    ...(options.onProgress ? { onProgress: options.onProgress } : {}),
    ...(options.onNote ? { onNote: options.onNote } : {}),
    ...(options.signal ? { signal: options.signal } : {}),
    verify,
  });
  return { source, build, library, weights };
}

/**
 * Opens a model, building and packing what is missing.
 * @throws UsageError for an option out of range, or one that there is not; other BitnetErrors; AbortError when `signal` is aborted
 */
export async function load(modelPath: string, options: LoadOptions = {}): Promise<Loaded> {
  const { source, build, library, weights } = await prepare(modelPath, options);
  try {
    const tokenizer = source.tokenizer && openTokenizer(source.tokenizer, options);
    const engine = new Engine(source, library, weights.model, options);
    return {
      engine,
      library,
      tokenizer,
      source,
      manifest: build.manifest,
      compiler: build.compiler.label,
      advice: !build.cached && isSlower(build.compiler) ? CLANG_ADVICE : undefined,
      weights: weights.file,
      [Symbol.dispose]() {
        engine.dispose();
        library.dispose();
      },
    };
  } catch (error) {
    library.close(weights.model);
    throw error;
  }
}

function openTokenizer(source: TokenizerSource, options: LoadOptions): Tokenizer | undefined {
  try {
    return loadTokenizer(source);
  } catch (error) {
    if (!(error instanceof ModelError) || options.needsTokenizer !== false) throw error;
    options.onNote?.(`token ids are printed instead of text, as the tokenizer cannot be used: ${error.message}`);
    return undefined;
  }
}

/** What verifyModel has read, and what of it had to be made. */
export interface Verified {
  readonly model: string;
  /** Folder of the build. */
  readonly build: string;
  /** Path of the packed weights. */
  readonly weights: string;
  readonly compiled: boolean;
  readonly packed: boolean;
}

/**
 * Reads all that the cache holds of a model, and the model's weights: are the build and the packed weights what was made, and of this very
 * model? What is damaged or missing is made.
 * @throws BitnetError; AbortError when `signal` is aborted
 */
export async function verifyModel(modelPath: string, options: LoadOptions = {}): Promise<Verified> {
  const { source, build, library, weights } = await prepare(modelPath, options, true);
  library.close(weights.model);
  return {
    model: source.path,
    build: build.folder,
    weights: weights.file,
    compiled: !build.cached,
    packed: !weights.cached,
  };
}

/** What a model is and how it would run on a target, without building or loading anything. */
export async function describeModel(
  modelPath: string,
  options: Pick<
    LoadOptions,
    'target' | 'cc' | 'threads' | 'packing' | 'kernel' | 'sparse' | 'allowConfig' | 'onNote'
  > = {},
): Promise<ModelInfo> {
  checkValue('modelPath', modelPath, anyText);
  checkOptions(options, { ...planRules, ...openRules, threads: engineRules.threads, onNote: callback });
  const source = openModel(modelPath, options);
  for (const note of source.notes) options.onNote?.(note);
  const cpu = runnableProfile(options.target ?? 'native');
  const { cc, threads = defaultThreads(source.shape), packing, kernel, sparse } = options;
  const advice = await adviceHere(source.shape, cpu, { ...(cc ? { cc } : {}), threads });
  const manifest = manifestOf(planOf(source.shape, cpu, { advice, packing, kernel, sparse }));
  const count = (ternary: boolean) =>
    manifest.layout.tensors
      .filter((t) => t.kind !== 'int8' && (t.kind === 'ternary') === ternary)
      .reduce((sum, t) => sum + t.rows * t.cols, 0);
  return {
    model: source.path,
    format: source.format,
    quantisation: source.quantisation,
    endMarks: source.endMarks,
    shape: source.shape,
    parameters: { ternary: count(true), float: count(false) },
    packedBytes: manifest.layout.fileBytes,
    rowBytes: manifest.layout.tensors.filter((t) => t.kind === 'rows').reduce((sum, t) => sum + t.bytes, 0),
    screenBytes: manifest.layout.tensors.find((t) => t.kind === 'int8')?.bytes ?? 0,
    fastBytes: fastBytes(source.shape),
    cacheBytesPerPosition: positionBytes(source.shape, kvTypes[DEFAULT_KV]),
    target: manifest.cpu.isa,
    prefetch: manifest.cpu.prefetch,
    matrices: manifest.matrices,
    kernels: manifest.kernels,
  };
}

/** Compiles the demo model for this machine: the install step. @returns one line for the terminal */
export async function prepareDemo(): Promise<string> {
  const cpu = nativeProfile();
  const { shape } = openModel(demoModel);
  const build = await ensureBuilt(shape, cpu, { threads: defaultThreads(shape) });
  return `kernels for ${cpu.isa} compiled by ${build.compiler.label}`;
}
