/**
 * Packed weights in the cache: made once, made again when the file is damaged, complete or absent whatever happens on the way; and builds, which several processes may make at once.
 */
import { strict as assert } from 'node:assert';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { ensureBuilt } from '../codegen/build.ts';
import { profileOf } from '../codegen/cpu.ts';
import { load } from '../index.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import { modelsRoot } from '../runtime/known-models.ts';
import { type PackOptions, weightsRoot } from '../runtime/weights.ts';
import { LibraryError, ModelError } from '../schemas/error.ts';
import { skip } from './fixtures.ts';
import { bestTarget, readFloats, smallestShape, useCache } from './machine.ts';
import { usePacking, withCache, writeSmallest } from './packing.ts';
import { long } from './tier.ts';

/** Everything below a folder: path, size, time of change. */
const contents = (folder: string): string[] =>
  readdirSync(folder, { recursive: true })
    .map((name) => {
      const { size, mtimeMs } = statSync(path.join(folder, `${name}`));
      return `${name} ${size} ${mtimeMs}`;
    })
    .sort();

describe('weights', () => {
  const packing = usePacking();
  const { cache, names } = packing;
  let folder = '';

  beforeEach(function () {
    // A new model for every test, and an empty cache.
    folder = path.join(cache(), `model-${this.currentTest!.title.replace(/\W+/g, '-')}`);
    writeSmallest(folder);
    for (const root of [weightsRoot(), modelsRoot()]) rmSync(root, { recursive: true, force: true });
  });

  /** Opens the model's weights and closes them again. */
  const open = async (options: PackOptions = {}, model: string | ModelSource = folder) => {
    const { file, cached } = await packing.open(model, options);
    return { file, cached };
  };

  it('are packed once', async () => {
    const first = await open();
    assert.equal(first.cached, false);
    assert.deepEqual(names(), [path.basename(first.file)]);
    assert.equal(statSync(first.file).size, packing.built.manifest.layout.fileBytes);
    const before = contents(weightsRoot());
    assert.deepEqual(await open(), { file: first.file, cached: true });
    assert.deepEqual(contents(weightsRoot()), before);
  });

  it('tell how far they are', async () => {
    const seen: string[] = [];
    await open({ onProgress: (what, done, total) => seen.push(`${what} ${done}/${total}`) });
    const total = packing.built.manifest.layout.tensors.length;
    assert.deepEqual(
      seen,
      Array.from({ length: total }, (_, i) => `packing ${i + 1}/${total}`),
    );
  });

  it('are packed anew when a byte is wrong, in header or data', async () => {
    const { file } = await open();
    const whole = readFileSync(file);
    for (const at of [3, 20, 4096, whole.length - 1]) {
      const damaged = Buffer.from(whole);
      damaged[at]! ^= 4;
      writeFileSync(file, damaged);
      assert.deepEqual(await open(), { file, cached: false }, `byte ${at}`);
      assert.ok(readFileSync(file).equals(whole), `byte ${at}`);
    }
    assert.deepEqual(names(), [path.basename(file)]);
  });

  it('are packed anew when the file is truncated, empty or longer', async () => {
    const { file } = await open();
    const whole = readFileSync(file);
    for (const size of [0, 1, 4095, 4096, whole.length - 1]) {
      truncateSync(file, size);
      assert.deepEqual(await open(), { file, cached: false }, `${size} bytes`);
      assert.ok(readFileSync(file).equals(whole), `${size} bytes`);
    }
    appendFileSync(file, 'x');
    assert.equal((await open()).cached, false);
    assert.ok(readFileSync(file).equals(whole));
  });

  it('never touch the model folder', async () => {
    const before = contents(folder);
    await open();
    await packing.logits(folder);
    await assert.rejects(open({ signal: AbortSignal.abort() }, { ...openModel(folder), files: [] }));
    assert.deepEqual(contents(folder), before);
  });

  it('leave nothing behind when they are interrupted, and can be packed afterwards', async () => {
    for (const after of [1, 7, packing.built.manifest.layout.tensors.length]) {
      const controller = new AbortController();
      const onProgress = (_: string, done: number) => {
        if (done === after) controller.abort();
      };
      await assert.rejects(open({ onProgress, signal: controller.signal }), { name: 'AbortError' });
      assert.deepEqual(names(), [], `after ${after} tensors`);
    }
    assert.equal((await open()).cached, false);
  });

  it('leave nothing behind when a tensor is missing', async () => {
    const source = openModel(folder);
    const tensors = new Map(source.tensors);
    tensors.delete('blk.1.ffn_down');
    await assert.rejects(open({}, { ...source, tensors }), (error) => {
      assert.ok(error instanceof ModelError);
      assert.match(error.message, /tensor 'blk\.1\.ffn_down' is missing/);
      return true;
    });
    assert.deepEqual(names(), []);
  });

  it('opened several times at once in one process are packed once', async () => {
    const opened = await Promise.all([open(), open(), open()]);
    assert.deepEqual(opened.map((o) => o.cached).sort(), [false, true, true]);
    assert.equal(new Set(opened.map((o) => o.file)).size, 1);
    assert.deepEqual(names(), [path.basename(opened[0]!.file)]);
  });

  it('of two models at once in one process are both packed', async () => {
    const other = `${folder}-2`;
    writeSmallest(other, 9);
    const [first, second] = await Promise.all([open(), open({}, other)]);
    assert.notEqual(first.file, second.file);
    assert.ok(!readFileSync(first.file).equals(readFileSync(second.file)));
    assert.equal(names().length, 2);
  });

  it('interrupted beside another packing do not disturb it', async () => {
    const controller = new AbortController();
    const first = open({ signal: controller.signal, onProgress: () => controller.abort() });
    const [interrupted, second] = await Promise.allSettled([first, open()]);
    assert.equal(interrupted.status, 'rejected');
    assert.equal(second.status, 'fulfilled');
    assert.equal(names().length, 1);
  });

  /** Fails with a LibraryError. */
  const fails = (call: Promise<unknown>, message: RegExp) =>
    assert.rejects(call, (error) => {
      assert.ok(error instanceof LibraryError, String(error));
      assert.match(error.message, message);
      return true;
    });

  it('say so when the cache folder cannot be created', async () => {
    const file = path.join(cache(), 'a-file');
    writeFileSync(file, 'mine');
    await withCache(file, () =>
      fails(
        open(),
        /cannot create the cache folder '.*a-file.*': .*; remove '.*a-file', which is a file, or set XDG_CACHE_HOME/,
      ),
    );
    assert.equal(readFileSync(file, 'utf8'), 'mine');
  });

  it('say so when a folder has their name', async () => {
    const { file } = await open();
    rmSync(file);
    mkdirSync(path.join(file, 'inside'), { recursive: true });
    await fails(open(), /\.bnw' is in the place of packed weights, but is a folder; remove it/);
    assert.deepEqual(readdirSync(file), ['inside']);
  });

  it('say so when the cache folder is not writable', async function () {
    // For root nothing is unwritable; another user's id for the duration of the call makes it so.
    const root = process.getuid?.() === 0;
    if (root && !process.seteuid) skip(this, 'root, and no seteuid');
    const locked = path.join(cache(), 'locked');
    mkdirSync(path.join(locked, 'bitnet-gen', 'weights'), { recursive: true });
    chmodSync(cache(), 0o755);
    chmodSync(path.join(locked, 'bitnet-gen', 'weights'), 0o555);
    if (root) process.seteuid!(65534);
    try {
      const message = /cannot create '.*\.aside': Permission denied; make room there, or set XDG_CACHE_HOME/;
      await withCache(locked, () => fails(open(), message));
    } finally {
      if (root) process.seteuid!(0);
    }
  });

  it('say so when the disk is too small', async function () {
    const small = path.join(cache(), 'small');
    mkdirSync(small);
    const mounted = await execa('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', small], { reject: false });
    if (mounted.failed) skip(this, `mount: ${mounted.stderr || mounted.shortMessage}`);
    try {
      assert.ok(packing.built.manifest.layout.fileBytes > 8192);
      const message = /the packed weights need 1 MB in '.*', which has 1 MB free; free some space/;
      await withCache(small, () => fails(open(), message));
      assert.deepEqual(readdirSync(path.join(small, 'bitnet-gen', 'weights')), []);
    } finally {
      await execa('umount', [small]);
    }
  });

  it('say so when space runs out in spite of that, and leave nothing behind', async function () {
    // A limit on the size of files, in blocks of 512 bytes, for a child process alone.
    const script = `
      const { openModel } = await import(${JSON.stringify(import.meta.resolve('../runtime/formats/open.ts'))});
      const { openWeights } = await import(${JSON.stringify(import.meta.resolve('../runtime/weights.ts'))});
      const { Library } = await import(${JSON.stringify(import.meta.resolve('../runtime/library.ts'))});
      const layout = JSON.parse(process.argv[3]);
      await openWeights(openModel(process.argv[1]), layout, new Library(process.argv[2]), 1)
        .then(() => console.log('packed'), (error) => console.log(error.name, error.message));`;
    const command = `ulimit -f 16 || exit 7; exec "$0" "$@"`;
    const node = [process.execPath, ...process.execArgv, '--input-type=module', '-e', script];
    const args = [folder, packing.built.library, JSON.stringify(packing.built.manifest.layout)];
    const child = await execa('sh', ['-c', command, ...node, ...args], { reject: false });
    if (child.exitCode === 7) skip(this, `ulimit: ${child.stderr}`);
    assert.match(
      child.stdout,
      /^LibraryError cannot reserve \d+ bytes for '.*\.aside': File too large; make room there/,
    );
    assert.deepEqual(names(), []);
  });

  long('load() that fails closes the model it opened', async () => {
    // Were they left open, there would be no slot for the last.
    writeFileSync(path.join(folder, 'tokenizer.json'), '{');
    for (let i = 0; i < 65; i++)
      await assert.rejects(load(folder, { target: bestTarget }), /tokenizer\.json: not readable/);
  });
});

describe('builds and weights of several processes', () => {
  const cache = useCache();

  long('are made by all of them at once, and once kept', async () => {
    const model = path.join(cache(), 'model');
    writeSmallest(model);
    const root = path.join(cache(), 'fresh');
    const script = `
      const { writeFileSync } = await import('node:fs');
      const { load } = await import(${JSON.stringify(import.meta.resolve('../index.ts'))});
      const { engine } = await load(process.argv[1], { threads: 1 });
      writeFileSync(process.argv[2], engine.step(7));
      engine.dispose();`;
    const outputs = [1, 2].map((i) => path.join(cache(), `logits-${i}`));
    await Promise.all(
      outputs.map((output) =>
        execa(process.execPath, [...process.execArgv, '--input-type=module', '-e', script, model, output], {
          env: { XDG_CACHE_HOME: root },
        }),
      ),
    );
    const [first, ...others] = outputs.map(readFloats);
    assert.ok(first!.some((x) => x !== 0));
    for (const other of others) assert.deepEqual(other, first);
    assert.equal(readdirSync(path.join(root, 'bitnet-gen', 'builds')).length, 1);
    assert.equal(readdirSync(path.join(root, 'bitnet-gen', 'weights')).length, 1);
  });

  it('a build whose library was removed is made again', async () => {
    const root = path.join(cache(), 'builds');
    const build = () => ensureBuilt(smallestShape, profileOf(bestTarget), { root });
    const first = await build();
    assert.deepEqual([first.cached, (await build()).cached], [false, true]);
    rmSync(first.library);
    const second = await build();
    assert.deepEqual([second.cached, second.library], [false, first.library]);
    assert.ok(existsSync(second.library));
    assert.deepEqual(readdirSync(root), [path.basename(first.folder)]);
  });
});
