/** The sampler: its filters one by one, its order of steps, ties, and the statistics and reproducibility of its draws. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { xoshiro128, xoshiroWords } from '../runtime/random.ts';
import { createSampler, exponential, greedy, type SamplerOptions } from '../runtime/sampler.ts';
import { LibraryError, UsageError } from '../schemas/error.ts';

const plain: SamplerOptions = { temperature: 1, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, seed: 1 };

/** Logits whose softmax is exactly these (up to rounding). */
const logitsOf = (...probabilities: number[]): Float32Array => Float32Array.from(probabilities, Math.log);

/** How often each token is drawn. */
function counts(
  options: Partial<SamplerOptions>,
  logits: Float32Array,
  draws: number,
  history: number[] = [],
): number[] {
  const sampler = createSampler({ ...plain, ...options });
  const seen = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) seen[sampler.sample(logits, history)]!++;
  return seen;
}

/** Tokens that are drawn at all: what the filters leave. One of probability 2 % is missed once in e^40. */
const survivors = (options: Partial<SamplerOptions>, logits: Float32Array, history: number[] = []): number[] =>
  counts(options, logits, 2000, history).flatMap((count, id) => (count > 0 ? [id] : []));

/** Pearson's statistic; its mean is the number of probabilities - 1. */
const chiSquare = (seen: readonly number[], probabilities: readonly number[], draws: number): number =>
  probabilities.reduce((sum, p, id) => sum + (seen[id]! - p * draws) ** 2 / (p * draws), 0);

const softmax = (logits: readonly number[]): number[] => {
  const weights = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
};

describe('sampler', () => {
  describe('greedy', () => {
    it('takes the greatest logit, the lowest id among equals', () => {
      assert.equal(greedy(Float32Array.of(1, 3, 3, 2)), 1);
      assert.equal(greedy(Float32Array.of(-5, -7)), 0);
      assert.equal(greedy(Float32Array.of(Number.NEGATIVE_INFINITY, -1, Number.NEGATIVE_INFINITY)), 1);
    });
    it('refuses logits that name no token', () => {
      for (const bad of [[], [Number.NEGATIVE_INFINITY]])
        assert.throws(() => greedy(Float32Array.from(bad)), LibraryError);
    });
    it('never takes logits that are NaN or infinite, wherever they are and whatever is asked for', () => {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY])
        for (const options of [
          { temperature: 0 },
          {},
          { topK: 2 },
          { topP: 0.5 },
          { minP: 0.1 },
          { repeatPenalty: 1.1 },
        ])
          for (let id = 0; id < 5; id++) {
            const logits = Float32Array.of(1, 3, 3, 2, -1);
            logits[id] = bad;
            assert.throws(
              () => createSampler({ ...plain, ...options }).sample(logits, [7, 8, 1]),
              (error) =>
                error instanceof LibraryError &&
                error.message.startsWith(`after 3 tokens the logit of token ${id} is ${bad}: the model's weights are`),
              `${JSON.stringify(options)}, token ${id}`,
            );
          }
    });
    it('is what temperature 0 and topK 1 do', () => {
      for (const options of [{ temperature: 0 }, { topK: 1 }])
        assert.deepEqual(survivors(options, Float32Array.of(1, 1.01, 1.01, 1)), [1]);
    });
  });

  describe('draws', () => {
    const probabilities = [0.02, 0.4, 0.08, 0.3, 0.2];
    const draws = 50000;
    // 4 degrees of freedom: 25 is exceeded with probability 5e-5, and the seed is fixed.
    for (const options of [{}, { topK: 5 }, { topK: 4096 }, { topP: 0.999999 }, { minP: 1e-6 }])
      it(`follow the probabilities with ${JSON.stringify(options)}`, () => {
        const statistic = chiSquare(counts(options, logitsOf(...probabilities), draws), probabilities, draws);
        assert(statistic < 25, `chi-square ${statistic}`);
        assert(statistic > 0, 'no scatter at all');
      });
    it('follow them over a large vocabulary', () => {
      const logits = Array.from({ length: 400 }, (_, id) => Math.sin(id * id) * 2);
      const statistic = chiSquare(counts({}, Float32Array.from(logits), draws), softmax(logits), draws);
      // Mean 399, standard deviation sqrt(2 * 399) = 28; five of them.
      assert(Math.abs(statistic - 399) < 141, `chi-square ${statistic}`);
    });
    for (const temperature of [0.5, 2])
      it(`follow them at temperature ${temperature}`, () => {
        const logits = [0, 1, 2, -1, 0.5];
        const expected = softmax(logits.map((logit) => logit / temperature));
        const statistic = chiSquare(counts({ temperature }, Float32Array.from(logits), draws), expected, draws);
        assert(statistic < 25, `chi-square ${statistic}`);
      });
    it('keep to the filtered probabilities', () => {
      const logits = logitsOf(0.5, 0.1, 0.25, 0.15);
      const seen = counts({ topK: 2 }, logits, draws);
      assert(chiSquare([seen[0]!, seen[2]!], [2 / 3, 1 / 3], draws) < 15);
    });
    it('never give an impossible token', () => {
      const logits = Float32Array.of(
        Number.NEGATIVE_INFINITY,
        0,
        Number.NEGATIVE_INFINITY,
        0,
        Number.NEGATIVE_INFINITY,
      );
      for (const options of [
        {},
        { topK: 4 },
        { topP: 0.9999 },
        { minP: 0.01 },
        { temperature: 1e-30 },
        { temperature: 1e30 },
      ])
        assert.deepEqual(survivors(options, logits), [1, 3], JSON.stringify(options));
    });
  });

  describe('filters', () => {
    const logits = logitsOf(0.05, 0.4, 0.15, 0.3, 0.1);
    it('top-k keeps k, of equal ones the lower ids', () => {
      assert.deepEqual(survivors({ topK: 3 }, logits), [1, 2, 3]);
      assert.deepEqual(survivors({ topK: 3 }, Float32Array.of(1, 2, 1, 1, 1, 1)), [0, 1, 2]);
      assert.deepEqual(survivors({ topK: 9 }, logits), [0, 1, 2, 3, 4]);
    });
    for (const topK of [0, 5])
      it(`top-p keeps the token that reaches p, with topK ${topK}`, () => {
        const options = { topK, temperature: 3 };
        assert.deepEqual(survivors({ ...options, topP: 0.01 }, logits), [1]);
        assert.deepEqual(survivors({ ...options, topP: 0.39 }, logits), [1]);
        assert.deepEqual(survivors({ ...options, topP: 0.41 }, logits), [1, 3]);
        assert.deepEqual(survivors({ ...options, topP: 0.75 }, logits), [1, 2, 3]);
      });
    it('top-p takes lower ids first among equals, whether they are many or few', () => {
      assert.deepEqual(survivors({ topP: 0.5 }, new Float32Array(4)), [0, 1]);
      assert.deepEqual(survivors({ topP: 0.1 }, new Float32Array(100)), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    });
    it('top-p counts what top-k has left', () => {
      // 0.4 and 0.3 of 0.7: p = 0.56 needs only the first, of 1.0 it would need both.
      assert.deepEqual(survivors({ topK: 2, topP: 0.56 }, logits), [1]);
      assert.deepEqual(survivors({ topK: 0, topP: 0.56 }, logits), [1, 3]);
    });
    for (const topK of [0, 5])
      it(`min-p is relative to the best, with topK ${topK}`, () => {
        assert.deepEqual(survivors({ topK, minP: 0.3 }, logits), [1, 2, 3]);
        assert.deepEqual(survivors({ topK, minP: 0.3, topP: 0.6 }, logits), [1, 3]);
        assert.deepEqual(survivors({ topK, minP: 1 }, logits), [1]);
        assert.deepEqual(survivors({ topK, minP: 1 }, Float32Array.of(1, 2, 2)), [1, 2]);
      });
    it('look at the probabilities before the temperature', () => {
      assert.deepEqual(survivors({ topP: 0.75, temperature: 100 }, logits), [1, 2, 3]);
      assert.deepEqual(survivors({ minP: 0.3, temperature: 100 }, logits), [1, 2, 3]);
    });
    it('leave what their definitions say, for any combination and any ties', () => {
      type Filters = Record<'topK' | 'topP' | 'minP', number>;
      /** Sorts everything, then cuts three times. */
      const reference = (values: readonly number[], { topK, topP, minP }: Filters): number[] => {
        const order = values.map((_, id) => id).sort((a, b) => values[b]! - values[a]! || a - b);
        const kept = topK === 0 ? order : order.slice(0, topK);
        const probabilities = softmax(kept.map((id) => values[id]!));
        let before = 0;
        return kept
          .filter((_, i) => {
            const reached = before >= topP;
            before += probabilities[i]!;
            return !reached && probabilities[i]! >= minP * probabilities[0]!;
          })
          .sort((a, b) => a - b);
      };
      const filters = fc.record({ topK: fc.nat(12), topP: fc.integer({ min: 1, max: 50 }), minP: fc.nat(50) });
      const logits = fc.array(fc.integer({ min: -12, max: 0 }), { minLength: 1, maxLength: 12 });
      fc.assert(
        fc.property(logits, filters, (quarters, { topK, topP, minP }) => {
          // Odd hundredths and quarter logits: no sum of probabilities meets a limit but for 1 and 0, which mean off.
          const options = { ...plain, topK, topP: topP === 50 ? 1 : topP / 50.003, minP: minP / 50.007 };
          const values = quarters.map((quarter) => quarter / 4);
          const kept = survivors({ ...options, temperature: 1e6 }, Float32Array.from(values));
          assert.deepEqual(kept, reference(values, options));
        }),
        { numRuns: 300, seed: 7 },
      );
    });
  });

  describe('repetition penalty', () => {
    const greedily = (options: Partial<SamplerOptions>, logits: number[], history: number[]): number =>
      createSampler({ ...plain, temperature: 0, ...options }).sample(Float32Array.from(logits), history);
    it('divides positive logits and multiplies negative ones, once per token', () => {
      assert.equal(greedily({ repeatPenalty: 2 }, [3, 2], []), 0);
      assert.equal(greedily({ repeatPenalty: 2 }, [3, 2], [0]), 1);
      assert.equal(greedily({ repeatPenalty: 1.4 }, [3, 2], [0, 0, 0]), 0);
      assert.equal(greedily({ repeatPenalty: 2 }, [-1, -1.5], [0]), 1);
      assert.equal(greedily({ repeatPenalty: 0.4 }, [1, 2], [0]), 0);
    });
    it('looks back 64 tokens, or as many as told', () => {
      const history = (others: number): number[] => [0, ...new Array<number>(others).fill(2)];
      assert.equal(greedily({ repeatPenalty: 2 }, [3, 2, 0], history(63)), 1);
      assert.equal(greedily({ repeatPenalty: 2 }, [3, 2, 0], history(64)), 0);
      assert.equal(greedily({ repeatPenalty: 2, repeatLastN: 3 }, [3, 2, 0], history(2)), 1);
      assert.equal(greedily({ repeatPenalty: 2, repeatLastN: 3 }, [3, 2, 0], history(3)), 0);
      assert.equal(greedily({ repeatPenalty: 2, repeatLastN: 0 }, [3, 2, 0], [0]), 0);
    });
    it('comes before the filters and leaves the logits as they were', () => {
      const logits = Float32Array.of(3, 2, 2);
      assert.deepEqual(survivors({ repeatPenalty: 2, topK: 2 }, logits, [0]), [1, 2]);
      assert.deepEqual([...logits], [3, 2, 2]);
    });
    it('ignores tokens outside the vocabulary', () => {
      assert.equal(greedily({ repeatPenalty: 2 }, [3, 2], [7, -1]), 0);
    });
  });

  describe('seed', () => {
    const sequence = (seed: number): number[] => {
      const sampler = createSampler({ ...plain, seed, topK: 8, topP: 0.95, minP: 0.01, temperature: 0.8 });
      const logits = Float32Array.from({ length: 16 }, (_, id) => Math.fround(id * 0.125));
      return Array.from({ length: 24 }, () => sampler.sample(logits, []));
    };
    it('fixes the tokens for good', () => {
      assert.deepEqual(sequence(42), sequence(42));
      assert.deepEqual(
        sequence(42),
        [15, 15, 12, 11, 12, 14, 10, 14, 13, 12, 10, 13, 13, 14, 15, 8, 12, 14, 11, 14, 13, 15, 11, 15],
      );
    });
    it('makes a difference in each of its 53 bits', () => {
      const first = new Set(Array.from({ length: 53 }, (_, bit) => xoshiro128(2 ** bit)()));
      assert.equal(first.size, 53);
    });
    it('drives xoshiro128**', () => {
      // The first words from state 1, 2, 3, 4; worked out from the definition by hand.
      const next = xoshiroWords([1, 2, 3, 4]);
      assert.deepEqual([next(), next()], [11520, 0]);
      const random = xoshiro128(3);
      const numbers = Array.from({ length: 20000 }, random);
      assert(numbers.every((x) => x >= 0 && x < 1));
      const mean = numbers.reduce((a, b) => a + b, 0) / numbers.length;
      // Standard deviation of the mean: sqrt(1 / 12 / 20000) = 0.002.
      assert(Math.abs(mean - 0.5) < 0.01, `mean ${mean}`);
    });
  });

  it('has an exp of its own, as good as the built-in one', () => {
    for (let x = 0; x > -708; x -= 0.0371)
      assert(Math.abs(exponential(x) / Math.exp(x) - 1) < 1e-15, `exp(${x}) = ${exponential(x)}`);
    assert.equal(exponential(0), 1);
    for (const x of [-708, -1e300, Number.NEGATIVE_INFINITY, Number.NaN]) assert.equal(exponential(x), 0);
  });

  const invalid: [keyof SamplerOptions, number[]][] = [
    ['temperature', [-0.1, Number.NaN, Number.POSITIVE_INFINITY]],
    ['topK', [-1, 1.5]],
    ['topP', [0, 1.01, Number.NaN]],
    ['minP', [-0.1, 1.1]],
    ['repeatPenalty', [0, -1, Number.POSITIVE_INFINITY]],
    ['repeatLastN', [-1, 0.5]],
    ['seed', [-1, 0.5, 2 ** 53]],
  ];
  for (const [name, values] of invalid)
    it(`refuses a bad ${name}, naming it and the value`, () => {
      for (const value of values)
        assert.throws(
          () => createSampler({ ...plain, [name]: value }),
          (error) => error instanceof UsageError && error.message.startsWith(`${name} = ${value} is out of range`),
        );
    });

  describe('candidates', () => {
    it('the largest logits give the token that all logits give, whatever the options and ties', () => {
      fc.assert(
        fc.property(
          fc.record({
            temperature: fc.constantFrom(0, 0.5, 3),
            topK: fc.integer({ min: 1, max: 12 }),
            topP: fc.constantFrom(0.5, 0.95, 1),
            minP: fc.constantFrom(0, 0.05),
            repeatPenalty: fc.constantFrom(1, 1.1, 2),
            repeatLastN: fc.integer({ min: 0, max: 6 }),
            seed: fc.nat(),
          }),
          fc.array(fc.integer({ min: -6, max: 6 }), { minLength: 1, maxLength: 40 }),
          fc.array(fc.nat(45), { maxLength: 10 }),
          (options, values, history) => {
            const logits = Float32Array.from(values);
            const [a, b] = [createSampler(options), createSampler(options)];
            const count = a.candidates(logits.length, history);
            if (!count) return assert.ok(options.temperature > 0 && options.topK >= logits.length);
            const ids = Int32Array.from(logits.keys()).sort((x, y) => logits[y]! - logits[x]! || x - y);
            const top = { ids, logits: Float32Array.from(ids, (id) => logits[id]!), count };
            for (let i = 0; i < 3; i++) assert.equal(a.sampleTop(top, history), b.sample(logits, history));
          },
        ),
      );
    });

    it('all logits are needed without top-k, and where a penalty raises logits', () => {
      const needed = (options: Partial<SamplerOptions>, history: number[] = []) =>
        createSampler({ ...plain, ...options }).candidates(100, history);
      assert.equal(needed({ topK: 0 }), 0);
      assert.equal(needed({ topK: 100 }), 0);
      assert.equal(needed({ topK: 40, repeatPenalty: 0.9 }), 0);
      assert.equal(needed({ topK: 0, temperature: 0 }), 1);
      assert.equal(needed({ topK: 40 }, [1, 2, 3]), 40);
      assert.equal(needed({ topK: 40, repeatPenalty: 1.1 }, [1, 2, 2, 3]), 43);
      assert.equal(needed({ topK: 99, repeatPenalty: 1.1 }, [1, 2, 2, 3]), 100);
    });

    it('refuses logits that name no token', () => {
      const top = (...logits: number[]) => ({
        ids: Int32Array.from(logits.keys()),
        logits: Float32Array.from(logits),
        count: logits.length,
      });
      for (const bad of [top(Number.NEGATIVE_INFINITY), top(Number.POSITIVE_INFINITY, 1), top(2, Number.NaN, 1)])
        assert.throws(() => createSampler({ ...plain, topK: 2 }).sampleTop(bad, []), LibraryError);
    });
  });
});
