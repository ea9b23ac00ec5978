/** Model files that are damaged at random, by a seed; fuzz/formats.ts says how. */
import { strict as assert } from 'node:assert';
import { fuzzFormats } from './fuzz/formats.ts';
import { isLong } from './tier.ts';

describe('damaged model files', () => {
  it('open, or are refused in one line', () => {
    const { opened, refused } = fuzzFormats({ seed: 1, cases: isLong ? 30_000 : 3000 });
    // Both happen often, or the damage is of no use.
    assert.ok(
      opened > (opened + refused) / 10 && refused > (opened + refused) / 3,
      `${opened} opened, ${refused} refused`,
    );
  });

  it('are the same for the same seed', () => {
    assert.deepEqual(fuzzFormats({ seed: 7, cases: 100 }), fuzzFormats({ seed: 7, cases: 100 }));
  });
});
