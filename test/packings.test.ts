/**
 * Packings: the C packer writes the bytes that `pack` defines, every packing of an instruction set gives the same logits, and
 * so does a copy of the weights in huge pages, for any number of threads.
 */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isaOf } from '../codegen/isa/index.ts';
import { packings, packingsFor } from '../codegen/packings/index.ts';
import type { Packing } from '../codegen/packings/packing.ts';
import { pack } from '../codegen/packings/packing.ts';
import { Engine } from '../runtime/engine.ts';
import { openModel } from '../runtime/formats/open.ts';
import {
  assertSameBits,
  bestTarget,
  buildFor,
  demo,
  drive,
  nativeTargets,
  oddShape,
  packedFor,
  prepare,
  runnerFor,
  targets,
  useCache,
} from './machine.ts';
import { long, some } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel } from './write-model.ts';

/** The oracle's names of the matrices. */
const projections: Readonly<Record<string, 'q' | 'k' | 'v' | 'o' | 'gate' | 'up' | 'down'>> = {
  attn_q: 'q',
  attn_k: 'k',
  attn_v: 'v',
  attn_output: 'o',
  ffn_gate: 'gate',
  ffn_up: 'up',
  ffn_down: 'down',
};

describe('packings', () => {
  const cache = useCache();
  const tokens = Array.from({ length: 70 }, (_, i) => (i * 37) % 280);
  let odd = '';
  let expected: Float32Array = new Float32Array(0);

  before(async () => {
    odd = path.join(cache(), 'odd');
    writeHuggingFace(odd, randomModel(oddShape, 5), { weights: 'packed-divide' });
    expected = await evaluate('scalar', 'p2', 1, 'mapped');
  });

  const evaluate = async (target: string, packing: string, threads: number, pages: 'mapped' | 'huge') => {
    const { source, library, model } = await prepare(odd, target, [], packing);
    const engine = new Engine(source, library, model, { threads, pages, context: 128 });
    try {
      const prompt = engine.evaluate(tokens, true);
      engine.rewind(0);
      const steps = tokens.map((token) => engine.step(token).slice());
      assertSameBits(Float32Array.from(steps.flatMap((row) => [...row])), prompt, 'token by token');
      return prompt;
    } finally {
      engine.dispose();
    }
  };

  it('are written by the library as they are defined', async () => {
    const model = randomModel(oddShape, 5);
    for (const p of some(packingsFor(isaOf('scalar')), 2)) {
      const { built, weights, library, model: number } = await prepare(odd, 'scalar', [], p.token);
      library.close(number);
      const bytes = readFileSync(weights);
      let compared = 0;
      for (const t of built.manifest.layout.tensors) {
        if (t.kind !== 'ternary') continue;
        const [, layer, slot] = /^blk\.(\d+)\.(\w+)$/.exec(t.name)!;
        const matrix = model.layers[Number(layer)]![projections[slot!]!];
        const expectedBytes = pack(p, matrix.trits, t.rows, t.cols);
        assert.ok(
          expectedBytes.every((byte, i) => bytes[t.offset + i] === byte),
          `${t.name} as ${p.token}`,
        );
        compared++;
      }
      assert.equal(compared, 7 * oddShape.layers);
    }
  });

  for (const target of nativeTargets)
    for (const p of some(packingsFor(isaOf(target)), target === nativeTargets[0] ? 2 : 0))
      it(`${p.token} on ${target}: the same logits, from the mapped file and from huge pages`, async () => {
        // What divides the work is the same C for all instruction sets: all of it on one, some on each.
        for (const threads of target === bestTarget ? some([3, 1, 2, 7]) : [3])
          for (const pages of target === bestTarget ? (['mapped', 'huge'] as const) : (['huge'] as const))
            assertSameBits(await evaluate(target, p.token, threads, pages), expected, `${threads} threads, ${pages}`);
      });

  for (const target of targets.filter((t) => !nativeTargets.includes(t)))
    for (const p of packingsFor(isaOf(target)))
      long(`${p.token} on ${target}: the same logits`, async function () {
        const runner = await runnerFor(this, target);
        const built = await buildFor(openModel(odd).shape, target, { packing: p.token });
        const weights = await packedFor(odd, built);
        assertSameBits(await drive(built, runner, weights, tokens, { threads: 3, pages: 2 }), expected, p.token);
        const half = await drive(built, runner, weights, tokens.slice(0, 9), { chunk: 1 });
        assertSameBits(half, expected.subarray(0, half.length), 'token by token');
      });

  it('are all that some instruction set can use', () => {
    const used = new Set(targets.flatMap((target) => packingsFor(isaOf(target))));
    for (const p of Object.values<Packing>(packings)) assert.ok(used.has(p), p.token);
  });

  it('a copy is shared by contexts with the same number of threads', async () => {
    const { source, library, model } = await prepare(demo);
    const contexts = [2, 2, 3].map((threads) => library.context(model, 64, threads, 16, false, 'huge'));
    const logits = contexts.map((context) => {
      const out = new Float32Array(source.shape.vocabulary);
      for (const token of [5, 6, 7]) library.evaluate(context, Int32Array.of(token), 1, 1, out);
      return out;
    });
    library.release(contexts[0]!);
    const again = new Float32Array(source.shape.vocabulary);
    library.rewind(contexts[1]!, 2);
    library.evaluate(contexts[1]!, Int32Array.of(7), 1, 1, again);
    for (const out of [logits[1]!, logits[2]!, again]) assertSameBits(out, logits[0]!, 'another context');
    assert.ok(library.hugePages(contexts[1]!) >= 0);
    library.release(contexts[1]!);
    library.release(contexts[2]!);
    library.close(model);
  });
});
