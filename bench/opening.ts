/**
 * What opening a model costs beside Node itself: finding its build, knowing its content, opening its packed weights; and packing them,
 * with and without hashing the model meanwhile. Medians; the cache is that of XDG_CACHE_HOME, in which the model is packed anew.
 *
 *     npx tsx bench/opening.ts MODEL [ROUNDS]
 */
import { rmSync } from 'node:fs';
import { ensureBuilt } from '../codegen/build.ts';
import { nativeProfile } from '../codegen/cpu.ts';
import { hashFiles } from '../runtime/content.ts';
import { openModel } from '../runtime/formats/open.ts';
import { modelsRoot } from '../runtime/known-models.ts';
import { openLibrary } from '../runtime/library.ts';
import { openWeights } from '../runtime/weights.ts';
import { defaultThreads } from '../schemas/host.ts';
import { samplesOf } from '../schemas/samples.ts';

const [model, rounds = '5'] = process.argv.slice(2);
if (!model) throw new Error('name a model');
const threads = defaultThreads();
const source = openModel(model);
const files = [...new Set([...source.tensors.values()].map(({ file }) => file))];
const build = () => ensureBuilt(source.shape, nativeProfile(), { threads });
const { library: file, manifest } = await build();
const library = await openLibrary(file);
const open = async () => {
  const opened = await openWeights(source, manifest.layout, library, threads);
  library.close(opened.model);
  return opened.file;
};
const packed = await open();
const never = new AbortController().signal;

/** What is measured: first what comes before it, then what is timed. */
const subjects: Record<string, readonly [before: () => void, timed: () => unknown]> = {
  'the build is found': [() => {}, build],
  'samples of the model': [() => {}, () => samplesOf(files)],
  'packed weights of a known model are opened': [() => {}, open],
  'all bytes of the model are hashed, 1 thread': [() => {}, () => hashFiles(files, 1, never)],
  [`all bytes of the model are hashed, ${threads} threads`]: [() => {}, () => hashFiles(files, threads, never)],
  'packed, and nothing hashed': [() => rmSync(packed), open],
  'packed, and hashed meanwhile': [
    () => {
      for (const one of [packed, modelsRoot()]) rmSync(one, { recursive: true });
    },
    open,
  ],
};
const times = new Map(Object.keys(subjects).map((name) => [name, [] as number[]]));
for (let round = 0; round < Number(rounds); round++)
  for (const [name, [before, timed]] of Object.entries(subjects)) {
    before();
    const started = performance.now();
    await timed();
    times.get(name)!.push(performance.now() - started);
  }
for (const [name, all] of times) {
  const [least, median] = [0, all.length >> 1].map((i) => all.sort((a, b) => a - b)[i]!.toFixed(1));
  process.stdout.write(`${name.padEnd(48)} ${median!.padStart(9)} ms, least ${least}\n`);
}
