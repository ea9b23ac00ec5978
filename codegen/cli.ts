#!/usr/bin/env node
/** bitnet-gen: generates the C library of a model for a CPU, with bindings and manifest, and compiles it. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { copyFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { openModel } from '../runtime/formats/open.ts';
import { createProgress } from '../runtime/progress.ts';
import { allowConfig, collect, createProgram, interrupted, oneOf, run } from '../schemas/command.ts';
import { UsageError } from '../schemas/error.ts';
import { defaultThreads } from '../schemas/host.ts';
import { print, printJson, tell } from '../schemas/terminal.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { adviceHere, buildRoot } from './build.ts';
import { CLANG_ADVICE, compile, findCompiler, isSlower, writeFiles } from './compile.ts';
import { profileOf, readProfile } from './cpu.ts';
import { emit, manifestOf } from './emit.ts';
import { kernelSource } from './generate.ts';
import { problems } from './graph.ts';
import { isaOf, isas } from './isa/index.ts';
import { packings } from './packings/index.ts';
import { kernelsOf, planOf, roundingOf } from './plan.ts';
import { shapeOf, shippedShapes } from './shape.ts';

const NAME = 'bitnet-gen';

const program = createProgram(NAME, 'Generates and compiles the C library of a ternary model for a CPU.')
  .argument(
    '[model]',
    'Hugging Face folder, GGUF file, shape JSON, or the name of a shipped shape (default: the demo model)',
  )
  .option('--target <name>', `instruction set: native, ${Object.keys(isas).join(', ')}`, 'native')
  .option('--cpu <file>', 'CPU profile (JSON, see schemas/cpus) instead of a target')
  .option('--out <folder>', 'where to write (default: generated/<model>/<cpu>)')
  .option('--no-compile', 'write the C only')
  .option('--cc <command>', 'C compiler (default: the newest clang, else gcc)')
  .option(
    '--packing <token>',
    `packing of all ternary matrices (default: the plan's choice): ${Object.values(packings)
      .map((p) => p.token)
      .join(', ')}`,
  )
  .option(
    '--kernel <name>',
    'decode kernel: a whole name, for the matrices of its size, or an operation, for all others (repeatable)',
    collect,
  )
  .option(...allowConfig)
  .option('--sparse', 'skip what zeros of squared ReLU let off (default: in large models)')
  .option('--no-sparse', 'read all weights, for a model with few zeros')
  .option('--dump <what>', 'print the plan, the programs or the C, and write nothing', oneOf('plan', 'program', 'c'))
  .option('--json', 'print one JSON object')
  .addHelpText(
    'after',
    `
Shipped shapes: ${shippedShapes().join(', ')}

Examples:
  bitnet-gen                                   the demo model for this machine
  bitnet-gen model.gguf --target avx2
  bitnet-gen bitnet-2b-4t --target neon --no-compile
  bitnet-gen shape.json --cpu schemas/cpus/zen4.json --out build/zen4
  bitnet-gen bitnet-2b-4t --dump plan
  bitnet-gen model.gguf --packing tl1 --kernel lookup

Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
  );

interface Options {
  target: string;
  cpu?: string;
  out?: string;
  compile: boolean;
  cc?: string;
  packing?: string;
  kernel?: readonly string[];
  allowConfig?: string[];
  sparse?: boolean;
  dump?: 'plan' | 'program' | 'c';
  json?: boolean;
}

/** Refuses a folder that holds something else than an earlier generation. */
function checkOut(out: string): void {
  if (!existsSync(out)) return;
  if (!statSync(out).isDirectory()) throw new UsageError(`--out '${out}' is not a folder`);
  const names = readdirSync(out);
  if (names.length && !(names.includes('manifest.json') && names.includes('plan.h')))
    throw new UsageError(`--out '${out}' holds other files; choose an empty or new folder`);
}

program.action(async (model: string | undefined, o: Options, command) => {
  if (o.cpu && command.getOptionValueSource('target') === 'cli')
    throw new UsageError('give --target or --cpu, not both');
  const shape = shapeOf(model, (path) => openModel(path, o));
  const cpu: CpuProfile = o.cpu ? readProfile(o.cpu) : profileOf(o.target);
  // What was measured here counts for this machine only; a named target gives the same files everywhere.
  const advice =
    o.cpu || o.target !== 'native'
      ? undefined
      : await adviceHere(shape, cpu, { ...(o.cc ? { cc: o.cc } : {}), threads: defaultThreads(shape) });
  const ignored = advice?.ignored(problems(shape));
  if (ignored) tell(NAME, ignored);
  const plan = planOf(shape, cpu, {
    advice,
    packing: o.packing,
    kernel: o.kernel,
    sparse: o.sparse,
  });
  const rounding = roundingOf(plan);
  if (rounding) tell(NAME, rounding);
  if (o.dump === 'plan') {
    printJson(plan);
    return;
  }
  if (o.dump) {
    const sources = [...kernelsOf(plan).values()].map(kernelSource);
    const text =
      o.dump === 'c'
        ? sources.map((s) => s.text).join('\n')
        : `${JSON.stringify(
            sources.map((s) => s.program),
            null,
            1,
          )}\n`;
    print(text);
    return;
  }
  const files = emit(plan);
  const out = path.resolve(o.out ?? path.join('generated', shape.name, cpu.name));
  checkOut(out);
  const isa = isaOf(cpu.isa);
  // The compiler is looked for before anything is written.
  const compiler = o.compile ? await findCompiler(isa.family, o.cc) : undefined;
  const progress = createProgress();
  const build =
    compiler &&
    (await compile(files, isa, cpu.features, compiler, buildRoot(), {
      onProgress: (done, total) => progress.update('compiling', done, total),
      signal: interrupted,
    }).finally(() => progress.end()));
  const manifest = manifestOf(plan);
  files.set('manifest.json', `${JSON.stringify(manifest, null, 2)}\n`);
  // ts-morph takes a second to load.
  const { bindings } = await import('./bindings.ts');
  files.set('bindings.ts', bindings(plan));
  // What an earlier generation left goes first: kernels of another plan, and binaries, which may be in use and so are not overwritten.
  const kernels = existsSync(path.join(out, 'kernels')) ? readdirSync(path.join(out, 'kernels')) : [];
  const stale = kernels.map((name) => `kernels/${name}`).filter((name) => !files.has(name));
  for (const name of [...stale, 'libbitnet.so', 'driver']) await rm(path.join(out, name), { force: true });
  await writeFiles(files, out);
  if (build)
    for (const file of [build.library, build.driver]) await copyFile(file, path.join(out, path.basename(file)));
  const summary = {
    model: shape.name,
    target: cpu.isa,
    cpu: cpu.name,
    out,
    files: [...files.keys()],
    library: build ? path.join(out, path.basename(build.library)) : null,
    driver: build ? path.join(out, path.basename(build.driver)) : null,
    compiler: compiler?.label ?? null,
    layout: manifest.layout.id,
  };
  if (o.json) printJson(summary);
  else {
    const where = path.relative(process.cwd(), out) || '.';
    print(
      `${shape.name} for ${cpu.name}: ${files.size} files in ${where}${build ? `, compiled by ${compiler!.label}` : ''}\n`,
    );
    if (compiler && isSlower(compiler)) print(`${CLANG_ADVICE}\n`);
  }
});

await run(program);
