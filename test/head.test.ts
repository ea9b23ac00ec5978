/**
 * The k largest logits, by screen and rescoring, are exactly those of the full head: rows, order and bits; for rows and hidden
 * states of every kind, types of rows, numbers of threads and instruction sets. The fast head gives no other logits, and how often
 * it gives other rows is counted.
 */
import { strict as assert } from 'node:assert';
import type { FloatType } from '../schemas/types.ts';
import { type HeadProgram, headProgram, headShape, matrix, rowKinds, runHead, stateKinds, unscreened } from './head.ts';
import { nativeTargets, runnerFor, targets, useCache } from './machine.ts';
import { isLong, long, some } from './tier.ts';

/** States of each kind: with all kinds of states and rows and three types 3,000 on the best target, and fewer elsewhere. */
const STATES = 10;

/** Hidden states of every kind after each other. */
function statesOf(k: number, count: number, only: readonly string[] = Object.keys(stateKinds(k))): Float32Array {
  const kinds = only.map((name) => stateKinds(k)[name]!);
  return matrix(kinds.length * count, k, (t, i) => kinds[Math.floor(t / count)]!(t % count, i));
}

const screenedOf = (k: number, count: number) => (Object.keys(stateKinds(k)).length - unscreened.length) * count;

describe('head: the k largest logits', () => {
  const cache = useCache();
  const types: readonly FloatType[] = ['bf16', 'f16', 'f32'];

  for (const target of some(nativeTargets.concat(targets.filter((t) => !nativeTargets.includes(t)))))
    describe(target, () => {
      const best = target === nativeTargets[0];
      // Neither number is a multiple of a tile, a line or a group of lanes.
      const [n, k] = [8203, 50];
      const programs = new Map<FloatType, HeadProgram>();

      before(async function () {
        const runner = await runnerFor(this as unknown as Mocha.Context, target);
        for (const type of some(best ? types : types.slice(0, 1)))
          programs.set(type, await headProgram(cache(), headShape(n, k, type), target, { runner }));
      });

      for (const type of some(best ? types : types.slice(0, 1)))
        it(`${type} rows of every kind, states of every kind, 1, 2, 3 and 7 threads`, async () => {
          const count = isLong && best ? STATES : 2;
          const states = statesOf(k, count);
          for (const [i, [name, value]] of Object.entries(rowKinds(n, k)).entries()) {
            const threads = [1, 2, 3, 7][i % 4]!;
            const answers = await runHead(programs.get(type)!, matrix(n, k, value), states, {
              ks: [1, 2, 40, 1000],
              threads,
            }).catch((error) => assert.fail(`${name}: ${error.stderr ?? error}`));
            // k = 1000 of 8203 is left to the full head, and so are tiny, huge and zero states.
            assert.equal(answers[3]!.screened, 0, name);
            for (const { screened } of answers.slice(0, 3)) assert.equal(screened, screenedOf(k, count), name);
          }
        });
    });

  /** Rows of each kind for all targets: making them takes longer than scoring them. */
  const fastShape = [8203, 250] as const;
  const rowsMade = new Map<string, Float32Array>();
  const fastRows = (kind: string): Float32Array => {
    const rows = rowsMade.get(kind) ?? matrix(...fastShape, rowKinds(...fastShape)[kind]!);
    rowsMade.set(kind, rows);
    return rows;
  };

  for (const target of targets)
    long(`fast, ${target}: the full head's logits, and its rows as likely as stated`, async function () {
      const [n, k] = fastShape;
      const best = target === nativeTargets[0];
      const runner = await runnerFor(this, target);
      const program = await headProgram(cache(), headShape(n, k, 'bf16'), target, { runner });
      const run = (kind: string, states: string, count: number, threads: number) =>
        runHead(program, fastRows(kind), statesOf(k, count, [states]), {
          ks: [1, 40],
          threads,
          head: 'fast',
        });
      const count = best ? 300 : 10;
      for (const { k: largest, screened, passed, wrong, outside } of await run('normal', 'normal', count, 2)) {
        assert.equal(screened, count);
        // A bound fails less often than e^-18; an answer is wrong only if one of its rows' bounds fails.
        assert.ok(outside <= Math.ceil(2 * Math.exp(-18) * n * count), `${outside} logits outside their bounds`);
        assert.equal(wrong, 0, `k = ${largest}`);
        assert.ok(passed < (largest === 1 ? 60 : 500), `k = ${largest}: ${passed} rows passed`);
      }
      // A run takes a second: all combinations on the best target, some on the others.
      const kinds = ['normal', 'duplicates', 'zero rows', 'integers', 'all zero but one'].slice(0, best ? 5 : 2);
      for (const [i, kind] of kinds.entries())
        for (const states of ['three outliers', 'one element', 'small', 'huge'].slice(0, best ? 4 : 2))
          for (const { wrong } of await run(kind, states, best ? 10 : 2, 1 + i))
            assert.equal(wrong, 0, `${kind} rows, ${states} states`);
    });

  long('k = 1000 of 32,771 rows', async () => {
    const [n, k] = [32771, 20];
    const program = await headProgram(cache(), headShape(n, k, 'bf16'), nativeTargets[0]!);
    for (const [name, value] of Object.entries(rowKinds(n, k))) {
      const answers = await runHead(program, matrix(n, k, value), statesOf(k, 3), { ks: [3, 1000, 1024], threads: 3 });
      for (const { screened } of answers) assert.equal(screened, screenedOf(k, 3), name);
    }
  });

  long('few rows pass; all of them where all are equal', async () => {
    const [n, k] = [8203, 50];
    const program = await headProgram(cache(), headShape(n, k, 'bf16'), nativeTargets[0]!);
    const states = statesOf(k, 200, ['normal']);
    const rows = rowKinds(n, k);
    const [normal] = await runHead(program, matrix(n, k, rows.normal!), states, { ks: [40], threads: 2 });
    assert.ok(normal!.passed >= 40 && normal!.passed < 200, `${normal!.passed} rows passed`);
    const [equal] = await runHead(program, matrix(n, k, rows['equal rows']!), states, { ks: [1], threads: 2 });
    assert.equal(equal!.passed, n);
  });
});
