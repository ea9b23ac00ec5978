/** The measuring process (templates/tune/measure.c), from the caller's side: packings and kernels go in, verdicts and seconds come out. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { LibraryError } from '../../schemas/error.ts';
import { packageRoot } from '../../schemas/files.ts';
import type { CpuProfile, ModelShape } from '../../schemas/types.ts';
import { buildRoot } from '../build.ts';
import { type Compiler, compile } from '../compile.ts';
import { emit } from '../emit.ts';
import { isaOf } from '../isa/index.ts';
import { planOf } from '../plan.ts';

/** Templates that the program is made of, beside measure.c. */
const borrowed = ['plan.h', 'internal.h', 'bitnet.h', 'pool.c', 'profile.c', 'pages.c'];

/** A kernel as the process must know it. */
export interface Loadable {
  readonly name: string;
  readonly file: string;
  /** Index of the packing, in the order in which packings were added. */
  readonly packing: number;
  readonly tiles: number;
  readonly tileBytes: number;
  readonly rows: number;
  readonly xBytes: number;
}

/** Something that is timed: an added kernel, or a plain read of an added packing's arena. */
export type Item = { readonly kernel: number } | { readonly read: number };

export interface Meter {
  readonly arenaBytes: number;
  /** @param file whole lines of `lineBytes` bytes @returns the packing's index */
  addPacking(lineBytes: number, file: string): Promise<number>;
  /** @returns the kernel's index, or why it cannot be loaded */
  addKernel(kernel: Loadable): Promise<number | string>;
  /** @returns undefined for an exact kernel, or what is wrong */
  gate(kernel: number, sum: number, period: number, file: string): Promise<string | undefined>;
  /** Seconds [rounds][items], all items in turn in each round: of one pass over a matrix, or over the arena. */
  time(threads: number, rounds: number, items: readonly Item[]): Promise<number[][]>;
  /** Seconds of a row tile while so many bytes of the matrix stay in the caches; one thread. */
  cached(kernel: number, bytes: number): Promise<number>;
  close(): Promise<void>;
}

/**
 * Builds the program and starts it.
 * @param arenaBytes of each packing's arena: more than the last-level cache, and than any matrix
 * @throws CompileError; LibraryError when it ends early; AbortError
 */
export async function startMeter(
  shape: ModelShape,
  cpu: CpuProfile,
  compiler: Compiler,
  arenaBytes: number,
  signal: AbortSignal,
): Promise<Meter> {
  const templates = emit(planOf(shape, cpu));
  // A build links driver.c to a program.
  const files = new Map([
    ...borrowed.map((file): [string, string] => [file, templates.get(file)!]),
    ['driver.c', await readFile(path.join(packageRoot, 'templates', 'tune', 'measure.c'), 'utf8')],
  ]);
  const build = await compile(files, isaOf(cpu.isa), cpu.features, compiler, buildRoot(), { signal });
  const child = execa(build.driver, [String(arenaBytes)], {
    reject: false,
    buffer: { stdout: false },
    cancelSignal: signal,
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async (): Promise<string> => {
    const { value, done } = await lines.next();
    signal.throwIfAborted();
    if (done)
      throw new LibraryError(`the measuring program ended early: ${(await child).stderr || 'it says no reason'}`);
    return value as string;
  };
  const ask = (...request: readonly (string | number)[]): Promise<string> => {
    child.stdin.write(`${request.join(' ')}\n`);
    return line();
  };
  const rows = async (first: Promise<string>, count: number): Promise<number[][]> => {
    const all = [await first];
    while (all.length < count) all.push(await line());
    return all.map((text) => text.split(' ').map(Number));
  };
  let packings = 0;
  let kernels = 0;
  return {
    arenaBytes,
    async addPacking(lineBytes, file) {
      await ask('packing', lineBytes, file);
      return packings++;
    },
    async addKernel({ packing, tiles, tileBytes, rows, xBytes, name, file }) {
      return (await ask('kernel', packing, tiles, tileBytes, rows, xBytes, name, file)) || kernels++;
    },
    async gate(kernel, sum, period, file) {
      const verdict = await ask('gate', kernel, sum, period, file);
      return verdict === 'exact' ? undefined : verdict;
    },
    time(threads, rounds, items) {
      const numbers = items.map((item) => ('kernel' in item ? item.kernel : -1 - item.read));
      return rows(ask('time', threads, rounds, ...numbers), rounds);
    },
    async cached(kernel, bytes) {
      return Number(await ask('cached', kernel, bytes));
    },
    async close() {
      child.stdin.end();
      await child;
    },
  };
}
