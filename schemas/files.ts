/** Where things lie: the package's own files, and the user's cache. */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

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

/** The user's cache folder for builds and packed weights; never inside the package, which may be read-only. */
export function cacheRoot(): string {
  const base = process.env.XDG_CACHE_HOME;
  return path.join(base && path.isAbsolute(base) ? base : path.join(homedir(), '.cache'), 'bitnet-gen');
}
