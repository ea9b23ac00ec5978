#!/usr/bin/env node
/** npm run bench: measures this machine's libraries on random models of real sizes. A script of the checkout, not of the package. */
import { Argument } from 'commander';
import { findCompiler, hostFamily } from '../codegen/compile.ts';
import { isas } from '../codegen/isa/index.ts';
import { packings } from '../codegen/packings/index.ts';
import { shapeOf } from '../codegen/shape.ts';
import { type HeadMode, headModes } from '../runtime/engine.ts';
import { openModel } from '../runtime/formats/open.ts';
import { kvTypes } from '../runtime/memory.ts';
import { createProgress } from '../runtime/progress.ts';
import { createProgram, interrupted, listOf, oneOf, realNumber, run, wholeNumber } from '../schemas/command.ts';
import { UsageError } from '../schemas/error.ts';
import { hostCpu, usableCpus } from '../schemas/host.ts';
import { print, printJson } from '../schemas/terminal.ts';
import type { ModelShape } from '../schemas/types.ts';
import { subjects } from './subjects/index.ts';
import type { Result, Subject } from './subjects/subject.ts';

const names = Object.keys(subjects);
const program = createProgram('bench', 'Measures generated libraries on random models of real sizes.')
  .addArgument(new Argument('[subjects...]', `what to measure: ${names.join(', ')} (default: all)`))
  .option('--shape <shape>', 'name of a shipped shape, shape JSON, or a model of that shape', 'bitnet-2b-4t')
  .option('--layers <n>', 'another number of layers, for a quick look', wholeNumber(1, 1000))
  .option(
    '--target <names>',
    `instruction sets: ${Object.keys(isas).join(',')} (default: all vector ones of this CPU)`,
    listOf(oneOf(...Object.keys(isas))),
  )
  .option(
    '--packing <names>',
    `packings: ${Object.keys(packings).join(',')} (default: decode all, else what the plan takes)`,
    listOf(oneOf(...Object.keys(packings))),
  )
  .option(
    '-t, --threads <n,...>',
    'numbers of threads (default: 1 and the physical cores)',
    listOf(wholeNumber(1, 1024)),
  )
  .option(
    '--kv <types>',
    `key-value cache types: ${Object.keys(kvTypes).join(',')} (default: the engine's)`,
    listOf(oneOf(...Object.keys(kvTypes))),
  )
  .option(
    '--sparsity <shares>',
    'decode models whose gates are closed for these shares of the neurons, 0.5 to 0.95, with and without skipping them',
    listOf(realNumber(0.5, 0.95)),
  )
  .option('--head <modes>', `kinds of head (default: exact): ${headModes.join(',')}`, listOf(oneOf(...headModes)))
  .option(
    '--context <n,...>',
    'positions filled before the token or the batch (default: decode 128,2048, batch 128)',
    listOf(wholeNumber(1, 1 << 20)),
  )
  .option(
    '--n <n,...>',
    'tokens of a prompt or of a batch (default: prefill 32,128,512,2048, batch 1,2,4,8,16)',
    listOf(wholeNumber(1, 1 << 20)),
  )
  .option(
    '--seconds <s>',
    'time for measuring a subject, shared by all its rows (default: 40, with --quick 20 to 30)',
    realNumber(0, 3600),
  )
  .option('--filter <text>', 'kernels whose name has this in it (default: all)')
  .option('--quick', 'context 128, prompts of 128 and 512, at most 2 threads: below a minute once built and packed')
  .option('--peers [folder]', 'decode also llama.cpp, where node-llama-cpp is installed (default: here)')
  .option('--cc <command>', 'C compiler (default: the newest clang, else gcc)')
  .option('--json', 'print one JSON object instead of tables')
  .addHelpText(
    'after',
    `
Subjects:
${Object.entries<Subject>(subjects)
  .map(([name, { summary }]) => `  ${name.padEnd(10)}${summary}`)
  .join('\n')}

Examples:
  npm run -s bench -- decode                          all targets, 1 thread and all cores, context 128 and 2048
  npm run -s bench -- decode --quick --json
  npm run -s bench -- decode --quick --head exact,fast
  npm run -s bench -- decode --quick --target avx512 --packing t5r32 --sparsity 0.5,0.8,0.9
  npm run -s bench -- decode --layers 4 --threads 2   a quick look at a part of the model
  npm run -s bench -- decode --shape llama3-8b-158 --context 128 --seconds 90
  npm run -s bench -- decode --quick --peers          in alternation with llama.cpp
  npm run -s bench -- prefill --n 2048,8192 --threads 2
  npm run -s bench -- decode prefill batch --quick --json
  npm run -s bench -- kernels --filter gemv           dot products for one token, data in the caches

Random models are kept in $XDG_CACHE_HOME/bitnet-gen (bitnet-run --cache clear removes them).
Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
  );

interface Options {
  shape: string;
  layers?: number;
  target?: string[];
  packing?: string[];
  threads?: number[];
  kv?: string[];
  sparsity?: number[];
  head?: HeadMode[];
  context?: number[];
  n?: number[];
  filter?: string;
  seconds?: number;
  quick?: boolean;
  peers?: string | true;
  cc?: string;
  json?: boolean;
}

function shapeFor({ shape: name, layers }: Options): ModelShape {
  const shape = shapeOf(name, openModel);
  return layers === undefined ? shape : { ...shape, layers, name: `${shape.name}-${layers}-layers` };
}

program.action(async (asked: string[], o: Options) => {
  const unknown = asked.find((name) => !names.includes(name));
  if (unknown !== undefined)
    throw new UsageError(`there is no subject '${unknown}'; known subjects: ${names.join(', ')}`);
  const shape = shapeFor(o);
  const compiler = await findCompiler(hostFamily, o.cc);
  const progress = createProgress();
  const results: [string, Result][] = [];
  try {
    for (const [name, subject] of Object.entries<Subject>(subjects).filter(([n]) => !asked.length || asked.includes(n)))
      results.push([
        name,
        await subject.measure({
          shape,
          quick: o.quick ?? false,
          signal: interrupted,
          onProgress: progress.update,
          ...(o.target ? { targets: o.target } : {}),
          ...(o.packing ? { packings: o.packing } : {}),
          ...(o.threads ? { threads: o.threads } : {}),
          ...(o.kv ? { kv: o.kv } : {}),
          ...(o.sparsity ? { sparsities: o.sparsity } : {}),
          ...(o.head ? { heads: o.head } : {}),
          ...(o.context ? { contexts: o.context } : {}),
          ...(o.n ? { sizes: o.n } : {}),
          ...(o.filter === undefined ? {} : { filter: o.filter }),
          ...(o.seconds === undefined ? {} : { seconds: o.seconds }),
          ...(o.peers ? { peers: o.peers === true ? '' : o.peers } : {}),
          ...(o.cc ? { cc: o.cc } : {}),
        }),
      ]);
  } finally {
    progress.end();
  }
  const machine = { cpu: hostCpu(), cpus: usableCpus() };
  if (o.json) {
    const named = (of: (result: Result) => unknown) => Object.fromEntries(results.map(([name, r]) => [name, of(r)]));
    const peers = o.peers ? { peers: named((r) => r.peers) } : {};
    const document = {
      ...named((r) => r.rows),
      ...peers,
      machine,
      compiler: compiler.label,
      shape,
      notes: named((r) => r.notes),
    };
    printJson(document);
    return;
  }
  print(`${shape.name}, ${machine.cpu}, ${machine.cpus} CPUs, ${compiler.label}\n`);
  for (const [name, { text, notes }] of results)
    print(`\n${name}\n${text}${notes.map((note) => `${note}\n`).join('')}`);
});

await run(program);
