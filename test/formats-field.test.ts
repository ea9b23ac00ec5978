/**
 * Configurations met in the field, each with the same weights: spellings of version 5 of transformers, ids that are no tokens,
 * settings that scale nothing, and settings that a reader must not ignore. The logits come from an independent float32 program.
 */
import { strict as assert } from 'node:assert';
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import { createSampler } from '../runtime/sampler.ts';
import { loadTokenizer } from '../runtime/tokenizer.ts';
import { fixture } from './fixtures.ts';
import { temporaryFolder } from './formats-bytes.ts';
import { bestTarget, largestDifference, readFloats, useCache, withEngine } from './machine.ts';

describe('configurations in the field', () => {
  useCache();
  const folder = temporaryFolder();

  /** The weights of config/as_is with another config.json. */
  function withConfig(context: Mocha.Context, name: string): string {
    const original = fixture(context, 'field/config/as_is');
    const model = mkdtempSync(path.join(folder(), 'model-'));
    for (const file of readdirSync(original)) {
      if (file !== 'config.json') symlinkSync(path.join(original, file), path.join(model, file));
    }
    copyFileSync(fixture(context, `field/config/${name}.json`), path.join(model, 'config.json'));
    return model;
  }

  /** What decides about logits: all but the paths, the name of the shape and the notes. */
  const essence = ({ shape, tensors, quantisation }: ModelSource): unknown => [
    { ...shape, name: '' },
    [...tensors].map(([name, tensor]) => [name, { ...tensor, file: path.basename(tensor.file) }]),
    quantisation,
  ];

  it('as_is: the right logits', async function () {
    const model = fixture(this, 'field/config/as_is');
    const ids = readFileSync(fixture(this, 'field/config/ids.txt'), 'utf8').trim().split(/\D+/).map(Number);
    const expected = readFloats(fixture(this, 'field/config/expected.f32'));
    await withEngine(model, bestTarget, { kv: 32 }, (engine) => {
      const difference = largestDifference(engine.evaluate(ids, true), expected);
      assert.ok(difference < 2e-4, `logits differ by ${difference}`);
    });
  });

  for (const [name, notes] of Object.entries<RegExp | undefined>({
    v5_no_rope_type: undefined,
    rope_scaling_linear_factor_1: undefined,
    linear_class_spelt_as_class: undefined,
    bos_minus_1: /^config\.json: bos_token_id -1 is no token of the model \(0 to 4095\) and is ignored$/,
    eos_beyond_vocab: /^config\.json: eos_token_id 4096 is no token of the model/,
  })) {
    it(`${name}: the same model`, function () {
      const model = openModel(withConfig(this, name));
      assert.deepEqual(essence(model), essence(openModel(fixture(this, 'field/config/as_is'))));
      assert.equal(model.notes.length, notes ? 1 : 0);
      if (notes) assert.match(model.notes[0]!, notes);
      assert.deepEqual([model.bos, model.eos], [name === 'bos_minus_1' ? undefined : 3840, [3841, 3849]]);
    });
  }

  for (const [name, message] of Object.entries({
    v5_llama3: /rope_parameters scales RoPE: .* type "llama3" is not supported/,
    packed_without_quantization_config: /packed, but config\.json has no quantization_config, .* multiplies or divides/,
  })) {
    it(`${name}: refused`, function () {
      const model = withConfig(this, name);
      assert.throws(() => openModel(model), { name: 'ModelError', message });
    });
  }

  it('dense-layer: refused, naming the module', function () {
    const model = fixture(this, 'field/dense-layer');
    assert.throws(() => openModel(model), {
      name: 'ModelError',
      message:
        /modules_to_not_convert names "model\.layers\.0", so model\.layers\.0\.self_attn\.q_proj is a dense matrix/,
    });
  });

  it('chatml.gguf: ends at <|im_end|>, which no key names', async function () {
    const model = fixture(this, 'field/chatml.gguf');
    const source = openModel(model);
    assert.deepEqual(source.endMarks, [
      { id: 3841, text: '<|end_of_text|>' },
      { id: 3847, text: '<|eom_id|>' },
      { id: 3848, text: '<|endoftext|>' },
      { id: 3849, text: '<|im_end|>' },
    ]);
    await withEngine(model, bestTarget, {}, async (engine) => {
      const { tokens, stopReason } = await engine.generate(
        [3840, 39, 301, 385, 3849],
        loadTokenizer(source.tokenizer!),
        {
          count: 40,
          sampler: createSampler({ temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, seed: 1 }),
        },
      );
      assert.deepEqual([tokens, stopReason], [[], 'eos']);
    });
  });
});
