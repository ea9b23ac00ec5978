/** The bandwidth roof: plain reads by bench/read.c. */
import { ownTemplate } from '../codegen/tune/process.ts';
import { type Native, poolFiles, startNative } from './native.ts';
import type { Prepared } from './prepare.ts';

/** One plain read. */
export interface ReadPass {
  readonly seconds: number;
  /** Average over the threads, without waiting for the others: what a profile calls the time of an operation. */
  readonly work: number;
}

export interface Reader extends Pick<Native, 'close'> {
  /** All of its memory is huge pages. */
  readonly hugePages: boolean;
  /** Times of `passes` reads of `bytes` bytes by `threads` threads, and how they prefetch, as in kernel names (kernels/prefetch.ts). */
  read(threads: number, bytes: number, passes: number): Promise<{ passes: ReadPass[]; prefetch: string }>;
}

/**
 * Starts the reading program of a target.
 * @param room most bytes that will be read at once
 * @throws CompileError, LibraryError
 */
export async function startReader(target: Prepared, room: number, signal: AbortSignal): Promise<Reader> {
  const reads = ['reads.h', 'reads.c'].map((file): [string, string] => [file, ownTemplate(file)]);
  const files = new Map([...poolFiles(target), ...reads]);
  const program = await startNative('read', target, [String(room)], files, signal);
  const [bytes, huge] = await program.numbers();
  return {
    hugePages: huge! >= bytes!,
    async read(threads, amount, passes) {
      const [ahead, level, ...times] = await program.numbers(threads, amount, passes);
      const pass = (_: unknown, i: number): ReadPass => ({ seconds: times[2 * i]!, work: times[2 * i + 1]! });
      return { prefetch: `p${ahead}${level ? 'l2' : ''}`, passes: Array.from({ length: passes }, pass) };
    },
    close: program.close,
  };
}
