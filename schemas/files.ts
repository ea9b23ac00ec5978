/** Where things lie: the package's own files, and the user's cache. */
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { UsageError } from './error.ts';

function findRoot(): string {
  let folder = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(folder, 'package.json'))) folder = path.dirname(folder);
  return folder;
}

/** The package's folder, whether run from its sources or compiled. */
export const packageRoot: string = findRoot();

/** Version from package.json. */
export const version: string = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')).version;

/** The demo model that ships with the package. */
export const demoModel: string = path.join(packageRoot, 'models', 'demo');

/** The user's home folder, by HOME or by the system's list of users. @throws UsageError where neither names one */
function home(): string {
  for (const find of [homedir, () => userInfo().homedir])
    try {
      const folder = find();
      if (path.isAbsolute(folder)) return folder;
    } catch {
      // Not in the list of users.
    }
  throw new UsageError(
    `HOME names no folder, and user ${process.getuid?.()} has none, so there is no place for the cache; set XDG_CACHE_HOME to a folder you can write to`,
  );
}

/** The user's cache folder for builds and packed weights; never inside the package, which may be read-only. @throws UsageError */
export function cacheRoot(): string {
  const base = process.env.XDG_CACHE_HOME;
  return path.join(base && path.isAbsolute(base) ? base : path.join(home(), '.cache'), 'bitnet-gen');
}

/** What is said of a path that is not there: a link may be, and what it points to not. @param kind `model` */
export function missing(kind: string, file: string): string {
  try {
    return `the ${kind} '${file}' is a link to '${readlinkSync(file)}', which is not there`;
  } catch {
    return `there is no ${kind} '${file}'`;
  }
}
