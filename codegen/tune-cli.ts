#!/usr/bin/env node
/** bitnet-tune: measures the decode kernels of a model's matrices on this machine and remembers the fastest. */
import { openModel } from '../runtime/formats/open.ts';
import { createProgress } from '../runtime/progress.ts';
import { createProgram, interrupted, run, wholeNumber } from '../schemas/command.ts';
import { LibraryError } from '../schemas/error.ts';
import { defaultThreads } from '../schemas/host.ts';
import { findCompiler } from './compile.ts';
import { missingFeatures, profileOf } from './cpu.ts';
import { problems } from './graph.ts';
import { isaOf, isas } from './isa/index.ts';
import { shapeOf } from './shape.ts';
import { type SweepResult, sweep } from './tune.ts';
import { addWisdom, readWisdom, wisdomFile } from './wisdom.ts';

const program = createProgram(
  'bitnet-tune',
  'Measures the decode kernels of a model on this machine; later builds use the fastest.',
)
  .argument(
    '[model]',
    'Hugging Face folder, GGUF file, shape JSON, or the name of a shipped shape (default: the demo model)',
  )
  .option('--target <name>', `instruction set: native, ${Object.keys(isas).join(', ')}`, 'native')
  .option('-t, --threads <n>', 'threads that share a matrix (default: physical cores)', wholeNumber(1, 1024))
  .option('--rounds <n>', 'interleaved rounds; the median counts', wholeNumber(3, 1000), 15)
  .option('--cc <command>', 'C compiler (default: the newest clang, else gcc)')
  .option('--json', 'print one JSON object')
  .addHelpText(
    'after',
    `
Examples:
  bitnet-tune bitnet-2b-4t
  bitnet-tune model.gguf --threads 1 --rounds 31 --json

The fastest are kept in $XDG_CACHE_HOME/bitnet-gen/wisdom.json (default ~/.cache/bitnet-gen).
Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
  );

interface Options {
  target: string;
  threads?: number;
  rounds: number;
  cc?: string;
  json?: boolean;
}

const percent = (x: number) => `${(100 * x).toFixed(1)} %`;

program.action(async (model: string | undefined, o: Options) => {
  const shape = shapeOf(model, openModel);
  const cpu = profileOf(o.target);
  const isa = isaOf(cpu.isa);
  const missing = missingFeatures(isa);
  if (missing.length)
    throw new LibraryError(`this machine cannot measure target '${isa.name}': it lacks ${missing.join(', ')}`);
  // Damaged wisdom is told before the work.
  readWisdom();
  const compiler = await findCompiler(isa.family, o.cc);
  const progress = createProgress();
  const total = problems(shape).length;
  const results: SweepResult[] = [];
  progress.update('measuring matrices', 0, total);
  for await (const result of sweep(shape, cpu, compiler, o.threads ?? defaultThreads(), o.rounds, interrupted)) {
    results.push(result);
    addWisdom([result.entry]);
    progress.update('measuring matrices', results.length, total);
    if (o.json) continue;
    progress.end();
    const { key, kernel, read_seconds: read, seconds } = result.entry;
    const worst = Math.max(...result.measured.map((m) => m.seconds ?? 0));
    process.stdout.write(
      `${key.n} x ${key.k}: ${kernel}\n  ${(seconds * 1e6).toFixed(1)} us, ${percent(read / seconds)} of a plain read; slowest of ${result.measured.length} candidates ${(worst * 1e6).toFixed(1)} us\n`,
    );
    for (const m of result.measured.filter((c) => c.seconds === undefined))
      process.stdout.write(`  NOT EXACT, not timed: ${m.kernel}\n`);
  }
  progress.end();
  if (o.json)
    process.stdout.write(`${JSON.stringify({ wisdom: wisdomFile(), compiler: compiler.label, results }, null, 2)}\n`);
  else process.stdout.write(`kept in ${wisdomFile()}\n`);
});

await run(program);
