/** What bitnet-run writes: logits, and packed weights and builds in the cache. */
import { strict as assert } from 'node:assert';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { shape, useModels } from './cli-models.ts';
import { demo, largestDifference, readFloats } from './machine.ts';
import { useCli } from './run-cli.ts';
import { long } from './tier.ts';
import { writeGguf } from './write-gguf.ts';
import { randomModel } from './write-model.ts';

const golden = JSON.parse(readFileSync(path.join(demo, 'golden.json'), 'utf8')) as { prompt_ids: number[] };

describe('files that bitnet-run writes', () => {
  const cli = useCli();
  const models = useModels(cli);

  describe('--logits', () => {
    const tokens = ['--tokens', golden.prompt_ids.join(','), '-n', '0'];

    it('every prompt position, as the golden file has them', async () => {
      const file = cli.path('golden.f32');
      await cli.ok('run', [...tokens, '--kv', 'f32', '--logits', file]);
      assert.ok(largestDifference(readFloats(file), readFloats(path.join(demo, 'golden.logits.f32'))) <= 2e-4);
    });

    long('more positions than one batch; other texts of the run are the same with it', async () => {
      const ids = Array.from({ length: 150 }, (_, i) => i % 200);
      const file = cli.path('long.f32');
      const args = [models.gguf, '--tokens', ids.join(','), '-n', '6', '--greedy', '--ctx', '200', '--quiet'];
      const [plain, with_] = await Promise.all([cli.ok('run', args), cli.ok('run', [...args, '--logits', file])]);
      assert.equal(with_, plain);
      assert.equal(statSync(file).size, 150 * shape.vocabulary * 4);
      const last = readFloats(file).subarray(149 * shape.vocabulary);
      const first = (await cli.json('run', args)).tokens[0];
      assert.equal(last.indexOf(Math.max(...last)), first);
    });

    it('an existing file is replaced, which is said', async () => {
      const file = cli.path('there.f32');
      writeFileSync(file, '');
      const { code, stderr } = await cli.run('run', [...tokens, '--quiet', '--logits', file]);
      assert.equal(code, 0);
      assert.equal(stderr, `bitnet-run: replaced ${file}\n`);
      assert.equal(statSync(file).size, golden.prompt_ids.length * 4096 * 4);
    });

    it('a failure leaves the old file and nothing else', async () => {
      const folder = cli.path('kept');
      const file = path.join(folder, 'logits');
      mkdirSync(folder);
      writeFileSync(file, 'old');
      const { code } = await cli.run('run', [models.gguf, '--tokens', '1,9999', '-n', '0', '--logits', file]);
      assert.equal(code, 1);
      assert.deepEqual(readdirSync(folder), ['logits']);
      assert.equal(readFileSync(file, 'utf8'), 'old');
    });

    long('--kv i8, f16 and f32 differ a little', async () => {
      const of = async (kv: string) => {
        const file = cli.path(`${kv}.logits`);
        const object = await cli.json('run', [...tokens, '--kv', kv, '--logits', file]);
        assert.equal(object.kv, kv);
        return readFloats(file);
      };
      const exact = await of('f32');
      for (const [kv, most] of [
        ['f16', 0.2],
        ['i8', 0.6],
      ] as const) {
        const difference = largestDifference(await of(kv), exact);
        assert.ok(difference > 0 && difference < most, `${kv}: ${difference}`);
      }
    });
  });

  describe('the cache', () => {
    it('--cache list and clear', async () => {
      const env = { XDG_CACHE_HOME: cli.path('cleared') };
      assert.match(await cli.ok('run', ['--cache', 'list'], { env }), /^0 entries, 0\.0 MB\n$/);
      await cli.ok('run', [models.gguf, '--tokens', '1', '-n', '1'], { env });
      const [text, entries] = await Promise.all([
        cli.ok('run', ['--cache', 'list'], { env }),
        cli.json('run', ['--cache', 'list'], { env }),
      ]);
      assert.match(text, /^4 entries, [\d.]+ MB$/m);
      assert.deepEqual(
        entries.map((e: { kind: string; path: string }) => [e.kind, path.basename(path.dirname(e.path))]),
        [
          ['builds', 'builds'],
          ['weights', 'weights'],
          ['records', 'bitnet-gen'],
          ['records', 'bitnet-gen'],
        ],
      );
      for (const [i, entry] of entries.entries())
        assert.ok(entry.bytes > (i < 2 ? 10000 : 100) && text.includes(entry.path));
      assert.equal(entries[1].model, models.gguf);
      assert.ok(text.includes(`${entries[1].path}  of ${models.gguf}\n`));
      assert.match(await cli.ok('run', ['--cache', 'clear'], { env }), /^removed 4 entries/m);
      for (const entry of entries) assert.equal(existsSync(entry.path), false);
      assert.match(await cli.ok('run', ['--cache', 'list'], { env }), /^0 entries, 0\.0 MB\n$/);
    });

    it('--verify says that all is well, and mends what is not', async () => {
      const first = await cli.ok('run', [models.gguf, '--verify']);
      const [build, weights] = [...first.matchAll(/^(?:OK|compiled|packed): (.*)$/gm)].map((m) => m[1]!);
      assert.equal(await cli.ok('run', [models.gguf, '--verify']), `OK: ${build}\nOK: ${weights}\n`);
      truncateSync(path.join(build!, 'libbitnet.so'), 20_000);
      truncateSync(weights!, 20_000);
      const { code, stdout, stderr } = await cli.run('run', [models.gguf, '--verify']);
      assert.deepEqual([code, stdout], [0, `compiled: ${build}\npacked: ${weights}\n`]);
      assert.match(
        stderr,
        /^bitnet-run: the build '.*' in the cache is damaged: 'libbitnet\.so' differs from its checksum; it is made anew$/m,
      );
      assert.match(
        stderr,
        /^bitnet-run: packed weights in the cache are damaged: .*its size is wrong; they are packed anew$/m,
      );
      const verified = { model: models.gguf, build, weights, compiled: false, packed: false };
      assert.deepEqual(await cli.json('run', [models.gguf, '--verify']), verified);
    });

    it('a library cut short does not end the next run', async () => {
      const args = [models.gguf, '--tokens', '1', '-n', '4', '--greedy', '--quiet'];
      const text = await cli.ok('run', args);
      for (const name of readdirSync(cli.cache('builds')))
        truncateSync(path.join(cli.cache('builds', name), 'libbitnet.so'), 20_000);
      assert.equal(await cli.ok('run', args), text);
    });

    long('a model that changed is packed anew', async () => {
      const file = cli.path('changing.gguf');
      const write = (seed: number) =>
        writeGguf(file, randomModel(shape, seed), { arch: 'bitnet-b1.58', weights: 'i2_s', embedding: 'bf16' });
      const text = () => cli.ok('run', [file, '-p', 'in the', '-n', '12', '--greedy', '--quiet']);
      write(1);
      const before_ = await text();
      write(2);
      const after_ = await text();
      assert.notEqual(after_, before_);
      assert.equal(await text(), after_);
    });

    it('never beside the model', () => {
      assert.deepEqual(readdirSync(models.folder).sort(), ['config.json', 'model.safetensors']);
    });
  });
});
