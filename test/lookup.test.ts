/** Prompt lookup without a model: what is drafted, the chances that are learnt, and how long a draft is worth its time. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { DraftLength } from '../runtime/draft-length.ts';
import { Lookup, type LookupOptions } from '../runtime/lookup.ts';
import { UsageError } from '../schemas/error.ts';

const lookupOf = (text: readonly number[], options: LookupOptions = {}): Lookup => {
  const lookup = new Lookup(options);
  for (const token of text) lookup.push(token);
  return lookup;
};

describe('lookup', () => {
  it('drafts what followed the last tokens before', () => {
    assert.deepEqual(lookupOf([1, 2, 3, 4, 5, 9, 2, 3]).draft(2), [4, 5]);
    assert.deepEqual(lookupOf([1, 2, 3, 4, 5, 9, 3]).draft(2), [], 'one token is no match');
    assert.deepEqual(lookupOf([1, 2, 3, 4, 5, 9, 3], { shortest: 1 }).draft(2), [4, 5]);
    assert.deepEqual(lookupOf([1, 2, 3, 4, 9, 2, 3], { shortest: 3 }).draft(2), []);
    assert.deepEqual(lookupOf([]).draft(3), []);
  });

  it('the longest match counts, and of equal ones the last', () => {
    assert.deepEqual(lookupOf([1, 2, 3, 50, 8, 2, 3, 60, 1, 2, 3]).draft(1), [50]);
    assert.deepEqual(lookupOf([1, 2, 3, 50, 1, 2, 3, 60, 1, 2, 3]).draft(1), [60]);
  });

  it('a source that reaches the end of the text goes on with the draft', () => {
    assert.deepEqual(lookupOf([7, 1, 2, 1, 2]).draft(5), [1, 2, 1, 2, 1]);
    assert.deepEqual(lookupOf([4, 4, 4]).draft(3), [4, 4, 4]);
  });

  it('moves along while it is right, and looks for another source when it is not', () => {
    const text = [1, 2, 3, 4, 5, 6, 9, 1, 2];
    for (const next of [3, 4, 5]) {
      assert.deepEqual(lookupOf(text).draft(1), [next]);
      text.push(next);
    }
    assert.deepEqual(lookupOf([...text, 1, 2]).draft(2), [3, 4]);
    assert.deepEqual(lookupOf([...text, 8]).draft(2), []);
  });

  it('whatever the text: drafts are as long as asked, and follow an equal n-gram', () => {
    const tokens = fc.array(fc.nat(5), { maxLength: 200 });
    fc.assert(
      fc.property(tokens, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 3 }), (text, shortest, more) => {
        const lookup = lookupOf(text, { shortest, longest: shortest + more });
        const draft = lookup.draft(4);
        // By a search of the whole text, which holds less than the table.
        const end = text.slice(-shortest).join();
        const sources = text.flatMap((_, at) =>
          at >= shortest && text.slice(at - shortest, at).join() === end ? [at] : [],
        );
        assert.equal(draft.length > 0, text.length > shortest && sources.length > 0);
        assert.equal(lookup.chance(0) > 0, draft.length > 0);
        if (!draft.length) return;
        assert.equal(draft.length, 4);
        const follows = (at: number) => draft.every((token, i) => [...text, ...draft][at + i] === token);
        assert.ok(sources.some(follows), `${draft} after ${text}`);
      }),
    );
  });

  it('chances follow what came true, by length of the agreement, without a draft', () => {
    const cycle = Array.from({ length: 300 }, (_, i) => i % 30);
    const sure = lookupOf(cycle);
    assert.ok(sure.chance(0) > 0.99 && sure.chance(30) > 0.99);
    // Pairs repeat, what follows does not.
    const pairs = Array.from({ length: 300 }, (_, i) => (i % 3 === 2 ? 100 + i : i % 3));
    const vain = lookupOf([...pairs, 0, 1]);
    assert.ok(vain.chance(0) > 0 && vain.chance(0) < 0.05, String(vain.chance(0)));
    assert.ok(vain.chance(1) > 0.5, 'longer agreements were never tried');
  });

  it('refuses lengths out of range', () => {
    for (const options of [{ shortest: 0 }, { shortest: 3, longest: 2 }, { longest: 17 }, { shortest: 1.5 }])
      assert.throws(() => new Lookup(options), UsageError, JSON.stringify(options));
  });
});

describe('draft length', () => {
  const always = () => 1;
  const measured = (tokens = 1): DraftLength => {
    const length = new DraftLength();
    for (let t = 0; t < tokens; t++) {
      length.evaluated(1, 10);
      length.drawn();
    }
    return length;
  };

  it('nothing before a token was timed, without a match, or with a poor chance', () => {
    assert.equal(new DraftLength().choose(32, always), 0);
    assert.equal(
      measured().choose(32, () => 0),
      0,
    );
    assert.equal(
      measured(500).choose(32, () => 0.2),
      0,
    );
  });

  it('sure guesses: more as the account grows, within the tokens that may be evaluated', () => {
    const length = measured();
    assert.equal(length.choose(32, always), 3, 'a batch of 4 costs 1.75, and one token is in the account');
    assert.deepEqual(
      [1, 2, 3, 4, 7, 8].map((most) => measured(500).choose(most, always)),
      [0, 1, 1, 3, 3, 7],
    );
    for (let drawn = 0; drawn < 100; drawn++) length.drawn();
    assert.equal(length.choose(32, always), 31);
    // Chances of 0.9: 8 guesses gain most, as the example in the file's header says.
    assert.equal(
      length.choose(32, () => 0.9),
      7,
    );
  });

  it('measured times decide', () => {
    const length = measured(1000);
    assert.equal(
      length.choose(4, () => 0.7),
      3,
    );
    for (let i = 0; i < 20; i++) length.evaluated(4, 30);
    for (let i = 0; i < 40; i++) length.drawn();
    assert.ok(Math.abs(length.cost(4) - 3) < 0.01, String(length.cost(4)));
    assert.notEqual(
      length.choose(4, () => 0.7),
      3,
    );
    // One outlier changes little.
    length.evaluated(8, 10_000);
    assert.ok(length.cost(8) < 4, String(length.cost(8)));
  });

  it('drafts that are all wrong cost 2 % and a token, however promising', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 1, max: 30, noNaN: true }), { minLength: 5, maxLength: 5 }), (costs) => {
        const length = new DraftLength();
        const times = new Map([2, 4, 8, 16, 32].map((size, i) => [size, costs[i]!]));
        let [spent, lost] = [0, 0];
        const tokens = 2000;
        for (let t = 0; t < tokens; t++) {
          const size = 1 + length.choose(32, always);
          spent += times.get(size) ?? 1;
          // What an evaluation takes beyond the estimate is not known beforehand.
          lost += Math.max(0, (times.get(size) ?? 1) - length.cost(size));
          length.evaluated(size, 10 * (times.get(size) ?? 1));
          length.drawn();
        }
        assert.ok(spent <= 1.02 * tokens + 1 + lost + 1e-6, `${spent} for ${tokens}, ${lost} unknown`);
      }),
    );
  });
});
