#!/usr/bin/env node
/** bitnet-tune: measures the kernels of a model's matrices on this machine, remembers what is fastest, and explains it. */
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { openModel } from '../runtime/formats/open.ts';
import { createProgress } from '../runtime/progress.ts';
import {
  allowConfig,
  createProgram,
  duration,
  interrupted,
  listOf,
  oneOf,
  run,
  wholeNumber,
} from '../schemas/command.ts';
import { LibraryError, PlanError, UsageError } from '../schemas/error.ts';
import { defaultThreads } from '../schemas/host.ts';
import { print, printJson, tell } from '../schemas/terminal.ts';
import { findCompiler } from './compile.ts';
import { missingFeatures, runnableProfile } from './cpu.ts';
import { inputs, problems } from './graph.ts';
import { isaOf, isas } from './isa/index.ts';
import { shapeOf } from './shape.ts';
import { type Contest, contestsOf, inTiles, isAbout } from './tune/contests.ts';
import { explain, explainThreshold, explainTokens, line, tokenLine } from './tune/explain.ts';
import { reportOf } from './tune/report.ts';
import { type Progress, sweep } from './tune/sweep.ts';
import type { Phase, ThresholdEntry, TokenEntry, TuningEntry, Wisdom } from './wisdom.ts';
import {
  addWisdom,
  adviceFor,
  brief,
  counting,
  countingThresholds,
  matricesOf,
  merge,
  phases,
  readWisdom,
  shippedWisdom,
  wisdomFile,
  writeWisdom,
} from './wisdom.ts';

const NAME = 'bitnet-tune';
const MODEL = 'Hugging Face folder, GGUF file, shape JSON, or the name of a shipped shape (default: the demo model)';

const program = createProgram(NAME, 'Measures the kernels of a model on this machine; later builds use the fastest.')
  .enablePositionalOptions()
  .argument('[model]', MODEL)
  .option('--target <name>', `instruction set: native, ${Object.keys(isas).join(', ')}`, 'native')
  .option(
    '-t, --threads <n,...>',
    'numbers of threads that share a matrix (default: physical cores)',
    listOf(wholeNumber(1, 1024)),
  )
  .option('--budget <time>', 'time for everything: 90s, 5m, 1h', duration, duration('5m'))
  .option(
    '--phase <phase,...>',
    'phases of inference: decode (one token), batch (2 to 8 at once), prefill (prompts)',
    listOf(oneOf(...phases)),
    ['decode' as const],
  )
  .option('--resume', 'leave out what was measured before under the same circumstances')
  .option('--report <file>', 'write an HTML page with drawings and all data')
  .option(...allowConfig)
  .option('--cc <command>', 'C compiler (default: the newest clang, else gcc)')
  .option('--json', 'print one JSON object')
  .addHelpText(
    'after',
    `
Examples:
  bitnet-tune bitnet-2b-4t --budget 2m --threads 1,2
  bitnet-tune model.gguf --phase decode,batch,prefill --resume --report report.html
  bitnet-tune show bitnet-2b-4t             explain what was chosen
  bitnet-tune merge a.json b.json -o c.json

Where zeros of squared ReLU are skipped, the last fifth of the time goes into the share of live neurons up to which that pays.
What was measured is kept in $XDG_CACHE_HOME/bitnet-gen/wisdom.json (default ~/.cache/bitnet-gen), and after Ctrl-C what is
known until then.
Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
  );

interface Options {
  target: string;
  threads?: number[];
  budget: number;
  phase: Phase[];
  resume?: boolean;
  report?: string;
  cc?: string;
  allowConfig?: string[];
  json?: boolean;
}

/** The line while a sweep runs. */
function describe({ what, title, ofRoof, secondsLeft }: Progress): string {
  const best = ofRoof ? `, best at ${Math.round(100 * ofRoof)} % of the roof` : '';
  const left = secondsLeft > 0 ? `${Math.round(secondsLeft)} s left` : 'finishing';
  return `${title}${best}, ${left}; ${what === 'timing' ? 'out of the race' : what}`;
}

program.action(async (model: string | undefined, o: Options) => {
  if (o.report !== undefined && !existsSync(path.dirname(path.resolve(o.report))))
    throw new UsageError(`there is no folder for --report '${o.report}'; make it, or choose another`);
  const shape = shapeOf(model, (path) => openModel(path, o));
  const cpu = runnableProfile(o.target);
  const isa = isaOf(cpu.isa);
  const missing = missingFeatures(isa);
  if (missing.length)
    throw new LibraryError(`this machine cannot measure target '${isa.name}': it lacks ${missing.join(', ')}`);
  // Damaged wisdom is told before the work.
  const before = readWisdom();
  const compiler = await findCompiler(isa.family, o.cc);
  const threads = o.threads ?? [defaultThreads(shape)];
  const progress = createProgress();
  const counts = counting(before.entries, cpu, compiler);
  const known = (contest: Contest, count: number) =>
    counts.find(({ key }) => isAbout(key, contest) && key.threads === count);
  const entries: TuningEntry[] = [];
  const tokens: TokenEntry[] = [];
  const thresholds: ThresholdEntry[] = [];
  const take = (found: Partial<Wisdom>) => {
    entries.push(...(found.entries ?? []));
    tokens.push(...(found.tokens ?? []));
    thresholds.push(...(found.thresholds ?? []));
    progress.end();
    if (o.json || interrupted.aborted) return;
    for (const entry of found.entries ?? []) print(line(entry));
    for (const entry of found.tokens ?? []) print(tokenLine(entry));
    for (const entry of found.thresholds ?? []) print(explainThreshold(entry));
  };
  if (o.resume)
    for (const contest of contestsOf(inTiles(shape, cpu), o.phase))
      for (const count of threads) {
        const entry = known(contest, count);
        if (entry?.finished) take({ entries: [entry] });
      }
  const knownThreshold = (phase: Phase, count: number) =>
    countingThresholds(before.thresholds, cpu, compiler).find(
      ({ key }) => key.phase === phase && key.threads === count && key.matrices === matricesOf(shape),
    );
  if (o.resume)
    for (const count of threads)
      for (const phase of o.phase) {
        const entry = knownThreshold(phase, count);
        if (entry) take({ thresholds: [entry] });
      }
  const asked = {
    shape,
    cpu,
    compiler,
    phases: phases.filter((phase) => o.phase.includes(phase)),
    threads,
    seconds: o.budget,
    wisdom: before,
    isKnown: (contest: Contest, count: number) => Boolean(o.resume && known(contest, count)?.finished),
    isThresholdKnown: (phase: Phase, count: number) => Boolean(o.resume && knownThreshold(phase, count)),
    onProgress: (at: Progress) => progress.update(describe(at), at.done, at.total),
    onNote: (note: string) => {
      progress.end();
      tell(NAME, note);
    },
    signal: interrupted,
  };
  try {
    for await (const found of sweep(asked)) {
      addWisdom(found);
      take(found);
    }
  } finally {
    progress.end();
  }
  const replaced = o.report !== undefined && existsSync(o.report);
  if (o.report !== undefined) writeFileSync(o.report, reportOf(shape.name, { entries, tokens, thresholds }));
  if (o.json) {
    const found = { entries, tokens, thresholds };
    const summary = { wisdom: wisdomFile(), compiler: compiler.label, report: o.report ?? null, ...found };
    printJson(summary);
    return;
  }
  print(`kept in ${wisdomFile()}\n`);
  if (o.report !== undefined) print(`report in ${o.report}${replaced ? ', replaced' : ''}\n`);
});

program
  .command('show')
  .description('Explains what was chosen for a model on this machine, among which candidates, and why.')
  .argument('[model]', MODEL)
  .option('--target <name>', `instruction set: native, ${Object.keys(isas).join(', ')}`, 'native')
  .option(...allowConfig)
  .option('--cc <command>', 'C compiler (default: the newest clang, else gcc)')
  .option('--json', 'print one JSON object')
  .action(async (model: string | undefined, o: Options) => {
    const shape = shapeOf(model, (path) => openModel(path, o));
    const cpu = runnableProfile(o.target);
    const compiler = await findCompiler(isaOf(cpu.isa).family, o.cc);
    const sizes = problems(shape);
    const known = merge(shippedWisdom(), readWisdom());
    const entries = counting(known.entries, cpu, compiler).filter(({ key }) =>
      (key.phase === 'prefill' ? inputs(shape) : sizes).some(({ n, k }) => n === key.n && k === key.k),
    );
    const isIts = ({ key }: TokenEntry | ThresholdEntry) => key.matrices === matricesOf(shape);
    const tokens = counting(known.tokens, cpu, compiler).filter(isIts);
    const thresholds = countingThresholds(known.thresholds, cpu, compiler).filter(isIts);
    const ignored = adviceFor(cpu, compiler).ignored(sizes);
    if (!entries.length)
      throw new PlanError(ignored ?? `nothing was measured for ${shape.name} on this machine; run bitnet-tune`);
    if (ignored) tell(NAME, ignored);
    const texts = [...entries.map(explain), ...tokens.map(explainTokens), ...thresholds.map(explainThreshold)];
    if (o.json) printJson({ entries, tokens, thresholds });
    else print(texts.join('\n'));
  });

program
  .command('merge')
  .description('Joins wisdom files; of two entries about the same thing the later file has the last word.')
  .argument('<file...>')
  .requiredOption('-o, --output <file>', 'where to write')
  .option('--best <n>', 'keep the n fastest candidates of each matrix, the chosen one and the default', wholeNumber(0))
  .action((files: string[], { output, best = Number.POSITIVE_INFINITY }: { output: string; best?: number }) => {
    for (const file of files)
      if (!existsSync(file))
        throw new UsageError(`there is no wisdom file '${file}'; give files that bitnet-tune wrote`);
    const merged = brief(files.map((file) => readWisdom(file)).reduce(merge), best);
    writeWisdom(merged, output);
    const count = merged.entries.length + merged.tokens.length + merged.thresholds.length;
    print(`${count} entries in ${output}\n`);
  });

await run(program);
