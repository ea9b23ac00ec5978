/**
 * From a model's shape to a compiled library, whatever part of the way is already done: the one function behind bitnet-gen,
 * bitnet-run and the install script.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { CompileError } from '../schemas/error.ts';
import { cacheRoot } from '../schemas/files.ts';
import { requireTrusted } from '../schemas/trust.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';
import type { Build } from './compile.ts';
import { buildAt, compile, findCompiler } from './compile.ts';
import type { Manifest } from './emit.ts';
import { emit, manifestOf } from './emit.ts';
import { problems } from './graph.ts';
import { isaOf } from './isa/index.ts';
import { type PlanOptions, planOf, roundingOf } from './plan.ts';
import { circumstancesOf, recall, remember, requestId } from './recall.ts';
import { openSealed } from './seal.ts';
import { type Advice, adviceFor } from './wisdom.ts';

/** How a library is compiled, and where to. */
export interface BuildOptions extends Omit<PlanOptions, 'advice'> {
  /** Compiler command; default: the best one found. */
  readonly cc?: string;
  /** Folder of builds; default: the user's cache. */
  readonly root?: string;
  /** Threads that will use the library: what was measured on as many counts first. */
  readonly threads?: number | undefined;
  /** Called as files are compiled. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Called with what the user should know: measurements that do not count, a kernel that is not exact. */
  readonly onNote?: (note: string) => void;
  readonly signal?: AbortSignal;
  /** Additional compiler flags (sanitizers). */
  readonly extra?: readonly string[];
}

/** Builds are kept here. */
export const buildRoot = (): string => path.join(cacheRoot(), 'builds');

/** That there is no compiler need not be an error. */
function orThrow(error: unknown): CompileError {
  if (error instanceof CompileError) return error;
  throw error;
}

/** What bitnet-tune measured for this CPU and the compiler that would be used; nothing where there is no compiler. */
export async function adviceHere(
  shape: ModelShape,
  cpu: CpuProfile,
  options: Pick<BuildOptions, 'cc' | 'threads'> = {},
): Promise<Advice | undefined> {
  const compiler = await findCompiler(isaOf(cpu.isa).family, options.cc).catch(orThrow);
  return compiler instanceof CompileError ? undefined : adviceFor(cpu, compiler, { shape, threads: options.threads });
}

/** A build with the manifest that is sealed in it; undefined where it has gone or is damaged. */
function manifestIn(folder: string): Manifest | undefined {
  const sealed = openSealed(folder);
  const text = typeof sealed === 'string' ? undefined : sealed.get('src/manifest.json');
  return text && JSON.parse(`${text}`);
}

/**
 * Generates and compiles the library for a shape on a CPU, or finds it compiled: by the compiler that would be used, and for these
 * circumstances (recall.ts); where there is no compiler, by any and for any. A damaged build is made anew.
 * @throws PlanError; CompileError; LibraryError where others can change the build; AbortError
 */
export async function ensureBuilt(
  shape: ModelShape,
  cpu: CpuProfile,
  options: BuildOptions = {},
): Promise<Build & { manifest: Manifest }> {
  const isa = isaOf(cpu.isa);
  const root = options.root ?? buildRoot();
  const { packing, kernel, sparse, threads, extra = [], onNote, onProgress, signal } = options;
  const request = requestId({
    ...shape,
    name: undefined,
    isa: cpu.isa,
    features: cpu.features,
    packing,
    kernel,
    sparse,
    extra,
  });
  const known = recall(root, request);
  const compiler = await findCompiler(isa.family, options.cc).catch(orThrow);
  const circumstances = circumstancesOf(cpu, threads);
  const best = known.filter((one) => one.circumstances === circumstances);
  const usable =
    compiler instanceof CompileError
      ? [...best, ...known].filter(() => !options.cc)
      : best.filter((one) => isDeepStrictEqual(one.compiler, compiler));
  const damaged: string[] = [];
  for (const one of usable) {
    const at = buildAt(path.join(root, one.folder));
    if (!existsSync(at.folder)) continue;
    requireTrusted(at.library, root);
    const manifest = manifestIn(at.folder);
    if (!manifest) {
      damaged.push(at.folder);
      continue;
    }
    for (const note of one.notes) onNote?.(note);
    return { ...at, compiler: one.compiler, cached: true, manifest: { ...manifest, shape } };
  }
  if (compiler instanceof CompileError) {
    if (!damaged.length) throw compiler;
    throw new CompileError(`the build '${damaged[0]}' in the cache is damaged; ${compiler.message}`);
  }
  const advice = adviceFor(cpu, compiler, { shape, threads });
  const plan = planOf(shape, cpu, { packing, kernel, sparse, advice });
  const notes = [advice.ignored(problems(shape)), roundingOf(plan)].filter((note) => note !== undefined);
  for (const note of notes) onNote?.(note);
  const build = await compile(emit(plan), isa, cpu.features, compiler, root, {
    extra,
    ...(onNote ? { onNote } : {}),
    ...(onProgress ? { onProgress } : {}),
    ...(signal ? { signal } : {}),
  });
  const folder = path.basename(build.folder);
  remember(root, request, { compiler, circumstances, folder, notes });
  return { ...build, manifest: manifestOf(plan) };
}
