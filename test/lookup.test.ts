/** Prompt lookup without a model: what is drafted, the chances that are learnt, and how long a draft is worth its time. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { DraftLength } from '../runtime/draft-length.ts';
import { Lookup, type LookupOptions } from '../runtime/lookup.ts';
import { UsageError } from '../schemas/error.ts';
import { generator } from './oracle.ts';

const lookupOf = (text: readonly number[], options: LookupOptions = {}): Lookup => {
  const lookup = new Lookup(options);
  lookup.follow(text);
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
  });

  it('goes on behind a token that was exchanged, not behind a second one', () => {
    const text = [1, 2, 3, 4, 5, 6, 9, 1, 2];
    assert.deepEqual(lookupOf([...text, 8]).draft(2), [4, 5]);
    assert.deepEqual(lookupOf([...text, 8, 4]).draft(2), [5, 6]);
    assert.deepEqual(lookupOf([...text, 8, 7]).draft(2), []);
    assert.deepEqual(lookupOf([1, 2, 5, 6, 1, 2, 7, 8, 1, 2, 5]).draft(1), [6], 'a match is better');
    // Its chance is learnt.
    const every = (n: number) => Array.from({ length: 300 }, (_, i) => (i % n === 0 ? 1000 + i : i % 30));
    assert.ok(lookupOf(every(10).slice(0, 281)).chance(0) > 0.9);
  });

  it('a text in pieces is the same text', () => {
    const text = Array.from({ length: 300 }, (_, i) => (i * i) % 37);
    const [whole, pieces] = [lookupOf(text), new Lookup()];
    for (const end of [1, 2, 40, 40, 41, 300]) pieces.follow(text.slice(0, end));
    assert.deepEqual(pieces.draft(5), whole.draft(5));
    assert.equal(pieces.chance(0), whole.chance(0));
  });

  it('whatever the text: drafts are as long as asked, and follow an equal n-gram', () => {
    const tokens = fc.array(fc.nat(5), { maxLength: 200 });
    fc.assert(
      fc.property(tokens, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 3 }), (text, shortest, more) => {
        const lookup = lookupOf(text, { shortest, longest: shortest + more });
        const draft = lookup.draft(4);
        // By a search of the whole text, which holds less than the table.
        const end = text.slice(-shortest).join();
        const ends = (gram: string) =>
          text.flatMap((_, at) => (at >= shortest && text.slice(at - shortest, at).join() === gram ? [at] : []));
        const sources = ends(end);
        assert.equal(lookup.chance(0) > 0, draft.length > 0);
        if (!draft.length) assert.equal(sources.length, 0);
        if (!draft.length) return;
        // Or what follows behind a token that was exchanged.
        if (!sources.length) sources.push(...ends(text.slice(-shortest - 1, -1).join()).map((at) => at + 1));
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
  const measured = (tokens = 4): DraftLength => {
    const length = new DraftLength();
    for (let t = 0; t < tokens; t++) {
      length.evaluated(1, 10);
      length.drawn();
    }
    return length;
  };

  it('nothing before four tokens were timed, without a match, or with a poor chance', () => {
    assert.equal(measured(3).choose(32, always), 0);
    assert.equal(
      measured().choose(32, () => 0),
      0,
    );
    assert.equal(
      measured(3000).choose(32, () => 0.2),
      0,
    );
  });

  it('sure guesses: more as the account grows, within the tokens that may be evaluated', () => {
    assert.equal(measured().choose(32, always), 3, 'a batch of 4 costs 1.75, and one token is in the account');
    assert.deepEqual(
      [1, 2, 3, 4, 7, 8, 31, 32].map((most) => measured(3000).choose(most, always)),
      [0, 1, 1, 3, 3, 7, 15, 31],
    );
    // Chances of 0.9: 8 tokens gain most, as the example in the file's header says.
    assert.equal(
      measured(3000).choose(32, () => 0.9),
      7,
    );
  });

  it('measured times decide, and fade', () => {
    const length = measured(3000);
    const chosen = () => length.choose(4, () => 0.7);
    assert.equal(chosen(), 3);
    for (let i = 0; i < 20; i++) {
      length.evaluated(4, 30);
      for (let drawn = 0; drawn < 3; drawn++) length.drawn();
    }
    assert.ok(Math.abs(length.cost(4) - 3) < 0.01, String(length.cost(4)));
    assert.equal(chosen(), 1);
    for (let i = 0; i < 20000; i++) length.evaluated(1, 20);
    assert.ok(length.cost(4) < 1.9);
  });

  it('drafts that are all wrong cost 1 % and a token, however promising', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 1, max: 30, noNaN: true }), { minLength: 5, maxLength: 5 }), (costs) => {
        const length = new DraftLength();
        const times = new Map([2, 4, 8, 16, 32].map((size, i) => [size, costs[i]!]));
        let [spent, unknown] = [0, 0];
        const tokens = 2000;
        for (let t = 0; t < tokens; t++) {
          const size = 1 + length.choose(32, always);
          spent += times.get(size) ?? 1;
          // What a size takes beyond its estimate is not known beforehand.
          if (size > 1) unknown += Math.max(0, times.get(size)! - length.cost(size));
          length.evaluated(size, 10 * (times.get(size) ?? 1));
          length.drawn();
        }
        assert.ok(spent <= 1.01 * tokens + 1 + unknown + 1e-6, `${spent} for ${tokens}, ${unknown} unknown`);
      }),
    );
  });
});

describe('lookup with draft lengths, in a simulation', () => {
  /** Time of a text after a prompt over that of plain decoding, where an evaluation of `size` tokens costs `cost(size)`. */
  function time(prompt: readonly number[], answer: readonly number[], cost: (size: number) => number): number {
    const lookup = lookupOf(prompt);
    const length = new DraftLength();
    const text = [...prompt];
    let spent = 0;
    for (let at = 0; at < answer.length; ) {
      lookup.follow(text);
      const draft = lookup.draft(length.choose(answer.length - at, (i) => lookup.chance(i)));
      const ms = 10 * cost(1 + draft.length);
      spent += ms;
      length.evaluated(1 + draft.length, ms);
      // Of the tokens drawn, the first always, and each further one while the guess before it is right.
      for (let i = 0; i === 0 || draft[i - 1] === answer[at - 1]; i++) {
        if (i > draft.length || at === answer.length) break;
        text.push(answer[at++]!);
        length.drawn();
      }
    }
    return spent / (10 * answer.length);
  }

  const slopes = [0.1, 0.25, 0.5, 1] as const;
  const linear = (slope: number) => (size: number) => 1 + slope * (size - 1);
  const distinct = Array.from({ length: 300 }, (_, i) => i);

  it('a copied text is at least twice as fast at 1 + (size - 1) / 4, and never slower', () => {
    const copied = [...distinct.slice(100, 160), 500, ...distinct.slice(20, 80), 501, ...distinct.slice(200, 260)];
    const times = slopes.map((slope) => time(distinct, copied, linear(slope)));
    assert.ok(times[0]! < 1 / 3 && times[1]! < 1 / 2 && times[3]! < 1.03, String(times));
  });

  it('no text that repeats in vain takes 3 % longer', () => {
    for (const letters of [2, 3, 5, 12, 50, 5000])
      for (const slope of slopes) {
        const random = generator(letters);
        const text = Array.from({ length: 1200 }, () => Math.floor(letters * random()));
        const ratio = time(text.slice(0, 200), text.slice(200), linear(slope));
        assert.ok(ratio < 1.03, `${letters} letters, slope ${slope}: ${ratio}`);
      }
  });
});
