/** The bandwidth roof: plain reads by bench/read.c. */
import { type Native, type Pass, passesOf, startNative, type Target } from './native.ts';

export interface Reader extends Pick<Native, 'close'> {
  /** All of its memory is huge pages. */
  readonly hugePages: boolean;
  /** Times of `passes` reads of `bytes` bytes by `threads` threads, and how many bytes ahead they prefetch. */
  read(threads: number, bytes: number, passes: number): Promise<{ passes: Pass[]; distance: number }>;
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
    async read(...request) {
      const [distance, ...times] = await program.numbers(...request);
      return { distance: distance!, passes: passesOf(times) };
    },
    close: program.close,
  };
}
