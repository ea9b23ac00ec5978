/**
 * Programs of C that measure in a process of their own: bench/NAME.c, built for a target with the library's thread pool, so that
 * a measurement begins and ends as a step of the forward pass does. They answer in lines of numbers.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { buildRoot } from '../codegen/build.ts';
import { compile } from '../codegen/compile.ts';
import { emit } from '../codegen/emit.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { planOf } from '../codegen/plan.ts';
import { LibraryError } from '../schemas/error.ts';
import { packageRoot } from '../schemas/files.ts';
import type { Prepared } from './prepare.ts';

/** Templates of the thread pool. */
const borrowed = ['plan.h', 'internal.h', 'bitnet.h', 'pool.c', 'profile.c', 'pages.c'];

/** What a program is built for, and how. */
export type Target = Pick<Prepared, 'cpu' | 'compiler'>;

/** The library's thread pool, and what it needs. */
export function poolFiles({ cpu, source }: Pick<Prepared, 'cpu' | 'source'>): Map<string, string> {
  const all = emit(planOf(source.shape, cpu));
  return new Map(borrowed.map((file): [string, string] => [file, all.get(file)!]));
}

/** A running program. */
export interface Native {
  /** Numbers of its next line; those of a request are its answer. */
  numbers(...request: readonly number[]): Promise<number[]>;
  /** Ends the process. */
  close(): Promise<void>;
}

/**
 * Builds and starts bench/NAME.c.
 * @param others further C files, by name
 * @throws CompileError, LibraryError
 */
export async function startNative(
  name: string,
  { cpu, compiler }: Target,
  args: readonly string[],
  others: ReadonlyMap<string, string>,
  signal: AbortSignal,
  onProgress?: (done: number, total: number) => void,
): Promise<Native> {
  // A build links driver.c to a program.
  const files = new Map([
    ...others,
    ['driver.c', await readFile(path.join(packageRoot, 'bench', `${name}.c`), 'utf8')],
  ]);
  const build = await compile(files, isaOf(cpu.isa), cpu.features, compiler, buildRoot(), {
    signal,
    ...(onProgress ? { onProgress } : {}),
  });
  const child = execa(build.driver, args, { reject: false, buffer: { stdout: false }, cancelSignal: signal });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async numbers(...request) {
      if (request.length) child.stdin.write(`${request.join(' ')}\n`);
      const { value, done } = await lines.next();
      signal.throwIfAborted();
      if (done) throw new LibraryError(`bench/${name}.c ended early: ${(await child).stderr || 'it says no reason'}`);
      return (value as string).split(' ').map(Number);
    },
    async close() {
      child.stdin.end();
      await child;
    },
  };
}
