/** The user's cache: compiled libraries, packed weights, and the models that benchmarks made up. Everything in it can be made again. */
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { cacheRoot } from '../schemas/files.ts';

/** One build or one file of packed weights. */
export interface CacheEntry {
  readonly kind: 'builds' | 'weights' | 'bench';
  readonly path: string;
  /** Bytes on disk. */
  readonly bytes: number;
  /** ISO date of the last change. */
  readonly changed: string;
}

function sizeOf(file: string): number {
  const stat = statSync(file);
  if (!stat.isDirectory()) return stat.size;
  return readdirSync(file).reduce((sum, name) => sum + sizeOf(path.join(file, name)), 0);
}

/** Everything in the cache. */
export function listCache(): CacheEntry[] {
  return (['builds', 'weights', 'bench'] as const).flatMap((kind) => {
    const folder = path.join(cacheRoot(), kind);
    if (!existsSync(folder)) return [];
    return readdirSync(folder)
      .sort()
      .map((name) => path.join(folder, name))
      .map((file) => ({ kind, path: file, bytes: sizeOf(file), changed: statSync(file).mtime.toISOString() }));
  });
}

/** Removes everything in the cache, and nothing else. @returns what was removed */
export function clearCache(): CacheEntry[] {
  const entries = listCache();
  for (const entry of entries) rmSync(entry.path, { recursive: true, force: true });
  rmSync(path.join(cacheRoot(), 'requests'), { recursive: true, force: true });
  return entries;
}
