/**
 * The bandwidth roof, measured in a process of its own: builds bench/read.c for a target and asks it for plain reads. It shares
 * the library's thread pool, so a read begins and ends as a step of the forward pass does.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { buildRoot } from '../codegen/build.ts';
import { type Compiler, compile } from '../codegen/compile.ts';
import { emit } from '../codegen/emit.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { planOf } from '../codegen/plan.ts';
import { LibraryError } from '../schemas/error.ts';
import { packageRoot } from '../schemas/files.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';

/** Templates that the program consists of, besides itself. */
const borrowed = ['plan.h', 'internal.h', 'bitnet.h', 'pool.c', 'profile.c', 'pages.c'];

/** One plain read. */
export interface ReadPass {
  readonly seconds: number;
  /** Average over the threads, without waiting for the others: what a profile calls the time of an operation. */
  readonly work: number;
}

export interface Reader {
  /** All of its memory is huge pages. */
  readonly hugePages: boolean;
  /** Times of `passes` reads of `bytes` bytes by `threads` threads, and how many bytes ahead they prefetch. */
  read(threads: number, bytes: number, passes: number): Promise<{ passes: ReadPass[]; distance: number }>;
  /** Ends the process. */
  close(): Promise<void>;
}

/**
 * Starts the reading program of a target.
 * @param room most bytes that will be read at once
 * @throws CompileError, LibraryError
 */
export async function startReader(
  shape: ModelShape,
  cpu: CpuProfile,
  compiler: Compiler,
  room: number,
  signal: AbortSignal,
): Promise<Reader> {
  const generated = emit(planOf(shape, cpu));
  // A build links driver.c to a program.
  const files = new Map([
    ...borrowed.map((name): [string, string] => [name, generated.get(name)!]),
    ['driver.c', await readFile(path.join(packageRoot, 'bench', 'read.c'), 'utf8')],
  ]);
  const build = await compile(files, isaOf(cpu.isa), cpu.features, compiler, buildRoot(), { signal });
  const child = execa(build.driver, [String(room)], { reject: false, buffer: { stdout: false }, cancelSignal: signal });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const numbers = async (): Promise<number[]> => {
    const { value, done } = await lines.next();
    signal.throwIfAborted();
    if (done) throw new LibraryError(`the plain read of ${room} bytes failed: ${(await child).stderr || 'it ended'}`);
    return (value as string).split(' ').map(Number);
  };
  const [bytes, huge] = await numbers();
  return {
    hugePages: huge! >= bytes!,
    async read(threads, amount, passes) {
      child.stdin.write(`${threads} ${amount} ${passes}\n`);
      const [distance, ...times] = await numbers();
      const pass = (_: unknown, i: number): ReadPass => ({ seconds: times[2 * i]!, work: times[2 * i + 1]! });
      return { distance: distance!, passes: Array.from({ length: passes }, pass) };
    },
    async close() {
      child.stdin.end();
      await child;
    },
  };
}
