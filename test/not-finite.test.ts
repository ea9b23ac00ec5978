/**
 * Packed weights that were damaged after packing, in memory or on the disk: NaN and infinity never become a token, nor a logit.
 * The call fails and names the token and its position, by whatever head, cache and number of threads, and the context is as it
 * was. Kernels alone are in kernels.test.ts; damage in the model's file is refused when it is packed (damaged-weights.test.ts).
 */
import { strict as assert } from 'node:assert';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import path from 'node:path';
import { LANES, roundUp } from '../codegen/kernels/kernel.ts';
import { Engine, headModes } from '../runtime/engine.ts';
import { type Library, type TopMode, want } from '../runtime/library.ts';
import { type KvBits, kvTypes } from '../runtime/memory.ts';
import { createSampler } from '../runtime/sampler.ts';
import { LibraryError } from '../schemas/error.ts';
import type { ModelShape } from '../schemas/types.ts';
import {
  assertSameBits,
  nativeTargets,
  oddShape,
  prepare,
  type Ready,
  refuses,
  smallestShape,
  useCache,
} from './machine.ts';
import { some } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel } from './write-model.ts';

const f32 = (value: number) => Buffer.from(Float32Array.of(value).buffer);
/** bfloat16. */
const bf16 = (value: number) => f32(value).subarray(2);
const bad = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

/** Two models: squared ReLU, sub-norms and a full head; SiLU, a head of its own and a screen. */
const shapes: Readonly<Record<string, ModelShape>> = {
  'full head': smallestShape,
  screen: { ...oddShape, vocabulary: 8203, name: 'top8203' },
};

for (const [title, shape] of Object.entries(shapes))
  for (const target of some(nativeTargets))
    describe(`not finite: ${title}, ${target}`, () => {
      const cache = useCache();
      let ready: Ready;
      let library: Library;
      const tokens = Int32Array.of(1, 2, 5, 3, 7, 11, 2);
      /** Elements of a packed row. */
      const stride = roundUp(shape.hidden, LANES);

      before(async () => {
        const model = path.join(cache(), 'model');
        writeHuggingFace(model, randomModel(shape, 4), { weights: 'packed-divide' });
        ready = await prepare(model, target);
        ({ library } = ready);
      });
      after(() => ready && library.close(ready.model));

      /** Calls `use` while the mapped file has other bytes at an element of a tensor; element -1: its scale. */
      const whileDamaged = async <T>(name: string, element: number, bytes: Buffer, use: () => T | Promise<T>) => {
        const tensor = ready.built.manifest.layout.tensors.find((t) => t.name === name)!;
        const at = tensor.offset + (element < 0 ? tensor.bytes : element * bytes.length);
        const before_ = Buffer.alloc(bytes.length);
        const file = openSync(ready.weights, 'r+');
        readSync(file, before_, 0, bytes.length, at);
        writeSync(file, bytes, 0, bytes.length, at);
        try {
          return await use();
        } finally {
          writeSync(file, before_, 0, bytes.length, at);
          closeSync(file);
        }
      };

      const withContext = async <T>(kv: KvBits, threads: number, head: TopMode, use: (context: number) => T) => {
        const context = library.context(ready.model, 64, threads, kv, false, 'mapped', head);
        try {
          return await use(context);
        } finally {
          library.release(context);
        }
      };
      const logitsOf = (context: number, which: 0 | 1 | 2 = want.all, of = tokens) => {
        const logits = new Float32Array(of.length * shape.vocabulary);
        library.evaluate(context, of, of.length, which, logits);
        return logits;
      };
      const topOf = (context: number, which: 1 | 2 = want.all, of = tokens, k = 3) => {
        const found = which === want.all ? of.length * k : k;
        const logits = new Float32Array(found);
        library.top(context, of, of.length, k, which, new Int32Array(found), logits);
        return logits;
      };
      const says = (token: number, position: number) =>
        new RegExp(`^token ${token} at position ${position} gives numbers that are not finite .* --cache clear`);

      /** Where every token meets the damage. */
      const everywhere = [
        'blk.0.attn_norm',
        'blk.1.ffn_norm',
        'output_norm',
        ...(shape.subNorms ? ['blk.0.attn_sub_norm', 'blk.1.ffn_sub_norm'] : []),
      ];
      for (const kv of Object.values(kvTypes))
        it(`in norms, with a cache of ${kv} bits`, async () => {
          for (const [i, name] of everywhere.entries())
            for (const value of some(bad, 1 + (i % 2)))
              await withContext(kv, 1 + (i % 3), 'exact', (context) =>
                whileDamaged(name, 3 + i, f32(value), () => {
                  refuses(() => logitsOf(context), says(1, 0));
                  refuses(() => logitsOf(context, want.last, tokens.subarray(0, 1)), says(1, 0));
                  refuses(() => topOf(context), says(1, 0));
                  refuses(() => topOf(context, want.last, tokens.subarray(0, 1)), says(1, 0));
                  // Of the others the last one alone has logits.
                  const last = name === 'output_norm' ? says(2, 6) : says(1, 0);
                  refuses(() => logitsOf(context, want.last), last);
                  refuses(() => topOf(context, want.last), last);
                  if (name !== 'output_norm') refuses(() => logitsOf(context, want.none), says(1, 0));
                }),
              );
        });

      it('in a row of the embedding: the token that has it, and the context goes on as if it had not been', async () => {
        const sound = Int32Array.from(tokens, (token) => (token === 5 ? 4 : token));
        for (const kv of Object.values(kvTypes))
          for (const threads of [1, 2])
            await withContext(kv, threads, 'exact', async (context) => {
              const expected = logitsOf(context, want.all, sound);
              library.rewind(context, 0);
              for (const value of some(bad, 2))
                await whileDamaged('token_embd', 5 * stride + 2, bf16(value), () => {
                  // A tied head has it too, for every token.
                  const all = shape.tiedEmbedding ? says(1, 0) : says(5, 2);
                  for (const which of [want.none, want.last]) refuses(() => logitsOf(context, which), says(5, 2));
                  refuses(() => logitsOf(context), all);
                  refuses(() => topOf(context, want.last), says(5, 2));
                  // Which three are the largest may be known without the row.
                  if (!shape.tiedEmbedding) refuses(() => topOf(context), all);
                  // One by one: the last of three fails.
                  for (const [i, token] of [1, 2, 5].entries()) {
                    const one = () => library.evaluate(context, Int32Array.of(token), 1, want.none, null);
                    if (token === 5) refuses(one, says(5, 2));
                    else assert.equal(one(), i + 1);
                  }
                  library.rewind(context, 0);
                });
              assertSameBits(logitsOf(context, want.all, sound), expected, `kv ${kv}`);
            });
      });

      it('in a row of the head: by every way to find the next token', async () => {
        const name = shape.tiedEmbedding ? 'token_embd' : 'output';
        const row = 60;
        for (const value of bad)
          await whileDamaged(name, row * stride + 2, bf16(value), async () => {
            for (const head of ['exact', 'fast'] as const)
              await withContext(8, 2, head, (context) => {
                refuses(() => logitsOf(context), says(1, 0));
                refuses(() => logitsOf(context, want.last), says(2, 6));
                const k = shape.vocabulary > 8000 ? 1000 : shape.vocabulary;
                refuses(() => topOf(context, want.all, tokens, k), says(1, 0));
                refuses(() => topOf(context, want.last, tokens, k), says(2, 6));
                // After tokens whose logits nobody wanted.
                assert.equal(library.evaluate(context, tokens, 7, want.none, null), 7);
                const later = () =>
                  library.top(context, tokens, 0, k, want.last, new Int32Array(k), new Float32Array(k));
                refuses(later, /^the last token at position 6 gives numbers that are not finite/);
              });
          });
      });

      it('in a scale', () =>
        whileDamaged('blk.1.attn_k', -1, f32(Number.NaN), () =>
          refuses(
            () => library.context(ready.model, 8, 1, 8, false),
            /^the scale of 'blk\.1\.attn_k' in the packed weights is damaged/,
          ),
        ));

      it('no text is generated, by any head, sampler, or with drafts', async () => {
        const text = Array.from({ length: 30 }, (_, i) => [1, 2, 3, 4][i % 4]!);
        for (const head of headModes)
          for (const lookup of [false, true])
            for (const topK of [1, 20, 0]) {
              const options = { threads: 2, context: 64, head, shared: true };
              const engine = new Engine({ ...ready.source, eos: [] }, library, ready.model, options);
              const sampler = createSampler({ temperature: 1, topK, topP: 1, minP: 0, repeatPenalty: 1, seed: 1 });
              const generate = () => engine.generate(text, undefined, { count: 8, sampler, lookup });
              try {
                await whileDamaged('output_norm', 1, f32(Number.NaN), () =>
                  assert.rejects(generate(), (error) => {
                    assert.ok(error instanceof LibraryError, String(error));
                    assert.match(error.message, /token( 2)? at position 29 gives numbers that are not finite/);
                    return true;
                  }),
                );
                engine.rewind(0);
                assert.equal((await generate()).tokens.length, 8);
              } finally {
                engine.dispose();
              }
            }
      });
    });
