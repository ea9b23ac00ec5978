/**
 * The promise that a result never depends on how it was computed: the same bits from every instruction set, number of threads,
 * division of the text into calls, and foreign function interface; and one packed weights file for all of them.
 */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isaOf } from '../codegen/isa/index.ts';
import { packingsFor } from '../codegen/packings/index.ts';
import type { Engine } from '../runtime/engine.ts';
import { isAvailable } from '../runtime/ffi.ts';
import { openModel } from '../runtime/formats/open.ts';
import { encodings } from '../runtime/formats/source.ts';
import type { KvBits } from '../runtime/memory.ts';
import { skip } from './fixtures.ts';
import {
  assertSameBits,
  bestTarget,
  buildFor,
  demo,
  drive,
  inChild,
  libraryFor,
  nativeTargets,
  oddShape,
  packedFor,
  prepare,
  readFloats,
  runnerFor,
  targets,
  useCache,
  withEngine,
} from './machine.ts';
import { generator } from './oracle.ts';
import { isLong, long, some } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel } from './write-model.ts';

/** Crosses four borders of batches (64 tokens), eight of attention's blocks (32) and two of its spans (128), and ends inside all. */
const LENGTH = 280;
const allSizes = [8, 16, 32] as const satisfies KvBits[];

for (const name of some(['odd', 'demo'] as const)) {
  describe(`bit identity: ${name} model`, () => {
    const cache = useCache();
    // Larger, and slow under an emulator: with floats in the cache it shows nothing that the odd model does not show.
    const sizes: readonly KvBits[] = some(name === 'odd' ? allSizes : [8, 16]);
    let model = demo;
    let tokens: readonly number[] = [];
    /** One thread, everything in one call; by scalar code, but in the short tier, where it is compiled without optimisation. */
    const expected = Object.fromEntries(allSizes.map((kv) => [kv, new Float32Array(0)])) as Record<
      KvBits,
      Float32Array
    >;
    let vocabulary = 0;

    before(async () => {
      if (name === 'odd') {
        model = path.join(cache(), 'odd');
        writeHuggingFace(model, randomModel(oddShape, 7), { weights: 'packed-divide' });
      }
      vocabulary = openModel(model).shape.vocabulary;
      const random = generator(11);
      tokens = Array.from({ length: LENGTH }, () => Math.floor(vocabulary * random()));
      for (const kv of allSizes)
        expected[kv] = await withEngine(
          model,
          isLong ? 'scalar' : bestTarget,
          { kv, threads: 1, context: LENGTH },
          (e) => e.evaluate(tokens, true),
        );
    });

    /** Evaluates the text from its beginning in calls of `chunk` tokens. */
    const inChunks = (engine: Engine, chunk: number): Float32Array => {
      const logits = new Float32Array(LENGTH * vocabulary);
      engine.rewind(0);
      for (let done = 0; done < LENGTH; done += chunk)
        logits.set(engine.evaluate(tokens.slice(done, done + chunk), true), done * vocabulary);
      return logits;
    };

    it('the sizes of the key-value cache give different logits, so that the tests below can tell them apart', () => {
      for (const kv of allSizes) assert.equal(expected[kv].length, LENGTH * vocabulary);
      assert.notDeepEqual(expected[16], expected[32]);
      assert.notDeepEqual(expected[16], expected[8]);
    });

    for (const target of nativeTargets)
      for (const kv of sizes) {
        // What divides the work is the same C for all instruction sets: all of it on one, some on each.
        const [threads, chunks] = target === bestTarget ? [some([3, 1, 2, 7]), some([5, 1, 64, 100])] : [[3], [5]];
        long(`${target}, ${kv}-bit cache: ${threads} threads`, async () => {
          for (const count of threads)
            await withEngine(model, target, { kv, threads: count, context: LENGTH }, (engine) =>
              assertSameBits(engine.evaluate(tokens, true), expected[kv], `${count} threads`),
            );
        });

        (isLong || target !== 'scalar' ? it : long)(
          `${target}, ${kv}-bit cache: calls of ${chunks} tokens`,
          async () => {
            await withEngine(model, target, { kv, threads: 2, context: LENGTH }, (engine) => {
              for (const chunk of chunks)
                assertSameBits(inChunks(engine, chunk), expected[kv], `${chunk} tokens a call`);
            });
          },
        );
      }

    // Emulated: two borders of batches and one of a span.
    const few = 150;
    for (const target of targets.filter((t) => !nativeTargets.includes(t)).reverse())
      for (const kv of name === 'odd' ? sizes : sizes.slice(0, 1))
        long(`${target} program, ${kv}-bit cache: 3 threads, calls of 5 tokens`, async function () {
          const runner = await runnerFor(this, target);
          const built = await buildFor(openModel(model).shape, target);
          const weights = await packedFor(model, built);
          const actual = await drive(built, runner, weights, tokens.slice(0, few), { threads: 3, chunk: 5, kv });
          assertSameBits(actual, expected[kv].subarray(0, few * vocabulary), target);
        });

    it('step, prompt and evaluate of the last token give the same as all logits at once', async () => {
      const row = (t: number) => expected[16].subarray(t * vocabulary, (t + 1) * vocabulary);
      await withEngine(model, bestTarget, { kv: 16, threads: 2, context: LENGTH }, async (engine) => {
        for (const [t, token] of tokens.entries()) assertSameBits(engine.step(token), row(t), `step ${t}`);
        engine.rewind(0);
        assertSameBits(engine.evaluate(tokens.slice(0, 130)), row(129), 'evaluate');
        engine.rewind(0);
        assertSameBits(await engine.prompt(tokens), row(LENGTH - 1), 'prompt');
        assert.equal(engine.position, LENGTH);
      });
    });

    it('a rewound context has forgotten what came after', async () => {
      await withEngine(model, bestTarget, { kv: 16, threads: 2, context: LENGTH }, (engine) => {
        for (const position of [149, 97, 64, 33, 32, 1]) {
          engine.rewind(0);
          // Other tokens behind `position`, up to the end.
          engine.evaluate([...tokens.slice(0, position), ...tokens.slice(position).reverse()]);
          engine.rewind(position);
          assertSameBits(
            engine.evaluate(tokens.slice(position), true),
            expected[16].subarray(position * vocabulary),
            `from position ${position}`,
          );
        }
      });
    });

    it('two contexts of one model do not disturb each other', async () => {
      await withEngine(model, bestTarget, { kv: 16, threads: 2, context: LENGTH }, async (first) => {
        await withEngine(model, bestTarget, { kv: 16, threads: 1, context: LENGTH }, (second) => {
          const half = Math.floor(LENGTH / 2);
          const parts = [first.evaluate(tokens.slice(0, half), true)];
          assertSameBits(second.evaluate(tokens, true), expected[16], 'second context');
          parts.push(first.evaluate(tokens.slice(half), true));
          const all = new Float32Array(LENGTH * vocabulary);
          all.set(parts[0]!);
          all.set(parts[1]!, half * vocabulary);
          assertSameBits(all, expected[16], 'first context');
        });
      });
    });

    for (const ffi of ['ffi-napi', 'koffi'] as const)
      it(`${ffi}`, async function () {
        if (!isAvailable(ffi)) skip(this, `${ffi} does not load here`);
        const { built, weights, library, model: number } = await prepare(model);
        library.close(number);
        const output = path.join(cache(), `${ffi}.logits`);
        await inChild(ffi, 'evaluate', [built.library, weights, output], JSON.stringify(tokens));
        assertSameBits(readFloats(output), expected[16], ffi);
      });

    for (const p of name === 'odd' ? packingsFor(isaOf('scalar')) : [])
      long(`all targets with ${p.token} pack the same file`, async () => {
        const source = openModel(model);
        const own = nativeTargets.filter((target) => packingsFor(isaOf(target)).includes(p));
        const first = await prepare(model, 'scalar', [], p.token);
        first.library.close(first.model);
        const bytes = readFileSync(first.weights);
        for (const [i, target] of own.entries()) {
          const built = await buildFor(source.shape, target, { packing: p.token });
          assert.equal(built.manifest.layout.id, first.built.manifest.layout.id, target);
          const library = await libraryFor(built);
          const file = path.join(cache(), `${target}-${p.token}.bnw`);
          // Another number of threads each time.
          library.packBegin(file, 1 + i);
          for (const [tensor, { name: slot, from = slot }] of built.manifest.layout.tensors.entries()) {
            const t = source.tensors.get(from)!;
            const { scale = 0, factor = 1, permutedHeads = 0 } = t;
            const encoding = encodings[t.encoding];
            library.packTensor(
              tensor,
              t.file,
              t.offset,
              t.bytes,
              encoding,
              t.rows,
              t.cols,
              scale,
              factor,
              permutedHeads,
            );
          }
          library.packEnd(true);
          assert.ok(readFileSync(file).equals(bytes), `${target} packs other bytes`);
        }
      });
  });
}
