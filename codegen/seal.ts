/**
 * Checksums beside what was compiled. A library that was cut or altered on the disk would end every program that loads it (SIGBUS); with
 * its checksum that is noticed first, and it is compiled anew. A build has one file of them, its seal; single files that are kept by
 * content (objects, kernels) have one each.
 */
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { sync, writeWhole } from '../schemas/aside.ts';
import { readTrusted } from '../schemas/trust.ts';

/** Parts of a build that are sealed, where they are there: relative paths. */
const PARTS = ['libbitnet.so', 'driver', 'src/manifest.json'];
const SEAL = 'sums.json';

const sumOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Takes from group and others the right to write, whatever the umask and the compiler were. */
function protect(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) protect(file);
    else chmodSync(file, lstatSync(file).mode & 0o755);
  }
  chmodSync(folder, lstatSync(folder).mode & 0o755);
}

/** Seals a folder in which a build is complete, and waits until what is sealed is on the disk. @throws the system's error */
export function seal(folder: string): void {
  const parts = PARTS.filter((name) => existsSync(path.join(folder, name)));
  const sums = parts.map((name) => [name, sumOf(readFileSync(path.join(folder, name)))]);
  writeFileSync(path.join(folder, SEAL), JSON.stringify(Object.fromEntries(sums)));
  protect(folder);
  for (const name of [...parts, SEAL, '.']) sync(path.join(folder, name));
}

/** The sealed parts of a build that is as it was made; else what is wrong, in words. @throws LibraryError where another user can change it */
export function openSealed(folder: string): ReadonlyMap<string, Buffer> | string {
  const text = readTrusted(path.join(folder, SEAL), folder);
  let sums: [string, unknown][];
  try {
    sums = Object.entries(JSON.parse(`${text}`));
  } catch {
    return `'${SEAL}' is ${text ? 'damaged' : 'missing'}`;
  }
  const parts = new Map<string, Buffer>();
  for (const [name, sum] of sums) {
    const bytes = readTrusted(path.join(folder, name), folder);
    if (!bytes) return `'${name}' is missing`;
    if (sumOf(bytes) !== sum) return `'${name}' differs from its checksum`;
    parts.set(name, bytes);
  }
  return parts.has('libbitnet.so') ? parts : `'libbitnet.so' has no checksum`;
}

const besideOf = (file: string) => `${file}.sum`;

/** Keeps a compiled file under another name. @throws the system's error */
export function keepFile(made: string, file: string): void {
  const bytes = readFileSync(made);
  writeWhole(besideOf(file), sumOf(bytes), false);
  writeWhole(file, bytes, false);
}

/** Is a kept file there, and as it was? @throws LibraryError where another user can change it */
export function isKept(file: string): boolean {
  const bytes = readTrusted(file);
  return bytes !== undefined && sumOf(bytes) === `${readTrusted(besideOf(file))}`;
}
