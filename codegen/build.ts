/**
 * From a model's shape to a compiled library, whatever part of the way is already done: the one function behind bitnet-gen,
 * bitnet-run and the install script.
 */
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { CompileError } from '../schemas/error.ts';
import { cacheRoot } from '../schemas/files.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';
import type { Build } from './compile.ts';
import { buildAt, compile, findCompiler } from './compile.ts';
import type { Manifest } from './emit.ts';
import { emit, manifestOf } from './emit.ts';
import { problems } from './graph.ts';
import { isaOf } from './isa/index.ts';
import { type PlanOptions, planOf, roundingOf } from './plan.ts';
import { recall, remember, requestId, wisdomId } from './recall.ts';
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

/** What bitnet-tune measured for this CPU and the compiler that would be used; nothing where there is no compiler. */
export async function adviceHere(
  shape: ModelShape,
  cpu: CpuProfile,
  options: Pick<BuildOptions, 'cc' | 'threads'> = {},
): Promise<Advice | undefined> {
  const compiler = await findCompiler(isaOf(cpu.isa).family, options.cc).catch(() => undefined);
  return compiler && adviceFor(cpu, compiler, { shape, threads: options.threads });
}

/**
 * Generates and compiles the library for a shape on a CPU, or finds it compiled: by the compiler that would be used, or where there is
 * none by any.
 * @throws PlanError, CompileError, AbortError
 */
export async function ensureBuilt(
  shape: ModelShape,
  cpu: CpuProfile,
  options: BuildOptions = {},
): Promise<Build & { manifest: Manifest }> {
  const isa = isaOf(cpu.isa);
  const root = options.root ?? buildRoot();
  const { packing, kernel, sparse, threads, extra = [], onNote, onProgress, signal } = options;
  const request = requestId({ ...shape, name: undefined, cpu, packing, kernel, sparse, threads, extra });
  const known = recall(root, request);
  const compiler = await findCompiler(isa.family, options.cc).catch((error: CompileError) => error);
  const wisdom = wisdomId();
  const found = known.find(
    (one) =>
      (compiler instanceof CompileError && !options.cc) ||
      (isDeepStrictEqual(one.compiler, compiler) && one.wisdom === wisdom),
  );
  if (found) {
    for (const note of found.notes) onNote?.(note);
    const at = buildAt(path.join(root, found.folder));
    return { ...at, compiler: found.compiler, cached: true, manifest: found.manifest };
  }
  if (compiler instanceof CompileError) throw compiler;
  const advice = adviceFor(cpu, compiler, { shape, threads });
  const plan = planOf(shape, cpu, { packing, kernel, sparse, advice });
  const notes = [advice.ignored(problems(shape)), roundingOf(plan)].filter((note) => note !== undefined);
  for (const note of notes) onNote?.(note);
  const build = await compile(emit(plan), isa, cpu.features, compiler, root, {
    extra,
    ...(onProgress ? { onProgress } : {}),
    ...(signal ? { signal } : {}),
  });
  remember(root, request, { compiler, wisdom, folder: path.basename(build.folder), notes });
  return { ...build, manifest: manifestOf(plan) };
}
