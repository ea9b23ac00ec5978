/** A progress line on the terminal: shown only there, only when something takes long, and wiped when it is done. */
import { oneLine } from '../schemas/terminal.ts';

/** Milliseconds before the first line appears. */
const PATIENCE = 700;

/** The line, from the caller's side. */
export interface Progress {
  /** @param what in progress, e.g. `packing weights` */
  update(what: string, done: number, total: number): void;
  /** Wipes the line. */
  end(): void;
}

/** A line on this stream; nothing is written where it is no terminal. */
export function createProgress(
  stream: Pick<NodeJS.WriteStream, 'write' | 'isTTY' | 'columns'> = process.stderr,
): Progress {
  const started = performance.now();
  let shown = 0;
  return {
    update(what, done, total) {
      const now = performance.now();
      if (!stream.isTTY || now - started < PATIENCE || (now - shown < 80 && done < total)) return;
      shown = now;
      const line = oneLine(`${what}: ${done} of ${total} (${Math.floor((100 * done) / total)} %)`);
      // A line that the terminal breaks could not be wiped.
      stream.write(`\r\x1b[K${[...line].slice(0, (stream.columns || 80) - 1).join('')}`);
    },
    end() {
      if (shown) stream.write('\r\x1b[K');
      shown = 0;
    },
  };
}
