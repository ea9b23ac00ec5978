/** bitnet-tune from the outside: what a sweep prints and keeps, and what the next build makes of it. */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { nativeProfile } from '../codegen/cpu.ts';
import { parse } from '../codegen/name.ts';
import type { TuningEntry } from '../codegen/wisdom.ts';
import { validate } from '../schemas/validate.ts';
import { useCli } from './run-cli.ts';
import { writeGguf } from './write-gguf.ts';
import { randomModel, smallShape } from './write-model.ts';

describe('bitnet-tune', () => {
  const cli = useCli();
  // Every matrix is 128 x 128: one problem, measured once.
  const shape = smallShape({ layers: 1, hidden: 128, heads: 2, kvHeads: 2, intermediate: 128, context: 64 });
  let gguf = '';
  /** Logits and plan before anything was measured. */
  let logits: Buffer;
  let byDefault = '';

  const wisdomFile = () => cli.cache('wisdom.json');
  const readWisdom = (): { version: 1; entries: TuningEntry[] } => JSON.parse(readFileSync(wisdomFile(), 'utf8'));
  /** Replaces what was measured. */
  const change = (edit: (entry: TuningEntry) => TuningEntry) => {
    const { version, entries } = readWisdom();
    writeFileSync(wisdomFile(), JSON.stringify({ version, entries: entries.map(edit) }));
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
    const { code, stdout, stderr } = await cli.run('tune', [gguf, '--rounds', '3', '--threads', '1']);
    assert.equal(code, 0, stderr);
    assert.equal(stderr, '');
    assert.match(
      stdout,
      /^128 x 128: (gemv_i8_\w+)\n {2}[\d.]+ us, [\d.]+ % of a plain read; slowest of \d+ candidates [\d.]+ us\nkept in .*wisdom\.json\n$/,
    );
    const wisdom = readWisdom();
    assert.equal(validate('tuning', wisdom), undefined);
    const [entry, ...others] = wisdom.entries as [TuningEntry];
    assert.deepEqual(others, []);
    const { op, n, k, threads, features } = entry.key;
    assert.deepEqual(
      { op, n, k, threads, features },
      { op: 'decode', n: 128, k: 128, threads: 1, features: nativeProfile().features },
    );
    assert.equal(entry.kernel, /gemv_\w+/.exec(stdout)![0]);
    assert.equal(entry.rounds, 3);
  });

  it('--json: every candidate; a new measurement replaces the old one, another number of threads is added', async () => {
    const { wisdom, compiler, results } = await cli.json('tune', [gguf, '--rounds', '3', '--threads', '1']);
    assert.equal(wisdom, wisdomFile());
    assert.match(compiler, /^(clang|gcc) [\d.]+$/);
    assert.equal(results.length, 1);
    const [{ entry, measured }] = results;
    assert.ok(measured.length > 3);
    assert.ok(measured.some((m: { kernel: string }) => m.kernel === byDefault));
    const times = measured.map((m: { seconds: number }) => m.seconds);
    for (const seconds of times) assert.ok(seconds > 0);
    assert.equal(entry.seconds, Math.min(...times));
    assert.deepEqual(readWisdom().entries, [entry]);
    await cli.ok('tune', [gguf, '--rounds', '3', '--threads', '2']);
    assert.deepEqual(
      readWisdom().entries.map((e) => e.key.threads),
      [1, 2],
    );
  });

  it('the next build uses it, and computes the same bits', async () => {
    const { results } = await cli.json('tune', [gguf, '--rounds', '3', '--threads', '1']);
    // The default may have been the fastest; another kernel of those measured must win, or nothing would be shown. In the same
    // packing, so that the weights need not be packed again.
    const packing = parse(byDefault).weight;
    const { kernel } = results[0].measured.find(
      (m: { kernel: string }) => m.kernel !== byDefault && parse(m.kernel).weight === packing,
    );
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

  it('what another CPU, compiler or version measured, and a kernel that is no more, do not count', async () => {
    const kept = readFileSync(wisdomFile(), 'utf8');
    const edits: ((entry: TuningEntry) => TuningEntry)[] = [
      (e) => ({ ...e, key: { ...e.key, cpu: 'Zilog Z80' } }),
      (e) => ({ ...e, key: { ...e.key, features: [] } }),
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
    } finally {
      writeFileSync(wisdomFile(), kept);
    }
  });

  it('a damaged wisdom file is an error that names it, and stays as it is', async () => {
    const kept = readFileSync(wisdomFile(), 'utf8');
    try {
      for (const [text, says] of [
        [kept.slice(0, -20), /is not JSON/],
        [JSON.stringify({ version: 2, entries: [] }), /version must be equal to constant/],
        [kept.replace('"rounds"', '"turns"'), /'turns'|required property 'rounds'/],
      ] as const) {
        writeFileSync(wisdomFile(), text);
        await Promise.all(
          (['run', 'tune'] as const).map(async (program) => {
            const args = program === 'run' ? ['--tokens', '1', '-n', '0'] : ['--rounds', '3'];
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

  it('an inexact kernel is not timed, however fast it may be', async () => {
    // Some of the candidates are replaced by ones that do nothing.
    const { variant } = parse(byDefault);
    const compiler = cli.path('liar');
    writeFileSync(
      compiler,
      `for argument; do
  case $argument in
    src/kernels/*_${variant}.c) echo "void bn_$(basename "$argument" .c)(void) {}" >"$argument" ;;
  esac
done
exec ${cli.environment().BITNET_CC} "$@"\n`,
    );
    const env = { BITNET_CC: `sh ${compiler}`, XDG_CACHE_HOME: cli.path('liar-cache') };
    const args = [gguf, '--rounds', '3', '--threads', '1'];
    const { results } = await cli.json('tune', args, { env });
    const { entry, measured } = results[0] as { entry: TuningEntry; measured: { kernel: string; seconds?: number }[] };
    const liars = measured.filter((m) => m.kernel.endsWith(`_${variant}`));
    assert.ok(liars.length > 1 && liars.length < measured.length);
    for (const m of measured) assert.equal(m.seconds === undefined, liars.includes(m), m.kernel);
    assert.ok(!entry.kernel.endsWith(`_${variant}`));
    const text = await cli.ok('tune', args, { env });
    assert.deepEqual(
      [...text.matchAll(/^ {2}NOT EXACT, not timed: (\w+)$/gm)].map((m) => m[1]),
      liars.map((m) => m.kernel),
    );
  });

  it('Ctrl-C: a quiet end, and no wisdom of half a sweep', async () => {
    const home = cli.path('interrupted');
    const child = cli.start('tune', [gguf, '--rounds', '1000'], { env: { XDG_CACHE_HOME: home } });
    const builds = `${home}/bitnet-gen/builds`;
    // A build that is complete has no dot in its name; measuring takes far longer than a moment.
    while (!existsSync(builds) || !readdirSync(builds).some((name) => !name.includes('.')))
      await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill('SIGINT');
    const { exitCode, stdout, stderr } = await child;
    assert.deepEqual([exitCode, stdout, stderr], [130, '', '']);
    assert.equal(existsSync(`${home}/bitnet-gen/wisdom.json`), false);
  });
});
