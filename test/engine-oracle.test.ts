/**
 * The engine against the float64 oracle, on seeded random models in every form that model files come in: Hugging Face folders
 * and GGUF files, all weight and embedding encodings, all families. The prompts keep away from rounding ties (oracle.ts), so a
 * careful float32 engine comes close to logits that reach 8 to 38: the largest difference seen was 7e-6; one flipped rounding
 * would show as 0.1 or more.
 */
import { strict as assert } from 'node:assert';
import path from 'node:path';
import type { ModelShape } from '../schemas/types.ts';
import { largestDifference, nativeTargets, smallestShape, useCache, withEngine } from './machine.ts';
import { type OracleModel, safePrompt } from './oracle.ts';
import { long, some } from './tier.ts';
import { type GgufOptions, writeGguf } from './write-gguf.ts';
import { type HuggingFaceOptions, writeHuggingFace } from './write-huggingface.ts';
import { randomModel, smallShape } from './write-model.ts';

/** Crosses a border of attention blocks (32 positions). */
const LENGTH = 40;
const TOLERANCE = 5e-5;
/**
 * Root mean square of the difference over that of the logits with an 8-bit cache. Codes are off by up to 1/126 (keys) and 1/254
 * (queries, values, weights) of their vector's largest element, and flip roundings of activations later on.
 */
const CODES_TOLERANCE = 0.1;

interface Family {
  readonly shape: ModelShape;
  readonly huggingFace?: readonly HuggingFaceOptions[];
  readonly gguf?: readonly GgufOptions[];
}

/** Families in the manner of the published models; forms with the same float types share one compiled library. */
const families: Readonly<Record<string, Family>> = {
  '2B4T': {
    shape: smallShape(),
    huggingFace: [
      { weights: 'packed' },
      { weights: 'packed', shards: 3 },
      { weights: 'packed', names: 'old' },
      { weights: 'packed', embedding: 'f16', norms: 'f32' },
      { weights: 'packed', embedding: 'f32' },
      { weights: 'masters-bf16' },
      { weights: 'masters-f16', embedding: 'bf16', norms: 'bf16' },
      { weights: 'masters-f32', embedding: 'bf16', shards: 2 },
      { weights: 'ternary-bf16' },
      { weights: 'ternary-f16', embedding: 'bf16' },
      { weights: 'ternary-f32', embedding: 'bf16' },
    ],
    gguf: [
      { arch: 'bitnet-b1.58', weights: 'i2_s' },
      { arch: 'bitnet-b1.58', weights: 'i2_s', embedding: 'q6_k' },
      { arch: 'bitnet-b1.58', weights: 'i2_s', embedding: 'q8_0' },
      { arch: 'bitnet-b1.58', weights: 'i2_s', embedding: 'q4_0' },
      { arch: 'bitnet-b1.58', weights: 'i2_s', embedding: 'f32' },
      { arch: 'bitnet-b1.58', weights: 'i2_s', embedding: 'bf16', tokenizer: false },
      { arch: 'bitnet-25', weights: 'tq1_0', alignment: 64 },
      { arch: 'bitnet-b1.58', weights: 'tq2_0', pre: null },
      { arch: 'bitnet-b1.58', weights: 'f16' },
      { arch: 'bitnet-b1.58', weights: 'bf16' },
      { arch: 'bitnet-b1.58', weights: 'f32' },
      // The key hidden_activation says relu2.
      { arch: 'bitnet', weights: 'tq2_0', scaleTensors: true },
      { arch: 'bitnet', weights: 'f32', scaleTensors: true },
    ],
  },
  // As many key-value heads as heads, SiLU; hidden is no multiple of 256, so TQ files hold float16.
  'bitnet_b1_58-large': {
    shape: smallShape({
      hidden: 384,
      heads: 4,
      kvHeads: 4,
      headSize: 96,
      intermediate: 320,
      vocabulary: 283,
      activation: 'silu',
      ropeTheta: 1e4,
      embeddingType: 'f32',
    }),
    huggingFace: [{ weights: 'masters-f32' }, { weights: 'masters-f32', names: 'new' }, { weights: 'ternary-f32' }],
    gguf: [
      { arch: 'bitnet', weights: 'i2_s', embedding: 'q8_0', scaleTensors: true },
      { arch: 'bitnet', weights: 'tq2_0', embedding: 'f32' },
    ],
  },
  // No sub-norms, a head of its own, three heads share one; GGUF interleaves the rows of q and k.
  'Llama3-8B-1.58': {
    shape: smallShape({
      hidden: 192,
      heads: 3,
      kvHeads: 1,
      headSize: 128,
      intermediate: 384,
      activation: 'silu',
      subNorms: false,
      tiedEmbedding: false,
    }),
    huggingFace: [
      { weights: 'packed-divide' },
      { weights: 'packed-divide', explicitLinearClass: true, norms: 'f32' },
      { weights: 'packed' },
      { weights: 'masters-bf16', shards: 5 },
    ],
    gguf: [
      { arch: 'llama', weights: 'i2_s', embedding: 'bf16' },
      { arch: 'llama', weights: 'f16', embedding: 'bf16' },
      { arch: 'llama', weights: 'i2_s', embedding: 'f16', head: 'q8_0' },
    ],
  },
  // Head size 256, attention wider than the residual stream, other eps and theta.
  Falcon3: {
    shape: smallShape({
      hidden: 320,
      heads: 2,
      kvHeads: 1,
      headSize: 256,
      intermediate: 640,
      vocabulary: 303,
      activation: 'silu',
      subNorms: false,
      tiedEmbedding: false,
      normEps: 1e-6,
      ropeTheta: 1000042,
    }),
    huggingFace: [{ weights: 'packed-divide' }],
    gguf: [{ arch: 'llama', weights: 'i2_s', embedding: 'bf16' }],
  },
  // The 3B's head size 100; no size is a multiple of a vector.
  'bitnet_b1_58-3B': {
    shape: smallShape({ hidden: 300, heads: 3, kvHeads: 1, headSize: 100, intermediate: 340, vocabulary: 287 }),
    huggingFace: [{ weights: 'packed' }, { weights: 'masters-f32', embedding: 'bf16' }],
    gguf: [{ arch: 'bitnet-b1.58', weights: 'bf16', embedding: 'bf16' }],
  },
  // Smaller than every tile.
  smallest: {
    shape: { ...smallestShape, layers: 3 },
    huggingFace: [{ weights: 'packed' }, { weights: 'ternary-f16', embedding: 'bf16' }],
  },
};

for (const [f, [name, family]] of some(Object.entries(families), 3).entries()) {
  // Each family on another instruction set: that all of them agree is bit-identity.test.ts's business.
  const target = nativeTargets[f % nativeTargets.length]!;

  describe(`engine: ${name} against the oracle on ${target}`, () => {
    const cache = useCache();

    const check = async (model: string, held: OracleModel, seed: number): Promise<void> => {
      const prompt = safePrompt(held, seed, LENGTH);
      await withEngine(model, target, { kv: 32, threads: 2, context: LENGTH }, (engine) => {
        const difference = largestDifference(engine.evaluate(prompt.tokens, true), prompt.logits);
        if (process.env.SHOW)
          console.log(
            difference,
            prompt.logits.reduce((m, x) => Math.max(m, Math.abs(x)), 0),
          );
        assert.ok(difference <= TOLERANCE, `logits differ by ${difference}`);
      });
    };

    (f ? long : it)('8-bit key-value cache: close, as codes go', async () => {
      const folder = path.join(cache(), 'codes');
      const held = writeHuggingFace(folder, randomModel(family.shape, 30), family.huggingFace![0]!);
      const prompt = safePrompt(held, 30, LENGTH);
      await withEngine(folder, target, { kv: 8, threads: 2, context: LENGTH }, (engine) => {
        const logits = engine.evaluate(prompt.tokens, true);
        const square = (g: (i: number) => number) => logits.reduce((sum, _, i) => sum + g(i) ** 2, 0);
        const error = Math.sqrt(square((i) => logits[i]! - prompt.logits[i]!) / square((i) => prompt.logits[i]!));
        if (process.env.SHOW) console.log(error);
        assert.ok(error <= CODES_TOLERANCE, `logits differ by ${(100 * error).toFixed(2)} % of their size`);
      });
    });

    for (const [i, options] of some(family.huggingFace ?? []).entries())
      it(`Hugging Face ${JSON.stringify(options)}`, async () => {
        const folder = path.join(cache(), `huggingface-${i}`);
        await check(folder, writeHuggingFace(folder, randomModel(family.shape, 40 + i), options), i);
      });

    for (const [i, options] of some(family.gguf ?? [], f < 3 ? 1 : 0).entries())
      it(`GGUF ${JSON.stringify(options)}`, async () => {
        const file = path.join(cache(), `${i}.gguf`);
        await check(file, writeGguf(file, randomModel(family.shape, 60 + i), options), i);
      });
  });
}
