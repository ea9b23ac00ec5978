/** A measuring program: built for a CPU, asked line by line, ended with the sweep. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { LibraryError } from '../../schemas/error.ts';
import { packageRoot } from '../../schemas/files.ts';
import { cannotRun } from '../../schemas/folders.ts';
import type { CpuProfile } from '../../schemas/types.ts';
import { buildRoot } from '../build.ts';
import { type Compiler, compile } from '../compile.ts';
import { isaOf } from '../isa/index.ts';

/** A file of templates/tune. */
export const ownTemplate = (file: string): string =>
  readFileSync(path.join(packageRoot, 'templates', 'tune', file), 'utf8');

export interface Process {
  /** Sends a request. @returns the first line of the answer */
  ask(...request: readonly (string | number)[]): Promise<string>;
  /** Sends a request. @returns so many lines of numbers */
  rows(count: number, ...request: readonly (string | number)[]): Promise<number[][]>;
  close(): Promise<void>;
}

/**
 * Builds a program and starts it.
 * @param main the template with its main function, in templates/tune @param files everything else
 * @throws CompileError; LibraryError when it ends early; AbortError
 */
export async function startProcess(
  main: string,
  files: ReadonlyMap<string, string>,
  args: readonly string[],
  cpu: CpuProfile,
  compiler: Compiler,
  signal: AbortSignal,
): Promise<Process> {
  // A build links driver.c to a program.
  const all = new Map([...files, ['driver.c', ownTemplate(main)]]);
  const build = await compile(all, isaOf(cpu.isa), cpu.features, compiler, buildRoot(), { signal });
  const child = execa(build.driver, args, { reject: false, buffer: { stdout: false }, cancelSignal: signal });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async (): Promise<string> => {
    const { value, done } = await lines.next();
    signal.throwIfAborted();
    if (done) {
      const why = (await child).stderr || cannotRun(build.folder) || 'it says no reason';
      throw new LibraryError(`the measuring program ended early: ${why}`);
    }
    return value as string;
  };
  const ask = (...request: readonly (string | number)[]): Promise<string> => {
    child.stdin.write(`${request.join(' ')}\n`);
    return line();
  };
  return {
    ask,
    async rows(count, ...request) {
      const all = [await ask(...request)];
      while (all.length < count) all.push(await line());
      return all.map((text) => text.split(' ').map(Number));
    },
    async close() {
      child.stdin.end();
      await child;
    },
  };
}
