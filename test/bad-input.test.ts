/**
 * Bad input through the command-line programs: one clear line on stderr that names the value and what to do, the right exit
 * code, and nothing left behind. The rules of the file formats have tests of their own (formats-*.test.ts).
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { skip } from './fixtures.ts';
import { type CliOptions, type ProgramName, snapshot, useCli } from './run-cli.ts';
import { writeGguf } from './write-gguf.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel, smallShape } from './write-model.ts';

const json = (file: string) => JSON.parse(readFileSync(file, 'utf8'));

describe('bad input', () => {
  const cli = useCli();
  const shape = smallShape({ layers: 1, context: 64 });
  let gguf = '';
  let folder = '';

  before(async () => {
    gguf = cli.path('small.gguf');
    folder = cli.path('small');
    writeGguf(gguf, randomModel(shape, 1), { arch: 'bitnet-b1.58', weights: 'i2_s', embedding: 'bf16' });
    writeHuggingFace(folder, randomModel(shape, 1), { weights: 'packed' });
    // Compiles once for all tests below; both files have the same shape and name, hence the same build.
    await cli.ok('run', [gguf, '--tokens', '1', '-n', '1']);
    await cli.ok('run', [folder, '--tokens', '1', '-n', '1']);
    assert.equal(readdirSync(cli.cache('builds')).length, 1);
  });

  /** The program must refuse: exit code, empty stdout, one line on stderr that says all of this, an unchanged cache. */
  async function refuses(
    program: ProgramName,
    args: readonly string[],
    code: 1 | 2,
    says: readonly RegExp[],
    options: CliOptions = {},
  ): Promise<void> {
    const before_ = snapshot(cli.cache());
    const outcome = await cli.run(program, args, options);
    assert.equal(outcome.code, code, outcome.stderr || outcome.stdout);
    assert.equal(outcome.stdout, '');
    assert.match(outcome.stderr, /^[^\n]+\n$/, 'not one line');
    if (code === 1) assert.ok(outcome.stderr.startsWith(`bitnet-${program}: `), outcome.stderr);
    assert.doesNotMatch(outcome.stderr, /^\s+at |node:|Error:|undefined|NaN|\[object/m);
    for (const pattern of says) assert.match(outcome.stderr, pattern);
    assert.equal(snapshot(cli.cache()), before_, 'the cache changed');
  }

  /** A copy of the GGUF file with changed bytes. */
  function changedGguf(name: string, change: (bytes: Buffer) => void): string {
    const file = cli.path(name);
    const bytes = readFileSync(gguf);
    change(bytes);
    writeFileSync(file, bytes);
    return file;
  }

  /** A copy of the Hugging Face folder with a changed safetensors header. */
  function changedFolder(name: string, change: (header: Record<string, { dtype: string; shape: number[] }>) => void) {
    const copy = cli.path(name);
    cpSync(folder, copy, { recursive: true });
    const file = path.join(copy, 'model.safetensors');
    const bytes = readFileSync(file);
    const length = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length));
    change(header);
    const text = Buffer.from(JSON.stringify(header));
    const start = Buffer.alloc(8);
    start.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(file, Buffer.concat([start, text, bytes.subarray(8 + length)]));
    return copy;
  }

  /** A copy of the Hugging Face folder with a changed config.json. */
  function changedConfig(name: string, change: Record<string, unknown>): string {
    const copy = cli.path(name);
    cpSync(folder, copy, { recursive: true });
    const file = path.join(copy, 'config.json');
    writeFileSync(file, JSON.stringify({ ...json(file), ...change }));
    return copy;
  }

  /** Overwrites the first occurrence of a text by one of the same length. */
  function overwrite(bytes: Buffer, from: string, to: string): void {
    const at = bytes.indexOf(from);
    assert.ok(at >= 0 && Buffer.byteLength(from) === Buffer.byteLength(to));
    bytes.write(to, at);
  }

  /** A compiler made of shell commands; "$@" are its arguments. */
  function compiler(name: string, script: string): string {
    const file = cli.path(name);
    writeFileSync(file, `#!/bin/sh\n${script}\n`);
    chmodSync(file, 0o755);
    return file;
  }

  const once = ['--tokens', '1', '-n', '1'];

  describe('model files', () => {
    it('a file that is not there', async () => {
      const missing = (program: ProgramName) =>
        refuses(program, [cli.path('nothing.gguf')], 1, [/nothing\.gguf/, /give a /], { input: 'x' });
      await Promise.all([missing('run'), missing('gen'), missing('tune')]);
    });

    it('a truncated GGUF file: in the data, in the header, empty', async () => {
      const cut = async (bytes: number, says: RegExp) => {
        const file = changedGguf(`cut-${bytes}.gguf`, () => {});
        truncateSync(file, bytes);
        await refuses('run', [file, ...once], 1, [/cut-\d+\.gguf/, says]);
      };
      await Promise.all([
        cut(readFileSync(gguf).length - 1000, /past the end of the file.*download it again/),
        cut(200, /184 bytes .*damaged or truncated/),
        cut(0, /not a GGUF file/),
      ]);
    });

    it('a truncated safetensors file: in the data, in the header', async () => {
      const cut = async (bytes: number) => {
        const copy = changedFolder(`cut-${bytes}`, () => {});
        truncateSync(path.join(copy, 'model.safetensors'), bytes);
        await refuses('run', [copy, ...once], 1, [/model\.safetensors/, /past the end of the file.*download it again/]);
      };
      await Promise.all([cut(300000), cut(100)]);
    });

    it('headers that lie about sizes', async () => {
      const counts = changedGguf('counts.gguf', (bytes) => bytes.writeBigUInt64LE(2n ** 63n, 8));
      const longKey = changedGguf('string.gguf', (bytes) => bytes.writeBigUInt64LE(2n ** 40n, 24));
      const copy = changedFolder('lying', (header) => {
        const offsets = header['model.norm.weight'] as unknown as { data_offsets: [number, number] };
        offsets.data_offsets = [2 ** 50, 2 ** 50 + 512];
      });
      const length = changedFolder('length', () => {});
      const file = path.join(length, 'model.safetensors');
      const bytes = readFileSync(file);
      bytes.writeBigUInt64LE(2n ** 63n);
      writeFileSync(file, bytes);
      await Promise.all([
        refuses('run', [counts, ...once], 1, [/counts\.gguf/, /9223372036854775808/]),
        refuses('run', [longKey, ...once], 1, [/string\.gguf/, /1099511627776/]),
        refuses('run', [copy, ...once], 1, [/model\.safetensors/, /'model\.norm\.weight'/, /past the end/]),
        refuses('run', [length, ...once], 1, [/model\.safetensors/, /9223372036854775808/]),
      ]);
    });

    it('a wrong dtype', () => {
      const copy = changedFolder('dtype', (header) => {
        header['model.layers.0.self_attn.q_proj.weight']!.dtype = 'I8';
      });
      return refuses('run', [copy, ...once], 1, [/q_proj\.weight'/, /I8/, /supported are U8/]);
    });

    it('a missing tensor', () => {
      const copy = changedFolder('missing', (header) => delete header['model.layers.0.mlp.up_proj.weight']);
      return refuses('run', [copy, ...once], 1, [/up_proj|ffn_up/, /missing|no packed matrix/]);
    });

    it('weights that do not fit the configuration', () =>
      refuses('run', [changedConfig('mismatch', { intermediate_size: 1024 }), ...once], 1, [
        /512/,
        /1024/,
        /together/,
      ]));

    it('an unknown architecture', async () => {
      const copy = changedConfig('mamba', { architectures: ['MambaForCausalLM'] });
      const file = changedGguf('mamba.gguf', (bytes) => overwrite(bytes, 'bitnet-b1.58', 'mamba-b1.58x'));
      await Promise.all([
        refuses('run', [copy, ...once], 1, [/"MambaForCausalLM"/, /known are .*BitNetForCausalLM/]),
        refuses('run', [file, ...once], 1, [/mamba-b1\.58x/, /known|supported/, /bitnet-b1\.58/]),
      ]);
    });

    it('TL1 and TL2 files: why they cannot be decoded, and what to use', async () => {
      const typed = (type: number, name: string) => {
        const file = changedGguf(`${name}.gguf`, (bytes) => {
          const tensor = 'blk.0.attn_q.weight';
          // name, u32 dimensions, two u64 sizes, u32 type
          bytes.writeUInt32LE(type, bytes.indexOf(tensor) + tensor.length + 4 + 16);
        });
        const says = [new RegExp(`type ${type} \\(${name}\\)`), /cannot be decoded/, /use an I2_S, TQ1_0 or TQ2_0/];
        return refuses('run', [file, ...once], 1, says);
      };
      await Promise.all([typed(38, 'TL1'), typed(39, 'TL2')]);
    });

    it('a shape file with a missing, a wrong and an unknown field', async () => {
      const generate = (name: string, text: string, says: RegExp) => {
        const file = cli.path(`${name}.json`);
        writeFileSync(file, text);
        return refuses('gen', [file, '--out', cli.path('out')], 1, [new RegExp(`${name}\\.json`), says]);
      };
      const changed = (change: Record<string, unknown>) => JSON.stringify({ ...shape, ...change });
      await Promise.all([
        generate('missing', changed({ hidden: undefined }), /hidden/),
        generate('wrong', changed({ heads: 'many' }), /heads must be integer/),
        generate('unknown', changed({ experts: 8 }), /experts/),
        generate('uneven', changed({ heads: 3 }), /3 heads are not a multiple of 2/),
        generate('broken', '{', /not JSON/),
      ]);
      assert.equal(snapshot(cli.path('out')), 'nothing');
    });
  });

  describe('targets and compilers', () => {
    it('an unknown target', async () => {
      const unknown = (program: ProgramName, ...args: string[]) =>
        refuses(program, [gguf, '--target', 'mmx', ...args], 1, [/'mmx'/, /avx512, avx2, neon, scalar, native/]);
      await Promise.all([unknown('run', ...once), unknown('gen'), unknown('tune')]);
    });

    it('a target that this CPU lacks', async () => {
      const [target, family] = process.arch === 'arm64' ? ['avx2', 'x64'] : ['neon', 'arm64'];
      const says = [new RegExp(`'${target}'`), new RegExp(`an ${family} processor`)];
      await Promise.all([
        refuses('run', [gguf, ...once, '--target', target!], 1, [...says, /--target native/]),
        refuses('tune', [gguf, '--target', target!], 1, says),
      ]);
    });

    it('no compiler on the machine', async () => {
      const env = { PATH: cli.path('empty'), BITNET_CC: undefined, CC: undefined };
      mkdirSync(env.PATH, { recursive: true });
      const without = (program: ProgramName, ...args: string[]) =>
        refuses(program, [gguf, ...args], 1, [/no working C compiler/, /install/, /--cc/], { env });
      await Promise.all([without('run', ...once), without('gen', '--out', cli.path('out')), without('tune')]);
      assert.equal(snapshot(cli.path('out')), 'nothing');
    });

    it('a compiler that is not there, by --cc and by BITNET_CC', async () => {
      const env = { BITNET_CC: 'other-cc' };
      await Promise.all([
        refuses('run', [gguf, ...once, '--cc', 'no-such-cc'], 1, [/no-such-cc: not found/, /install/]),
        refuses('gen', [gguf, '--out', cli.path('out')], 1, [/other-cc: not found/, /install/], { env }),
      ]);
      assert.equal(snapshot(cli.path('out')), 'nothing');
    });

    it('a compiler that always fails', async () => {
      const broken = compiler('broken-cc', 'exit 1');
      const unable = compiler('unable-cc', '[ "$1" = --version ] && { echo cc 1.2.3; exit; }\nexit 1');
      await Promise.all([
        refuses('run', [gguf, ...once, '--cc', broken], 1, [/broken-cc: --version fails/, /install/]),
        refuses('run', [gguf, ...once, '--cc', unable], 1, [/unable-cc: it cannot compile a small program/, /install/]),
      ]);
    });

    it('a compiler whose programs crash', () => {
      const crashing = compiler(
        'crashing-cc',
        '[ "$1" = --version ] && { echo cc 1.2.3; exit; }\nprintf "#!/bin/sh\\nkill -SEGV \\$\\$\\n" > probe\nchmod +x probe',
      );
      return refuses('run', [gguf, ...once, '--cc', crashing], 1, [/crashing-cc: its programs do not run/]);
    });

    it('a compiler that fails on generated code: its first error, and no half build', async () => {
      const real = cli.environment().BITNET_CC!;
      const flawed = compiler(
        'flawed-cc',
        `case "$*" in *model.c*) echo "model.c:1: error: out of ideas" >&2; exit 1;; esac\nexec ${real} "$@"`,
      );
      // The probe is remembered in the cache: that is no change to speak of.
      const generated = await cli.run('gen', [gguf, '--cc', flawed, '--out', cli.path('out')]);
      assert.equal(generated.code, 1);
      const says = [/failed on model\.c: model\.c:1: error: out of ideas/];
      await refuses('run', [gguf, ...once, '--cc', flawed], 1, says);
      assert.equal(snapshot(cli.path('out')), 'nothing');
      assert.equal(readdirSync(cli.cache('builds')).length, 1);
    });
  });

  describe('prompts and sizes', () => {
    it('a prompt longer than the context', () =>
      refuses('run', [gguf, '--tokens', '1,2,3,4,5', '--ctx', '4', '-n', '10'], 1, [
        /prompt has 5 tokens/,
        /holds 4/,
        /--ctx 15/,
      ]));

    it('a token id outside the vocabulary', () =>
      refuses('run', [gguf, '--tokens', `1,${shape.vocabulary},2`, '-n', '1'], 1, [/token 301/, /vocabulary of 301/]));

    it('a prompt as text for a model without a tokenizer', () =>
      refuses('run', [folder, 'Hello', '-n', '1'], 1, [/small has no tokenizer/, /--tokens/]));

    it('an empty prompt: the start token alone, or an error where there is none', async () => {
      assert.equal((await cli.json('run', [gguf, '-p', '', '-n', '1'])).prompt_tokens, 1);
      const file = changedGguf('no-bos.gguf', (bytes) => {
        const key = 'tokenizer.ggml.add_bos_token';
        bytes.writeUInt8(0, bytes.indexOf(key) + key.length + 4);
      });
      // Packs the weights of this file first: what is packed is whole.
      await cli.ok('run', [file, ...once]);
      await refuses('run', [file, '-p', '', '-n', '1'], 2, [/prompt is empty/, /give a text/]);
    });

    it('not enough memory for the context: which would fit', async () => {
      // 4 layers x 64 heads x 256 numbers of 4 bytes: a quarter of a megabyte for each position.
      const large = cli.path('large.gguf');
      const sizes = { name: 'large', hidden: 128, layers: 4, heads: 64, kvHeads: 64, headSize: 128, intermediate: 128 };
      writeGguf(large, randomModel(smallShape(sizes), 2), { arch: 'bitnet-b1.58', weights: 'i2_s' });
      const outcome = await cli.run('run', [large, ...once, '--ctx', '1048576', '--kv', 'f32']);
      await refuses('run', [large, ...once, '--ctx', '1048576', '--kv', 'f32'], 1, [
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
      ['run', ['-n', '-1'], /-1/],
      ['run', ['--ctx', '0'], /'0'.*whole number from 1/],
      ['run', ['--kv', 'f64'], /'f64'.*i8, f16, f32/],
      ['run', ['--temp', 'hot'], /'hot'.*number/],
      ['run', ['--top-p', '0'], /topP/],
      ['run', ['--stop', ''], /--stop is empty/],
      ['run', ['--tokens', '1,x'], /'x' is not a token id/],
      ['run', ['--tokens', ''], /'' is not a token id/],
      ['run', ['--tokens', '1', '-p', 'text'], /--tokens is the prompt/],
      ['run', ['a', 'b', '-p', 'c'], /several prompts/],
      ['run', ['--unknown'], /--unknown/],
      ['run', ['a', 'b', 'c'], /too many arguments/],
      ['run', ['--cache', 'burn'], /'burn'.*list, clear/],
      ['run', ['-f', '/no/such/prompt'], /cannot read the prompt file '\/no\/such\/prompt'/],
      ['run', ['--logits', '/no/such/folder/x', ...once], /'\/no\/such\/folder\/x'.*folder/],
      ['run', ['--logits', '/dev/null', ...once], /'\/dev\/null' is not an ordinary file/],
      ['gen', ['--unknown'], /--unknown/],
      ['gen', ['--dump', 'all'], /'all'.*plan, program, c/],
      ['gen', ['--target', 'scalar', '--cpu', 'x.json'], /not both/],
      ['tune', ['--rounds', '1'], /'1'.*whole number from 3/],
    ];
    it(`${cases.length} command lines`, async () => {
      await Promise.all(cases.map(([program, args, says]) => refuses(program, args, 2, [says])));
    });

    it('there is no prompt', () => refuses('run', [gguf], 2, [/no prompt/, /--prompt/]));
  });

  describe('the cache folder', () => {
    it('cannot be created: a file is in its place', async () => {
      const file = cli.path('not-a-folder');
      writeFileSync(file, 'mine');
      await refuses('run', [gguf, ...once], 1, [/not-a-folder/, /XDG_CACHE_HOME/], { env: { XDG_CACHE_HOME: file } });
      assert.equal(readFileSync(file, 'utf8'), 'mine');
    });

    it('is full: nothing half written stays in it', async function () {
      const full = cli.path('full');
      mkdirSync(full);
      const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=100k', 'none', full], { encoding: 'utf8' });
      if (mounted.status !== 0) skip(this, 'a small file system cannot be mounted here');
      try {
        const env = { XDG_CACHE_HOME: full };
        await refuses('run', [gguf, ...once], 1, [/no space left/i, /XDG_CACHE_HOME/], { env });
        assert.deepEqual(readdirSync(path.join(full, 'bitnet-gen', 'builds')), []);
        // With the library there, but no room for the weights.
        spawnSync('mount', ['-o', 'remount,size=2m', full]);
        cpSync(cli.cache('builds'), path.join(full, 'bitnet-gen', 'builds'), { recursive: true });
        const { bavail, bsize } = statfsSync(full);
        writeFileSync(path.join(full, 'ballast'), Buffer.alloc(bavail * bsize - 65536));
        await refuses('run', [gguf, ...once], 1, [/packed weights need \d+ MB/, /free/, /XDG_CACHE_HOME/], { env });
        assert.deepEqual(readdirSync(path.join(full, 'bitnet-gen', 'weights')), []);
      } finally {
        spawnSync('umount', [full]);
      }
    });

    it('a damaged weights file is packed anew', async () => {
      const weights = cli.cache('weights');
      const logits = async () => {
        await cli.ok('run', [gguf, '--tokens', '1,2,3', '-n', '0', '--logits', cli.path('logits')]);
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

  it('two processes that build and pack the same at once', async () => {
    const env = { XDG_CACHE_HOME: cli.path('shared') };
    const texts = await Promise.all(
      [1, 2].map(() => cli.ok('run', [gguf, '-p', 'in the', '-n', '8', '--greedy', '--quiet'], { env })),
    );
    assert.equal(texts[0], texts[1]);
    const cache = path.join(env.XDG_CACHE_HOME, 'bitnet-gen');
    assert.equal(readdirSync(path.join(cache, 'builds')).length, 1);
    assert.equal(readdirSync(path.join(cache, 'weights')).length, 1);
  });
});
