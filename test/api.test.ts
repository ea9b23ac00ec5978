/**
 * The library as programs use it: options, and numbers, that make no sense; one thing at a time; texts of their own; objects that were
 * disposed. On the demo model.
 */
import { strict as assert } from 'node:assert';
import path from 'node:path';
import { execa } from 'execa';
import { createSampler, describeModel, greedy, type Loaded, load, type Sampler } from '../index.ts';
import { Engine, type GenerateOptions } from '../runtime/engine.ts';
import { samplerDefaults } from '../runtime/sampler.ts';
import { LibraryError, UsageError } from '../schemas/error.ts';
import { show } from '../schemas/options.ts';
import { demo, refuses, useCache } from './machine.ts';
import { compiledRoot } from './setup.ts';

/** Fails unless a call is refused as wrong usage, with these parts in the message. */
const isUsage =
  (...parts: readonly string[]) =>
  (error: unknown) => {
    assert.ok(error instanceof UsageError, String(error));
    for (const part of parts) assert.ok(error.message.includes(part), error.message);
    return true;
  };
const isLibrary = (message: RegExp) => (error: unknown) => error instanceof LibraryError && message.test(error.message);
const DISPOSED = /^this engine was disposed; load the model again$/;

describe('library interface', () => {
  useCache();
  let loaded: Loaded;
  let engine: Engine;
  let prompt: number[] = [];
  let vocabulary = 0;
  /** Greedy tokens after the prompt. */
  let expected: readonly number[] = [];

  const generate = (tokens: readonly number[], options: Partial<GenerateOptions> = {}) =>
    engine.generate(tokens, loaded.tokenizer, { count: 8, sampler: greedy, ...options });
  /** Another engine on the same model. */
  const another = () => {
    const model = loaded.library.open(loaded.weights);
    return new Engine(loaded.source, loaded.library, model, { threads: 1, context: 64 });
  };

  before(async () => {
    loaded = await load(demo, { threads: 1 });
    ({ engine } = loaded);
    ({ vocabulary } = loaded.source.shape);
    prompt = loaded.tokenizer!.encode('Once upon a time there was', { special: false });
    expected = (await generate(prompt)).tokens;
  });
  after(() => loaded?.[Symbol.dispose]());

  describe('options', () => {
    const bad: readonly (readonly [name: string, value: unknown, rule: string])[] = [
      ...[1.5, 0, -1, Number.NaN, 1025, '2', null].map((v) => ['threads', v, 'a whole number from 1 to 1024'] as const),
      ...[Number.NaN, -5, 2 ** 20 + 1, 10.5].map((v) => ['context', v, 'a whole number from 0 to 1048576'] as const),
      ['kv', 5, 'one of 8, 16, 32'],
      ['kv', 'i8', 'one of 8, 16, 32'],
      ['head', 'zzz', 'one of exact, fast, full'],
      ['pages', 'toString', 'one of mapped, auto, huge'],
      ['shared', 1, 'true or false'],
      ['sparse', 'no', 'true or false'],
      ['packing', '', 'text, not empty'],
      ['kernel', 'gemv', 'a list'],
      ['kernel', [1], 'a list'],
      ['target', 7, 'text'],
      ['cc', {}, 'text'],
      ['signal', { aborted: true }, 'an AbortSignal'],
      ['onNote', 'print', 'a function'],
      ['onProgress', true, 'a function'],
    ];
    for (const [name, value, rule] of bad)
      it(`load refuses ${name}: ${show(value)}, before it looks at the model`, () =>
        assert.rejects(load('/nowhere', { [name]: value }), isUsage(`${name} = `, `must be ${rule}`)));

    it('load refuses an option that there is not, and a path that is none', async () => {
      await assert.rejects(
        load(demo, { thread: 2 } as object),
        isUsage("no option 'thread'", 'there are threads, context'),
      );
      await assert.rejects(load(demo, 2 as never), isUsage('options = 2', 'an object'));
      for (const none of [undefined, '', 5])
        await assert.rejects(load(none as string), isUsage('modelPath = ', 'must be text'));
    });

    it('an option that is undefined counts as absent', async () => {
      using same = await load(demo, { threads: 1, context: undefined, head: undefined } as object);
      assert.equal(same.engine.context, engine.context);
      assert.equal(same.engine.head, 'exact');
    });

    it('describeModel refuses what load does', () =>
      assert.rejects(describeModel(demo, { threads: 1.5 }), isUsage('threads = 1.5', 'a whole number')));

    const generation: readonly [object, ...string[]][] = [
      [{ count: 1.5 }, 'count = 1.5', 'or Infinity'],
      [{ count: undefined }, 'count = undefined', 'a whole number'],
      [{ count: -1 }, 'count = -1'],
      [{ sampler: undefined }, 'sampler = undefined', 'createSampler'],
      [{ sampler: Math.max }, 'sampler = ', 'createSampler'],
      [{ stop: '\n' }, 'stop = ', 'a list'],
      [{ stop: [''] }, 'stop = ', 'not empty'],
      [{ lookup: 3 }, 'lookup = 3'],
      [{ onText: 'print' }, 'onText'],
      [{ maxTokens: 5 }, "no option 'maxTokens'", 'count'],
    ];
    for (const [options, ...parts] of generation)
      it(`generate refuses ${show(options)}`, () => assert.rejects(generate(prompt, options), isUsage(...parts)));

    it('createSampler has the defaults of the command line, and refuses an option that there is not', async () => {
      const same = { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, repeatPenalty: 1, repeatLastN: 64, seed: 7 };
      const [a, b] = [createSampler({ seed: 7, topK: undefined } as object), createSampler(same)];
      const first = await generate(prompt, { sampler: a, count: 40 });
      assert.deepEqual((await generate(prompt, { sampler: b, count: 40 })).tokens, first.tokens);
      assert.notDeepEqual((await generate(prompt, { sampler: createSampler(), count: 40 })).tokens, first.tokens);
      assert.throws(() => createSampler({ temp: 1 } as object), isUsage("no option 'temp'", 'temperature'));
    });

    it('these are the defaults that the command line prints', async () => {
      const { stdout } = await execa(process.execPath, [path.join(compiledRoot, 'runtime', 'cli.js'), '--help']);
      const help = stdout.replace(/\s+/g, ' ');
      for (const [option, name] of [
        ['temp', 'temperature'],
        ['top-k', 'topK'],
        ['top-p', 'topP'],
        ['min-p', 'minP'],
        ['repeat-penalty', 'repeatPenalty'],
      ] as const) {
        const [, printed] = new RegExp(`--${option} <.>.*?\\(default: ([\\d.]+)\\)`).exec(help) ?? [];
        assert.equal(Number(printed), samplerDefaults[name], option);
      }
    });

    it('greedy is a sampler, of the largest logit or of all', async () => {
      const { tokens } = await generate(prompt, { sampler: createSampler({ temperature: 0 }) });
      assert.deepEqual(tokens, expected);
      const full = new Engine(loaded.source, loaded.library, loaded.library.open(loaded.weights), { head: 'full' });
      assert.deepEqual((await full.generate(prompt, undefined, { count: 8, sampler: greedy })).tokens, expected);
      full.dispose();
      assert.equal(greedy(Float32Array.of(1, 3, 2)), 1);
    });
  });

  describe('numbers', () => {
    for (const token of [Number.NaN, 1.5, undefined, -1, 2 ** 32 + 5, '5', null])
      it(`${token} is no token, and nothing is evaluated`, async () => {
        engine.rewind(0);
        const logits = engine.evaluate([1, 2]).slice();
        const id = token as number;
        const message = /^token .* is not in the vocabulary of \d+: ids are whole numbers from 0 to \d+$/;
        refuses(() => engine.step(id), message);
        refuses(() => engine.evaluate([3, id]), /at index 1 is not/);
        refuses(() => engine.evaluate([3, id], true), message);
        if (token !== undefined) refuses(() => engine.top(1, id), message);
        refuses(() => engine.topAll([3, id], 1), message);
        refuses(() => engine.drawAll(greedy, [id], [3]), message);
        await assert.rejects(engine.prompt([3, id]), isLibrary(message));
        await assert.rejects(generate([3, id]), isLibrary(message));
        assert.equal(engine.position, 2);
        engine.rewind(1);
        assert.deepEqual(engine.step(2), logits);
      });

    it('the first id beyond the vocabulary is no token, the last one is', () => {
      engine.rewind(0);
      assert.equal(engine.step(vocabulary - 1).length, vocabulary);
      refuses(() => engine.step(vocabulary), new RegExp(`token ${vocabulary} at index 0`));
    });

    it('positions', () => {
      engine.rewind(0);
      engine.evaluate([1, 2, 3]);
      for (const position of [Number.NaN, 1.5, undefined, '1', 2 ** 32]) {
        refuses(() => engine.rewind(position as number), /position = .*must be a whole number from -2\^31/);
      }
      for (const position of [-1, 4]) refuses(() => engine.rewind(position), /cannot rewind to position/);
      assert.equal(engine.position, 3);
    });

    it('how many of the largest logits', () => {
      for (const count of [0, -1, 1.5, Number.NaN, 2 ** 32 + 1, Math.min(1024, vocabulary) + 1, undefined]) {
        refuses(() => engine.top(count as number, 1), /largest logits: there must be 1 to \d+$/);
        refuses(() => engine.topAll([1, 2], count as number), /largest logits: there must be 1 to/);
      }
    });

    it('lists that are none, or empty, or longer than the context', async () => {
      for (const none of [undefined, 5, '1,2', { length: 1 }])
        refuses(() => engine.evaluate(none as never), /tokens = .*they must be a list of token ids/);
      engine.rewind(0);
      refuses(() => engine.evaluate([]), /0 tokens to evaluate/);
      await assert.rejects(engine.prompt([]), isLibrary(/there are no tokens to evaluate/));
      await assert.rejects(generate([]), isLibrary(/the prompt is empty/));
      const long = new Array<number>(engine.context + 1).fill(1);
      await assert.rejects(generate(long), isLibrary(/the prompt has 257 tokens, but the context holds 256/));
      assert.equal(engine.position, 0);
    });

    it('there is nothing to draw from before the first token, nor after a rewind', () => {
      engine.rewind(0);
      const all = createSampler({ topK: 0 });
      refuses(() => engine.draw(all, []), /there are no logits to draw from; evaluate a token first/);
      refuses(() => engine.draw(greedy, []), /none was evaluated last/);
      engine.evaluate([1, 2]);
      assert.ok(engine.draw(all, []) >= 0);
      engine.rewind(1);
      refuses(() => engine.draw(all, []), /there are no logits to draw from/);
      engine.top(1, 2);
      refuses(() => engine.draw(all, []), /there are no logits to draw from/);
    });

    it('the library itself: whole numbers, arrays of the right type and length', () => {
      const { library } = loaded;
      const context = library.context(library.open(loaded.weights), 8, 1, 8, false);
      const [one, logits] = [Int32Array.of(1), new Float32Array(vocabulary)];
      refuses(() => library.rewind(context, 0.5), /^bn_rewind: position = 0.5; it must be a whole number/);
      refuses(() => library.rewind(Number.NaN, 0), /^bn_rewind: context = NaN/);
      refuses(() => library.evaluate(context, [1] as never, 1, 1, logits), /^bn_eval: tokens = .*an Int32Array/);
      refuses(() => library.evaluate(context, one, 2, 0, null), /2 tokens to evaluate, but the array holds 1/);
      refuses(() => library.evaluate(context, one, 1, 1, logits.subarray(1)), /\d+ results do not fit in an array of/);
      refuses(
        () => library.top(context, one, 1, 2, 1, new Int32Array(1), logits),
        /2 results do not fit in an array of 1/,
      );
      refuses(() => library.open('a\0b'), /text without a zero byte/);
      assert.equal(library.evaluate(context, one, 1, 1, logits), 1);
      library.release(context);
    });
  });

  describe('texts', () => {
    it('a generation is the same whatever the engine did before', async () => {
      for (const before of [[], [5, 6, 7], prompt.slice(0, 3), [...prompt, 9, 9]]) {
        engine.rewind(0);
        if (before.length) engine.evaluate(before);
        assert.deepEqual((await generate(prompt)).tokens, expected, JSON.stringify(before));
      }
    });

    it('a text that goes on is not evaluated again, and gives the bits of one that is', async () => {
      await generate(prompt);
      const longer = [...prompt, ...expected, 5];
      let first = 0;
      const { tokens } = await generate(longer, { onPrompt: (done) => (first ||= done), lookup: true });
      assert.equal(first, longer.length);
      const rest = engine.evaluate([tokens.at(-1)!, 3], true);
      engine.rewind(0);
      const whole = engine.evaluate([...longer, ...tokens, 3], true);
      assert.deepEqual(rest, whole.subarray(-rest.length));
      // The whole prompt is there already: its last token is evaluated for its logits.
      assert.deepEqual((await generate(prompt)).tokens, expected);
      assert.deepEqual((await generate(prompt)).tokens, expected);
    });

    it('without an end it goes on until the context is full', async () => {
      using small = another();
      const endless = createSampler({ temperature: 3, topK: 0, minP: 0, topP: 1, seed: 2 });
      const { tokens, stopReason } = await small.generate(prompt, undefined, { count: Infinity, sampler: endless });
      if (stopReason === 'context') assert.equal(tokens.length, 64 - prompt.length + 1);
      else assert.equal(stopReason, 'eos');
    });
  });

  describe('one thing at a time', () => {
    const AT_WORK = /^this engine is at work: wait for the end of (generate|prompt)\(\)/;
    /** Everything that would disturb. */
    const intrude = async () => {
      const calls = [
        () => engine.evaluate([1]),
        () => engine.step(1),
        () => engine.top(1, 1),
        () => engine.topAll([1], 1),
        () => engine.draw(greedy, [1], 1),
        () => engine.drawAll(greedy, [1], [2]),
        () => engine.rewind(0),
      ];
      for (const call of calls) refuses(call, AT_WORK);
      await assert.rejects(engine.prompt([1]), isLibrary(AT_WORK));
      await assert.rejects(generate(prompt), isLibrary(AT_WORK));
    };

    it('while it generates, everything else is refused, and disturbs nothing', async () => {
      const running = generate(prompt);
      await intrude();
      assert.deepEqual((await running).tokens, expected);
      assert.deepEqual((await generate(prompt)).tokens, expected, 'afterwards');
    });

    it('the same from within: text, progress, sampler', async () => {
      const intruders: Promise<void>[] = [];
      const visit = () => void intruders.push(intrude());
      const sampler: Sampler = {
        sample: greedy.sample,
        candidates: greedy.candidates,
        sampleTop(...args) {
          visit();
          return greedy.sampleTop(...args);
        },
      };
      const { tokens } = await generate(prompt, { onText: visit, onPrompt: visit, sampler });
      await Promise.all(intruders);
      assert.ok(intruders.length > 10);
      assert.deepEqual(tokens, expected);
    });

    it('the same while it reads a prompt', async () => {
      engine.rewind(0);
      const running = engine.prompt(prompt);
      await intrude();
      await running;
      assert.equal(engine.position, prompt.length);
    });

    it('one that failed or was interrupted is over', async () => {
      await assert.rejects(generate([-1]));
      const broken = { ...greedy, candidates: () => 1, sample: () => 0, sampleTop: () => assert.fail('on purpose') };
      await assert.rejects(generate(prompt, { sampler: broken }), /on purpose/);
      assert.equal((await generate(prompt, { signal: AbortSignal.abort() })).stopReason, 'interrupt');
      assert.deepEqual((await generate(prompt)).tokens, expected);
    });
  });

  describe('disposed objects', () => {
    it('an engine: every use is refused, and no other one is touched', async () => {
      const first = another();
      first.evaluate([1, 2]);
      first.dispose();
      const second = another();
      const logits = second.evaluate([3, 4]).slice();
      const uses = [
        () => first.evaluate([5]),
        () => first.step(5),
        () => first.top(1, 5),
        () => first.topAll([5], 1),
        () => first.draw(greedy, [5], 5),
        () => first.drawAll(greedy, [5], [6]),
        () => first.rewind(0),
        () => first.profile(true),
        () => first.live(true),
        () => first.dead(),
        () => first.hugePages,
      ];
      for (const use of uses) refuses(use, DISPOSED);
      await assert.rejects(first.prompt([5]), isLibrary(DISPOSED));
      await assert.rejects(first.generate([5], undefined, { count: 1, sampler: greedy }), isLibrary(DISPOSED));
      first.dispose();
      first[Symbol.dispose]();
      second.rewind(1);
      assert.deepEqual(second.step(4), logits);
      second.dispose();
    });

    it('an engine that is generating: that ends with an error', async () => {
      const one = another();
      const running = one.generate(prompt, undefined, { count: 50, sampler: greedy, lookup: true, onText: () => {} });
      setImmediate(() => one.dispose());
      await assert.rejects(running, isLibrary(DISPOSED));
    });

    it("numbers of the library: a closed one is nobody's, whoever comes after", () => {
      const { library } = loaded;
      const model = library.open(loaded.weights);
      const context = library.context(model, 8, 1, 8, false);
      library.release(context);
      library.close(model);
      const next = library.open(loaded.weights);
      const other = library.context(next, 8, 1, 8, false);
      assert.equal(library.evaluate(other, Int32Array.of(1), 1, 0, null), 1);
      assert.ok(next !== model && other !== context);
      refuses(() => library.evaluate(context, Int32Array.of(1), 1, 0, null), /there is no context/);
      refuses(() => library.release(context), /there is no context/);
      refuses(() => library.context(model, 8, 1, 8, false), /there is no open model/);
      refuses(() => library.close(model), /there is no open model/);
      assert.equal(library.evaluate(other, Int32Array.of(1), 1, 0, null), 2);
      library.release(other);
      library.close(next);
    });

    it('a model that others use stays open, and is closed later', () => {
      const { library } = loaded;
      const model = library.open(loaded.weights);
      const owner = new Engine(loaded.source, library, model, { threads: 1, context: 8 });
      const guest = new Engine(loaded.source, library, model, { threads: 1, context: 8, shared: true });
      refuses(() => owner.dispose(), /is in use by 1 contexts; release them first/);
      refuses(() => owner.step(1), DISPOSED);
      assert.equal(guest.step(1).length, vocabulary);
      guest.dispose();
      owner.dispose();
      refuses(() => library.close(model), /there is no open model/);
    });

    it('using: what load opened is freed at the end of the block, whatever ends it', async () => {
      let kept: Loaded | undefined;
      await assert.rejects(async () => {
        using inner = await load(demo, { threads: 1 });
        kept = inner;
        inner.engine.evaluate([1]);
        throw new Error('on purpose');
      }, /on purpose/);
      refuses(() => kept!.engine.step(1), DISPOSED);
      refuses(() => kept!.library.open(kept!.weights), /this library was disposed; open it again/);
      kept![Symbol.dispose]();
      kept!.engine.dispose();
      // Another library object of the same file goes on.
      engine.rewind(0);
      assert.equal(engine.step(1).length, vocabulary);
    });

    it('a library that is disposed first takes its contexts and models along', async () => {
      const { engine: orphan, library, weights } = await load(demo, { threads: 1 });
      library.context(library.open(weights), 8, 1, 8, false);
      library.dispose();
      library.dispose();
      refuses(() => orphan.step(1), /this library was disposed/);
      orphan.dispose();
      refuses(() => orphan.step(1), DISPOSED);
    });
  });
});
