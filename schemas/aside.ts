/**
 * Files and folders made aside: they have a name of their own until they are complete and on the disk, and only then get the name that
 * others look for. The name says who makes them, so that what a killed process left can be told from what a living one is at:
 *
 *     <target>.<boot>-<pid namespace>-<pid>-<start time>-<uuid>.aside
 *
 * Processes, threads, containers and machines that share a folder never share a name.
 */
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const NAME = /\.([0-9a-z]+)-(\d+)-(\d+)-(\d+)-[0-9a-f-]{36}\.aside$/;
/** Milliseconds after which what another machine or container makes counts as left: whether its process lives cannot be told from here. */
const FOREIGN_LIFE = 24 * 3600 * 1000;
/** Characters of the target's name that are kept: at most four bytes each, and a name has at most 255. */
const MOST_NAME = 40;

const attempt = <T>(read: () => T): T | undefined => {
  try {
    return read();
  } catch {
    return undefined;
  }
};

/** When a process began, in clock ticks since the machine did; undefined where /proc does not tell. */
function startOf(pid: number): string | undefined {
  const text = attempt(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  // proc(5): pid (name) state ppid ...; the start time is the 22nd field.
  const [state, ...fields] = text?.slice(text.lastIndexOf(')') + 2).split(' ') ?? [];
  // A zombie's work is over.
  return state === 'Z' || state === 'X' ? 'ended' : fields[18];
}

/** Is there such a process, perhaps of another user? */
function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

let place: string | undefined;
/** Where process numbers mean the same as here: boot of a machine and process namespace. */
function here(): string {
  const boot = () => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8);
  const namespace = () => /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0];
  place ??= `${attempt(boot) ?? 'unknown'}-${attempt(namespace) ?? 0}`;
  return place;
}

/** Is this the name of something made aside? */
export const isAside = (file: string): boolean => NAME.test(file);

/** Is something still being made aside? @param file path as `asideOf` gave it */
export function isLive(file: string): boolean {
  const [, boot, namespace, pid, start] = NAME.exec(file) ?? [];
  if (pid === undefined) return false;
  if (`${boot}-${namespace}` !== here())
    return Date.now() - (attempt(() => lstatSync(file).mtimeMs) ?? 0) < FOREIGN_LIFE;
  const found = startOf(Number(pid));
  return found === undefined ? exists(Number(pid)) : found === start;
}

/** Removes what killed processes left in a folder, as far as that is possible. */
export function sweep(folder: string): void {
  for (const name of attempt(() => readdirSync(folder)) ?? []) {
    const file = path.join(folder, name);
    if (isAside(name) && !isLive(file)) attempt(() => rmSync(file, { recursive: true, force: true }));
  }
}

/** This process, in names. */
let self: string | undefined;
/** Folders that were swept by this process. */
const swept = new Set<string>();

/**
 * A name for making a file or folder aside, in the folder where it shall be; what killed processes left in that folder goes. Whoever asks
 * creates it, and calls `publish` or removes it.
 */
export function asideOf(target: string): string {
  const folder = path.dirname(target);
  if (!swept.has(folder)) sweep(folder);
  swept.add(folder);
  const name = [...path.basename(target)].slice(0, MOST_NAME).join('');
  self ??= `${here()}-${process.pid}-${startOf(process.pid) ?? 0}`;
  return path.join(folder, `${name}.${self}-${randomUUID()}.aside`);
}

/** A private folder in the system's folder for such, for as long as this process needs it. @param name for people */
export function temporaryFolder(name: string): string {
  const folder = asideOf(path.join(tmpdir(), `bitnet-${name}`));
  mkdirSync(folder, { mode: 0o700 });
  return folder;
}

/** Waits until a file's bytes, or a folder's names, are on the disk. */
export function sync(file: string): void {
  const fd = openSync(file, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Gives what was made aside its name, for good: bytes first, then the name. @throws the system's error */
export function publish(aside: string, target: string): void {
  sync(aside);
  renameSync(aside, target);
  // Some file systems cannot wait for a folder.
  attempt(() => sync(path.dirname(target)));
}

/**
 * Writes a whole file or nothing.
 * @param lasting false: it need not be on the disk yet, since whoever reads it notices that it is not whole @throws the system's error
 */
export function writeWhole(file: string, content: string | Uint8Array, lasting = true): void {
  const aside = asideOf(file);
  try {
    writeFileSync(aside, content, { mode: 0o644, flag: 'wx' });
    if (lasting) publish(aside, file);
    else renameSync(aside, file);
  } catch (error) {
    attempt(() => rmSync(aside, { force: true }));
    throw error;
  }
}
