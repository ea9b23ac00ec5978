/** Why a folder cannot be used, in words with the fix: it is full, of another user, or nothing in it may be run. */
import { accessSync, constants, existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { cacheRoot } from './files.ts';

const isBelow = (file: string, folder: string): boolean =>
  !/^\.\.(\/|$)/.test(path.relative(folder, path.resolve(file)));

/** Is it the cache's folder, or something in it? */
export const isInCache = (file: string): boolean => {
  try {
    return isBelow(file, cacheRoot());
  } catch {
    return false;
  }
};

/** How a file of the cache, or one of ours in the temporary folder, comes to lie elsewhere; undefined for others. */
export function otherFolder(file: string): string | undefined {
  if (isInCache(file)) return 'set XDG_CACHE_HOME to another folder';
  if (/^$|^bitnet-(probe|tune|bench)\b/.test(path.relative(tmpdir(), file))) return 'set TMPDIR to another folder';
  return undefined;
}

/** Why nothing can be written to a folder, or to the first one above it that exists; undefined where that is not the reason. */
function refusal(folder: string): string | undefined {
  if (!existsSync(folder)) return folder === path.dirname(folder) ? undefined : refusal(path.dirname(folder));
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EROFS') return `'${folder}' is read-only`;
    const [owner, user] = [statSync(folder).uid, process.getuid?.()];
    return owner === user ? undefined : `'${folder}' belongs to user ${owner}, and this is user ${user}`;
  }
}

/** What is said of a file or folder that cannot be written. */
export function cannotWrite(file: string, error: NodeJS.ErrnoException): string {
  const room = error.code === 'ENOSPC' || error.code === 'EDQUOT' ? 'make room there, or ' : '';
  const why = refusal(path.resolve(file)) ?? error.message;
  return `cannot write to '${file}': ${why}; ${room}${otherFolder(file) ?? 'choose another folder'}`;
}

const mounts = (): string => {
  try {
    return readFileSync('/proc/self/mounts', 'utf8');
  } catch {
    return '';
  }
};

/**
 * Says that nothing in this folder may be run (and no library loaded), and the fix; undefined where that is not so, or not known.
 * @param table mounted file systems as in /proc/self/mounts: device, folder, type, options
 */
export function cannotRun(folder: string, table: string = mounts()): string | undefined {
  const real = realpathSync(folder);
  let [at, options]: [string, string] = ['', ''];
  for (const line of table.split('\n')) {
    const [, escaped = '', , those = ''] = line.split(' ');
    const mounted = escaped.replace(/\\(\d{3})/g, (_, code) => String.fromCharCode(Number.parseInt(code, 8)));
    // Of several at the same place the last is in effect.
    if (mounted.length >= at.length && mounted && isBelow(real, mounted)) [at, options] = [mounted, those];
  }
  if (!options.split(',').includes('noexec')) return undefined;
  return `'${at}' is mounted noexec, so nothing in it can be run; ${otherFolder(folder) ?? 'choose another folder'}`;
}
