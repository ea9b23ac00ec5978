/**
 * Up to which share of live neurons zeros are skipped: as it is measured, as it is kept, and as each number of tokens obeys it.
 */
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { compile, findCompiler } from '../codegen/compile.ts';
import { nativeProfile } from '../codegen/cpu.ts';
import { emit, manifestOf } from '../codegen/emit.ts';
import { fingerprint, skippingFingerprint } from '../codegen/fingerprint.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { planOf } from '../codegen/plan.ts';
import { explainThreshold } from '../codegen/tune/explain.ts';
import { crossing, thresholds } from '../codegen/tune/thresholds.ts';
import type { Phase, ThresholdEntry, Wisdom } from '../codegen/wisdom.ts';
import { adviceFor, here, matricesOf, merge, nothing, phases } from '../codegen/wisdom.ts';
import { openModel } from '../runtime/formats/open.ts';
import { validate } from '../schemas/validate.ts';
import { skip } from './fixtures.ts';
import { assertSameBits, bestTarget, drive, packedFor, profileHere, useCache } from './machine.ts';
import { largeShape } from './products.ts';
import { long } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel, smallShape } from './write-model.ts';

/** Lists that take `ratio` of the time of everything. */
const shares = (ratio: (live: number) => number): ThresholdEntry['shares'] =>
  [0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9].map((live) => ({ live, listed: ratio(live), whole: 1, rounds: 9 }));

describe('thresholds of skipped zeros', () => {
  const cache = useCache();
  const cpu = nativeProfile();
  const nobody = { command: ['cc'], version: 'cc 1', label: 'cc' };
  /** Matrices of 2^20 weights: zeros are skipped. */
  const shape = smallShape({ layers: 1, hidden: 1024, heads: 8, kvHeads: 1, intermediate: 1024, context: 256 });
  const usual = planOf(shape, cpu);
  const made = (phase: Phase, threads: number, most_live: number): ThresholdEntry => ({
    key: {
      ...{ ...here(cpu, nobody, phase, threads), generator: skippingFingerprint(cpu, phase) },
      ...{ matrices: matricesOf(shape), tokens: 1, packing: usual.matrices.ffn_up.packing },
    },
    most_live,
    shares: shares((live) => live + 0.2),
  });

  it('are where lists and everything take as long, by all shares near it', () => {
    assert.equal(crossing(shares((live) => live + 0.25)), 75);
    assert.equal(crossing(shares((live) => live / 2)), 100);
    assert.equal(crossing(shares((live) => live + 1.5)), 0);
    assert.equal(crossing(shares(() => 0.9)), 100);
    assert.equal(crossing(shares(() => 1.1)), 0);
    // A single one that is wrong moves it little.
    const odd = crossing(shares((live) => live + (live === 0.7 ? 0.4 : 0.25)));
    assert.ok(odd > 68 && odd < 78, `${odd}`);
  });

  long('are measured in whole tokens, with few to nearly all gates open', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-thresholds-'));
    const compiler = await findCompiler(isaOf(cpu.isa).family);
    let found: ThresholdEntry[] = [];
    const steps: string[] = [];
    try {
      found = await thresholds({
        ...{ shape, cpu, compiler, threads: 1, cold: 1 << 20, folder, phases: ['decode', 'prefill'] },
        advice: adviceFor(cpu, compiler, { shape, wisdom: [nothing] }),
        until: performance.now() + 15_000,
        onProgress: (what, phase) => steps.push(`${phase}: ${what}`),
        signal: new AbortController().signal,
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    assert.equal(validate('tuning', { ...nothing, thresholds: found }), undefined);
    assert.deepEqual(
      found.map(({ key }) => [key.phase, key.tokens, key.threads, key.matrices]),
      [
        ['decode', 1, 1, matricesOf(shape)],
        ['prefill', 128, 1, matricesOf(shape)],
      ],
    );
    for (const { shares } of found) {
      const live = shares.map((share) => share.live);
      assert.ok(live[0]! < 0.35 && live.at(-1)! > 0.85, `${live}`);
      for (const [i, { live, rounds }] of shares.entries())
        assert.ok(rounds >= 2 && (!i || live > shares[i - 1]!.live), JSON.stringify(shares));
    }
    assert.deepEqual([...new Set(steps)], ['decode: building', 'decode: thresholds', 'prefill: thresholds']);
    const text = explainThreshold(found[0]!);
    assert.match(
      text,
      /^a token, 1 thread: zeros are skipped while at most \d+ % of the neurons are live\n {2}live, .*rounds\): [\d.]+ %/,
    );
  });

  it('of a model without squared ReLU, or with small matrices, are not measured', async () => {
    for (const other of [{ ...shape, activation: 'silu' as const }, smallShape({ layers: 1 })]) {
      const all = { shape: other, cpu, compiler: nobody, threads: 1, cold: 1, folder: '/nowhere', phases };
      const advice = adviceFor(cpu, nobody, { wisdom: [nothing] });
      const asked = { ...all, advice, until: performance.now() + 1e6, onProgress: () => {} };
      assert.deepEqual(await thresholds({ ...asked, signal: new AbortController().signal }), []);
    }
  });

  it('are advice for plans of the same layer: of as many threads, or of the most; a later one counts', () => {
    const wisdom: Wisdom = {
      ...nothing,
      thresholds: [made('decode', 1, 91), made('decode', 4, 88), made('prefill', 4, 33)],
    };
    const planned = (threads: number, of = shape, documents = [wisdom]) =>
      planOf(of, cpu, { advice: adviceFor(cpu, nobody, { shape: of, threads, wisdom: documents }) }).mostLive;
    const { mostLive } = usual;
    assert.deepEqual(planned(1), { ...mostLive, decode: 91, prefill: 33 });
    assert.deepEqual(planned(2), { ...mostLive, decode: 88, prefill: 33 });
    assert.deepEqual(planned(1, { ...shape, hidden: 2048 }), mostLive);
    const later = merge(wisdom, { ...nothing, thresholds: [made('decode', 1, 12)] });
    assert.deepEqual(planned(1, shape, [later]), { ...mostLive, decode: 12, prefill: 33 });
    assert.deepEqual(planned(1, shape, [nothing, wisdom]), planned(1), 'shipped wisdom');
    const of = (change: Partial<ThresholdEntry['key']>) => ({
      ...nothing,
      thresholds: wisdom.thresholds.map((entry) => ({ ...entry, key: { ...entry.key, ...change } })),
    });
    for (const change of [{ packing: 'p1' }, { generator: fingerprint(cpu, 'decode') }, { cpu: 'Zilog Z80' }])
      assert.deepEqual(planned(1, shape, [of(change)]), mostLive, JSON.stringify(change));
    const header = emit({ ...usual, mostLive: { decode: 11, batch: 22, prefill: 33 } }).get('plan.h')!;
    assert.match(header, /BN_MOST_LIVE = 11,\n {2}BN_MOST_LIVE_OF_BATCH = 22,\n {2}BN_MOST_LIVE_OF_PROMPT = 33,/);
  });

  long('each number of tokens goes by its own', async function () {
    const profile = profileHere(bestTarget);
    const isa = isaOf(bestTarget);
    if (isa.lanes === 1) return skip(this, 'without vectors prompts are multiplied as batches are');
    const folder = path.join(cache(), 'model');
    writeHuggingFace(folder, randomModel({ ...largeShape, hidden: 524 }, 3), { weights: 'packed-divide' });
    const model = openModel(folder).shape;
    const tokens = Array.from({ length: 70 }, (_, i) => (i * 37) % model.vocabulary);
    /** Lists of which nothing is left, if they are taken. */
    const build = async (phase: Phase) => {
      const mostLive = { decode: 0, batch: 0, prefill: 0, [phase]: 100 };
      const plan = { ...planOf(model, profile, { sparse: true }), mostLive };
      const files = emit(plan);
      const [before, behind, ...others] = files.get('sparse.c')!.split('if (live < BN_INTERMEDIATE) spread');
      assert.ok(behind !== undefined && !others.length);
      files.set('sparse.c', `${before}if (live < BN_INTERMEDIATE) part.count = 0; else spread${behind}`);
      const compiler = await findCompiler(isa.family);
      const built = await compile(files, isa, profile.features, compiler, path.join(cache(), 'builds'), {});
      return { ...built, manifest: manifestOf(plan) };
    };
    let weights = '';
    let expected: Float32Array = new Float32Array(0);
    for (const phase of phases) {
      const built = await build(phase);
      weights ||= await packedFor(folder, built);
      // The first one takes no lists for prompts.
      if (!expected.length) expected = await drive(built, [], weights, tokens);
      // With tables from more than half a vector of tokens on.
      for (const [chunk, by] of [
        [1, 'decode'],
        [7, 'batch'],
        [70, 'prefill'],
      ] as const) {
        const logits = await drive(built, [], weights, tokens, { chunk });
        const what = `${chunk} at once, lists for ${phase}`;
        if (by === phase) assert.throws(() => assertSameBits(logits, expected, what), what);
        else assertSameBits(logits, expected, what);
      }
    }
  });
});
