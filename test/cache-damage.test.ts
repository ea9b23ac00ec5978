/** A damaged cache heals: cut or altered builds and packed weights are noticed before they are used, named as the cache's, and made anew. */
import { strict as assert } from 'node:assert';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { compile, findCompiler, hostFamily } from '../codegen/compile.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { openModel } from '../runtime/formats/open.ts';
import { DamageError } from '../runtime/library.ts';
import { openWeights } from '../runtime/weights.ts';
import { CompileError, LibraryError } from '../schemas/error.ts';
import { bestTarget, buildFor, buildIn, libraryFor, smallestShape, useCache } from './machine.ts';
import { usePacking, writeSmallest } from './packing.ts';
import { isLong } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel } from './write-model.ts';

/** Changes one bit. */
const flip = (file: string, at: number) => {
  const bytes = readFileSync(file);
  bytes[at]! ^= 8;
  writeFileSync(file, bytes);
};

describe('damaged builds', () => {
  const cache = useCache();
  const shape = { ...smallestShape, name: 'test', context: 4096 };
  let root = '';
  let folder = '';
  let notes: string[] = [];
  const build = (cc?: string) =>
    buildIn(root, { shape, target: bestTarget, ...(cc ? { cc } : {}) }, (note) => notes.push(note));

  beforeEach(async () => {
    const built = await buildFor(smallestShape, bestTarget);
    root = path.join(mkdtempSync(path.join(cache(), 'home-')), 'builds');
    folder = path.join(root, path.basename(built.folder));
    cpSync(built.folder, folder, { recursive: true });
    assert.equal((await build()).cached, true);
    notes = [];
  });

  const damages: Record<string, () => void> = {
    'a library cut short': () => truncateSync(path.join(folder, 'libbitnet.so'), 20_000),
    'an empty library': () => truncateSync(path.join(folder, 'libbitnet.so')),
    'one bit of a library': () => flip(path.join(folder, 'libbitnet.so'), 30_000),
    'no library': () => rmSync(path.join(folder, 'libbitnet.so')),
    'one bit of the driver': () => flip(path.join(folder, 'driver'), 30_000),
    'one bit of the manifest': () => flip(path.join(folder, 'src', 'manifest.json'), 300),
    'no manifest': () => rmSync(path.join(folder, 'src'), { recursive: true }),
    'no checksums': () => rmSync(path.join(folder, 'sums.json')),
    'checksums of nothing': () => writeFileSync(path.join(folder, 'sums.json'), '{}'),
    'checksums cut short': () => truncateSync(path.join(folder, 'sums.json'), 100),
    'checksums that are none': () => writeFileSync(path.join(folder, 'sums.json'), 'null'),
    'an empty folder': () => {
      for (const name of readdirSync(folder)) rmSync(path.join(folder, name), { recursive: true });
    },
  };
  for (const [what, damage] of Object.entries(damages).filter((_, i) => isLong || i < 2))
    it(`${what}: made anew, which is said`, async () => {
      damage();
      const made = await build();
      assert.deepEqual([made.cached, made.folder], [false, folder]);
      assert.equal(notes.length, 1);
      assert.match(notes[0]!, /^the build '.*' in the cache is damaged: .*; it is made anew$/);
      assert.ok(notes[0]!.includes(folder));
      assert.equal((await libraryFor(made)).describe() instanceof Object, true);
      assert.deepEqual([(await build()).cached, notes.length, readdirSync(root)], [true, 1, [path.basename(folder)]]);
    });

  for (const [what, damage] of Object.entries(damages))
    it(`${what}: an error that names the build, where there is no compiler`, async () => {
      damage();
      const { PATH, BITNET_CC, CC } = process.env;
      process.env.PATH = '/nowhere';
      delete process.env.BITNET_CC;
      delete process.env.CC;
      try {
        await assert.rejects(build(), (error) => {
          assert.ok(error instanceof CompileError, String(error));
          assert.ok(error.message.startsWith(`the build '${folder}' in the cache is damaged; `), error.message);
          assert.match(error.message, /no working C compiler/);
          return true;
        });
      } finally {
        Object.assign(process.env, { PATH, ...(BITNET_CC ? { BITNET_CC } : {}), ...(CC ? { CC } : {}) });
      }
    });
});

describe('damaged objects', () => {
  const cache = useCache();

  it('are compiled anew', async () => {
    const { BITNET_OBJECTS } = process.env;
    const objects = path.join(cache(), 'objects');
    process.env.BITNET_OBJECTS = objects;
    try {
      const compiler = await findCompiler(hostFamily);
      const files = new Map([['driver.c', '#include <stdio.h>\nint main(void) { return puts("right") < 0; }\n']]);
      let builds = 0;
      /** Builds into another folder; what the driver says, and how many files were compiled. */
      const build = async () => {
        const compiled: number[] = [];
        const root = path.join(cache(), `builds-${builds++}`);
        const onProgress = (done: number) => compiled.push(done);
        const { driver } = await compile(files, isaOf(bestTarget), [], compiler, root, { onProgress });
        return [(await execa(driver)).stdout, compiled.length - 1];
      };
      assert.deepEqual(await build(), ['right', 1]);
      assert.deepEqual(await build(), ['right', 0]);
      const [object] = readdirSync(objects).filter((name) => name.endsWith('.o'));
      const file = path.join(objects, object!);
      const whole = readFileSync(file);
      for (const damage of [
        () => flip(file, whole.length >> 1),
        () => truncateSync(file, 100),
        () => truncateSync(file),
        () => rmSync(`${file}.sum`),
        () => chmodSync(file, 0o666),
      ]) {
        damage();
        assert.deepEqual(await build(), ['right', 1]);
        assert.ok(readFileSync(file).equals(whole));
        assert.deepEqual(await build(), ['right', 0]);
      }
    } finally {
      process.env.BITNET_OBJECTS = BITNET_OBJECTS;
    }
  });
});

/** Large enough for a sample not to be every block. */
const shape = { ...smallestShape, vocabulary: 8000, embeddingType: 'f32', headType: 'f32' } as const;

describe('damaged packed weights', () => {
  // As if every file were a large one.
  const cache = useCache();
  const open = async (options: { verify?: boolean } = {}) => {
    const built = await buildFor(shape, bestTarget, { extra: ['-DBN_CHECKED_BYTES=0'] });
    const library = await libraryFor(built);
    const notes: string[] = [];
    const steps = new Set<string>();
    const { model, file, cached } = await openWeights(openModel(folder), built.manifest.layout, library, 2, {
      ...options,
      onNote: (note) => notes.push(note),
      onProgress: (what) => steps.add(what),
    });
    library.close(model);
    return { file, cached, notes, steps: [...steps] };
  };
  let folder = '';
  let file = '';
  let whole: Buffer;
  before(async () => {
    folder = path.join(cache(), 'large');
    writeHuggingFace(folder, randomModel(shape, 1), { weights: 'packed' });
    // So that its stamps are believed.
    await sleep(60);
    ({ file } = await open());
    whole = readFileSync(file);
  });

  /** Offsets of the sampled blocks of 4096 bytes: 256 of them at even distances after the header. */
  const sampled = () => {
    const blocks = (whole.length - 4096) / 4096;
    assert.ok(blocks > 300);
    return Array.from({ length: 256 }, (_, i) => 4096 + Math.floor(((blocks - 1) * i) / 255) * 4096);
  };
  const damaged = /^packed weights in the cache are damaged: .*\.bnw'.*data is damaged; they are packed anew$/;

  it('large ones are looked at in samples, the first and the last block among them', async () => {
    const offsets = sampled();
    assert.deepEqual([offsets[0], offsets.at(-1)], [4096, whole.length - 4096]);
    for (const at of [offsets[0]!, offsets[100]! + 4095, whole.length - 1]) {
      flip(file, at);
      const { cached, notes } = await open();
      assert.equal(cached, false, `byte ${at}`);
      assert.match(notes.join(), damaged);
      assert.ok(readFileSync(file).equals(whole));
    }
  });

  it('between samples nothing is noticed until all is read', async () => {
    const offsets = new Set(sampled());
    const between = Array.from({ length: 300 }, (_, i) => 4096 * (i + 1)).find((offset) => !offsets.has(offset))!;
    flip(file, between);
    assert.deepEqual(await open(), { file, cached: true, notes: [], steps: [] });
    const verified = await open({ verify: true });
    assert.equal(verified.cached, false);
    assert.match(verified.notes.join(), damaged);
    assert.deepEqual(verified.steps, ['checking', 'packing']);
    assert.ok(readFileSync(file).equals(whole));
    assert.deepEqual(await open({ verify: true }), { file, cached: true, notes: [], steps: ['checking', 'verifying'] });
  });

  it('an altered header, a cut, an empty and a longer file are noticed in large ones, too', async () => {
    const changes: (() => void)[] = [
      () => flip(file, 0),
      () => flip(file, 100),
      () => truncateSync(file, 4096),
      () => truncateSync(file, whole.length - 4096),
      () => truncateSync(file),
      () => writeFileSync(file, Buffer.concat([whole, whole])),
    ];
    for (const change of changes) {
      change();
      const { cached, notes } = await open();
      assert.equal(cached, false);
      assert.match(notes.join(), /^packed weights in the cache are damaged: /);
      assert.ok(readFileSync(file).equals(whole));
    }
  });
});

describe('damaged packed weights in a cache that cannot be written to', () => {
  const packing = usePacking();

  it('are named as the cache’s, and so is what keeps them from being packed anew', async () => {
    const model = path.join(packing.cache(), 'model');
    writeSmallest(model);
    const { file } = await packing.open(model);
    flip(file, statSync(file).size - 1);
    const folder = path.dirname(file);
    chmodSync(packing.cache(), 0o755);
    chmodSync(folder, 0o555);
    const root = process.geteuid?.() === 0;
    if (root) process.seteuid!(4321);
    try {
      await assert.rejects(packing.open(model), (error) => {
        assert.ok(error instanceof LibraryError && !(error instanceof DamageError));
        assert.match(
          error.message,
          /^packed weights in the cache are damaged: .*its data is damaged; cannot create '.*': Permission denied/,
        );
        return true;
      });
    } finally {
      if (root) process.seteuid!(0);
      chmodSync(folder, 0o755);
    }
    assert.ok(existsSync(file));
  });
});
