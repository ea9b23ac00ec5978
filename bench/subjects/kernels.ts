/**
 * Single kernels: every family of the registry on every instruction set of this CPU, on one thread, with data that stay in the caches.
 * A family's largest test sample stands for each kind of its kernels (operand types, packing), so a registered kernel has a row
 * without further ado. All are measured in rotation.
 */
import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { findCompiler } from '../../codegen/compile.ts';
import { hostProfile, missingFeatures, runnableIsas } from '../../codegen/cpu.ts';
import { kernelSource, neededFeatures } from '../../codegen/generate.ts';
import { CALL_TYPES, encodeArguments, printCalls } from '../../codegen/ir/calls.ts';
import type { Arguments } from '../../codegen/ir/simulate.ts';
import { isaOf } from '../../codegen/isa/index.ts';
import type { Isa } from '../../codegen/isa/isa.ts';
import { kernelsFor } from '../../codegen/kernels/index.ts';
import type { KernelFamily } from '../../codegen/kernels/kernel.ts';
import { preferredPrefetch } from '../../codegen/kernels/prefetch.ts';
import { format, type KernelSpec } from '../../codegen/name.ts';
import { temporaryFolder } from '../../schemas/aside.ts';
import { LibraryError, UsageError } from '../../schemas/error.ts';
import { randomOf } from '../../test/kernel-inputs.ts';
import { type Native, startNative } from '../native.ts';
import { type Measured, median, rotate } from '../rotation.ts';
import { formatTable } from '../table.ts';
import type { Request, Subject } from './subject.ts';

/** A kernel with the arguments of a call. */
interface Sample {
  readonly family: KernelFamily;
  readonly spec: KernelSpec;
  readonly args: Arguments;
}

const kindOf = ({ op, act, weight, out }: KernelSpec) => [op, act, weight, out].join('_');

/** Bytes of all buffers: what a call may read and write. */
const bytesOf = (args: Arguments): number =>
  Object.values(args).reduce<number>((sum, value) => sum + (typeof value === 'number' ? 0 : value.byteLength), 0);

/** Of each kind of kernels whose name has `filter` in it: the sample with the most bytes, fetching ahead as this CPU does. */
export function samplesOf(isa: Isa, filter: string): Sample[] {
  const cpu = hostProfile(isa);
  return kernelsFor(isa).flatMap(([op, family]) => {
    const isStream = family.product || family.batch || op === 'screen';
    const largest = new Map<string, Sample>();
    for (const sample of family.samples(isa)) {
      const spec = isStream ? { ...sample, variant: preferredPrefetch(cpu, 8192) } : sample;
      if (!format(spec).includes(filter) || !neededFeatures(spec).every((f) => cpu.features.includes(f))) continue;
      const args = family.example(spec, randomOf(format(spec)), false);
      const known = largest.get(kindOf(spec));
      if (!known || bytesOf(args) > bytesOf(known.args)) largest.set(kindOf(spec), { family, spec, args });
    }
    return [...largest.values()];
  });
}

/** Multiply-adds with weights in a call; undefined where the kernel is no product. */
function multiplyAdds({ family, spec: { shape, tile } }: Sample): number | undefined {
  return family.product || family.batch ? shape.n! * shape.k! * tile[0]! : undefined;
}

class KernelTimer implements Measured {
  readonly seconds: number[] = [];
  readonly sample: Sample;
  readonly #program: Native;
  readonly #index: number;

  constructor(sample: Sample, program: Native, index: number) {
    this.sample = sample;
    this.#program = program;
    this.#index = index;
  }

  async turn(): Promise<void> {
    const [seconds] = await this.#program.numbers(this.#index);
    this.seconds.push(seconds!);
  }
}

/** A row of the result. */
export type KernelRow = ReturnType<typeof rowOf>;

function rowOf({ sample, seconds }: KernelTimer) {
  const { spec, args } = sample;
  const time = median(seconds);
  const macs = multiplyAdds(sample);
  return {
    target: spec.isa,
    op: spec.op,
    kernel: format(spec),
    us: 1e6 * time,
    /** Fastest and slowest turn. */
    least_us: 1e6 * Math.min(...seconds),
    most_us: 1e6 * Math.max(...seconds),
    bytes: bytesOf(args),
    gb_s: bytesOf(args) / time / 1e9,
    ...(macs === undefined ? {} : { gmac_s: macs / time / 1e9 }),
    samples: seconds.length,
  };
}

/** Compiles and starts the kernels of an instruction set. */
async function timersOf(isa: Isa, samples: readonly Sample[], folder: string, request: Request) {
  const compiler = await findCompiler(isa.family, request.cc);
  const kernels = samples.map(({ spec }) => kernelSource(spec));
  const programs = kernels.map(({ program }) => program);
  const file = path.join(folder, isa.name);
  await writeFile(file, Buffer.concat(samples.map(({ args }, i) => encodeArguments(programs[i]!, args))));
  const generated = new Map([
    ...kernels.map(({ name, text }): [string, string] => [`kernels/${name}.c`, text]),
    ['calls.h', `${CALL_TYPES}${printCalls(programs)}`],
  ]);
  const onProgress = (...at: [number, number]) => request.onProgress(`compiling ${isa.name}`, ...at);
  const program = await startNative(
    'kernels',
    { cpu: hostProfile(isa), compiler },
    [file],
    generated,
    request.signal,
    onProgress,
  );
  await program.numbers();
  return { program, timers: samples.map((sample, i) => new KernelTimer(sample, program, i)) };
}

const cell = (value: number | undefined, digits: number) => (value === undefined ? '-' : value.toFixed(digits));

async function measure(request: Request): ReturnType<Subject['measure']> {
  const isas = request.targets?.map(isaOf) ?? runnableIsas();
  const lacking = isas.map((isa) => ({ isa, missing: missingFeatures(isa) })).find(({ missing }) => missing.length);
  if (lacking)
    throw new LibraryError(
      `this machine cannot measure target '${lacking.isa.name}': it lacks ${lacking.missing.join(', ')}`,
    );
  const filter = request.filter ?? '';
  const found = isas.map((isa) => ({ isa, samples: samplesOf(isa, filter) })).filter(({ samples }) => samples.length);
  if (!found.length)
    throw new UsageError(
      `no kernel has '${filter}' in its name; give a part of a name like gemv_i8_t5r32x20_i32 (--filter)`,
    );
  const folder = temporaryFolder('bench');
  const started: Awaited<ReturnType<typeof timersOf>>[] = [];
  try {
    for (const { isa, samples } of found) started.push(await timersOf(isa, samples, folder, request));
    const timers = started.flatMap((one) => one.timers);
    const rounds = await rotate(
      timers,
      { seconds: request.seconds ?? (request.quick ? 10 : 20) },
      (...at) => request.onProgress('measuring, s', ...at),
      request.signal,
    );
    const rows = timers.map(rowOf);
    const cells = rows.map((row) => [row.kernel, cell(row.us, 3), cell(row.gb_s, 1), cell(row.gmac_s, 1)]);
    const text = formatTable(['kernel', 'us', 'GB/s', 'GMAC/s'], cells);
    return { rows, text, notes: [`${rounds} rounds, 1 thread, data in the caches`] };
  } finally {
    await Promise.all(started.map(({ program }) => program.close()));
    await rm(folder, { recursive: true, force: true });
  }
}

/** The subject. */
export const kernels: Subject = {
  summary: 'single kernels of every family, on data in the caches: time, bytes, multiply-adds (--filter)',
  measure,
};
