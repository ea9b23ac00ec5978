/**
 * Writes a model file of random tensors: header, then each tensor out of an endless stream. Space is checked first, and the file
 * gets its name when it is complete.
 */
import { statfsSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import { asideOf, publish } from '../schemas/aside.ts';
import { LibraryError } from '../schemas/error.ts';

/** Bytes to be written at the next place. */
export interface Part {
  readonly bytes: number;
  readonly content: Iterable<Uint8Array>;
}

const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
/** Views of a stream that are written with one call. */
const GATHERED = 64;

/**
 * Writes the parts one after another.
 * @param onProgress megabytes written, and in all
 * @throws LibraryError without space, AbortError
 */
export async function writeParts(
  file: string,
  parts: readonly Part[],
  onProgress: (done: number, total: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const folder = path.dirname(file);
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < total)
    throw new LibraryError(
      `the random model needs ${megabytes(total)} in '${folder}', which has ${megabytes(bavail * bsize)} free; free some space (bitnet-run --cache list) or set XDG_CACHE_HOME`,
    );
  const aside = asideOf(file);
  const out = await open(aside, 'wx');
  try {
    let done = 0;
    for (const { content } of parts) {
      let views: Uint8Array[] = [];
      const flush = async () => {
        await out.writev(views);
        done += views.reduce((sum, view) => sum + view.length, 0);
        views = [];
        onProgress(Math.floor(done / 1e6), Math.ceil(total / 1e6));
        signal.throwIfAborted();
      };
      for (const view of content) if (views.push(view) === GATHERED) await flush();
      if (views.length) await flush();
    }
    await out.close();
    publish(aside, file);
  } catch (error) {
    await out.close().catch(() => undefined);
    await rm(aside, { force: true });
    throw error;
  }
}
