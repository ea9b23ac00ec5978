/** The measuring process (templates/tune/measure.c), from the caller's side: packings and kernels go in, verdicts and seconds come out. */
import { readFileSync } from 'node:fs';
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
import type { Example } from './examples.ts';
import { type Peak, peaksFor } from './peaks.ts';

/** Templates that the program is made of, beside measure.c. */
const borrowed = ['internal.h', 'bitnet.h', 'state.h', 'screen.h', 'products.c', 'pool.c', 'profile.c', 'pages.c'];

/** While kernels are measured, a matrix that changes takes the place of the plan's, and as much scratch memory as it needs. */
const REPLACED = `
#include <stddef.h>
#define bn_matrices (*bn_measured)
#define BN_SCRATCH_BYTES bn_scratch_bytes
extern size_t bn_scratch_bytes;
`;

/** A way to multiply `tokens` tokens, as the process must know it. */
export interface Loadable {
  /** Index of the packing, in the order in which packings were added. */
  readonly packing: number;
  readonly tokens: number;
  /** Bytes that a thread needs. */
  readonly scratch: number;
  /** Of its bn_matrix (templates/internal.h). */
  readonly numbers: Readonly<Record<string, number>>;
  readonly parts: readonly { readonly member: string; readonly name: string; readonly file: string }[];
}

/** Something that is timed: an added kernel, a plain read of an added packing's arena, or one of the arithmetic roofs. */
export type Item = { readonly kernel: number } | { readonly read: number } | { readonly peak: Peak['name'] };

export interface Meter {
  readonly arenaBytes: number;
  readonly peaks: readonly Peak[];
  /** @param file whole lines of `lineBytes` bytes @returns the packing's index */
  addPacking(lineBytes: number, file: string): Promise<number>;
  /** @returns the kernel's index, or why it cannot be loaded */
  addKernel(kernel: Loadable): Promise<number | string>;
  /** @returns undefined for an exact kernel, or what is wrong */
  gate(kernel: number, example: Example): Promise<string | undefined>;
  /** Seconds [rounds][items], all items in turn in each round: of one pass over a matrix, over the arena, or of PEAK_PART of a peak. */
  time(threads: number, rounds: number, items: readonly Item[]): Promise<number[][]>;
  /** Seconds of a row tile while so many bytes of the matrix stay in the caches; one thread, kernels of one function. */
  cached(kernel: number, bytes: number): Promise<number>;
  close(): Promise<void>;
}

/** The part of a call of an arithmetic roof that is timed. */
export const PEAK_PART = 1 / 8;

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
  const isa = isaOf(cpu.isa);
  const own = (file: string) => readFileSync(path.join(packageRoot, 'templates', 'tune', file), 'utf8');
  const templates = emit(planOf(shape, cpu));
  const { files: loops, peaks } = peaksFor(isa);
  // A build links driver.c to a program.
  const files = new Map([
    ['plan.h', `${templates.get('plan.h')!}${REPLACED}`],
    ...loops,
    ...borrowed.map((file): [string, string] => [file, templates.get(file)!]),
    ...['measure.h', 'gate.c'].map((file): [string, string] => [file, own(file)]),
    ['driver.c', own('measure.c')],
  ]);
  const build = await compile(files, isa, cpu.features, compiler, buildRoot(), { signal });
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
    peaks,
    async addPacking(lineBytes, file) {
      await ask('packing', lineBytes, file);
      return packings++;
    },
    async addKernel({ packing, tokens, scratch, numbers, parts }) {
      await ask('kernel', packing, tokens, scratch, ...Object.entries(numbers).flat());
      const index = kernels++;
      for (const { member, name, file } of parts) {
        const problem = await ask('part', index, member, name, file);
        if (problem) return problem;
      }
      return index;
    },
    async gate(kernel, { period, tokens, file }) {
      const verdict = await ask('gate', kernel, period, tokens, file);
      return verdict === 'exact' ? undefined : verdict;
    },
    time(threads, rounds, items) {
      const words = items.map((item) =>
        'kernel' in item ? `k${item.kernel}` : 'read' in item ? `r${item.read}` : item.peak[0]!,
      );
      return rows(ask('time', threads, rounds, ...words), rounds);
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
