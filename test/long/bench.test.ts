/** npm run bench from the outside, on a tiny shape and for a moment: the form of its results, not their size. */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { type KernelRow, samplesOf } from '../../bench/subjects/kernels.ts';
import type { RateRow } from '../../bench/subjects/rates.ts';
import { runnableIsas } from '../../codegen/cpu.ts';
import { layerSlots } from '../../codegen/graph.ts';
import { isas } from '../../codegen/isa/index.ts';
import type { Isa } from '../../codegen/isa/isa.ts';
import { kernelsFor } from '../../codegen/kernels/index.ts';
import { packings } from '../../codegen/packings/index.ts';
import { peaksFor } from '../../codegen/tune/peaks.ts';
import { operations } from '../../runtime/library.ts';
import type { ModelShape } from '../../schemas/types.ts';
import { useCli } from '../run-cli.ts';
import { smallShape } from '../write-model.ts';

const shapes = {
  tied: smallShape({ name: 'bench-tied', layers: 3 }),
  separate: smallShape({ name: 'bench-separate', activation: 'silu', subNorms: false, tiedEmbedding: false }),
};

const near = (a: number, b: number, what: string) => assert.ok(Math.abs(a - b) < 1e-9 * Math.abs(b), what);
const targets = runnableIsas().filter((isa) => isa.family !== 'any' || runnableIsas().length === 1);
const weightsOf = (shape: ModelShape) =>
  shape.layers * layerSlots(shape).reduce((sum, s) => sum + (s.kind === 'ternary' ? s.rows * s.cols : 0), 0);

/** The operations of a profile, and what is outside them, are all of its time. */
function checkProfile(total: number, { outside, ...parts }: Readonly<Record<string, number>>): void {
  assert.deepEqual(Object.keys(parts), operations);
  near(
    operations.reduce((sum, name) => sum + parts[name]!, outside!),
    total,
    'profile',
  );
}

/** A row of prefill or batch: its numbers are there, and fit together. */
function checkRate(row: RateRow, shape: ModelShape): void {
  assert.ok(targets.some((isa) => isa.name === row.target));
  for (const packing of row.packing.split('+')) assert.ok(packing in packings, row.packing);
  const positive = ['threads', 'n', 'ms', 'tok_s', 'kernel_gmacs', 'peak_gmacs', 'peak_fraction', 'samples'] as const;
  for (const name of [...positive, 'kernel_only_fraction'] as const)
    assert.ok(row[name] > 0 && Number.isFinite(row[name]), `${name} is ${row[name]}`);
  const { total, ...parts } = row.profile;
  checkProfile(total, parts);
  near(row.tok_s, (1000 * row.n) / row.ms, 'tok/s');
  near(row.kernel_gmacs, (weightsOf(shape) * row.n) / parts.ternary / 1e6, 'GMAC/s');
  near(row.peak_fraction, row.kernel_gmacs / row.peak_gmacs, 'of peak');
  near(row.kernel_only_fraction, (row.tok_s * weightsOf(shape)) / row.kernel_gmacs / 1e9, 'of kernels alone');
}

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
    assert.equal(document.decode.length, targets.length * 2 * 2);
    assert.deepEqual(document.shape, shapes.tied);
    assert.ok(document.machine.cpu && document.machine.cpus > 0 && document.compiler);
    for (const row of document.decode) {
      assert.ok(targets.some((isa) => isa.name === row.target) && row.packing in packings);
      const positive = ['threads', 'context', 'ms_per_token', 'tok_s', 'bytes_per_token', 'gb_s', 'read_ms'];
      for (const name of [...positive, 'roof_fraction', 'ternary_roof_fraction', 'samples'])
        assert.ok(row[name] > 0, `${name} is ${row[name]}`);
      near(row.roof_fraction, row.read_ms / row.ms_per_token, 'roof');
      near(row.tok_s, 1000 / row.ms_per_token, 'tok/s');
      near(row.gb_s, row.bytes_per_token / row.ms_per_token / 1e6, 'GB/s');
      const { ternary, head, kv, other } = row.bytes;
      assert.equal(ternary + head + kv + other, row.bytes_per_token);
      assert.equal(kv, 20 * 3 * 2 * 2 * 64 * (row.kv === 'f16' ? 2 : 4));
      const { token, ...parts } = row.profile;
      checkProfile(token, parts);
      // Measured by the library, inside what the caller measures.
      assert.ok(parts.outside >= 0, `outside ${parts.outside}`);
      assert.equal(typeof row.huge_pages, 'boolean');
    }
  });

  it('decode --sparsity: gates of random models are closed as often as asked for, and zeros are skipped or not', async () => {
    const target = targets[0]!.name;
    const args = ['decode', '--shape', file('tied'), '--target', target, '--packing', 'p2', '--threads', '2', ...brief];
    const { decode } = await cli.json('bench', [...args, '--sparsity', '0.8,0.9']);
    type DecodeRow = { sparsity: number; path: string } & Record<string, number>;
    assert.deepEqual(
      decode.map(({ sparsity, path }: DecodeRow) => [sparsity, path]),
      [0.8, 0.9].flatMap((sparsity) => ['dense', 'sparse'].map((path) => [sparsity, path])),
    );
    for (const row of decode as DecodeRow[]) {
      // 512 neurons of 3 layers, for 5 tokens.
      assert.ok(Math.abs(row.live_neurons! - (1 - row.sparsity)) < 0.06, `${row.live_neurons} open`);
      assert.ok(row.live_inputs! > 0 && row.live_inputs! <= row.live_neurons!, `${row.live_inputs} inputs`);
      assert.ok(row.overlap! > 0 && row.overlap! < 1, `${row.overlap} of them open again`);
      if (row.path === 'sparse') near(row.over_ideal!, 1, 'bytes over those that matter');
      else assert.ok(row.over_ideal! > 1.5, `${row.over_ideal} of the bytes that matter`);
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

  it('prefill and batch --json: both subjects in one object, whose numbers fit together', async () => {
    const args = ['prefill', 'batch', '--shape', file('tied'), '--threads', '1,2', '--n', '3,70', ...brief];
    const document = await cli.json('bench', args);
    const prefill: RateRow[] = document.prefill;
    const batch: (RateRow & { over_batch1: number })[] = document.batch;
    for (const row of [...prefill, ...batch]) checkRate(row, shapes.tied);
    const sizes = (rows: RateRow[]) => rows.map(({ target, threads, context, n }) => [target, threads, context, n]);
    const expected = (context: number, ...ns: number[]) =>
      targets.flatMap(({ name }) => [1, 2].flatMap((threads) => ns.map((n) => [name, threads, context, n])));
    assert.deepEqual(sizes(prefill), expected(0, 3, 70));
    assert.deepEqual(sizes(batch), expected(20, 1, 3, 70));
    for (const row of batch) {
      const one = batch.find((r) => r.n === 1 && r.target === row.target && r.threads === row.threads)!;
      near(row.over_batch1, row.tok_s / one.tok_s, 'over n = 1');
    }
    // The same roof for every size.
    const roofs = prefill.map(({ target, threads, peak_gmacs }) => `${target} ${threads} ${peak_gmacs}`);
    assert.equal(new Set(roofs).size, 2 * targets.length);
    assert.deepEqual(document.notes, { prefill: ['3 rounds'], batch: ['3 rounds'] });
  });

  it('prefill and batch: tables; --quick, --packing', async () => {
    const packing = ['--packing', 'p2', '--layers', '1', '--threads', '1', '--quick', '--seconds', '0'];
    const text = await cli.ok('bench', ['prefill', 'batch', '--shape', file('separate'), ...packing]);
    assert.match(
      text,
      /^prefill\ntarget +packing +threads +kv +context +n +ms +tok\/s +GMAC\/s +peak GMAC\/s +of peak /m,
    );
    assert.match(text, /^\w+ +p2 +1 +i8 +0 +512 +[\d.]+ /m);
    assert.match(text, /^1 rounds$/m);
    assert.match(text, /^batch\ntarget +packing +threads +kv +context +n +ms +tok\/s +over n = 1 +GMAC\/s /m);
    assert.match(text, /^\w+ +p2 +1 +i8 +128 +1 +[\d.]+ +[\d.]+ +1\.00 /m);
    assert.match(text, /^\w+ +p2 +1 +i8 +128 +16 +[\d.]+ /m);
  });

  it('lookup: a table, and rows whose numbers fit together', async () => {
    const args = ['lookup', '--shape', file('tied'), '--layers', '1', '--threads', '1', '--packing', 'p2', ...brief];
    const text = await cli.ok('bench', args);
    assert.match(text, /^target +packing +threads +kv +context +text +plain ms +lookup ms +speed-up +drafted /m);
    assert.match(text, /^\w+ +p2 +1 +i8 +20 +copy +[\d.]+ /m);
    assert.match(text, /^3 rounds of 128 tokens/m);
    const { lookup } = await cli.json('bench', args);
    assert.deepEqual(
      lookup.map((row: { text: string }) => row.text),
      targets.flatMap(() => ['copy', 'edited', 'fresh', 'misleading']),
    );
    for (const row of lookup) {
      near(row.speed_up, row.plain_ms / row.lookup_ms, 'speed-up');
      assert.ok(row.accepted <= row.drafted && row.evaluations <= row.drafted, JSON.stringify(row));
    }
  });

  it('kernels: a row for each family and instruction set, of which --filter leaves some', async () => {
    for (const isa of runnableIsas()) {
      const measured = new Set(samplesOf(isa, '').map(({ spec }) => spec.op));
      for (const [op] of kernelsFor(isa)) assert.ok(measured.has(op), `${op} on ${isa.name}`);
    }
    const { kernels } = await cli.json('bench', ['kernels', '--seconds', '0', '--filter', 'quantise']);
    const pairs = runnableIsas().flatMap(({ name }) => ['i8', 'u7'].map((out) => `quantise_${out}_${name}`));
    assert.deepEqual(
      kernels.map(({ op, kernel, target }: KernelRow) => `${op}_${kernel.split('_')[3]}_${target}`),
      pairs,
    );
    for (const row of kernels as KernelRow[]) {
      assert.ok(row.us > 0 && row.least_us <= row.us && row.us <= row.most_us, row.kernel);
      near(row.gb_s, row.bytes / row.us / 1000, 'GB/s');
    }
    const product = ['kernels', '--seconds', '0', '--target', targets[0]!.name, '--filter', 'gemv_i8_p2'];
    const text = await cli.ok('bench', product);
    assert.match(text, /^kernel +us +GB\/s +GMAC\/s$/m);
    assert.match(text, /^gemv_i8_p2\w+ +[\d.]+ +[\d.]+ +[\d.]+$/m);
  });

  it('the loops of the arithmetic roofs pass the checks of a kernel on every instruction set', () => {
    for (const isa of Object.values<Isa>(isas)) {
      const { files, peaks } = peaksFor(isa);
      assert.deepEqual([...files.keys()], ['peaks.c', 'peaks.h', 'kernels/dots.c', 'kernels/additions.c']);
      for (const { multiplyAdds } of peaks) assert.ok(multiplyAdds >= 0.99 * 2 ** 26 * 4 * isa.lanes, isa.name);
    }
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
      [
        ['nonsense'],
        /^bench: there is no subject 'nonsense'; known subjects: decode, prefill, batch, lookup, kernels\n$/,
      ],
      [['decode', '--threads', '0'], /must be a whole number from 1 to 1024/],
      [['prefill', '--n', '0'], /must be a whole number from 1 to/],
      [['decode', '--packing', 'p7'], /must be one of p2/],
      [['decode', '--target', 'sparc'], /must be one of/],
      [['kernels', '--filter', 'nonsense'], /no kernel has 'nonsense' in its name/],
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
      /Subjects:\n {2}decode .*\n {2}prefill .*\n {2}batch .*\n {2}lookup .*\n {2}kernels [\s\S]*Examples:\n {2}npm run -s bench -- decode/,
    );
  });
});
