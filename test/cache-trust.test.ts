/**
 * The cache is this user's or root's, nobody else can change it, everybody may read it; and whatever stands in the place of its files and
 * folders, it is refused by name or replaced, and never waited for.
 */
import { strict as assert } from 'node:assert';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { compile, findCompiler, hostFamily } from '../codegen/compile.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { clearCache, listCache } from '../runtime/cache.ts';
import { modelsRoot } from '../runtime/known-models.ts';
import { weightsRoot } from '../runtime/weights.ts';
import { isAside } from '../schemas/aside.ts';
import { LibraryError } from '../schemas/error.ts';
import { cacheRoot } from '../schemas/files.ts';
import { readTrusted, requireTrusted } from '../schemas/trust.ts';
import { skip } from './fixtures.ts';
import { bestTarget, buildIn, smallestShape } from './machine.ts';
import { usePacking, withCache, writeSmallest } from './packing.ts';
import { long } from './tier.ts';

const isRoot = process.geteuid?.() === 0;

describe('whose the cache is', () => {
  const packing = usePacking();
  let model = '';
  /** A whole cache of its own, in which everything is found. */
  let home = '';
  let before_: string | undefined;
  const builds = () => path.join(cacheRoot(), 'builds');
  const build = (notes: string[] = []) =>
    buildIn(builds(), { shape: { ...smallestShape, name: 'test', context: 4096 }, target: bestTarget }, (note) =>
      notes.push(note),
    );

  const template = () => path.join(packing.cache(), 'template');
  before(async () => {
    model = path.join(packing.cache(), 'model');
    writeSmallest(model);
    await withCache(template(), async () => {
      cpSync(packing.built.folder, path.join(builds(), path.basename(packing.built.folder)), { recursive: true });
      assert.equal((await build()).cached, true);
      await packing.open(model);
    });
  });
  beforeEach(() => {
    before_ = process.env.XDG_CACHE_HOME;
    home = mkdtempSync(path.join(packing.cache(), 'home-'));
    cpSync(template(), home, { recursive: true });
    process.env.XDG_CACHE_HOME = home;
  });
  afterEach(() => {
    process.env.XDG_CACHE_HOME = before_;
    rmSync(home, { recursive: true, force: true });
  });

  const weights = () => path.join(weightsRoot(), packing.names()[0]!);
  const record = () => path.join(modelsRoot(), readdirSync(modelsRoot())[0]!);
  const requests = () => path.join(cacheRoot(), 'requests');
  const request = () => path.join(requests(), readdirSync(requests())[0]!);
  const folder = () => path.join(builds(), path.basename(packing.built.folder));
  const library = () => path.join(folder(), 'libbitnet.so');
  const compilers = () => path.join(cacheRoot(), 'compilers.json');

  /** Everything that is used, by who uses it. */
  const places: Record<string, [place: () => string, use: () => Promise<unknown>]> = {
    'the cache, for builds': [cacheRoot, build],
    'the cache, for weights': [cacheRoot, () => packing.open(model)],
    builds: [builds, build],
    'a build': [folder, build],
    'a library': [library, build],
    'its checksums': [() => path.join(folder(), 'sums.json'), build],
    requests: [requests, build],
    'a request': [request, build],
    'compilers.json': [compilers, build],
    weights: [weightsRoot, () => packing.open(model)],
    'packed weights': [weights, () => packing.open(model)],
    models: [modelsRoot, () => packing.open(model)],
    'a record': [record, () => packing.open(model)],
  };

  const refuses = (use: () => Promise<unknown>, file: string, says: RegExp) =>
    assert.rejects(use(), (error) => {
      assert.ok(error instanceof LibraryError, String(error));
      assert.ok(error.message.startsWith(`'${file}' `), error.message);
      assert.match(error.message, says);
      assert.match(error.message, /XDG_CACHE_HOME/);
      return true;
    });

  for (const [what, [place, use]] of Object.entries(places)) {
    it(`${what}: not used while others can change it`, async () => {
      const file = place();
      const { mode } = statSync(file);
      for (const [bits, who] of [
        [0o020, 'its group'],
        [0o002, 'everyone'],
        [0o1777, 'everyone'],
      ] as const) {
        chmodSync(file, (mode & 0o777) | bits);
        const says = new RegExp(`can be changed by ${who} \\(mode [01]7?\\d+\\).*chmod -R go-w '${file}'`);
        await refuses(use, file, says);
      }
      chmodSync(file, mode & 0o755);
      await use();
    });

    it(`${what}: not used when it is another user's, but when it is root's`, async function () {
      if (!isRoot) skip(this, 'only root can give files away');
      const file = place();
      chownSync(file, 4321, 4321);
      await refuses(use, file, /belongs to user 4321, and you are user 0: .*chown/);
      chownSync(file, 0, 0);
      process.seteuid!(4321);
      try {
        chmodAbove(home);
        await use();
      } finally {
        process.seteuid!(0);
      }
    });
  }

  /** Temporary folders are private; another user shall come through. */
  function chmodAbove(file: string): void {
    const user = process.geteuid!();
    process.seteuid!(0);
    for (let at = file; at !== tmpdir(); at = path.dirname(at)) chmodSync(at, 0o755);
    process.seteuid!(user);
  }

  it('folders above it are the business of the system: /tmp may be written to by everyone', () => {
    const open = path.join(home, 'open');
    mkdirSync(path.join(open, 'bitnet-gen', 'builds'), { recursive: true });
    chmodSync(open, 0o1777);
    process.env.XDG_CACHE_HOME = open;
    requireTrusted(builds());
    requireTrusted(path.join(builds(), 'none', 'yet'));
  });

  it('a link in it counts with what it leads to', async () => {
    const elsewhere = path.join(home, 'elsewhere');
    mkdirSync(elsewhere);
    rmSync(weightsRoot(), { recursive: true });
    symlinkSync(elsewhere, weightsRoot());
    assert.equal((await packing.open(model)).cached, false);
    assert.equal((await packing.open(model)).cached, true);
    chmodSync(elsewhere, 0o777);
    await refuses(() => packing.open(model), weightsRoot(), /can be changed by everyone/);
    if (!isRoot) return;
    chmodSync(elsewhere, 0o755);
    chownSync(elsewhere, 4321, 4321);
    await refuses(() => packing.open(model), weightsRoot(), /belongs to user 4321/);
  });

  for (const umask of [0o000, 0o002, 0o022, 0o077])
    it(`made under umask ${umask.toString(8).padStart(3, '0')}, it is closed to others' writing, and open to their reading if the umask is`, async () => {
      process.env.XDG_CACHE_HOME = path.join(home, 'fresh');
      const old = process.umask(umask);
      try {
        const files = new Map([
          ['driver.c', 'int main(void) { return 0; }\n'],
          ['library.c', 'int bn_nothing(void) { return 0; }\n'],
        ]);
        const compiler = await findCompiler(hostFamily);
        const made = await compile(files, isaOf(bestTarget), [], compiler, builds());
        assert.equal(made.cached, false);
        assert.equal((await compile(files, isaOf(bestTarget), [], compiler, builds())).cached, true);
        await packing.open(model);
      } finally {
        process.umask(old);
      }
      const all = readdirSync(home, { recursive: true, encoding: 'utf8' })
        .map((name) => path.join(home, name))
        .filter((file) => file.startsWith(path.join(home, 'fresh')));
      assert.ok(all.length > 10);
      for (const file of all) {
        const stat = statSync(file);
        const isProgram = /driver$|\.so$/.test(file);
        const most = stat.isDirectory() || isProgram ? 0o755 : 0o644;
        assert.equal((stat.mode & 0o777).toString(8), (most & ~umask).toString(8), file);
      }
    });

  /** What may stand in the place of a file or folder. */
  const obstacles: Record<string, (file: string) => unknown> = {
    'a named pipe': (file) => execa('mkfifo', [file]),
    'a link to nothing': (file) => symlinkSync('/nowhere/at/all', file),
    'a link to a device': (file) => symlinkSync('/dev/zero', file),
    'a folder': (file) => mkdirSync(path.join(file, 'inside'), { recursive: true }),
    'a file': (file) => writeFileSync(file, 'something else'),
  };
  const isFolder = ['builds', 'weights', 'models', 'requests', 'a build'];

  for (const [obstacle, put] of Object.entries(obstacles))
    for (const [what, [place, use]] of Object.entries(places)) {
      if (/^the cache/.test(what) || (obstacle === 'a folder' && isFolder.includes(what))) continue;
      const test = use !== build || /pipe.*(builds|library|compilers)/.test(`${obstacle} ${what}`) ? it : long;
      test(`${obstacle} in the place of ${what} is refused by name, or replaced`, async () => {
        const file = place();
        rmSync(file, { recursive: true });
        await put(file);
        try {
          await use();
          // Where it was replaced, there is now what was there before.
          if (existsSync(file)) await use();
        } catch (error) {
          assert.ok(error instanceof LibraryError, (error as Error).stack);
          assert.ok(error.message.includes(`'${file}'`), error.message);
          assert.match(error.message, /remove/);
        }
        // In either case nothing is left that was made aside, and everything can be listed and cleared.
        const left = readdirSync(cacheRoot(), { recursive: true, encoding: 'utf8' });
        assert.deepEqual(left.filter(isAside), []);
        assert.ok(listCache().length > 0);
        clearCache();
        assert.deepEqual(listCache(), []);
      });
    }

  it('a file of it is read only where it is one', async () => {
    const file = path.join(cacheRoot(), 'x');
    assert.equal(readTrusted(file), undefined);
    writeFileSync(file, 'text');
    assert.equal(`${readTrusted(file)}`, 'text');
    for (const put of [obstacles['a named pipe']!, obstacles['a folder']!, obstacles['a link to a device']!]) {
      rmSync(file, { recursive: true });
      await put(file);
      assert.equal(readTrusted(file), undefined);
      assert.ok(lstatSync(file));
    }
  });
});
