/** bitnet-tune from the outside: what a sweep prints and keeps, and what the next build makes of it. */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { findCompiler } from '../../codegen/compile.ts';
import { nativeProfile } from '../../codegen/cpu.ts';
import { isaOf } from '../../codegen/isa/index.ts';
import { format, parse } from '../../codegen/name.ts';
import type { MatrixPlan } from '../../codegen/plan.ts';
import type { TuningEntry, Wisdom } from '../../codegen/wisdom.ts';
import { nothing, phases, writeWisdom } from '../../codegen/wisdom.ts';
import { validate } from '../../schemas/validate.ts';
import { useCli } from '../run-cli.ts';
import { demoShape } from '../shapes.ts';
import { othersWin } from '../wisdom.ts';
import { writeGguf } from '../write-gguf.ts';
import { randomModel, smallShape } from '../write-model.ts';

describe('bitnet-tune', () => {
  const cli = useCli();
  // Every matrix is 128 x 128: one problem, measured once.
  const shape = smallShape({ layers: 1, hidden: 128, heads: 2, kvHeads: 2, intermediate: 128, context: 64 });
  let gguf = '';
  /** Logits and plan before anything was measured. */
  let logits: Buffer;
  let byDefault = '';

  /** The least that a sweep does. */
  const quick = ['--budget', '1s'];
  const wisdomFile = () => cli.cache('wisdom.json');
  const readWisdom = (): Wisdom & { entries: TuningEntry[] } => JSON.parse(readFileSync(wisdomFile(), 'utf8'));
  /** Replaces what was measured. */
  const change = (edit: (entry: TuningEntry) => TuningEntry) => {
    const wisdom = readWisdom();
    writeFileSync(wisdomFile(), JSON.stringify({ ...nothing, entries: wisdom.entries.map(edit) }));
  };
  const evaluate = async (name: string): Promise<Buffer> => {
    const file = cli.path(name);
    await cli.ok('run', [gguf, '--tokens', '1,2,3,4,5,6,7', '-n', '0', '--logits', file]);
    return readFileSync(file);
  };
  const planned = async (): Promise<{ gemv: string; why: string }> =>
    (await cli.json('run', [gguf, '--info'])).matrices.attn_q;

  before(async () => {
    gguf = cli.path('tiny.gguf');
    writeGguf(gguf, randomModel(shape, 1), { arch: 'bitnet-b1.58', weights: 'i2_s' });
    logits = await evaluate('default.logits');
    const plan = await planned();
    assert.match(plan.why, /by estimate$/);
    byDefault = plan.gemv;
  });

  it('measures each matrix, prints the result, keeps it as wisdom', async () => {
    const { code, stdout, stderr } = await cli.run('tune', [gguf, ...quick, '--threads', '1']);
    assert.equal(code, 0, stderr);
    assert.equal(stderr, '');
    assert.match(
      stdout,
      /^128 x 128, 1 thread: (gemv_i8_\w+)\n {2}[\d.]+ us, [\d.]+ % of a plain read, of \d+ candidates; the plan's own choice.*\n(a token, 1 thread: '.*'\n {2}'plan' .*\n)?kept in .*wisdom\.json\n$/,
    );
    const wisdom = readWisdom();
    assert.equal(validate('tuning', wisdom), undefined);
    const [entry, ...others] = wisdom.entries as [TuningEntry];
    assert.deepEqual(others, []);
    const { phase, n, k, threads, features, caches } = entry.key;
    const { features: own, cache } = nativeProfile();
    assert.deepEqual(
      { phase, n, k, threads, features, caches },
      { phase: 'decode', n: 128, k: 128, threads: 1, features: own, caches: cache },
    );
    assert.equal(entry.kernel, /gemv_\w+/.exec(stdout)![0]);
    assert.equal(entry.default_kernel, byDefault);
    assert.ok(entry.finished);
  });

  it('--json: every candidate; a new measurement replaces the old one, other numbers of threads are added', async () => {
    const { wisdom, compiler, entries } = await cli.json('tune', [gguf, ...quick, '--threads', '1']);
    assert.equal(wisdom, wisdomFile());
    assert.match(compiler, /^(clang|gcc) [\d.]+$/);
    assert.equal(entries.length, 1);
    const [{ kernel, candidates }] = entries as [TuningEntry];
    assert.ok(candidates.length > 3);
    assert.ok(candidates.some((c) => c.kernel === byDefault));
    assert.ok(candidates.some((c) => c.kernel === kernel));
    for (const { seconds, low, high, roof, rounds } of candidates)
      assert.ok(low > 0 && low <= seconds && seconds <= high && roof > 0 && rounds >= 3);
    for (const [i, { seconds }] of candidates.entries()) assert.ok(!i || candidates[i - 1]!.seconds <= seconds);
    assert.deepEqual(readWisdom().entries, entries);
    const report = cli.path('report.html');
    const again = await cli.ok('tune', [gguf, ...quick, '--threads', '1,2', '--resume', '--report', report]);
    assert.match(again, /^128 x 128, 1 thread: [\s\S]*^128 x 128, 2 threads: [\s\S]*\nreport in .*report\.html\n$/m);
    assert.match(readFileSync(report, 'utf8'), /^<!doctype html>[\s\S]*<svg/);
    assert.deepEqual(readWisdom().entries[0], entries[0], '--resume measured it again');
    assert.deepEqual(
      readWisdom().entries.map((e) => e.key.threads),
      [1, 2],
    );
    const third = await cli.ok('tune', [gguf, ...quick, '--threads', '1,2', '--resume', '--report', report]);
    assert.match(third, /, replaced\n$/);
  });

  it('show explains the choice; merge joins files', async () => {
    const text = await cli.ok('tune', ['show', gguf]);
    const [first] = readWisdom().entries as [TuningEntry];
    assert.match(text, /^decode, 128 x 128, 1 thread: gemv_\w+\n {2}why: \w/);
    for (const { kernel } of first.candidates) assert.ok(text.includes(kernel), kernel);
    assert.deepEqual((await cli.json('tune', ['show', gguf])).entries, readWisdom().entries);
    await cli.refuses('tune', ['show', 'falcon3-1b-158'], 1, [
      /nothing was measured for falcon3-1b-158.*run bitnet-tune/,
    ]);

    const foreign = { ...first, key: { ...first.key, cpu: 'Zilog Z80' } };
    writeFileSync(cli.path('a.json'), JSON.stringify({ ...nothing, entries: [{ ...first, why: 'older' }] }));
    writeFileSync(cli.path('b.json'), JSON.stringify({ ...nothing, entries: [first, foreign] }));
    await cli.ok('tune', ['merge', cli.path('a.json'), cli.path('b.json'), '-o', cli.path('c.json')]);
    assert.deepEqual(JSON.parse(readFileSync(cli.path('c.json'), 'utf8')).entries, [first, foreign]);
    await cli.ok('tune', ['merge', cli.path('c.json'), '-o', cli.path('brief.json'), '--best', '1']);
    const [short] = JSON.parse(readFileSync(cli.path('brief.json'), 'utf8')).entries;
    const kept = new Set([first.candidates[0]!.kernel, first.kernel, first.default_kernel]);
    assert.deepEqual(new Set(short.candidates.map((c: { kernel: string }) => c.kernel)), kept);
    await cli.refuses('tune', ['merge', cli.path('a.json'), cli.path('none.json'), '-o', cli.path('d.json')], 2, [
      /no wisdom file '.*none\.json'/,
    ]);
  });

  it('the next build uses it, and computes the same bits', async () => {
    // The default may have been the fastest; another kernel must win, or nothing would be shown. In the same packing, so that the
    // weights need not be packed again.
    const own = parse(byDefault);
    const kernel = format({ ...own, variant: own.variant === 'p0' ? 'p4096' : 'p0' });
    change((entry) => ({ ...entry, kernel }));
    const plan = await planned();
    assert.equal(plan.gemv, kernel);
    assert.match(plan.why, /measured fastest here$/);
    const builds = readdirSync(cli.cache('builds'));
    assert.ok((await evaluate('tuned.logits')).equals(logits), 'the logits changed');
    assert.equal(readdirSync(cli.cache('builds')).length, builds.length + 1, 'another library');
    assert.equal(readdirSync(cli.cache('weights')).length, 1, 'the same packed weights');
    // bitnet-gen: for this machine, but not for a target by name, whose files are the same everywhere.
    const why = async (...args: string[]) =>
      JSON.parse(await cli.ok('gen', [gguf, '--dump', 'plan', ...args])).matrices.attn_q.why;
    assert.match(await why(), /measured fastest here$/);
    assert.match(await why('--target', nativeProfile().isa), /by estimate$/);
  });

  it('the demo model with other kernels in every phase computes the same bits', async () => {
    // More tokens than pass through the layers at once, and some that are left over by vectors of tokens.
    const tokens = Array.from({ length: 170 }, (_, i) => 1 + ((i * 37) % 200)).join(',');
    const home = { env: { XDG_CACHE_HOME: cli.path('demo') } };
    const evaluated = async (name: string) => {
      await cli.ok('run', ['--tokens', tokens, '-n', '0', '--threads', '1', '--logits', cli.path(name)], home);
      return readFileSync(cli.path(name));
    };
    const kernels = async () => {
      const { matrices } = await cli.json('run', ['--info', '--threads', '1'], home);
      // What skips zeros is not swept.
      return Object.values(matrices as Record<string, MatrixPlan>).map(({ gemv, gemm, tables, panel }) =>
        panel ? [] : [gemv, gemm, tables],
      );
    };
    const [before, plan] = [await evaluated('plan.logits'), await kernels()];
    const cpu = nativeProfile();
    const compiler = await findCompiler(isaOf(cpu.isa).family);
    // Prompts by other tables, but the last matrix by dot products.
    const entries = othersWin(
      demoShape(),
      cpu,
      compiler,
      phases,
      ({ tables }, { phase, slot }) => phase !== 'prefill' || Boolean(tables) === (slot !== 'ffn_down'),
    );
    writeWisdom({ ...nothing, entries }, path.join(home.env.XDG_CACHE_HOME, 'bitnet-gen', 'wisdom.json'));
    for (const [i, own] of (await kernels()).entries())
      for (const [j, kernel] of own.entries()) assert.notDeepEqual(kernel, plan[i]![j], `matrix ${i}, kernels ${j}`);
    assert.ok((await evaluated('tuned.logits')).equals(before), 'the logits changed');
  });

  it('what another CPU, compiler or version measured, and a kernel that is no more, do not count', async () => {
    const kept = readFileSync(wisdomFile(), 'utf8');
    const edits: ((entry: TuningEntry) => TuningEntry)[] = [
      (e) => ({ ...e, key: { ...e.key, cpu: 'Zilog Z80' } }),
      (e) => ({ ...e, key: { ...e.key, features: [] } }),
      (e) => ({ ...e, key: { ...e.key, caches: { ...e.key.caches, l2: 1 } } }),
      (e) => ({ ...e, key: { ...e.key, compiler: 'tcc 0.9' } }),
      (e) => ({ ...e, key: { ...e.key, generator: '0.0.0' } }),
      (e) => ({ ...e, key: { ...e.key, n: 256 } }),
      (e) => ({ ...e, kernel: 'gemv_of_old' }),
    ];
    try {
      for (const edit of edits) {
        writeFileSync(wisdomFile(), kept);
        change(edit);
        const plan = await planned();
        assert.equal(plan.gemv, byDefault, String(edit));
        assert.match(plan.why, /by estimate$/);
      }
      writeFileSync(wisdomFile(), kept);
      change(edits[3]!);
      const told =
        /^bitnet-\w+: what was tuned for 1 of 1 matrices is ignored: measured with 'tcc 0\.9', this is .*; run bitnet-tune again\n/;
      assert.match((await cli.run('run', [gguf, '--tokens', '1', '-n', '0'])).stderr, told);
      assert.match((await cli.run('gen', [gguf, '--dump', 'plan'])).stderr, told);
      await cli.refuses('tune', ['show', gguf], 1, [/is ignored: measured with 'tcc 0\.9'/]);
    } finally {
      writeFileSync(wisdomFile(), kept);
    }
  });

  it('where zeros are skipped: up to which share of live neurons is measured, printed, shown, merged, and known to --resume', async () => {
    // Matrices of 2^20 weights.
    const file = cli.path('skips.json');
    const skips = { ...shape, name: 'skips', hidden: 1024, heads: 16, kvHeads: 16, intermediate: 1024 };
    writeFileSync(file, JSON.stringify(skips));
    const home = { env: { XDG_CACHE_HOME: cli.path('skips') } };
    const args = [file, '--threads', '1', '--budget', '25s'];
    const told =
      /a token, 1 thread: zeros are skipped while at most (\d+) % of the neurons are live\n {2}live, and time of lists over that of everything \(\d+ rounds\): /;
    // On a busy machine the time may be over before: then the same again, as the program advises, until it was enough.
    let printed = told.exec(await cli.ok('tune', args, home));
    for (let more = 0; !printed && more < 9; more++)
      printed = told.exec(await cli.ok('tune', [...args, '--resume'], home));
    assert.ok(printed);
    const { entries, thresholds } = await cli.json('tune', [...args, '--resume'], home);
    assert.equal(thresholds.length, 1);
    assert.equal(String(thresholds[0].most_live), printed[1]);
    const kept = JSON.parse(readFileSync(path.join(home.env.XDG_CACHE_HOME, 'bitnet-gen', 'wisdom.json'), 'utf8'));
    assert.equal(validate('tuning', kept), undefined);
    assert.deepEqual(kept.thresholds, thresholds, '--resume measured it again');
    assert.match(await cli.ok('tune', ['show', file], home), told);
    assert.deepEqual((await cli.json('tune', ['show', file], home)).thresholds, thresholds);
    const plan = JSON.parse(await cli.ok('gen', [file, '--dump', 'plan'], home));
    assert.equal(plan.mostLive.decode, thresholds[0].most_live);
    // Together with an older file, which knows nothing of thresholds.
    const [own, old, both] = ['own.json', 'old.json', 'both.json'].map((name) => cli.path(name)) as [
      string,
      string,
      string,
    ];
    writeFileSync(own, JSON.stringify({ ...nothing, thresholds }));
    // Of a CPU known by its brand alone, which names no product and so stays as it is.
    const branded = entries.map((entry: TuningEntry) => ({ ...entry, key: { ...entry.key, cpu: 'AMD EPYC' } }));
    writeFileSync(old, JSON.stringify({ version: 3, entries: branded, tokens: [] }));
    assert.match(
      await cli.ok('tune', ['merge', own, old, '-o', both]),
      new RegExp(`^${entries.length + 1} entries in `),
    );
    assert.deepEqual(JSON.parse(readFileSync(both, 'utf8')), { ...nothing, entries: branded, thresholds });
  });

  it('a damaged wisdom file is an error that names it, and stays as it is', async () => {
    const kept = readFileSync(wisdomFile(), 'utf8');
    try {
      for (const [text, says] of [
        [kept.slice(0, -20), /is not JSON/],
        [JSON.stringify({ version: 2, entries: [] }), /is of version 2, and this program knows versions 3 and 4/],
        [kept.replace('"finished"', '"done"'), /'done'|required property 'finished'/],
      ] as const) {
        writeFileSync(wisdomFile(), text);
        await Promise.all(
          (['run', 'tune'] as const).map(async (program) => {
            const args = program === 'run' ? ['--tokens', '1', '-n', '0'] : quick;
            const { code, stdout, stderr } = await cli.run(program, [gguf, ...args]);
            assert.equal(code, 1);
            assert.equal(stdout, '');
            assert.match(stderr, /^bitnet-\w+: wisdom '[^\n]*wisdom\.json'[^\n]*; delete it or restore it\n$/);
            assert.match(stderr, says);
          }),
        );
        assert.equal(readFileSync(wisdomFile(), 'utf8'), text);
      }
    } finally {
      writeFileSync(wisdomFile(), kept);
    }
  });

  it('Ctrl-C: a quiet end, and no wisdom before anything was timed', async () => {
    const home = cli.path('interrupted');
    const child = cli.start('tune', [gguf, '--budget', '1h'], { env: { XDG_CACHE_HOME: home } });
    const kernels = `${home}/bitnet-gen/kernels`;
    while (!existsSync(kernels)) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill('SIGINT');
    const { exitCode, stdout, stderr } = await child;
    assert.deepEqual([exitCode, stdout, stderr], [130, '', '']);
    assert.equal(existsSync(`${home}/bitnet-gen/wisdom.json`), false);
    assert.deepEqual(
      readdirSync(kernels).filter((name) => !name.endsWith('.so')),
      [],
      'something is left behind',
    );
  });
});
