/** A few seconds of test/fuzz/weights.ts. */
import { strict as assert } from 'node:assert';
import { fuzzWeights } from '../fuzz/weights.ts';
import { useCache } from '../machine.ts';

describe('fuzz: damaged weights', () => {
  useCache();

  it('are refused, or fail by name, or have finite logits', async () => {
    const { refused, failed, sound } = await fuzzWeights(1, 6);
    for (const [what, count] of Object.entries({ refused, failed, sound })) assert.ok(count > 0, `none was ${what}`);
  });
});
