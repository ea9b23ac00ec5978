/**
 * Generation with lookup against plain generation: the same tokens, texts, ends and bits, on texts that repeat and that do not, by every
 * kind of sampler. Two models: the demo model, which has no screen and writes stories, and a random one with a screen. A random
 * model repeats nothing, so a sampler that prefers what the prompt holds makes it copy.
 */
import { strict as assert } from 'node:assert';
import path from 'node:path';
import { DraftLength } from '../runtime/draft-length.ts';
import { Engine, type EngineOptions, type GenerateOptions, type Generation } from '../runtime/engine.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import { createSampler, type Sampler, type SamplerOptions } from '../runtime/sampler.ts';
import { loadTokenizer } from '../runtime/tokenizer.ts';
import { assertSameBits, demo, prepare, useCache } from './machine.ts';
import { generator } from './oracle.ts';
import { isLong, some } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel, smallShape } from './write-model.ts';

const base: SamplerOptions = { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, repeatPenalty: 1, seed: 1 };
const samplers: readonly Partial<SamplerOptions>[] = [
  { temperature: 0 },
  { temperature: 0, repeatPenalty: 1.3 },
  ...[1, 2, 3].map((seed) => ({ seed })),
  { temperature: 0.3, topK: 5, seed: 4 },
  { temperature: 1.5, topK: 100, topP: 1, minP: 0, seed: 5 },
  { repeatPenalty: 1.2, repeatLastN: 20, seed: 6 },
  { topK: 0, seed: 7 },
  { topK: 3, repeatPenalty: 0.8, seed: 8 },
];

/** A sampler that goes on as `tokens` does at every place but each eleventh, where `inner` draws; it always asks `inner`. */
function copying(inner: Sampler, tokens: readonly number[]): Sampler {
  const choose = (drawn: number, history: readonly number[]) =>
    history.length % 11 === 0 ? drawn : tokens[history.length % tokens.length]!;
  return {
    sample: (logits, history) => choose(inner.sample(logits, history), history),
    candidates: (vocabulary, history) => inner.candidates(vocabulary, history),
    sampleTop: (top, history) => choose(inner.sampleTop(top, history), history),
  };
}

/** Drafts as often as there is a match, whatever the times: 1, 3, 7 or 15 tokens in turn. */
async function recklessly<T>(use: () => Promise<T>): Promise<T> {
  const { choose } = DraftLength.prototype;
  let turn = 0;
  DraftLength.prototype.choose = (most, chance) => {
    const count = [1, 3, 7, 15][turn++ % 4]!;
    return chance(0) && count < most ? count : 0;
  };
  try {
    return await use();
  } finally {
    DraftLength.prototype.choose = choose;
  }
}

type Outcome = Omit<Generation, 'promptMs' | 'generationMs' | 'lookup'> & { readonly position: number };

for (const name of some(['random', 'demo'] as const))
  describe(`generation with lookup: ${name} model`, () => {
    const cache = useCache();
    let source: ModelSource;
    let folder = demo;
    let vocabulary = 0;
    /** Accepted and drafted tokens of all tests. */
    let [accepted, drafted] = [0, 0];

    before(async () => {
      if (name === 'random') {
        folder = path.join(cache(), 'model');
        writeHuggingFace(folder, randomModel(smallShape({ vocabulary: 8203, layers: 2 }), 9), { weights: 'packed' });
      }
    });

    async function withEngine<T>(options: EngineOptions, use: (engine: Engine) => Promise<T>): Promise<T> {
      const ready = await prepare(folder);
      source = ready.source;
      vocabulary = source.shape.vocabulary;
      const engine = new Engine(source, ready.library, ready.model, { threads: 1, context: 200, ...options });
      try {
        return await use(engine);
      } finally {
        engine.dispose();
      }
    }

    const tokenizer = () => source.tokenizer && loadTokenizer(source.tokenizer);

    /** Generates plainly, with lookup, and with lookup recklessly. @returns the outcome, which is the same */
    async function everyWay(
      engine: Engine,
      prompt: readonly number[],
      options: Omit<GenerateOptions, 'sampler' | 'lookup'> & { readonly sampler: () => Sampler },
    ): Promise<Outcome> {
      const outcomes: Outcome[] = [];
      const pieces: string[] = [];
      for (const lookup of [false, true, { shortest: 1, longest: 3 }]) {
        engine.rewind(0);
        let printed = '';
        const onText = (text: string) => {
          printed += text;
        };
        const sampler = options.sampler();
        const generate = () => engine.generate(prompt, tokenizer(), { ...options, sampler, lookup, onText });
        const generation = await (typeof lookup === 'object' ? recklessly(generate) : generate());
        const { promptMs, generationMs, lookup: drafts, ...outcome } = generation;
        assert.equal(drafts === undefined, lookup === false);
        accepted += drafts?.accepted ?? 0;
        drafted += drafts?.drafted ?? 0;
        outcomes.push({ ...outcome, position: engine.position });
        pieces.push(printed);
      }
      for (const outcome of outcomes) assert.deepEqual(outcome, outcomes[0]);
      for (const piece of pieces) assert.equal(piece, outcomes[0]!.text);
      return outcomes[0]!;
    }

    /** A text of the vocabulary that repeats its last third, or not. */
    const promptOf = (repeats: boolean): number[] => {
      const random = generator(4);
      const tokens = Array.from({ length: 40 }, () => Math.floor(vocabulary * random()));
      return repeats ? [...tokens, ...tokens.slice(5, 25)] : tokens;
    };

    for (const changes of some([...samplers, 'full head' as const], 4))
      it(`the same tokens by ${JSON.stringify(changes)}`, () =>
        withEngine({ head: changes === 'full head' ? 'full' : 'exact' }, async (engine) => {
          const sampler = () => createSampler({ ...base, ...(changes === 'full head' ? {} : changes) });
          for (const repeats of [true, false]) {
            const prompt = promptOf(repeats);
            for (const draws of [sampler, () => copying(sampler(), prompt)]) {
              const { tokens } = await everyWay(engine, prompt, { count: 70, sampler: draws });
              assert.ok(tokens.length > 0);
            }
          }
        }));

    it('drafts were made, accepted and rejected', () => {
      const least = isLong ? 500 : 50;
      assert.ok(accepted > least && drafted - accepted > least, `${accepted} of ${drafted}`);
    });

    it('the length limit and the context end it at the same token', () =>
      withEngine({ context: 100 }, async (engine) => {
        const prompt = promptOf(true);
        const sampler = () => copying(createSampler(base), prompt);
        for (const count of [0, 1, 2, 3, 7, 38, 39, 40, 41, 42, 100]) {
          const { tokens, stopReason, position } = await everyWay(engine, prompt, { count, sampler });
          if (stopReason === 'eos') continue;
          assert.deepEqual([tokens.length, stopReason], count > 41 ? [41, 'context'] : [count, 'length']);
          assert.equal(position, prompt.length + Math.max(0, tokens.length - 1));
        }
        // A prompt that fills the context.
        const { tokens } = await everyWay(
          engine,
          Array.from({ length: 100 }, (_, i) => i % 10),
          { count: 5, sampler },
        );
        assert.equal(tokens.length, 1);
      }));

    it('the end token ends it inside a draft', () =>
      withEngine({}, async (engine) => {
        const prompt = promptOf(true);
        const sampler = () => copying(createSampler({ ...base, temperature: 0 }), prompt);
        const { tokens } = await everyWay(engine, prompt, { count: 60, sampler });
        const eos = tokens.at(-1)!;
        const ready = await prepare(folder);
        const ending = new Engine({ ...source, eos: [eos] }, ready.library, ready.model, { threads: 2, context: 200 });
        const ended = await everyWay(ending, prompt, { count: 100, sampler });
        ending.dispose();
        assert.deepEqual([ended.tokens, ended.stopReason], [tokens.slice(0, tokens.indexOf(eos)), 'eos']);
      }));

    it('an interruption between tokens ends it, and the cache is as it was left', () =>
      withEngine({}, async (engine) => {
        const prompt = promptOf(true);
        for (const lookup of [false, true])
          for (let after = 1; after < 50; after += 7) {
            const control = new AbortController();
            const inner = copying(createSampler(base), prompt);
            let draws = 0;
            const count = () => {
              if (++draws === after) control.abort();
              return inner;
            };
            const sampler: Sampler = {
              ...inner,
              sample: (...args) => count().sample(...args),
              sampleTop: (...args) => count().sampleTop(...args),
            };
            engine.rewind(0);
            const options = { count: 90, sampler, lookup, signal: control.signal };
            const { tokens, stopReason } = await recklessly(() => engine.generate(prompt, undefined, options));
            if (stopReason === 'eos') continue;
            assert.deepEqual([tokens.length, stopReason], [after, 'interrupt']);
            assert.equal(engine.position, prompt.length + after - 1);
          }
      }));

    it('after rejected drafts the cache holds what plain decoding leaves: the same logits', () =>
      withEngine({}, async (engine) => {
        const prompt = promptOf(true);
        const logits = [];
        for (const lookup of [false, true]) {
          engine.rewind(0);
          const sampler = copying(createSampler({ ...base, temperature: 2, minP: 0 }), prompt);
          const options = { count: 60, sampler, lookup };
          const { tokens } = await recklessly(() => engine.generate(prompt, undefined, options));
          logits.push(engine.evaluate([...tokens.slice(-1), ...prompt.slice(0, 5)], true));
        }
        assertSameBits(logits[1]!, logits[0]!, 'logits');
      }));

    if (name === 'demo')
      it('stop strings, at every place of a text that repeats', () =>
        withEngine({ context: 256 }, async (engine) => {
          const text = 'One day the cat saw a big red ball. The cat ran to the big red ball.';
          const prompt = tokenizer()!.encode(text, { special: true });
          const sampler = () => copying(createSampler(base), prompt);
          const full = await everyWay(engine, prompt, { count: 60, sampler });
          for (let at = 1; at < full.text.length - 6; at += 9) {
            const stop = [full.text.slice(at, at + 5)];
            const { text: cut, stopReason } = await everyWay(engine, prompt, { count: 60, sampler, stop });
            assert.deepEqual([cut, stopReason], [full.text.slice(0, full.text.indexOf(stop[0]!)), 'stop']);
          }
        }));
  });
