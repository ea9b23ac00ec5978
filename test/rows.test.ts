/**
 * Embedding and head rows made of blocks, which the packed file holds as the model's file does: the same bytes there, and the
 * same logits, to the bit, as from float32 rows, by every way that leads to a row.
 */
import { strict as assert } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { readShape } from '../codegen/shape.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import { want } from '../runtime/library.ts';
import { openWeights } from '../runtime/weights.ts';
import { ModelError } from '../schemas/error.ts';
import type { RowType } from '../schemas/types.ts';
import {
  assertSameBits,
  buildFor,
  drive,
  libraryFor,
  nativeTargets,
  packedFor,
  runnerFor,
  useCache,
} from './machine.ts';
import { generator } from './oracle.ts';
import { long, some } from './tier.ts';
import { writeGguf } from './write-gguf.ts';
import { randomModel, smallShape } from './write-model.ts';

/** More than a batch of 64 tokens and than a step of four. */
const LENGTH = 70;
const TOP = 5;
/** Bits of an element, its share of the scales included. */
const bits: Partial<Record<RowType, number>> = { q4_0: 4.5, q8_0: 8.5, q6_k: 6.5625 };

/** A tied head without and with a screen, and two types in one model. */
const models = [
  { name: 'q4_0', shape: smallShape(), rows: { embedding: 'q4_0' } },
  { name: 'q8_0', shape: smallShape(), rows: { embedding: 'q8_0' } },
  { name: 'q6_k', shape: smallShape(), rows: { embedding: 'q6_k' } },
  { name: 'q6_k, screened', shape: smallShape({ vocabulary: 8203, layers: 1 }), rows: { embedding: 'q6_k' } },
  {
    name: 'q4_0 and q8_0 of a separate head',
    shape: smallShape({ activation: 'silu', subNorms: false, tiedEmbedding: false }),
    rows: { embedding: 'q4_0', head: 'q8_0' },
  },
  {
    name: 'bf16 and q6_k of a separate head',
    shape: smallShape({ activation: 'silu', subNorms: false, tiedEmbedding: false }),
    rows: { embedding: 'bf16', head: 'q6_k' },
  },
] as const;

for (const [i, { name, shape, rows }] of some([...models.entries()].reverse()))
  describe(`rows: ${name}`, () => {
    const cache = useCache();
    const { vocabulary } = shape;
    const random = generator(i);
    const tokens = Array.from({ length: LENGTH }, () => Math.floor(vocabulary * random()));
    let model = '';
    let own: ModelSource;
    let floats: ModelSource;

    before(() => {
      model = path.join(cache(), 'model.gguf');
      writeGguf(model, randomModel(shape, i), {
        arch: shape.subNorms ? 'bitnet-b1.58' : 'llama',
        weights: 'i2_s',
        ...rows,
      });
      own = openModel(model);
      floats = { ...own, shape: { ...own.shape, embeddingType: 'f32', headType: 'f32' } };
    });

    /** All logits at once, then those of the last token alone and the largest. */
    async function evaluate(source: ModelSource, target: string, threads: number) {
      const built = await buildFor(source.shape, target);
      const library = await libraryFor(built);
      const { model: number } = await openWeights(source, built.manifest.layout, library, 2);
      const context = library.context(number, LENGTH, threads, 32, false);
      const all = new Float32Array(LENGTH * vocabulary);
      library.evaluate(context, Int32Array.from(tokens), LENGTH, want.all, all);
      library.rewind(context, LENGTH - 1);
      const last = new Float32Array(vocabulary);
      library.evaluate(context, Int32Array.of(tokens.at(-1)!), 1, want.last, last);
      const [ids, largest] = [new Int32Array(TOP), new Float32Array(TOP)];
      library.top(context, new Int32Array(0), 0, TOP, want.last, ids, largest);
      library.release(context);
      library.close(number);
      return { all, last, ids, largest };
    }

    for (const target of nativeTargets)
      (target === nativeTargets[i % nativeTargets.length] ? it : long)(
        `${target}, 1 and 3 threads: the logits of float32 rows`,
        async () => {
          const expected = await evaluate(floats, target, 1);
          assert.ok(new Set(expected.all).size > expected.all.length / 2, 'different logits');
          assertSameBits(expected.last, expected.all.subarray(-vocabulary), 'the last token');
          for (const threads of [1, 3]) {
            const { all, last, ids, largest } = await evaluate(own, target, threads);
            assertSameBits(all, expected.all, 'all logits');
            assertSameBits(last, expected.last, 'one token');
            assert.deepEqual([ids, largest], [expected.ids, expected.largest]);
          }
        },
      );

    long('neon program: the same logits', async function () {
      const runner = await runnerFor(this, 'neon');
      const built = await buildFor(own.shape, 'neon');
      const logits = await drive(built, runner, await packedFor(model, built), tokens, { kv: 32 });
      assertSameBits(logits, (await evaluate(floats, 'scalar', 1)).all, 'all logits');
    });

    it('the packed file holds the bytes of the model file', async () => {
      const built = await buildFor(own.shape, 'scalar');
      const { layout } = built.manifest;
      const { model: number, file } = await openWeights(own, layout, await libraryFor(built), 2);
      (await libraryFor(built)).close(number);
      for (const [tensor, type] of [
        ['token_embd', own.shape.embeddingType],
        ['output', own.shape.headType],
      ] as const) {
        const packed = layout.tensors.find((t) => t.name === tensor);
        if (!packed || !(type in bits)) continue;
        assert.equal(packed.type, type);
        assert.equal(packed.bytes, (vocabulary * shape.hidden * bits[type]!) / 8);
        const { offset, bytes } = own.tensors.get(tensor)!;
        const stored = readFileSync(model).subarray(offset, offset + bytes);
        assert.ok(
          readFileSync(file)
            .subarray(packed.offset, packed.offset + packed.bytes)
            .equals(stored),
          tensor,
        );
      }
    });
  });

describe('rows: shapes', () => {
  const cache = useCache();

  it('rows that are not whole blocks are refused', () => {
    const file = path.join(cache(), 'shape.json');
    writeFileSync(file, JSON.stringify(smallShape({ hidden: 320, embeddingType: 'q6_k' })));
    assert.throws(
      () => readShape(file),
      (error) => {
        assert.ok(error instanceof ModelError);
        assert.match(error.message, /rows of 320 are no whole q6_k blocks of 256; take f32, f16 or bf16$/);
        return true;
      },
    );
    writeFileSync(file, JSON.stringify(smallShape({ hidden: 320, embeddingType: 'q8_0' })));
    assert.equal(readShape(file).embeddingType, 'q8_0');
  });
});
