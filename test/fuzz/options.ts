/**
 * Whatever JavaScript passes to the library: options and arguments of load, createSampler and an engine at random, right ones among them.
 * Each call works or ends in a BitnetError, and afterwards the engine still writes the same text.
 */
import { strict as assert } from 'node:assert';
import { createSampler, greedy, load } from '../../index.ts';
import { BitnetError } from '../../schemas/error.ts';
import { demoModel } from '../../schemas/files.ts';
import { type Random, randomOf } from '../kernel-inputs.ts';

/** Values that are right somewhere, and values that are right nowhere. */
const values: readonly unknown[] = [
  ...[0, 1, 2, 3, 8, 16, 32, 40, 100, 0.5, 0.95, -1, -0, 1.5, 4091, 4096, 1e9, 2 ** 31, 2 ** 32 + 5, 1e308],
  ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 10n, true, false, null, undefined],
  ...['', 'x', 'exact', 'fast', 'full', 'auto', 'mapped', 'scalar', 'p2', '1', '\0', '../..', 'a'.repeat(10_000)],
  ...[
    [],
    [1],
    ['lookup'],
    [Number.NaN],
    {},
    { length: 3 },
    Symbol('x'),
    new Date(0),
    greedy,
    () => 1,
    new Int32Array(2),
  ],
];
const loadNames =
  'threads context pages head kv sparse packing kernel target allowConfig needsTokenizer signal onNote nonsense';
const samplerNames = 'temperature topK topP minP repeatPenalty repeatLastN seed nonsense';
const generateNames = 'count sampler stop lookup signal onText onPrompt nonsense';

const pick = <T>(random: Random, items: readonly T[]): T => items[random.integer(0, items.length - 1)]!;

/** An object with some of these names. */
const someOf = (random: Random, names: string): Record<string, unknown> =>
  Object.fromEntries(
    names
      .split(' ')
      .filter(() => random.integer(0, 3) === 0)
      .map((name) => [name, pick(random, values)]),
  );

type Call = (random: Random, engine: Record<string, (...args: unknown[]) => unknown>) => unknown;
const calls: Readonly<Record<string, Call>> = {
  load: async (random) => (await load(demoModel, someOf(random, loadNames))).engine.dispose(),
  createSampler: (random) => createSampler(someOf(random, samplerNames)),
  generate: (random, engine) =>
    engine.generate!(pick(random, [[1], [1, 2, 3], ...values]), undefined, {
      count: 2,
      sampler: greedy,
      ...someOf(random, generateNames),
      // Without an end it goes on to the end of the context.
      ...(random.integer(0, 1) ? { count: 3 } : {}),
    }),
  evaluate: (random, engine) => engine.evaluate!(pick(random, [[1], [1, 2], [pick(random, values)], ...values])),
  step: (random, engine) => engine.step!(pick(random, values)),
  top: (random, engine) => engine.top!(pick(random, values), pick(random, values)),
  topAll: (random, engine) => engine.topAll!([1, pick(random, values)], pick(random, values)),
  rewind: (random, engine) => engine.rewind!(pick(random, values)),
};

/**
 * @returns calls that worked, and that were refused
 * @throws Error with seed and case of the first that ends in anything but a BitnetError, or after which the text is another
 */
export async function fuzzOptions(seed: number, seconds: number): Promise<{ worked: number; refused: number }> {
  const { engine } = await load(demoModel, { threads: 1, context: 64 });
  const count = { worked: 0, refused: 0 };
  const write = async () => (await engine.generate([1, 2, 3], undefined, { count: 4, sampler: greedy })).tokens;
  try {
    const expected = await write();
    const end = performance.now() + 1000 * seconds;
    for (let number = 0; performance.now() < end; number++) {
      const random = randomOf(`${seed}:${number}`);
      // Opening takes as long as hundreds of the others.
      const name = number % 200 ? pick(random, Object.keys(calls).slice(1)) : 'load';
      try {
        await calls[name]!(random, engine as never);
        count.worked++;
      } catch (error) {
        if (!(error instanceof BitnetError))
          throw new Error(`seed ${seed}, case ${number} (${name}): ${(error as Error).stack}`, { cause: error });
        count.refused++;
      }
      if (number % 20 === 0) assert.deepEqual(await write(), expected, `seed ${seed}, case ${number} (${name})`);
    }
  } finally {
    engine.dispose();
  }
  return count;
}
