/**
 * Kernels as shared objects, one each, compiled in parallel and kept in the cache by content: a sweep loads those it wants, and
 * another sweep finds them again.
 */
import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { asideOf } from '../../schemas/aside.ts';
import { cacheRoot } from '../../schemas/files.ts';
import { makeFolder } from '../../schemas/trust.ts';
import type { CpuProfile } from '../../schemas/types.ts';
import type { Compiler } from '../compile.ts';
import { FLAGS } from '../compile.ts';
import { isaOf } from '../isa/index.ts';
import { isKept, keepFile } from '../seal.ts';

/** A kernel's C file: its name without `bn_`, and its text. */
export interface Source {
  readonly name: string;
  /** Printed when its turn comes. */
  readonly text: () => string;
}

/** Compiled however long it takes. */
const LEAST = 8;

/** How compilation ends early, and how it is followed. */
export interface Pace {
  /** `performance.now()` from which on nothing new is begun. */
  readonly until: number;
  readonly onProgress: (done: number, total: number) => void;
  readonly signal: AbortSignal;
}

/**
 * Compiles kernels in the order given. @returns the file of each, or the compiler's complaint; kernels whose turn did not come in
 * time are missing. @throws LibraryError where others can change what is kept; AbortError
 */
export async function compileObjects(
  sources: readonly Source[],
  cpu: CpuProfile,
  compiler: Compiler,
  { until, onProgress, signal }: Pace,
): Promise<Map<string, { file: string } | { problem: string }>> {
  const isa = isaOf(cpu.isa);
  const flags = [...FLAGS, '-fvisibility=default', ...isa.flags(cpu.features), '-w'];
  const [cc, ...first] = compiler.command as [string, ...string[]];
  const keyOf = (text: string) =>
    createHash('sha256')
      .update(JSON.stringify([compiler.command, compiler.version, flags, text]))
      .digest('hex')
      .slice(0, 32);
  const root = path.join(cacheRoot(), 'kernels');
  makeFolder(root);
  const aside = asideOf(path.join(root, 'new'));
  await mkdir(aside, { mode: 0o755 });
  const run = (args: readonly string[]) =>
    execa(cc, [...first, ...flags, ...args], { cwd: aside, reject: false, stdin: 'ignore', cancelSignal: signal });
  const found = new Map<string, { file: string } | { problem: string }>();
  // As in compile.ts: the intrinsics are read once, where the compiler can precompile them.
  let header: Promise<unknown> | undefined;
  const build = async ({ name, text: print }: Source) => {
    const text = print();
    const file = path.join(root, `${keyOf(text)}.so`);
    if (!isKept(file)) {
      header ??= writeFile(path.join(aside, 'intrinsics.h'), `${isa.include}\n`).then(() =>
        run(['-x', 'c-header', 'intrinsics.h', '-o', 'intrinsics.h.gch']),
      );
      await header;
      await mkdir(path.join(aside, 'kernels'), { recursive: true });
      await writeFile(path.join(aside, 'kernels', `${name}.c`), text);
      const result = await run(['-include', 'intrinsics.h', '-shared', `kernels/${name}.c`, '-o', `${name}.so`]);
      signal.throwIfAborted();
      if (result.failed) {
        found.set(name, { problem: result.stderr.split('\n')[0] || `${compiler.label} ended with ${result.exitCode}` });
        return;
      }
      keepFile(path.join(aside, `${name}.so`), file);
    }
    found.set(name, { file });
  };
  try {
    const queue = [...sources];
    const work = async () => {
      for (let next = queue.shift(); next && !signal.aborted; next = queue.shift()) {
        if (performance.now() > until && found.size >= LEAST) return;
        await build(next);
        onProgress(found.size, sources.length);
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, work));
    signal.throwIfAborted();
    return found;
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}
