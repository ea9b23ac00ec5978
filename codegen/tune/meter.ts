/** The measuring process (templates/tune/measure.c), from the caller's side: packings and kernels go in, verdicts and seconds come out. */
import type { CpuProfile, ModelShape } from '../../schemas/types.ts';
import type { Compiler } from '../compile.ts';
import { emit } from '../emit.ts';
import { isaOf } from '../isa/index.ts';
import { inTiles } from './contests.ts';
import type { Example } from './examples.ts';
import { type Peak, peaksFor } from './peaks.ts';
import { ownTemplate, startProcess } from './process.ts';

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
  const templates = emit(inTiles(shape, cpu));
  const { files: loops, peaks } = peaksFor(isaOf(cpu.isa));
  const files = new Map([
    ['plan.h', `${templates.get('plan.h')!}${REPLACED}`],
    ...loops,
    ...borrowed.map((file): [string, string] => [file, templates.get(file)!]),
    ...['measure.h', 'gate.c', 'reads.h', 'reads.c'].map((file): [string, string] => [file, ownTemplate(file)]),
  ]);
  const { ask, rows, close } = await startProcess('measure.c', files, [String(arenaBytes)], cpu, compiler, signal);
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
      return rows(rounds, 'time', threads, rounds, ...words);
    },
    async cached(kernel, bytes) {
      return Number(await ask('cached', kernel, bytes));
    },
    close,
  };
}
