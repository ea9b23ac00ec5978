/** The bandwidth roof: plain reads by bench/read.c. */
import { type Native, startNative, type Target } from './native.ts';

/** One plain read. */
export interface ReadPass {
  readonly seconds: number;
  /** Average over the threads, without waiting for the others: what a profile calls the time of an operation. */
  readonly work: number;
}

export interface Reader extends Pick<Native, 'close'> {
  /** All of its memory is huge pages. */
  readonly hugePages: boolean;
  /** Times of `passes` reads of `bytes` bytes by `threads` threads, and how many bytes ahead they prefetch. */
  read(threads: number, bytes: number, passes: number): Promise<{ passes: ReadPass[]; distance: number }>;
}

/**
 * Starts the reading program of a target.
 * @param room most bytes that will be read at once
 * @throws CompileError, LibraryError
 */
export async function startReader(target: Target, room: number, signal: AbortSignal): Promise<Reader> {
  const program = await startNative('read', target, [String(room)], signal);
  const [bytes, huge] = await program.numbers();
  return {
    hugePages: huge! >= bytes!,
    async read(threads, amount, passes) {
      const [distance, ...times] = await program.numbers(threads, amount, passes);
      const pass = (_: unknown, i: number): ReadPass => ({ seconds: times[2 * i]!, work: times[2 * i + 1]! });
      return { distance: distance!, passes: Array.from({ length: passes }, pass) };
    },
    close: program.close,
  };
}
