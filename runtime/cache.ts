/** The user's cache: compiled libraries, packed weights, the models that benchmarks made up, and records. Everything in it can be made again. */
import { type Dirent, lstatSync, readdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { isAside, isLive } from '../schemas/aside.ts';
import { cacheRoot } from '../schemas/files.ts';
import { knownModels } from './known-models.ts';
import { contentOfPacked } from './weights.ts';

/** Folders of the cache, and what lies in each. Of the last two all files together are one entry. */
const folders = {
  builds: 'builds',
  weights: 'weights',
  bench: 'bench',
  models: 'records',
  requests: 'records',
} as const;

/** One build, one file of packed weights, one made-up model, or records: of models that were packed, of builds that were asked for. */
export interface CacheEntry {
  /** `unfinished`: what someone is making, or was when it was killed. */
  readonly kind: (typeof folders)[keyof typeof folders] | 'unfinished';
  readonly path: string;
  /** Bytes on disk. */
  readonly bytes: number;
  /** ISO date of the last change. */
  readonly changed: string;
  /** Packed weights: where their model was seen last, if that is known. */
  readonly model?: string;
}

function childrenOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch {
    // Another process removed it, or may look into it alone.
    return [];
  }
}

/** Bytes of a file, or of all files below a folder; links are not followed. */
function bytesOf(file: string): number {
  const stat = lstatSync(file, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) return stat?.size ?? 0;
  return childrenOf(file).reduce((sum, { name }) => sum + bytesOf(path.join(file, name)), 0);
}

/** Is someone at work on it? A benchmark writes its model within a folder. */
const isBusy = (file: string): boolean =>
  isLive(file) || childrenOf(file).some(({ name }) => isLive(path.join(file, name)));

/** Everything in the cache. @throws LibraryError where others can change the records */
export function listCache(): CacheEntry[] {
  const known = knownModels();
  return Object.entries(folders).flatMap(([name, kind]) => {
    const folder = path.join(cacheRoot(), name);
    const isFolder = statSync(folder, { throwIfNoEntry: false })?.isDirectory();
    const files =
      isFolder && kind !== 'records' ? childrenOf(folder).map((one) => path.join(folder, one.name)) : [folder];
    return files.flatMap((file) => {
      const stat = lstatSync(file, { throwIfNoEntry: false });
      if (!stat || (file === folder && isFolder && !childrenOf(folder).length)) return [];
      const content = contentOfPacked(file);
      const model = content && known.find((one) => one.content === content)?.places[0]?.model;
      return [
        {
          kind: isAside(file) ? 'unfinished' : kind,
          path: file,
          bytes: bytesOf(file),
          changed: stat.mtime.toISOString(),
          ...(model ? { model } : {}),
        },
      ];
    });
  });
}

/** Removes everything in the cache but what someone is making just now, and nothing else. @returns what was removed */
export function clearCache(): CacheEntry[] {
  const entries = listCache().filter((entry) => !isBusy(entry.path));
  for (const { path: file } of entries) rmSync(file, { recursive: true, force: true, maxRetries: 3 });
  return entries;
}
