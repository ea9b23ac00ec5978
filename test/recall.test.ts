/** Builds that were asked for before are found by what makes them right; without a compiler also where another one would be better. */
import { strict as assert } from 'node:assert';
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type BuildOptions, ensureBuilt } from '../codegen/build.ts';
import { nothing, wisdomFile, writeWisdom } from '../codegen/wisdom.ts';
import { CompileError } from '../schemas/error.ts';
import type { CpuProfile, ModelShape } from '../schemas/types.ts';
import { bestTarget, buildFor, profileHere, smallestShape, useCache } from './machine.ts';
import { isLong } from './tier.ts';

describe('builds that were asked for before', () => {
  const cache = useCache();
  const shape: ModelShape = { ...smallestShape, name: 'test', context: 4096 };
  const cpu = profileHere(bestTarget);
  let root = '';
  const requests = () => path.join(root, '..', 'requests');
  const build = (changes: Partial<BuildOptions> = {}, other = shape, profile: CpuProfile = cpu) =>
    ensureBuilt(other, profile, { root, extra: isLong ? [] : ['-O1'], threads: 2, ...changes });
  /** The same while no compiler can be found. */
  const withoutCompiler = async (...question: Parameters<typeof build>) => {
    const { PATH, BITNET_CC, CC } = process.env;
    process.env.PATH = '/nowhere';
    delete process.env.BITNET_CC;
    delete process.env.CC;
    try {
      return await build(...question);
    } finally {
      Object.assign(process.env, { PATH, ...(BITNET_CC ? { BITNET_CC } : {}), ...(CC ? { CC } : {}) });
    }
  };

  let folder = '';
  beforeEach(async () => {
    const built = await buildFor(smallestShape, bestTarget);
    root = path.join(mkdtempSync(path.join(cache(), 'home-')), 'builds');
    cpSync(built.folder, path.join(root, path.basename(built.folder)), { recursive: true });
    ({ folder } = await build());
    assert.equal(path.basename(folder), path.basename(built.folder));
  });
  afterEach(() => rmSync(wisdomFile(), { force: true }));

  it('by the same question, whatever the model is called', async () => {
    const found = await withoutCompiler({}, { ...shape, name: 'another' });
    assert.deepEqual([found.folder, found.cached], [folder, true]);
    const { manifest } = await build();
    assert.deepEqual(found.manifest, { ...manifest, shape: { ...manifest.shape, name: 'another' } });
  });

  it('without a compiler: for other threads, measurements, caches and prefetching of the same instructions', async () => {
    assert.equal((await withoutCompiler({ threads: 7 })).folder, folder);
    const { id: _, ...anyCpu } = cpu;
    const other: CpuProfile = {
      ...anyCpu,
      cache: { l1: 1 << 14, l2: 1 << 18, l3: 1 << 22 },
      prefetch: { hint: 'none' },
    };
    assert.equal((await withoutCompiler({}, shape, other)).folder, folder);
    writeWisdom(nothing);
    assert.ok(existsSync(wisdomFile()));
    assert.equal((await withoutCompiler()).folder, folder);
  });

  it('not for another shape, other features or options, nor for a compiler that was named', async () => {
    const wrong: Parameters<typeof build>[] = [
      [{}, { ...shape, layers: shape.layers + 1 }],
      [{}, shape, { ...cpu, features: [...cpu.features, 'another'] }],
      [{ packing: 'p2' }],
      [{ sparse: true }],
      [{ extra: ['-O2'] }],
      [{ cc: 'gcc' }],
    ];
    for (const question of wrong) await assert.rejects(withoutCompiler(...question), CompileError);
  });

  it('in other circumstances each is remembered, and the build is made only where it differs', async () => {
    const [file] = readdirSync(requests());
    await build({ threads: 7 });
    await build({ threads: 7 });
    assert.deepEqual([readdirSync(root), readdirSync(requests())], [[path.basename(folder)], [file]]);
  });

  it('remembered wrongly, or not at all: found again by their texts', async () => {
    const [name] = readdirSync(requests());
    const file = path.join(requests(), name!);
    for (const text of ['', 'null', '{}', '[null]', '[{"folder":"../.."}]', `[{"compiler":{},"notes":[]}]`]) {
      writeFileSync(file, text);
      const found = await build();
      assert.deepEqual([found.folder, found.cached], [folder, true], text);
    }
    rmSync(requests(), { recursive: true });
    assert.equal((await build()).cached, true);
    assert.deepEqual(readdirSync(requests()), [name]);
  });
});
