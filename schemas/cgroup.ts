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

/**
 * The groups that limit a resource for this process, the innermost first, by hierarchy: version 2 has one for all resources, version
 * 1 one for each; both may be there.
 */
function groupsOf(controller: 'cpu' | 'memory', root: string): Group[] {
  const own = readSystem(path.join(root, 'proc/self/cgroup')).split('\n');
  const mounts = readSystem(path.join(root, 'proc/self/mountinfo')).split('\n');
  return own.flatMap((line) => {
    const [, id, controllers, group] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    const version = id === '0' && controllers === '' ? 2 : 1;
    if (group === undefined || (version === 1 && !controllers!.split(',').includes(controller))) return [];
    for (const mount of mounts) {
      const [left, right] = mount.split(' - ') as [string, string?];
      const [, , , top, point] = left.split(' ').map(unescaped);
      const [type, , options] = (right ?? '').split(' ');
      const matches =
        version === 2 ? type === 'cgroup2' : type === 'cgroup' && options!.split(',').includes(controller);
      if (matches && top && point) return foldersOf(group, top, path.join(root, point), version);
    }
    return [];
  });
}

/** Folders from a group's own up to a mount that shows the hierarchy from `top` on; a group outside it is seen as the mount itself. */
function foldersOf(group: string, top: string, mount: string, version: 1 | 2): Group[] {
  const below = path.posix.relative(top, group);
  const inside = !group.split('/').includes('..') && !below.startsWith('..');
  const folders: Group[] = [];
  for (let folder = inside ? path.join(mount, below) : mount; ; folder = path.dirname(folder)) {
    folders.push({ folder, version });
    if (folder === mount) return folders;
  }
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
