/** `npm run fuzz`: damage and misuse at random, by a seed, for as long as you like; tests run a few seconds of each. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createProgram, run, wholeNumber } from '../../schemas/command.ts';
import { UsageError } from '../../schemas/error.ts';
import { print, tell } from '../../schemas/terminal.ts';
import { fuzzFormats } from './formats.ts';
import { fuzzOptions } from './options.ts';
import { fuzzTokenizer } from './tokenizer.ts';
import { fuzzWeights } from './weights.ts';

/** What is tried; each throws at the first fault, naming seed and case, and returns counts. */
const subjects: Readonly<Record<string, (seed: number, seconds: number) => object | Promise<object>>> = {
  formats: (seed, seconds) => fuzzFormats({ seed, seconds }),
  tokenizer: (seed, seconds) => fuzzTokenizer(seed, { seconds }),
  weights: fuzzWeights,
  options: fuzzOptions,
};
const names = Object.keys(subjects);

const program = createProgram(
  'fuzz',
  'Tries damaged files and wrong calls; nothing but errors for people may come of them.',
)
  .argument('[subjects...]', `what to try: ${names.join(', ')} (default: all)`)
  .option('--seconds <n>', 'seconds for all of it', wholeNumber(1), 60)
  .option('--seed <n>', 'seed (default: the time)', wholeNumber(0));

program.action(async (asked: string[], { seconds, seed = Date.now() % 1e9 }: { seconds: number; seed?: number }) => {
  const wrong = asked.find((name) => !names.includes(name));
  if (wrong !== undefined) throw new UsageError(`there is no subject '${wrong}'; there are ${names.join(', ')}`);
  const chosen = asked.length ? asked : names;
  const cache = mkdtempSync(path.join(tmpdir(), 'bitnet-fuzz-cache-'));
  process.env.XDG_CACHE_HOME = cache;
  try {
    for (const name of chosen) {
      try {
        print(`${name}, seed ${seed}: ${JSON.stringify(await subjects[name]!(seed, seconds / chosen.length))}\n`);
      } catch (error) {
        // A fault of the program: developers want all of it.
        tell('fuzz', `${name}: found a fault`);
        throw error;
      }
    }
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
});

await run(program);
