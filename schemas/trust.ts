/**
 * Whose the cache is. What lies in it is run (libraries), believed (packed weights) or started (remembered compilers): it must belong to
 * this user or to root, and nobody else may be able to replace it. The same is asked of every folder up to the cache's own. Folders
 * above it (/tmp, a home) are the system's business.
 *
 * Nothing here waits: a named pipe in a file's place is told from a file before anything is read.
 */
import type { Stats } from 'node:fs';
import { closeSync, constants, fstatSync, lstatSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { LibraryError } from './error.ts';
import { cacheRoot } from './files.ts';
import { cannotWrite, isInCache } from './folders.ts';

const ADVICE = 'or set XDG_CACHE_HOME to a folder of your own';

/** What a file is, for people. */
export function kindOf(stat: Stats): string {
  if (stat.isFile()) return 'a file';
  if (stat.isDirectory()) return 'a folder';
  if (stat.isSymbolicLink()) return 'a link';
  if (stat.isFIFO()) return 'a named pipe';
  return stat.isSocket() ? 'a socket' : 'a device';
}

/** @returns undefined where there is nothing @throws LibraryError */
function look(file: string, follow: boolean): Stats | undefined {
  try {
    return (follow ? statSync : lstatSync)(file);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new LibraryError(`cannot look at '${file}' in the cache: ${message}; make it readable, ${ADVICE}`);
  }
}

const user = (): number => process.geteuid?.() ?? 0;
const octal = (mode: number) => (mode & 0o7777).toString(8).padStart(4, '0');

function requireOwn(file: string, stat: Stats): void {
  if (stat.uid !== 0 && stat.uid !== user())
    throw new LibraryError(
      `'${file}' belongs to user ${stat.uid}, and you are user ${user()}: what another user can change is not used; remove it, give it to yourself (chown -R), ${ADVICE}`,
    );
  // Pipes, devices and links hold nothing.
  if (!(stat.isFile() || stat.isDirectory()) || !(stat.mode & 0o022)) return;
  const others = stat.mode & 0o002 ? 'everyone' : 'its group';
  throw new LibraryError(
    `'${file}' can be changed by ${others} (mode ${octal(stat.mode)}): what another user can change is not used; see that nothing strange is in it, then chmod -R go-w '${file}', ${ADVICE}`,
  );
}

/**
 * Refuses what another user may have put there or can still change: a file or folder, and each folder above it up to the cache's own.
 * @param top of files elsewhere: the last folder above them that counts @throws LibraryError with owner or mode, and the fix
 */
export function requireTrusted(file: string, top = path.dirname(file)): void {
  const end = path.resolve(isInCache(file) ? cacheRoot() : top);
  for (let at = path.resolve(file); ; at = path.dirname(at)) {
    const link = look(at, false);
    if (link) requireOwn(at, link);
    const target = link?.isSymbolicLink() ? look(at, true) : undefined;
    if (target) requireOwn(at, target);
    if (at === end || at === path.dirname(at)) return;
  }
}

/** Makes a folder of the cache, or one with the same purpose elsewhere, and those above it. @throws LibraryError */
export function makeFolder(folder: string): void {
  requireTrusted(folder, folder);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
  } catch (error) {
    // In the way is the first thing from above that is no folder.
    const above = folder.split(path.sep).map((_, i, names) => names.slice(0, i + 1).join(path.sep) || path.sep);
    const obstacle = above.find((at) => look(at, false) && !look(at, true)?.isDirectory());
    if (!obstacle) throw new LibraryError(cannotWrite(folder, error as Error));
    throw new LibraryError(
      `cannot create the cache folder '${folder}': ${(error as Error).message}; remove '${obstacle}', which is ${kindOf(lstatSync(obstacle))}, ${ADVICE}`,
    );
  }
}

/**
 * A file of the cache. @param top as of requireTrusted @returns undefined where there is none, or something else in its place
 * @throws LibraryError where another user can change it
 */
export function readTrusted(file: string, top?: string): Buffer | undefined {
  requireTrusted(file, top);
  try {
    // A named pipe without a writer would wait for one; a device may do anything.
    if (!statSync(file).isFile()) return undefined;
    const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      return fstatSync(fd).isFile() ? readFileSync(fd) : undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
}
