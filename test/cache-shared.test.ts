/** A cache that several share: threads and processes at once, someone who clears it, users who may only read it, and no compiler. */
import { strict as assert } from 'node:assert';
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { asideOf } from '../schemas/aside.ts';
import { shape, useModels } from './cli-models.ts';
import { skip } from './fixtures.ts';
import { commandOf, snapshot, useCli } from './run-cli.ts';
import { compiledRoot } from './setup.ts';
import { long } from './tier.ts';

describe('a shared cache', () => {
  const cli = useCli();
  const models = useModels(cli);
  const ask = ['-p', 'in the', '-n', '8', '--greedy', '--quiet'];
  const withoutCompiler = { PATH: '/nowhere', CC: undefined, BITNET_CC: undefined };
  let text = '';

  before(async () => {
    text = await cli.ok('run', [models.gguf, ...ask]);
    assert.ok(text.trim().length > 1);
  });

  describe('without a compiler', () => {
    it('what was built and packed before runs, and changes nothing in the cache', async () => {
      const before_ = snapshot(cli.cache());
      assert.equal(await cli.ok('run', [models.gguf, ...ask], { env: withoutCompiler }), text);
      assert.equal(snapshot(cli.cache()), before_);
    });

    it('also on other numbers of threads than it was built for', async () => {
      for (const threads of ['1', '3'])
        assert.equal(await cli.ok('run', [models.gguf, ...ask, '-t', threads], { env: withoutCompiler }), text);
    });

    it('a copy of the model elsewhere', async () => {
      const copy = models.changedGguf('copy.gguf', () => {});
      assert.equal(await cli.ok('run', [copy, ...ask], { env: withoutCompiler }), text);
    });

    it('--info and --verify work', async () => {
      const [info, verified] = await Promise.all(
        ['--info', '--verify'].map((option) => cli.json('run', [models.gguf, option], { env: withoutCompiler })),
      );
      assert.ok(info.packedBytes > 0 && Object.keys(info.kernels).length > 0);
      assert.deepEqual([verified.compiled, verified.packed], [false, false]);
    });

    it('what was not built is an error that says what to install', async () => {
      const outcome = await cli.run('run', [models.gguf, ...ask, '--packing', 'p2'], { env: withoutCompiler });
      assert.equal(outcome.code, 1);
      assert.match(outcome.stderr, /no working C compiler.*install/);
    });
  });

  describe('of root', () => {
    /** Runs as another user. */
    const asNobody = (args: readonly string[], env: Record<string, string>) =>
      execa(
        'setpriv',
        ['--reuid=4321', '--regid=4321', '--clear-groups', 'env', 'PATH=/nowhere', ...commandOf('run', args)],
        {
          env: { HOME: '/nowhere', CC: undefined, BITNET_CC: undefined, ...env },
          reject: false,
          stripFinalNewline: false,
          stdin: 'ignore',
        },
      );
    before(async function () {
      const tried = await execa('setpriv', ['--reuid=4321', process.execPath, compiledRoot], { reject: false });
      if (/setpriv:|ENOENT/.test(`${tried.stderr}${tried.shortMessage}`)) skip(this, `setpriv: ${tried.shortMessage}`);
      if (/EACCES/.test(tried.stderr)) skip(this, `another user cannot read ${compiledRoot}`);
      chmodSync(cli.path(), 0o755);
    });

    it('another user runs what was built and packed in it', async () => {
      const before_ = snapshot(cli.cache());
      const { stdout, stderr, exitCode } = await asNobody([models.gguf, ...ask], cli.environment());
      assert.deepEqual([stdout, stderr, exitCode], [text, '', 0]);
      assert.equal(snapshot(cli.cache()), before_);
    });

    it('another user is told where packed weights cannot be written', async () => {
      const { stderr, exitCode } = await asNobody([models.folder, '--tokens', '1'], cli.environment());
      assert.equal(exitCode, 1);
      assert.match(
        stderr,
        /^bitnet-run: cannot create '.*': Permission denied; make room there, or set XDG_CACHE_HOME/,
      );
    });

    it('a library that another user left where everyone may write is not loaded', async () => {
      const home = cli.path('open');
      const copied = await execa('cp', ['-a', cli.path('cache'), home], { reject: false });
      assert.equal(copied.exitCode, 0);
      const planted = path.join(home, 'bitnet-gen');
      chmodSync(planted, 0o777);
      const env = { XDG_CACHE_HOME: home };
      const refused = await cli.run('run', [models.gguf, ...ask], { env });
      assert.deepEqual([refused.code, refused.stdout], [1, '']);
      assert.ok(refused.stderr.startsWith(`bitnet-run: '${planted}' can be changed by everyone (mode 0777): `));
      // And after its modes were mended, the other user's files still are not used.
      await execa('chown', ['-R', '4321', path.join(planted, 'builds')]);
      await execa('chmod', ['-R', 'go-w', planted]);
      const still = await cli.run('run', [models.gguf, ...ask], { env });
      assert.equal(still.code, 1);
      assert.match(still.stderr, /^bitnet-run: '.*\/builds[^']*' belongs to user 4321, and you are user 0: /);
    });
  });

  describe('at once', () => {
    /** Loads models in worker threads, all at the same moment. @returns the files of packed weights */
    async function inWorkers(paths: readonly string[], home: string): Promise<{ weights: string; token: number }[]> {
      const script = `
        const { Worker } = require('node:worker_threads');
        const work = \`
          const { parentPort, workerData } = require('node:worker_threads');
          parentPort.once('message', async () => {
            const { load } = await import(\${JSON.stringify(process.argv[1])});
            const { engine, weights } = await load(workerData, { threads: 1, context: 16 });
            const logits = engine.step(7);
            parentPort.postMessage({ weights, token: logits.indexOf(Math.max(...logits)) });
            engine.dispose();
          });\`;
        const workers = process.argv.slice(2).map((workerData) => new Worker(work, { eval: true, workerData }));
        for (const worker of workers) worker.on('error', (error) => { throw error; });
        const answers = workers.map((worker) => new Promise((resolve) => worker.on('message', resolve)));
        for (const worker of workers) worker.postMessage('go');
        Promise.all(answers).then((all) => console.log(JSON.stringify(all)));`;
      const args = ['-e', script, path.join(compiledRoot, 'index.js'), ...paths];
      const { stdout } = await execa(process.execPath, args, { env: { XDG_CACHE_HOME: home } });
      return JSON.parse(stdout);
    }

    it('four worker threads pack one model, and another', async () => {
      for (const name of ['weights', 'models']) rmSync(cli.cache(name), { recursive: true, force: true });
      const loaded = await inWorkers([models.gguf, models.gguf, models.gguf, models.folder], cli.path('cache'));
      assert.equal(new Set(loaded.map(({ token }) => token)).size, 1);
      const files = new Set(loaded.map(({ weights }) => weights));
      assert.equal(files.size, 2);
      assert.deepEqual(readdirSync(cli.cache('weights')).sort(), [...files].map((file) => path.basename(file)).sort());
    });

    long('four worker threads build and pack in an empty cache', async () => {
      const home = cli.path('empty');
      const loaded = await inWorkers([models.gguf, models.gguf, models.gguf, models.gguf], home);
      assert.equal(new Set(loaded.map(({ weights }) => weights)).size, 1);
      for (const name of ['builds', 'weights', 'models', 'requests'])
        assert.equal(readdirSync(path.join(home, 'bitnet-gen', name)).length, 1, name);
    });

    it('a build that is removed before it is loaded is made again', async () => {
      const script = `
        const { rmSync } = await import('node:fs');
        const { load } = await import(process.argv[1]);
        let times = 0;
        const root = process.argv[3];
        // Asked after the build was found, and before it is loaded.
        const signal = Object.assign(new AbortController().signal, {
          throwIfAborted: () => times++ || rmSync(root, { recursive: true }),
        });
        const { engine } = await load(process.argv[2], { threads: 1, context: 16, signal });
        console.log(times > 0 && engine.step(7).length);`;
      const home = cli.path('removed');
      assert.equal((await execa('cp', ['-a', cli.path('cache'), home])).exitCode, 0);
      const args = ['--input-type=module', '-e', script, path.join(compiledRoot, 'index.js'), models.gguf];
      const builds = path.join(home, 'bitnet-gen', 'builds');
      const { stdout } = await execa(process.execPath, [...args, builds], { env: { XDG_CACHE_HOME: home } });
      assert.equal(stdout, String(shape.vocabulary));
      assert.equal(readdirSync(builds).length, 1);
    });

    it('--cache clear leaves what someone is making, and takes what a killed process left', async () => {
      const env = { XDG_CACHE_HOME: cli.path('asides') };
      const root = path.join(cli.path('asides'), 'bitnet-gen');
      const live = ['builds/0123', 'weights/a.bnw', 'bench/model/model.safetensors'].map((name) => {
        mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
        return asideOf(path.join(root, name));
      });
      // Of this boot and process namespace, and no process has this number.
      const dead = live.map((file) => file.replace(`-${process.pid}-`, '-4194305-'));
      mkdirSync(path.join(live[0]!, 'src'), { recursive: true });
      mkdirSync(path.join(dead[0]!, 'src'), { recursive: true });
      for (const file of [...live.slice(1), ...dead.slice(1)]) writeFileSync(file, 'half');
      const listed = await cli.json('run', ['--cache', 'list'], { env });
      const unfinished = listed.filter(({ kind }: { kind: string }) => kind === 'unfinished');
      assert.deepEqual(
        unfinished.map((entry: { path: string }) => entry.path).sort(),
        [...live.slice(0, 2), ...dead.slice(0, 2)].sort(),
      );
      await cli.ok('run', ['--cache', 'clear'], { env });
      assert.deepEqual(live.map(existsSync), [true, true, true]);
      assert.deepEqual(dead.slice(0, 2).map(existsSync), [false, false]);
    });
  });
});
