/** A few seconds of what `npm run fuzz` does with weights and options; formats and tokenizers are tried in tests of their own. */
import { strict as assert } from 'node:assert';
import { fuzzOptions } from '../fuzz/options.ts';
import { fuzzWeights } from '../fuzz/weights.ts';
import { useCache } from '../machine.ts';

describe('fuzz', () => {
  useCache();

  it('damaged weights are refused, or fail by name, or have finite logits', async () => {
    const { refused, failed, sound } = await fuzzWeights(1, 6);
    for (const [what, count] of Object.entries({ refused, failed, sound })) assert.ok(count > 0, `none was ${what}`);
  });

  it('wrong calls are refused, right ones work, and the engine stays what it was', async () => {
    const { worked, refused } = await fuzzOptions(1, 6);
    assert.ok(worked > 10 && refused > worked, `${worked} worked, ${refused} refused`);
  });
});
