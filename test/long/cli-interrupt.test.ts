/** Ctrl-C and other early ends of bitnet-run: what it still prints, its exit codes, and that nothing half done stays. */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { findCompiler, hostFamily } from '../../codegen/compile.ts';
import { useModels } from '../cli-models.ts';
import { commandOf, useCli } from '../run-cli.ts';

describe('interruption', () => {
  const cli = useCli();
  const models = useModels(cli);

  const endless = () => [models.gguf, '--tokens', '1', '--greedy', '-n', '1000000', '--ctx', '100000'];

  it('Ctrl-C while generating: partial text, statistics, exit code 130', async () => {
    const child = cli.start('run', endless());
    await new Promise((resolve) => child.stdout.once('data', resolve));
    await sleep(100);
    child.kill('SIGINT');
    const { exitCode, stdout, stderr } = await child;
    assert.equal(exitCode, 130, stderr);
    assert.ok(stdout.length > 10 && stdout.endsWith('\n'), stdout);
    assert.match(stderr, /stopped: interrupt\n$/);
    assert.doesNotMatch(stderr, /^\s+at /m);
  });

  it('with --json: the object says so', async () => {
    const child = cli.start('run', [...endless(), '--json', '--logits', cli.path('interrupted.f32')]);
    while (!existsSync(cli.path('interrupted.f32'))) await sleep(10);
    await sleep(100);
    child.kill('SIGINT');
    const { exitCode, stdout } = await child;
    const { stop_reason, tokens } = JSON.parse(stdout);
    assert.deepEqual([exitCode, stop_reason], [130, 'interrupt']);
    assert.ok(tokens.length > 0);
  });

  it('Ctrl-C while waiting for stdin', async () => {
    const [file, ...args] = commandOf('run', [models.gguf, '-f', '-']);
    // Long enough to have started; a program that has not ends in the same way, but with a signal.
    for (const ms of [1500, 5000, 15_000]) {
      const child = execa(file, args, { env: cli.environment(), reject: false });
      await sleep(ms);
      child.kill('SIGINT');
      const { exitCode, signal, stdout, stderr } = await child;
      if (signal && ms < 15_000) continue;
      assert.deepEqual([exitCode, stdout, stderr], [130, '', '']);
      break;
    }
  });

  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    it(`${signal} while compiling: no half build stays, and no compiler goes on`, async () => {
      const home = cli.path(signal);
      const builds = path.join(home, 'bitnet-gen', 'builds');
      // Compiles anew, and slowly.
      const { command } = await findCompiler(hostFamily);
      const cc = `sh ${slowCompiler()} ${command.join(' ')}`;
      const child = cli.start('run', [models.gguf, '--tokens', '1'], { env: { XDG_CACHE_HOME: home, BITNET_CC: cc } });
      const compiling = () => existsSync(builds) && readdirSync(builds).length > 0;
      while (!compiling() && child.exitCode === null) await sleep(10);
      await sleep(300);
      child.kill(signal);
      const { exitCode, stdout, stderr, durationMs } = await child;
      assert.deepEqual([exitCode, stdout, stderr], [130, '', '']);
      assert.ok(durationMs < 20000);
      assert.deepEqual(readdirSync(builds), []);
    });

  /** Passes the probe, then takes a minute for every file. */
  function slowCompiler(): string {
    const file = cli.path('slow-cc');
    writeFileSync(file, 'case "$*" in *" -c "*) exec sleep 60;; esac\nexec "$@"\n');
    return file;
  }

  it('SIGTERM while a compiler hangs: the end comes soon, and at once the second time', async () => {
    const [hanging, mark] = [cli.path('hanging-cc'), cli.path('hanging')];
    writeFileSync(hanging, `#!/bin/sh\ntouch ${mark}\nexec sleep 60\n`, { mode: 0o755 });
    const outcome = async (signals: number) => {
      rmSync(mark, { force: true });
      const child = cli.start('run', [models.gguf, '--tokens', '1', '--cc', hanging]);
      while (!existsSync(mark) && child.exitCode === null) await sleep(10);
      const started = performance.now();
      for (let i = 0; i < signals; i++) {
        child.kill('SIGTERM');
        await sleep(200);
      }
      const { exitCode, stdout, stderr } = await child;
      assert.deepEqual([exitCode, stdout, stderr], [130, '', '']);
      return performance.now() - started;
    };
    assert.ok((await outcome(1)) < 10_000);
    assert.ok((await outcome(2)) < 2000);
  });

  it('a reader that has seen enough: a quiet end', async () => {
    const child = cli.start('run', [...endless(), '--quiet']);
    await new Promise((resolve) => child.stdout.once('data', resolve));
    child.stdout.destroy();
    const { exitCode, stderr } = await child;
    assert.deepEqual([exitCode, stderr], [0, '']);
  });
});
