/** npm run bench from the outside, on a tiny shape and for a moment: the form of its results, not their size. */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { runnableIsas } from '../codegen/cpu.ts';
import { packings } from '../codegen/packings/index.ts';
import { operations } from '../runtime/library.ts';
import { useCli } from './run-cli.ts';
import { smallShape } from './write-model.ts';

const shapes = {
  tied: smallShape({ name: 'bench-tied', layers: 3 }),
  separate: smallShape({ name: 'bench-separate', activation: 'silu', subNorms: false, tiedEmbedding: false }),
};

describe('bench', () => {
  const cli = useCli();
  const file = (shape: keyof typeof shapes) => cli.path(`${shape}.json`);
  const brief = ['--seconds', '0', '--context', '20'];
  before(() => {
    for (const [name, shape] of Object.entries(shapes)) writeFileSync(cli.path(`${name}.json`), JSON.stringify(shape));
  });

  it('decode --json: one object alone, whose numbers fit together', async () => {
    const args = [
      'decode',
      '--shape',
      file('tied'),
      '--threads',
      '1,2',
      '--kv',
      'f16,f32',
      '--packing',
      'p2',
      ...brief,
    ];
    const document = await cli.json('bench', args);
    const targets = runnableIsas().filter((isa) => isa.family !== 'any' || runnableIsas().length === 1);
    assert.equal(document.decode.length, targets.length * 2 * 2);
    assert.deepEqual(document.shape, shapes.tied);
    assert.ok(document.machine.cpu && document.machine.cpus > 0 && document.compiler);
    for (const row of document.decode) {
      assert.ok(targets.some((isa) => isa.name === row.target) && row.packing in packings);
      const positive = ['threads', 'context', 'ms_per_token', 'tok_s', 'bytes_per_token', 'gb_s', 'read_ms'];
      for (const name of [...positive, 'roof_fraction', 'ternary_roof_fraction', 'samples'])
        assert.ok(row[name] > 0, `${name} is ${row[name]}`);
      const near = (a: number, b: number, what: string) => assert.ok(Math.abs(a - b) < 1e-9 * Math.abs(b), what);
      near(row.roof_fraction, row.read_ms / row.ms_per_token, 'roof');
      near(row.tok_s, 1000 / row.ms_per_token, 'tok/s');
      near(row.gb_s, row.bytes_per_token / row.ms_per_token / 1e6, 'GB/s');
      const { ternary, head, kv, other } = row.bytes;
      assert.equal(ternary + head + kv + other, row.bytes_per_token);
      assert.equal(kv, 20 * 3 * 2 * 2 * 64 * (row.kv === 'f16' ? 2 : 4));
      const { token, outside, ...parts } = row.profile;
      assert.deepEqual(Object.keys(parts), operations);
      near(
        operations.reduce((sum, name) => sum + parts[name], outside),
        token,
        'profile',
      );
      // Measured by the library, inside what the caller measures.
      assert.ok(outside >= 0, `outside ${outside}`);
      assert.equal(typeof row.huge_pages, 'boolean');
    }
  });

  it('decode: tables; a model is written once; a separate head is read instead of the embedding', async () => {
    const args = ['decode', '--shape', file('separate'), '--layers', '1', '--threads', '1', ...brief];
    const text = await cli.ok('bench', args);
    assert.match(text, /^bench-separate-1-layers, /);
    assert.match(text, /^target +packing +threads +kv +context +ms\/token +tok\/s /m);
    assert.match(text, /^\w+ +\w+ +1 +i8 +20 +[\d.]+ /m);
    assert.match(text, /^3 rounds; plain reads from (huge|ordinary) pages/m);
    const models = () => readdirSync(cli.cache('bench')).filter((name) => name.startsWith('bench-separate'));
    const [model, ...others] = models();
    assert.deepEqual(others, []);
    assert.deepEqual(readdirSync(cli.cache('bench', model!)).sort(), ['config.json', 'model.safetensors']);
    const { decode } = await cli.json('bench', [...args, '--head', 'exact,fast']);
    assert.deepEqual(models(), [model]);
    assert.deepEqual([decode[0].head, decode[1].head], ['exact', 'fast']);
    for (const row of decode) assert.equal(row.bytes.head, 301 * 256 * 2);
  });

  it('--peers without the package says so, and measures the rest', async () => {
    const args = ['decode', '--shape', file('tied'), '--threads', '1', ...brief, '--peers', cli.path('nowhere')];
    const { decode, peers, notes } = await cli.json('bench', args);
    assert.ok(decode.length > 0);
    assert.deepEqual(peers, { decode: [] });
    assert.match(notes.decode[0], /^llama\.cpp left out: node-llama-cpp is not installed; /);
  });

  it('wrong usage: exit code 2, nothing on stdout, nothing written', async () => {
    for (const [args, says] of [
      [['nonsense'], /^bench: there is no subject 'nonsense'; known subjects: decode\n$/],
      [['decode', '--threads', '0'], /must be a whole number from 1 to 1024/],
      [['decode', '--packing', 'p7'], /must be one of p2/],
      [['decode', '--target', 'sparc'], /must be one of/],
    ] as const) {
      const env = { XDG_CACHE_HOME: cli.path('unused') };
      const { code, stdout, stderr } = await cli.run('bench', args, { env });
      assert.deepEqual([code, stdout], [2, ''], stderr);
      assert.match(stderr, says);
      assert.equal(existsSync(cli.path('unused', 'bitnet-gen', 'bench')), false);
    }
  });

  it('--help lists the subjects, with examples', async () => {
    assert.match(
      await cli.ok('bench', ['--help']),
      /Subjects:\n {2}decode [\s\S]*Examples:\n {2}npm run -s bench -- decode/,
    );
  });
});
