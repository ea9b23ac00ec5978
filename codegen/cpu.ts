/** CPU profiles: shipped ones (schemas/cpus), a user's own file, or this machine. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { PlanError } from '../schemas/error.ts';
import { packageRoot } from '../schemas/files.ts';
import { hostCaches, hostFeatures, hostId } from '../schemas/host.ts';
import type { CpuId, CpuProfile, Prefetch } from '../schemas/types.ts';
import { validate } from '../schemas/validate.ts';
import { hostFamily } from './compile.ts';
import { isaOf, isas } from './isa/index.ts';
import type { Isa } from './isa/isa.ts';

/** Features of `isa` that the host lacks; empty when it can run it. */
export function missingFeatures(isa: Isa, features: ReadonlySet<string> = hostFeatures()): string[] {
  if (isa.family !== 'any' && isa.family !== hostFamily) return [`an ${isa.family} processor`];
  return isa.requires.filter((f) => !features.has(f));
}

/** Instruction sets that this machine can run, the preferred first: registry order, scalar last. */
export const runnableIsas = (): Isa[] => Object.values<Isa>(isas).filter((isa) => missingFeatures(isa).length === 0);

/** The best instruction set of this machine. */
export const nativeProfile = (): CpuProfile => hostProfile(runnableIsas()[0]!);

/**
 * How a CPU fetches weights ahead until its kernels are measured (bitnet-tune). AMD's: as each packing was measured with, on Zen 4. On
 * other x86 that hint can nearly double the time of a token (Emerald Rapids: docs/measurements.md), so into the second-level cache.
 */
function prefetchOf(isa: Isa, id: CpuId | undefined): Prefetch {
  return isa.family === 'x64' && id?.vendor !== 'AuthenticAMD' ? { hint: 'l2', ahead: 12288 } : { hint: 'nta' };
}

/** Which CPU this machine has, and what follows from that for an instruction set. */
function hostTraits(isa: Isa): Pick<CpuProfile, 'id' | 'prefetch'> {
  const id = hostId();
  return { ...(id ? { id } : {}), prefetch: prefetchOf(isa, id) };
}

/** This machine with an instruction set that it can run, and those of its features that matter. */
export function hostProfile(isa: Isa): CpuProfile {
  const features = hostFeatures();
  return {
    name: isa.name,
    ...hostTraits(isa),
    isa: isa.name,
    features: [...isa.requires, ...isa.optional.filter((f) => features.has(f))],
    cache: hostCaches(),
  };
}

/** The profile for a target name that this machine is to run: of features and caches that any such CPU has, prefetching as this one does. */
export function runnableProfile(target: string): CpuProfile {
  const cpu = profileOf(target);
  const isa = isaOf(cpu.isa);
  return target === 'native' || missingFeatures(isa).length ? cpu : { ...cpu, ...hostTraits(isa) };
}

/** Reads a profile from a file. @throws PlanError when it is missing or does not follow schemas/cpu.schema.json */
export function readProfile(file: string): CpuProfile {
  if (!existsSync(file)) throw new PlanError(`no CPU profile '${file}'; give a JSON file like those in schemas/cpus`);
  let profile: Partial<CpuProfile>;
  try {
    profile = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new PlanError(`CPU profile '${file}' is not JSON: ${(error as Error).message}`);
  }
  // A file may leave `prefetch` to what suits the CPU.
  const problem = validate('cpu', { prefetch: { hint: 'none' }, ...profile });
  if (problem) throw new PlanError(`CPU profile '${file}': ${problem}`);
  const checked = profile as Omit<CpuProfile, 'prefetch'> & Partial<CpuProfile>;
  const isa = isaOf(checked.isa);
  const missing = isa.requires.filter((f) => !checked.features.includes(f));
  if (missing.length)
    throw new PlanError(
      `CPU profile '${file}': ${isa.name} needs the features ${missing.join(', ')}; add them or choose another isa`,
    );
  return { prefetch: prefetchOf(isa, checked.id), ...checked };
}

/** The profile for a target name: shipped, or the ISA with typical caches. @throws PlanError when there is no such ISA */
export function profileOf(target: string): CpuProfile {
  if (target === 'native') return nativeProfile();
  const isa = isaOf(target);
  const shipped = path.join(packageRoot, 'schemas', 'cpus', `${target}.json`);
  if (existsSync(shipped)) return readProfile(shipped);
  return {
    name: isa.name,
    isa: isa.name,
    features: isa.requires,
    prefetch: prefetchOf(isa, undefined),
    cache: { l1: 32 << 10, l2: 512 << 10, l3: 16 << 20 },
  };
}
