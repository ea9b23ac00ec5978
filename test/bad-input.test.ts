/**
 * Bad input through the command-line programs: one clear line on stderr that names the value and what to do, the right exit
 * code, and nothing left behind. Model files that cannot be used are in bad-models.test.ts.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { findCompiler, hostFamily } from '../codegen/compile.ts';
import { isas } from '../codegen/isa/index.ts';
import { shape, useModels } from './cli-models.ts';
import { skip } from './fixtures.ts';
import { commandOf, type ProgramName, snapshot, useCli } from './run-cli.ts';
import { long, some } from './tier.ts';
import { writeGguf } from './write-gguf.ts';
import { randomModel, smallShape } from './write-model.ts';

describe('bad input', () => {
  const cli = useCli();
  const models = useModels(cli);
  const once = ['--tokens', '1', '-n', '1'];

  before(async () => {
    // Compiles once for all tests below; both formats have the same shape and name, hence the same build.
    await cli.ok('run', [models.gguf, ...once]);
    await cli.ok('run', [models.folder, ...once]);
    assert.equal(readdirSync(cli.cache('builds')).length, 1);
  });

  /** A compiler made of shell commands; "$@" are its arguments. */
  function compiler(name: string, script: string): string {
    const file = cli.path(name);
    writeFileSync(file, `#!/bin/sh\n${script}\n`);
    chmodSync(file, 0o755);
    return file;
  }

  describe('targets and compilers', () => {
    it('an unknown target', async () => {
      const unknown = (program: ProgramName, ...args: string[]) =>
        cli.refuses(program, [models.gguf, '--target', 'mmx', ...args], 1, [
          /'mmx'/,
          new RegExp(`known targets: ${Object.keys(isas).join(', ')}, native`),
        ]);
      await Promise.all([unknown('run', ...once), unknown('gen'), unknown('tune')]);
    });

    it('a target that this CPU lacks', async () => {
      const [target, family] = process.arch === 'arm64' ? ['avx2', 'x64'] : ['neon', 'arm64'];
      const says = [new RegExp(`'${target}'`), new RegExp(`an ${family} processor`)];
      await Promise.all([
        cli.refuses('run', [models.gguf, ...once, '--target', target!], 1, [...says, /--target native/]),
        cli.refuses('tune', [models.gguf, '--target', target!], 1, says),
      ]);
    });

    it('no compiler on the machine', async () => {
      // What was built before needs none.
      const env = { PATH: cli.path('empty'), BITNET_CC: undefined, CC: undefined, XDG_CACHE_HOME: cli.path('empty') };
      mkdirSync(env.PATH, { recursive: true });
      const without = (program: ProgramName, ...args: string[]) =>
        cli.refuses(program, [models.gguf, ...args], 1, [/no working C compiler/, /install/, /--cc/], { env });
      await Promise.all([without('run', ...once), without('gen', '--out', cli.path('out')), without('tune')]);
      assert.equal(snapshot(cli.path('out')), 'nothing');
    });

    it('a compiler that is not there, by --cc and by BITNET_CC', async () => {
      const env = { BITNET_CC: 'other-cc' };
      await Promise.all([
        cli.refuses('run', [models.gguf, ...once, '--cc', 'no-such-cc'], 1, [/no-such-cc: not found/, /install/]),
        cli.refuses('gen', [models.gguf, '--out', cli.path('out')], 1, [/other-cc: not found/, /install/], { env }),
      ]);
      assert.equal(snapshot(cli.path('out')), 'nothing');
    });

    it('a compiler that always fails', async () => {
      const broken = compiler('broken-cc', 'exit 1');
      const unable = compiler('unable-cc', '[ "$1" = --version ] && { echo cc 1.2.3; exit; }\nexit 1');
      await Promise.all([
        cli.refuses('run', [models.gguf, ...once, '--cc', broken], 1, [/broken-cc: --version fails/, /install/]),
        cli.refuses('run', [models.gguf, ...once, '--cc', unable], 1, [
          /unable-cc: it cannot compile a small program/,
          /install/,
        ]),
      ]);
    });

    it('a compiler whose programs crash', () => {
      const crashing = compiler(
        'crashing-cc',
        '[ "$1" = --version ] && { echo cc 1.2.3; exit; }\nprintf "#!/bin/sh\\nkill -SEGV \\$\\$\\n" > probe\nchmod +x probe',
      );
      return cli.refuses('run', [models.gguf, ...once, '--cc', crashing], 1, [/crashing-cc: its programs do not run/]);
    });

    long('a compiler that fails on generated code: its first error, and no half build', async () => {
      const real = (await findCompiler(hostFamily)).command.join(' ');
      const flawed = compiler(
        'flawed-cc',
        `case "$*" in *model.c*) echo "model.c:1: error: out of ideas" >&2; exit 1;; esac\nexec ${real} "$@"`,
      );
      // The probe is remembered in the cache: that is no change to speak of.
      const generated = await cli.run('gen', [models.gguf, '--cc', flawed, '--out', cli.path('out')]);
      assert.equal(generated.code, 1);
      const says = [/failed on model\.c: model\.c:1: error: out of ideas/];
      await cli.refuses('run', [models.gguf, ...once, '--cc', flawed], 1, says);
      assert.equal(snapshot(cli.path('out')), 'nothing');
      assert.equal(readdirSync(cli.cache('builds')).length, 1);
    });
  });

  describe('prompts and sizes', () => {
    it('a prompt longer than the context', () =>
      cli.refuses('run', [models.gguf, '--tokens', '1,2,3,4,5', '--ctx', '4', '-n', '10'], 1, [
        /prompt has 5 tokens/,
        /holds 4/,
        /--ctx 15/,
      ]));

    it('a token id outside the vocabulary', () =>
      cli.refuses('run', [models.gguf, '--tokens', `1,${shape.vocabulary},2`, '-n', '1'], 1, [
        /token 301/,
        /vocabulary of 301/,
      ]));

    it('a prompt as text for a model without a tokenizer', () =>
      cli.refuses('run', [models.folder, 'Hello', '-n', '1'], 1, [
        /small has no tokenizer: the folder holds no tokenizer\.json; download it, or give .* --tokens/,
      ]));

    it('an empty prompt: the start token alone, or an error where there is none', async () => {
      assert.equal((await cli.json('run', [models.gguf, '-p', '', '-n', '1'])).prompt_tokens, 1);
      const file = models.changedGguf('no-bos.gguf', (bytes) => {
        const key = 'tokenizer.ggml.add_bos_token';
        bytes.writeUInt8(0, bytes.indexOf(key) + key.length + 4);
      });
      // Packs the weights of this file first: what is packed is whole.
      await cli.ok('run', [file, ...once]);
      await cli.refuses('run', [file, '-p', '', '-n', '1'], 2, [/prompt is empty/, /give a text/]);
    });

    it('not enough memory for the context: which would fit', async () => {
      // 4 layers x 64 heads x 256 numbers of 4 bytes: a quarter of a megabyte for each position.
      const large = cli.path('large.gguf');
      const sizes = { name: 'large', hidden: 128, layers: 4, heads: 64, kvHeads: 64, headSize: 128, intermediate: 128 };
      writeGguf(large, randomModel(smallShape(sizes), 2), { arch: 'bitnet-b1.58', weights: 'i2_s' });
      const outcome = await cli.run('run', [large, ...once, '--ctx', '1048576', '--kv', 'f32']);
      await cli.refuses('run', [large, ...once, '--ctx', '1048576', '--kv', 'f32'], 1, [
        /context of 1048576 tokens needs \d+ MB/,
        /--ctx \d+ would fit/,
      ]);
      const fits = Number(/--ctx (\d+) would fit/.exec(outcome.stderr)?.[1]);
      assert.ok(fits > 100 && fits < 1048576, outcome.stderr);
    });
  });

  describe('wrong usage: exit code 2', () => {
    const cases: readonly (readonly [ProgramName, readonly string[], RegExp])[] = [
      ['run', ['--threads', '0'], /'0'.*whole number from 1/],
      ['run', ['--threads', 'two'], /'two'.*whole number/],
      ['run', ['-n', '-2'], /-2/],
      ['run', ['--ctx', '-1'], /'-1'.*whole number from 0/],
      ['run', ['-ngl', '99'], /-ngl.*CPU; leave it out/],
      ['run', ['a', 'b', '-m', 'c'], /'a' and by --model 'c'/],
      ['run', ['--kv', 'f64'], /'f64'.*i8, f16, f32/],
      ['run', ['--temp', 'hot'], /'hot'.*number/],
      ['run', ['--top-p', '0'], /topP/],
      ['run', ['--stop', ''], /--stop is empty/],
      ['run', ['--tokens', '1,x'], /'x' is not a token id/],
      ['run', ['--tokens', ''], /'' is not a token id/],
      ['run', ['--tokens', '1', '-p', 'text'], /--tokens is the prompt/],
      ['run', ['a', 'b', '-p', 'c'], /several prompts/],
      ['run', ['--unknown'], /'--unknown'; see bitnet-run --help/],
      ['run', ['--treads', '2'], /'--treads' \(Did you mean --threads\?\)/],
      ['run', ['a', 'b', 'c'], /too many arguments/],
      ['run', ['--cache', 'burn'], /'burn'.*list, clear/],
      ['run', ['-f', '/no/such/prompt'], /there is no prompt file '\/no\/such\/prompt'/],
      ['run', ['--logits', '/no/such/folder/x', ...once], /'\/no\/such\/folder\/x'.*folder/],
      ['run', ['--logits', '/dev/null', ...once], /'\/dev\/null' is not an ordinary file/],
      ['gen', ['--unknown'], /--unknown/],
      ['gen', ['--dump', 'all'], /'all'.*plan, program, c/],
      ['gen', ['--target', 'scalar', '--cpu', 'x.json'], /not both/],
      ['tune', ['--budget', '10'], /'10'.*a time of a second or more, like 90s, 5m or 1h/],
    ];
    it(`${cases.length} command lines`, async () => {
      await Promise.all(some(cases, 9).map(([program, args, says]) => cli.refuses(program, args, 2, [says])));
    });

    it('there is no prompt', () => cli.refuses('run', [models.gguf], 2, [/no prompt/, /--prompt/]));

    it('the prompt stands where the model should', () =>
      cli.refuses('run', ['A bird sings'], 1, [/no model 'A bird sings'/, /demo model.*--prompt/]));
  });

  describe('standard output', () => {
    const toFull = (args: readonly string[]) => {
      const [command, ...rest] = commandOf('run', args);
      const full = openSync('/dev/full', 'w');
      const env = { ...process.env, ...cli.environment() };
      const { status, stderr } = spawnSync(command, rest, { env, stdio: ['ignore', full, 'pipe'], encoding: 'utf8' });
      closeSync(full);
      return [status, stderr];
    };

    it('has no room: one line, exit code 1', function () {
      if (!existsSync('/dev/full')) skip(this, 'there is no /dev/full');
      const line = 'bitnet-run: cannot write to standard output: ENOSPC: no space left on device, write\n';
      assert.deepEqual(toFull(['--info']), [1, line]);
    });

    long('has no room while a text is generated: it ends there', function () {
      if (!existsSync('/dev/full')) skip(this, 'there is no /dev/full');
      const [code, stderr] = toFull([models.gguf, '--tokens', '1', '-n', '-1', '--ctx', '100000']);
      assert.equal(code, 1);
      assert.match(
        String(stderr),
        /^bitnet-run: the model was trained [^\n]*\nbitnet-run: cannot write to standard output: [^\n]*\n$/,
      );
    });
  });

  describe('folders', () => {
    /** With a file system of its own at a folder. */
    async function mounted(context: Mocha.Context, name: string, options: string, use: (at: string) => Promise<void>) {
      const at = cli.path(name);
      mkdirSync(at);
      if (spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'none', at]).status !== 0)
        skip(context, 'a file system cannot be mounted here');
      try {
        await use(at);
      } finally {
        spawnSync('umount', [at]);
      }
    }
    const noexec = (at: string, fix: string) =>
      new RegExp(`'${at}' is mounted noexec, so nothing in it can be run; set ${fix} to another folder`);

    long('for temporary files, from which nothing can be run', function () {
      return mounted(this, 'noexec-tmp', 'noexec', (at) =>
        cli.refuses('run', [...once], 1, [/cannot try a C compiler/, noexec(at, 'TMPDIR')], {
          env: { TMPDIR: at, XDG_CACHE_HOME: cli.path('other') },
        }),
      );
    });

    long('for temporary files, that are full, read-only or not there', async function () {
      const refuses = (at: string, ...says: RegExp[]) =>
        cli.refuses('run', [...once], 1, [new RegExp(at), ...says, /set TMPDIR to another folder/], {
          env: { TMPDIR: at, XDG_CACHE_HOME: cli.path('other') },
        });
      await mounted(this, 'full-tmp', 'size=4k', (at) => {
        spawnSync('dd', ['if=/dev/zero', `of=${at}/ballast`]);
        return refuses(at, /no space left/, /make room there/);
      });
      await mounted(this, 'read-only-tmp', 'ro', (at) => refuses(at, /is read-only/));
      await refuses(cli.path('nowhere'), /no such file/);
    });

    long('for the cache, from which no library can be loaded', function () {
      return mounted(this, 'noexec-cache', 'noexec', async (at) => {
        cpSync(cli.cache(), path.join(at, 'bitnet-gen'), { recursive: true });
        for (const build of readdirSync(cli.cache('builds')))
          rmSync(path.join(at, 'bitnet-gen', 'builds', build, 'tried'));
        const says = [/cannot load the library '.*': failed to map segment/, noexec(at, 'XDG_CACHE_HOME')];
        await cli.refuses('run', [models.gguf, ...once], 1, says, { env: { XDG_CACHE_HOME: at } });
      });
    });

    long('for the cache, that are read-only', function () {
      return mounted(this, 'read-only-cache', 'ro', async (at) => {
        const says = [new RegExp(`'${at}' is read-only; set XDG_CACHE_HOME to another folder`)];
        await cli.refuses('run', [models.gguf, ...once], 1, says, { env: { XDG_CACHE_HOME: at } });
        await cli.refuses('tune', [models.gguf], 1, says, { env: { XDG_CACHE_HOME: at } });
      });
    });

    long('for logits, that are full', function () {
      return mounted(this, 'full-logits', 'size=4k', async (at) => {
        const says = [/--logits: cannot write to '.*logits.f32': ENOSPC/, /make room there, or choose another folder/];
        const args = [models.gguf, '--tokens', '1,2,3,4,5', '-n', '0', '--logits', path.join(at, 'logits.f32')];
        await cli.refuses('run', args, 2, says);
        assert.deepEqual(readdirSync(at), []);
      });
    });

    long('of another user, and a user without a home', async function () {
      const nobody = ['--reuid=54321', '--regid=54321', '--clear-groups'];
      const [command, ...args] = commandOf('run', ['--cache', 'list']);
      const env = { ...cli.environment(), XDG_CACHE_HOME: undefined };
      const asNobody = (home: string | undefined, ...more: string[]) =>
        execa('setpriv', [...nobody, command, ...args.slice(0, 1), ...more], {
          env: { ...env, HOME: home },
          reject: false,
          stdin: 'ignore',
        });
      if ((await asNobody('/', '--version')).exitCode !== 0) skip(this, 'another user cannot run node here');
      const homeless = await asNobody(undefined, '--cache', 'list');
      assert.deepEqual([homeless.exitCode, homeless.stdout], [2, '']);
      assert.match(homeless.stderr, /^bitnet-run: HOME names no folder, and user 54321 has none.*; set XDG_CACHE_HOME/);
      const stranger = await asNobody('/nonexistent', '-n', '1');
      assert.equal(stranger.exitCode, 1);
      const says =
        /^bitnet-run: cannot write to '\/nonexistent\/.*': '\/' belongs to user 0, and this is user 54321; set XDG_CACHE_HOME/;
      assert.match(stranger.stderr, says);
    });
  });

  describe('the cache folder', () => {
    it('cannot be created: a file is in its place', async () => {
      const file = cli.path('not-a-folder');
      writeFileSync(file, 'mine');
      await cli.refuses('run', [models.gguf, ...once], 1, [/not-a-folder/, /XDG_CACHE_HOME/], {
        env: { XDG_CACHE_HOME: file },
      });
      assert.equal(readFileSync(file, 'utf8'), 'mine');
    });

    long('is full: nothing half written stays in it', async function () {
      const full = cli.path('full');
      mkdirSync(full);
      const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=100k', 'none', full], { encoding: 'utf8' });
      if (mounted.status !== 0) skip(this, 'a small file system cannot be mounted here');
      try {
        const env = { XDG_CACHE_HOME: full };
        await cli.refuses('run', [models.gguf, ...once], 1, [/no space left/i, /XDG_CACHE_HOME/], { env });
        assert.deepEqual(readdirSync(path.join(full, 'bitnet-gen', 'builds')), []);
        // With the library there, but no room for the weights.
        spawnSync('mount', ['-o', 'remount,size=2m', full]);
        cpSync(cli.cache('builds'), path.join(full, 'bitnet-gen', 'builds'), { recursive: true });
        const { bavail, bsize } = statfsSync(full);
        writeFileSync(path.join(full, 'ballast'), Buffer.alloc(bavail * bsize - 65536));
        await cli.refuses('run', [models.gguf, ...once], 1, [/packed weights need \d+ MB/, /free/, /XDG_CACHE_HOME/], {
          env,
        });
        assert.deepEqual(readdirSync(path.join(full, 'bitnet-gen', 'weights')), []);
      } finally {
        spawnSync('umount', [full]);
      }
    });

    long('a damaged weights file is packed anew', async () => {
      const weights = cli.cache('weights');
      const logits = async () => {
        await cli.ok('run', [models.gguf, '--tokens', '1,2,3', '-n', '0', '--logits', cli.path('logits')]);
        const bytes = readFileSync(cli.path('logits'));
        rmSync(cli.path('logits'));
        return bytes;
      };
      const expected = await logits();
      const names = readdirSync(weights);
      for (const name of names) {
        const bytes = readFileSync(path.join(weights, name));
        bytes[bytes.length >> 1]! ^= 1;
        writeFileSync(path.join(weights, name), bytes);
      }
      assert.ok((await logits()).equals(expected));
      for (const name of names) truncateSync(path.join(weights, name), 1000);
      assert.ok((await logits()).equals(expected));
      assert.deepEqual(readdirSync(weights), names);
    });
  });

  long('two processes that build and pack the same at once', async () => {
    const env = { XDG_CACHE_HOME: cli.path('shared') };
    const texts = await Promise.all(
      [1, 2].map(() => cli.ok('run', [models.gguf, '-p', 'in the', '-n', '8', '--greedy', '--quiet'], { env })),
    );
    assert.equal(texts[0], texts[1]);
    const cache = path.join(env.XDG_CACHE_HOME, 'bitnet-gen');
    assert.equal(readdirSync(path.join(cache, 'builds')).length, 1);
    assert.equal(readdirSync(path.join(cache, 'weights')).length, 1);
  });
});
