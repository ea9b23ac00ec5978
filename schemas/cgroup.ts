/**
 * What control groups (cgroups, versions 1 and 2) leave this process of the machine: CPU time and memory. A group's limit holds for
 * all groups below it, so every group from the process's own one up to the topmost that can be seen counts, and the least decides.
 *
 *   /proc/self/cgroup     which group, in each hierarchy:          4:memory:/machine/job
 *   /proc/self/mountinfo  where a hierarchy, or a part, is seen:   ... /machine /sys/fs/cgroup/memory ... - cgroup cgroup rw,memory
 *
 * Source: cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5), and the kernel's admin-guide/cgroup-v2 and cgroup-v1/memory.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';

/** Text of a file of the system, without the line break at its end; empty where there is none. */
export const readSystem = (file: string): string => {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
};

/** A folder of a group, and the version of its files. */
interface Group {
  readonly folder: string;
  readonly version: 1 | 2;
}

/** The text of a number of bytes or microseconds; NaN for anything else. */
const number = (text: string): number => (/^\d+$/.test(text) ? Number(text) : Number.NaN);

/** mountinfo writes spaces and the like as octal numbers. */
const unescaped = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));

/** A hierarchy, or a part of it from the group `top` on, in a folder. */
interface Mount {
  readonly top: string;
  readonly folder: string;
}

/** Where the hierarchy of a resource, or with version 2 of all, can be seen. */
function mountsOf(controller: string, version: 1 | 2, root: string): Mount[] {
  const lines = readSystem(path.join(root, 'proc/self/mountinfo')).split('\n');
  return lines.flatMap((line) => {
    const [left, right] = line.split(' - ').map((half) => half.split(' '));
    const [, , , top, point] = left!.map(unescaped);
    const [type, , options] = right ?? [];
    const matches = version === 2 ? type === 'cgroup2' : type === 'cgroup' && options?.split(',').includes(controller);
    return matches && top && point ? [{ top, folder: path.join(root, point) }] : [];
  });
}

/**
 * The groups that limit a resource for this process, by hierarchy: version 2 has one for all resources, version
 * 1 one for each; both may be there.
 */
function groupsOf(controller: 'cpu' | 'memory', root: string): Group[] {
  const own = readSystem(path.join(root, 'proc/self/cgroup')).split('\n');
  return own.flatMap((line) => {
    const [, id, controllers, group] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    if (group === undefined) return [];
    const version = id === '0' && controllers === '' ? 2 : 1;
    if (version === 1 && !controllers!.split(',').includes(controller)) return [];
    const mounts = mountsOf(controller, version, root);
    const below = ({ top }: Mount) => path.posix.relative(top, group);
    // A group's name may lead out of what can be seen, in a container: the mount itself is then the nearest that can.
    const sees = (mount: Mount) => !`${group}/${below(mount)}`.split('/').includes('..');
    const mount = mounts.find(sees) ?? mounts[0];
    if (!mount) return [];
    const folders = [sees(mount) ? path.join(mount.folder, below(mount)) : mount.folder];
    while (folders[0] !== mount.folder) folders.unshift(path.dirname(folders[0]!));
    return folders.map((folder) => ({ folder, version }));
  });
}

/** CPUs' worth of time that a group may use; NaN: no limit. */
function cpusOf({ folder, version }: Group): number {
  const file = (name: string) => readSystem(path.join(folder, name));
  const [quota = '', period = ''] =
    version === 2 ? file('cpu.max').split(' ') : [file('cpu.cfs_quota_us'), file('cpu.cfs_period_us')];
  return number(quota) / number(period);
}

/**
 * Bytes that a group can still take; NaN: no limit. The contents of files that it has read are in its account but can be given back
 * at any time, so they count as free; packed weights are such.
 */
function bytesOf({ folder, version }: Group): number {
  const file = (name: string) => readSystem(path.join(folder, name));
  const [limits, used, prefix] =
    version === 2
      ? ([['memory.max', 'memory.high'], 'memory.current', ''] as const)
      : ([['memory.limit_in_bytes'], 'memory.usage_in_bytes', 'total_'] as const);
  const limit = least(limits.map((name) => number(file(name))));
  const statistics = file('memory.stat');
  const files = ['inactive_file', 'active_file'].reduce((sum, name) => {
    const bytes = new RegExp(`^${prefix}${name} (\\d+)$`, 'm').exec(statistics)?.[1];
    return sum + Number(bytes ?? 0);
  }, 0);
  return Math.max(0, limit - Math.max(0, (number(file(used)) || 0) - files));
}

/** The least of these numbers, without NaN; infinity where there is none. */
const least = (numbers: readonly number[]): number => Math.min(...numbers.filter((x) => !Number.isNaN(x)));

/** CPUs' worth of time that the groups grant this process, or infinity. @param root folder that holds /proc and /sys */
export const groupCpus = (root = '/'): number => least(groupsOf('cpu', root).map(cpusOf));

/** Bytes that the groups of this process can still take, or infinity. @param root folder that holds /proc and /sys */
export const groupMemory = (root = '/'): number => least(groupsOf('memory', root).map(bytesOf));
