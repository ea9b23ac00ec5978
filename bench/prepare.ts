/** From a shape to libraries with opened weights: one for each target and packing, made with the program's own parts. */
import { ensureBuilt } from '../codegen/build.ts';
import type { Compiler } from '../codegen/compile.ts';
import { hostProfile, missingFeatures, runnableIsas } from '../codegen/cpu.ts';
import type { Manifest } from '../codegen/emit.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { findOrdered, packingOf, packings, packingsFor } from '../codegen/packings/index.ts';
import type { Packing } from '../codegen/packings/packing.ts';
import { candidates } from '../codegen/space.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import { type Library, openLibrary } from '../runtime/library.ts';
import { openWeights } from '../runtime/weights.ts';
import { LibraryError, PlanError } from '../schemas/error.ts';
import { defaultThreads } from '../schemas/host.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { randomModel } from './model.ts';
import type { Request } from './subjects/subject.ts';

/** A library with a model in it; whoever prepared it closes the model. */
export interface Prepared {
  readonly cpu: CpuProfile;
  /** Key in the registry of packings; keys, where the plan took several. */
  readonly packing: string;
  readonly compiler: Compiler;
  readonly manifest: Manifest;
  readonly source: ModelSource;
  readonly library: Library;
  readonly model: number;
  /** Of a model made for it: share of the gates that are closed, and whether zeros are skipped; else they are not. */
  readonly sparsity?: number;
  readonly path?: 'dense' | 'sparse';
}

/** Targets that were asked for, or the vector instruction sets of this machine. @throws LibraryError */
function profiles(targets: readonly string[] | undefined): CpuProfile[] {
  const isas = targets?.map(isaOf) ?? runnableIsas().filter((isa) => isa.family !== 'any');
  for (const isa of isas) {
    const missing = missingFeatures(isa);
    if (missing.length)
      throw new LibraryError(`this machine cannot measure target '${isa.name}': it lacks ${missing.join(', ')}`);
  }
  return (isas.length ? isas : runnableIsas()).map(hostProfile);
}

/** Keys of the packings that a CPU's instructions can decode. */
const usablePackings = (cpu: CpuProfile): string[] =>
  Object.entries<Packing>(packings)
    .filter(([, p]) => packingsFor(isaOf(cpu.isa)).includes(p) && candidates(cpu, p, 1, 1).length > 0)
    .map(([key]) => key);

/** The packings that are measured unless some are asked for: every one that a CPU can decode, or what its plan takes. */
export type Packings = 'all' | 'planned';

/** The registry's keys for the packings of a library's matrices. */
const packingsIn = (manifest: Manifest): string =>
  Object.entries<Packing>(packings)
    .filter(([, p]) =>
      Object.values(manifest.matrices).some(
        ({ packing }) => (findOrdered(packing)?.coding ?? packingOf(packing)) === p,
      ),
    )
    .map(([key]) => key)
    .join('+');

/**
 * Builds and opens what is to be compared; closes nothing.
 * @param notes gets the combinations that are not possible, and why
 * @throws BitnetError; AbortError
 */
export async function* prepare(request: Request, wanted: Packings, notes: string[]): AsyncGenerator<Prepared> {
  const { signal, onProgress } = request;
  const cpus = profiles(request.targets);
  for (const sparsity of request.sparsities ?? [undefined]) {
    const writing = (...at: [number, number]) => onProgress('writing a random model, MB', ...at);
    const folder = await randomModel(request.shape, writing, signal, sparsity);
    const source = openModel(folder);
    for (const cpu of cpus)
      for (const packing of request.packings ?? (wanted === 'all' ? usablePackings(cpu) : [undefined]))
        for (const path of sparsity === undefined ? [undefined] : (['dense', 'sparse'] as const)) {
          const build = await ensureBuilt(source.shape, cpu, {
            packing: packing && (packings as Readonly<Record<string, Packing>>)[packing]!.token,
            sparse: path === 'sparse',
            onProgress: (...at) => onProgress('compiling', ...at),
            signal,
            ...(request.cc ? { cc: request.cc } : {}),
          }).catch((error) => {
            if (!(error instanceof PlanError)) throw error;
            notes.push(`${packing ? `${cpu.isa} ${packing}` : cpu.isa} left out: ${error.message}`);
          });
          if (!build) continue;
          const library = await openLibrary(build.library);
          const { model } = await openWeights(source, build.manifest.layout, library, defaultThreads(), {
            onProgress: (what, ...at) => onProgress(`${what} weights`, ...at),
            onNote: (note) => notes.push(note),
            signal,
          });
          const { compiler, manifest } = build;
          const about = sparsity === undefined ? {} : { sparsity, path: path! };
          yield { cpu, packing: packingsIn(manifest), compiler, manifest, source, library, model, ...about };
        }
  }
}
