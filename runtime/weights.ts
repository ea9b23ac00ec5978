/**
 * Packed weights: made once per model and layout in the user's cache, never beside the model, then mapped by the library.
 * The file is written aside, checksummed and renamed, so that an interrupted packing leaves nothing that looks whole.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, renameSync, rmSync, statfsSync } from 'node:fs';
import path from 'node:path';
import { isMainThread, threadId } from 'node:worker_threads';
import { LibraryError, ModelError } from '../schemas/error.ts';
import { cacheRoot } from '../schemas/files.ts';
import { cannotWrite } from '../schemas/folders.ts';
import type { ModelSource } from './formats/source.ts';
import { encodings } from './formats/source.ts';
import type { Library } from './library.ts';

/** What packing needs of a manifest. */
export interface PackedLayout {
  readonly id: string;
  readonly fileBytes: number;
  readonly tensors: readonly { readonly name: string; readonly kind: string; readonly from?: string }[];
}

/** Packed weights are kept here. */
export const weightsRoot = (): string => path.join(cacheRoot(), 'weights');

/** Name in the cache: another model file, time stamp, size or layout is another name. */
export function weightsFile(source: ModelSource, layout: PackedLayout): string {
  const key = createHash('sha256')
    .update(
      JSON.stringify({
        layout: layout.id,
        files: source.files.map((file) => ({ ...file, path: path.resolve(file.path) })),
        scales: [...source.tensors.values()].map((t) => [t.scale, t.factor]),
      }),
    )
    .digest('hex');
  return path.join(weightsRoot(), `${source.shape.name}-${key.slice(0, 16)}.bnw`);
}

const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;

async function packTo(
  file: string,
  source: ModelSource,
  layout: PackedLayout,
  library: Library,
  threads: number,
  options: PackOptions,
): Promise<void> {
  options.signal?.throwIfAborted();
  const packTensor = (i: number, from: string): void => {
    const t = source.tensors.get(from);
    if (!t) throw new ModelError(`${source.path}: tensor '${from}' is missing`);
    const { file, offset, bytes, rows, cols, scale = 0, factor = 1, permutedHeads = 0 } = t;
    try {
      library.packTensor(i, file, offset, bytes, encodings[t.encoding], rows, cols, scale, factor, permutedHeads);
    } catch (error) {
      if (!(error instanceof LibraryError)) throw error;
      // The library knows tensors by our names.
      throw new ModelError(`${file}: ${error.message.replace(/(?<=^tensor ')[^']*/, () => t.name)}`);
    }
  };
  library.packBegin(file, threads);
  try {
    for (const [i, { name, kind, from = name }] of layout.tensors.entries()) {
      // The library itself makes what it finds out of the others.
      if (kind !== 'int32') packTensor(i, from);
      options.onProgress?.(i + 1, layout.tensors.length);
      // Lets Ctrl-C and the progress line through.
      if (i % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
      options.signal?.throwIfAborted();
    }
  } catch (error) {
    library.packEnd(false);
    throw error;
  }
  library.packEnd(true);
}

/** Packed weights that the library has mapped. */
export interface OpenedWeights {
  /** The library's number of the model. */
  readonly model: number;
  readonly file: string;
  /** It was there already. */
  readonly cached: boolean;
}

/** For whoever waits while weights are packed. */
export interface PackOptions {
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Openings of this thread take turns: it packs one file at a time, and the file aside is named after process and thread. */
let turn: Promise<unknown> = Promise.resolve();

/**
 * The model's packed weights, opened; packs them first when they are missing, damaged or the model changed.
 * @throws ModelError, LibraryError (no space, unwritable cache)
 */
export function openWeights(
  source: ModelSource,
  layout: PackedLayout,
  library: Library,
  threads: number,
  options: PackOptions = {},
): Promise<OpenedWeights> {
  const opened = turn.then(() => openOrPack(source, layout, library, threads, options));
  turn = opened.catch(() => undefined);
  return opened;
}

async function openOrPack(
  source: ModelSource,
  layout: PackedLayout,
  library: Library,
  threads: number,
  options: PackOptions,
): Promise<OpenedWeights> {
  const file = weightsFile(source, layout);
  if (existsSync(file)) {
    try {
      return { model: library.open(file), file, cached: true };
    } catch (error) {
      if (!(error instanceof LibraryError)) throw error;
      // Damaged: it is only a cache, so it is packed anew.
    }
  }
  const folder = path.dirname(file);
  const aside = [file, process.pid, ...(isMainThread ? [] : [threadId])].join('.');
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw new LibraryError(cannotWrite(folder, error as Error));
  }
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < layout.fileBytes)
    throw new LibraryError(
      `the packed weights need ${megabytes(layout.fileBytes)} in '${folder}', which has ${megabytes(bavail * bsize)} free; free some space (bitnet-run --cache list) or set XDG_CACHE_HOME`,
    );
  rmSync(aside, { force: true });
  await packTo(aside, source, layout, library, threads, options);
  try {
    renameSync(aside, file);
  } catch (error) {
    rmSync(aside, { force: true });
    throw new LibraryError(`cannot rename the packed weights '${aside}' to '${file}': ${(error as Error).message}`);
  }
  return { model: library.open(file), file, cached: false };
}
