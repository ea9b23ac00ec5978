/**
 * bn_top on whole models, one with a screen and one without: against the logits of bn_eval, after every way to evaluate, with every
 * number of threads and on every target; what it refuses; and generation, which gives the same tokens by either head.
 */
import { strict as assert } from 'node:assert';
import path from 'node:path';
import { Engine, headModes } from '../runtime/engine.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import { type Library, want } from '../runtime/library.ts';
import { createSampler, type SamplerOptions } from '../runtime/sampler.ts';
import { LibraryError } from '../schemas/error.ts';
import {
  bestTarget,
  buildFor,
  drive,
  nativeTargets,
  oddShape,
  packedFor,
  prepare,
  runnerFor,
  targets,
  useCache,
} from './machine.ts';
import { generator } from './oracle.ts';
import { long, some } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel } from './write-model.ts';

/** The k largest logits by sorting all: falling, equal ones by rising id. */
function sorted(logits: Float32Array, k: number): { ids: Int32Array; logits: Float32Array } {
  const ids = Int32Array.from(logits.keys())
    .sort((a, b) => logits[b]! - logits[a]! || a - b)
    .slice(0, k);
  return { ids, logits: Float32Array.from(ids, (id) => logits[id]!) };
}

for (const vocabulary of some([8203, 283]))
  describe(`bn_top: vocabulary ${vocabulary}`, () => {
    const cache = useCache();
    const shape = { ...oddShape, vocabulary, name: `top${vocabulary}` };
    const ks = [1, 2, 40, Math.min(1000, vocabulary)];
    let model = '';
    let source: ModelSource;
    let tokens: Int32Array;
    /** All logits, [tokens][vocabulary]. */
    let all: Float32Array;
    const row = (t: number) => all.subarray(t * vocabulary, (t + 1) * vocabulary);

    const withContext = async <T>(
      target: string,
      threads: number,
      use: (library: Library, context: number) => T | Promise<T>,
    ): Promise<T> => {
      const { library, model: number } = await prepare(model, target);
      const context = library.context(number, 100, threads, 16, threads <= 2);
      try {
        return await use(library, context);
      } finally {
        library.release(context);
        library.close(number);
      }
    };
    const top = (library: Library, context: number, part: Int32Array, k: number) => {
      const [ids, logits] = [new Int32Array(k), new Float32Array(k)];
      const position = library.top(context, part, part.length, k, want.last, ids, logits);
      return { position, found: { ids, logits } };
    };

    before(async () => {
      model = path.join(cache(), 'model');
      writeHuggingFace(model, randomModel(shape, 9), { weights: 'packed-divide' });
      source = openModel(model);
      const random = generator(3);
      tokens = Int32Array.from({ length: 90 }, () => Math.floor(vocabulary * random()));
      all = new Float32Array(tokens.length * vocabulary);
      await withContext('scalar', 2, (library, context) =>
        library.evaluate(context, tokens, tokens.length, want.all, all),
      );
    });

    for (const target of nativeTargets)
      (target === bestTarget ? it : long)(
        `${target}: the largest of all logits, with ${some([3, 1, 2, 7])} threads`,
        async () => {
          for (const threads of some([3, 1, 2, 7]))
            await withContext(target, threads, (library, context) => {
              for (let t = 0; t < 20; t++)
                for (const [i, k] of ks.entries()) {
                  const { position, found } = top(library, context, tokens.subarray(t, i ? t : t + 1), k);
                  assert.equal(position, t + 1);
                  assert.deepEqual(found, sorted(row(t), k), `token ${t}, k = ${k}`);
                }
            });
        },
      );

    it('the fast head: the same logits, from every kind of pages; without a screen the same rows too', async () => {
      const { library, model: number } = await prepare(model);
      const modes = ['mapped', 'auto', 'huge', 'huge'] as const;
      const contexts = modes.map((pages, i) => library.context(number, 100, i + 1, 16, false, pages, 'fast'));
      for (let t = 0; t < 20; t++)
        for (const k of [1, 40]) {
          const answers = contexts.map((c) => top(library, c, tokens.subarray(t, k === 1 ? t + 1 : t), k).found);
          for (const found of answers) {
            assert.deepEqual(
              found.logits,
              Float32Array.from(found.ids, (id) => row(t)[id]!),
            );
            if (vocabulary < 8192) assert.deepEqual(found, sorted(row(t), k));
            assert.deepEqual(found, answers[0], 'pages and threads make no difference');
          }
        }
      for (const context of contexts) library.release(context);
      library.close(number);
    });

    for (const target of targets.filter((t) => !nativeTargets.includes(t)))
      long(`${target} program`, async function () {
        const runner = await runnerFor(this, target);
        const built = await buildFor(source.shape, target);
        const weights = await packedFor(model, built);
        const [k, chunk] = [40, 7];
        const part = [...tokens.subarray(0, 21)];
        for (const head of [0, 1] as const) {
          const found = await drive(built, runner, weights, part, { threads: 3, kv: 16, chunk, top: k, head });
          for (let t = 0; t < part.length; t++) {
            // Of each call first all ids, then all logits.
            const at = k * (t + chunk * Math.floor(t / chunk));
            const ids = new Int32Array(found.buffer, 4 * at, k);
            const logits = found.subarray(at + k * chunk, at + k * (chunk + 1));
            assert.deepEqual({ ids, logits }, sorted(row(t), k), `token ${t}`);
          }
        }
      });

    for (const target of nativeTargets)
      (target === bestTarget ? it : long)(
        `${target}: of every token of a call, beyond a batch, from the middle, and after rewinding`,
        async () => {
          await withContext(target, 2, (library, context) => {
            for (const [first, end] of [
              [0, 90],
              [20, 28],
              [9, 90],
              [63, 64],
            ] as const)
              for (const k of [1, 40]) {
                const n = end - first;
                library.rewind(context, 0);
                if (first) library.evaluate(context, tokens, first, want.none, null);
                const [ids, logits] = [new Int32Array(n * k), new Float32Array(n * k)];
                const position = library.top(context, tokens.subarray(first), n, k, want.all, ids, logits);
                assert.equal(position, end);
                for (let i = 0; i < n; i++) {
                  const found = { ids: ids.slice(i * k, (i + 1) * k), logits: logits.slice(i * k, (i + 1) * k) };
                  assert.deepEqual(found, sorted(row(first + i), k), `tokens ${first} to ${end}, ${i}, k = ${k}`);
                }
                // The last one's is still there; then the middle of the batch is the end of the text.
                assert.deepEqual(top(library, context, tokens.subarray(0, 0), k).found, sorted(row(end - 1), k));
                const middle = first + (n >> 1);
                library.rewind(context, middle);
                assert.deepEqual(
                  top(library, context, tokens.subarray(middle, middle + 1), k).found,
                  sorted(row(middle), k),
                );
              }
          });
        },
      );

    it('after every way to evaluate, the last token counts', async () => {
      await withContext(bestTarget, 2, (library, context) => {
        const logits = new Float32Array(tokens.length * vocabulary);
        const none = tokens.subarray(0, 0);
        for (const n of [1, 5, 64, 70, 90])
          for (const which of [want.none, want.last, want.all]) {
            library.rewind(context, 0);
            library.evaluate(context, tokens, n, which, logits);
            for (const k of [1, 3]) {
              const { position, found } = top(library, context, none, k);
              assert.equal(position, n);
              assert.deepEqual(found, sorted(row(n - 1), k), `${n} tokens, wanted ${which}, k = ${k}`);
            }
          }
        library.rewind(context, 0);
        assert.deepEqual(top(library, context, tokens.subarray(0, 80), 5).found, sorted(row(79), 5));
        library.rewind(context, 80); // nothing is forgotten
        assert.deepEqual(top(library, context, none, 5).found, sorted(row(79), 5));
      });
    });

    it('refuses what it cannot do', async () => {
      await withContext(bestTarget, 1, (library, context) => {
        const limit = Math.min(1024, vocabulary);
        const refuses = (n: number, k: number, message: RegExp, ids = tokens, which: number = want.last) =>
          assert.throws(
            () =>
              library.top(
                context,
                ids,
                n,
                k,
                which as typeof want.last,
                new Int32Array(Math.max(k, 1)),
                new Float32Array(Math.max(k, 1)),
              ),
            (error) => error instanceof LibraryError && message.test(error.message),
            String(message),
          );
        refuses(0, 1, /no tokens to evaluate, and none was evaluated last/);
        refuses(-1, 1, /-1 tokens to evaluate: must be at least 0/);
        refuses(0, 1, /0 tokens to evaluate: must be at least 1/, tokens, want.all);
        for (const which of [want.none, 3]) refuses(1, 1, /unknown choice of logits/, tokens, which);
        for (const k of [0, -3, limit + 1])
          refuses(1, k, new RegExp(`the ${k} largest logits of ${vocabulary}: must be 1 to ${limit}$`));
        refuses(1, 1, /token -7 at index 0 is not in the vocabulary/, Int32Array.of(-7));
        refuses(101, 1, /101 tokens do not fit: 0 of 100 positions/, new Int32Array(101));
        assert.equal(top(library, context, tokens.subarray(0, 3), 1).position, 3);
        library.rewind(context, 2);
        refuses(0, 1, /none was evaluated last/);
      });
    });

    it('either head generates the same tokens, by any sampler', async () => {
      const plain: SamplerOptions = { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, repeatPenalty: 1, seed: 5 };
      const options: Partial<SamplerOptions>[] = [
        {},
        { temperature: 0 },
        { temperature: 0, repeatPenalty: 1.3 },
        { temperature: 30, topK: 200, topP: 1, minP: 0 },
        { temperature: 30, topK: 5, topP: 1, minP: 0, repeatPenalty: 1.5, repeatLastN: 20 },
        { temperature: 5, topK: 0, minP: 0 },
        { temperature: 5, topK: vocabulary, minP: 0 },
        { temperature: 5, topK: 1020, minP: 0, repeatPenalty: 1.1 },
        { temperature: 5, topK: 3, minP: 0, repeatPenalty: 0.5 },
      ];
      for (const changes of some(options, 4)) {
        const texts = [];
        for (const head of vocabulary < 8192 ? headModes : (['exact', 'full'] as const)) {
          const { library, model: number } = await prepare(model);
          const engine = new Engine({ ...source, eos: [] }, library, number, { threads: 2, context: 100, head });
          const sampler = createSampler({ ...plain, ...changes });
          const prompt = [...tokens.subarray(0, 10)];
          texts.push((await engine.generate(prompt, undefined, { count: 60, sampler })).tokens);
          engine.dispose();
        }
        assert.equal(texts[0]!.length, 60);
        for (const text of texts) assert.deepEqual(text, texts[0], JSON.stringify(changes));
      }
    });
  });
