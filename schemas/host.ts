/** What this machine is: its CPU, caches, and how many threads a program should use on it. Linux and macOS. */
import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus } from 'node:os';
import { groupCpus, readSystem } from './cgroup.ts';
import type { CpuId, ModelShape } from './types.ts';

let description: string | undefined;
/** /proc/cpuinfo, read once; empty where there is none. */
function cpuinfo(): string {
  description ??= readSystem('/proc/cpuinfo');
  return description;
}

/** A value that macOS tells; empty where there is none. */
function sysctl(key: string): string {
  try {
    return execFileSync('sysctl', ['-n', key], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return '';
  }
}

/** CPU features in the spelling of /proc/cpuinfo. */
export function hostFeatures(): ReadonlySet<string> {
  const info = cpuinfo();
  if (info) {
    const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(info);
    return new Set(line?.[1]?.trim().split(/\s+/) ?? []);
  }
  if (process.platform !== 'darwin') return new Set();
  if (process.arch === 'arm64') {
    const has = (feature: string) => sysctl(`hw.optional.arm.FEAT_${feature}`) === '1';
    return new Set(['asimd', ...(has('DotProd') ? ['asimddp'] : []), ...(has('I8MM') ? ['i8mm'] : [])]);
  }
  const names = `${sysctl('machdep.cpu.features')} ${sysctl('machdep.cpu.leaf7_features')}`.toLowerCase().split(/\s+/);
  return new Set(names);
}

/** Brand string of the CPU, for people only: see CpuId. */
export const hostBrand = (): string => cpus()[0]?.model.trim() || process.arch;

/** The CPU that /proc/cpuinfo describes; undefined where it says too little. */
export function readCpuId(cpuinfo: string): CpuId | undefined {
  const value = (key: string) => new RegExp(`^${key}\\s*:[ \\t]*(\\S+)`, 'm').exec(cpuinfo)?.[1];
  const keys = value('vendor_id')
    ? (['vendor_id', 'cpu family', 'model', 'stepping'] as const)
    : (['CPU implementer', 'CPU architecture', 'CPU part', 'CPU revision'] as const);
  const [vendor, ...numbers] = keys.map(value);
  const [family, model, stepping] = numbers.map(Number);
  if (!vendor || ![family, model, stepping].every(Number.isInteger)) return undefined;
  return { vendor, family: family!, model: model!, stepping: stepping! };
}

/** This CPU; undefined where the system does not tell. */
export function hostId(): CpuId | undefined {
  const info = cpuinfo();
  if (info) return readCpuId(info);
  if (process.platform !== 'darwin') return undefined;
  const described =
    process.arch === 'arm64'
      ? { vendor_id: 'Apple', 'cpu family': sysctl('hw.cpufamily'), model: sysctl('hw.cpusubfamily'), stepping: '0' }
      : {
          vendor_id: sysctl('machdep.cpu.vendor'),
          'cpu family': sysctl('machdep.cpu.family'),
          model: sysctl('machdep.cpu.model'),
          stepping: sysctl('machdep.cpu.stepping'),
        };
  return readCpuId(
    Object.entries(described)
      .map(([key, text]) => `${key}: ${text}`)
      .join('\n'),
  );
}

/** `AuthenticAMD family 25 model 17 stepping 1` */
export const cpuName = ({ vendor, family, model, stepping }: CpuId): string =>
  `${vendor} family ${family} model ${model} stepping ${stepping}`;

/** This CPU, for statistics. */
export function hostCpu(): string {
  const id = hostId();
  return id ? `${hostBrand()} (${cpuName(id)})` : hostBrand();
}

/** Data caches in bytes; typical sizes where the system does not tell. */
export function hostCaches(): { l1: number; l2: number; l3: number } {
  const sizes = { l1: 32 << 10, l2: 1 << 20, l3: 16 << 20 };
  for (let i = 0; i < 5; i++) {
    const folder = `/sys/devices/system/cpu/cpu0/cache/index${i}`;
    const size = /^(\d+)K/.exec(readSystem(`${folder}/size`))?.[1];
    if (!size || readSystem(`${folder}/type`) === 'Instruction') continue;
    const key = `l${readSystem(`${folder}/level`)}` as keyof typeof sizes;
    if (key in sizes) sizes[key] = Number(size) * 1024;
  }
  return sizes;
}

/** CPUs this process may use: affinity and the quotas of its control groups respected; at least 1. */
export const usableCpus = (root = '/'): number =>
  Math.max(1, Math.min(availableParallelism(), Math.floor(groupCpus(root))));

/**
 * Weights that are worth a thread: about 1 ms of a token on one. With fewer, threads meet every few microseconds: they gain little on
 * a quiet machine, and on a busy one, where each meeting waits for a CPU, a token takes several times as long (docs/measurements.md).
 */
const WEIGHTS_OF_THREAD = 1 << 25;

/** Weights of the matrices that a token is multiplied with. */
export const tokenWeights = (shape: ModelShape): number =>
  shape.layers * shape.hidden * (2 * (shape.heads + shape.kvHeads) * shape.headSize + 3 * shape.intermediate) +
  shape.vocabulary * shape.hidden;

/**
 * Default number of threads: physical cores among the usable CPUs (two hardware threads share one core's load ports), and for a model
 * no more than have work enough.
 */
export function defaultThreads(shape?: ModelShape): number {
  const siblings = new Set<string>();
  for (const cpu of allowedCpus()) {
    const group = readSystem(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`);
    siblings.add(group || String(cpu));
  }
  const cores = siblings.size || usableCpus();
  const enough = shape ? Math.floor(tokenWeights(shape) / WEIGHTS_OF_THREAD) : Number.POSITIVE_INFINITY;
  return Math.max(1, Math.min(cores, usableCpus(), enough));
}

/** CPU numbers in this process's affinity mask. */
function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s*(.*)$/m.exec(readSystem('/proc/self/status'))?.[1];
  if (!list) return [];
  return list.split(',').flatMap((range) => {
    const [low, high] = range.split('-').map(Number) as [number, number?];
    return Array.from({ length: (high ?? low) - low + 1 }, (_, i) => low + i);
  });
}
