/** A progress line on the terminal: shown only there, only when something takes long, and wiped when it is done. */

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
export function createProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  const started = performance.now();
  let shown = 0;
  return {
    update(what, done, total) {
      const now = performance.now();
      if (!stream.isTTY || now - started < PATIENCE || (now - shown < 80 && done < total)) return;
      shown = now;
      stream.write(`\r\x1b[K${what}: ${done} of ${total} (${Math.floor((100 * done) / total)} %)`);
    },
    end() {
      if (shown) stream.write('\r\x1b[K');
      shown = 0;
    },
  };
}
