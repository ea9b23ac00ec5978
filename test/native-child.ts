/**
 * Work that tests want done in a process of its own, through the foreign function interface that BITNET_FFI names. Prints the
 * interface in use and what the mode measures, as JSON.
 *
 *     native-child.ts evaluate LIBRARY WEIGHTS LOGITS    tokens: JSON on standard input; logits go to a file
 *     native-child.ts calls    LIBRARY WEIGHTS           growth in bytes over 100,000 calls of bn_eval and of bn_rewind
 *     native-child.ts objects  LIBRARY WEIGHTS           growth in bytes over 300 models and contexts, and threads left
 *     native-child.ts idle     LIBRARY WEIGHTS SPIN      CPU milliseconds of half a second with an idle context of 7 threads
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { Library, want } from '../runtime/library.ts';

const [mode, file, weights, argument] = process.argv.slice(2) as [string, string, string, string];
const library = new Library(file);
const { shape } = library.describe() as { shape: { vocabulary: number } };
const logits = new Float32Array(shape.vocabulary);
const token = Int32Array.of(1);

const modes: Record<string, () => unknown | Promise<unknown>> = {
  evaluate() {
    const tokens = Int32Array.from(JSON.parse(readFileSync(0, 'utf8')) as number[]);
    const model = library.open(weights);
    const context = library.context(model, tokens.length, 2, 16, true);
    const all = new Float32Array(tokens.length * shape.vocabulary);
    const half = tokens.length >> 1;
    // Two calls on parts of arrays, so that a wrong position or offset shows.
    library.evaluate(context, tokens, half, want.all, all);
    library.evaluate(
      context,
      tokens.subarray(half),
      tokens.length - half,
      want.all,
      all.subarray(half * shape.vocabulary),
    );
    library.release(context);
    library.close(model);
    writeFileSync(argument, all);
  },
  calls() {
    const model = library.open(weights);
    const context = library.context(model, 4, 1, 16, true);
    const repeat = (times: number) => {
      for (let i = 0; i < times; i++) {
        library.evaluate(context, token, 1, want.last, logits);
        library.rewind(context, 0);
      }
    };
    repeat(5000);
    const before = process.memoryUsage.rss();
    repeat(100_000);
    return process.memoryUsage.rss() - before;
  },
  objects() {
    const threads = () => (process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0);
    const repeat = (times: number) => {
      for (let i = 0; i < times; i++) {
        const model = library.open(weights);
        const context = library.context(model, 32, 3, 32, false);
        library.evaluate(context, token, 1, want.last, logits);
        library.release(context);
        library.close(model);
      }
    };
    repeat(50);
    const [bytes, count] = [process.memoryUsage.rss(), threads()];
    repeat(300);
    return { bytes: process.memoryUsage.rss() - bytes, threads: threads() - count };
  },
  async idle() {
    const model = library.open(weights);
    const context = library.context(model, 4, 7, 16, argument === 'spin');
    library.evaluate(context, token, 1, want.last, logits);
    const before = process.cpuUsage();
    await setTimeout(500);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  },
};

const result = await modes[mode]!();
console.log(JSON.stringify({ interface: library.interface, result }));
// The idle context's threads would not keep the process alive, but neither would anything else be tested by ending tidily.
process.exit(0);
