/**
 * The package as its users get it: packed from a clean copy of the checkout, installed into an empty project, and run there,
 * with nothing written into node_modules.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { findCompiler, hostFamily } from '../../codegen/compile.ts';
import { shippedShapes } from '../../codegen/shape.ts';
import { skip } from '../fixtures.ts';
import { projectRoot } from '../run-cli.ts';

const json = (file: string) => JSON.parse(readFileSync(file, 'utf8'));
const manifest = json(path.join(projectRoot, 'package.json'));

/** What a clone would hold besides tests: nothing built, nothing installed. */
const tracked = [
  ...['package.json', 'package-lock.json', '.npmrc', 'README.md', 'LICENSE', 'tsconfig.json', 'tsconfig.build.json'],
  ...['index.ts', 'schemas', 'codegen', 'runtime', 'templates', 'models', 'scripts', 'bench', 'test'],
];

describe('package', () => {
  let folder = '';
  let checkout = '';
  let tarball = '';
  /** Paths in the tarball, without `package/`. */
  let names: string[] = [];

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-package-'));
    checkout = path.join(folder, 'checkout');
    mkdirSync(checkout);
    for (const name of tracked)
      cpSync(path.join(projectRoot, name), path.join(checkout, name), { recursive: true, preserveTimestamps: true });
    symlinkSync(path.join(projectRoot, 'node_modules'), path.join(checkout, 'node_modules'));
    // What an earlier build of files that are gone has left.
    mkdirSync(path.join(checkout, 'dist', 'old'), { recursive: true });
    writeFileSync(path.join(checkout, 'dist', 'old', 'removed.js'), '');
    await execa('npm', ['pack', '--silent'], { cwd: checkout, env: { BITNET_SKIP_BUILD: '1' } });
    tarball = path.join(checkout, readdirSync(checkout).find((name) => name.endsWith('.tgz'))!);
    const { stdout } = await execa('tar', ['-tzf', tarball]);
    names = stdout.split('\n').map((name) => name.replace(/^package\//, ''));
  });
  after(() => {
    // Files in read-only folders cannot be removed.
    spawnSync('chmod', ['-R', 'u+w', folder]);
    rmSync(folder, { recursive: true, force: true });
  });

  describe('the tarball', () => {
    it('holds what is needed', () => {
      const needed = [
        ...['package.json', 'README.md', 'LICENSE', 'dist/index.js', 'dist/index.d.ts', 'dist/schemas/abi.json'],
        ...['model.safetensors', 'config.json', 'tokenizer.json'].map((name) => `models/demo/${name}`),
        ...['model', 'cpu', 'tuning', 'manifest'].map((name) => `schemas/${name}.schema.json`),
        ...shippedShapes().map((name) => `schemas/models/${name}.json`),
        ...readdirSync(path.join(projectRoot, 'templates'), { recursive: true, encoding: 'utf8' })
          .filter((name) => /\.[ch]$/.test(name))
          .map((name) => `templates/${name}`),
        ...Object.values<string>(manifest.bin),
        'scripts/postinstall.mjs',
      ];
      for (const name of needed) assert.ok(names.includes(name), `${name} is missing`);
    });

    it('holds nothing else: no tests, no sources, no golden files, nothing stale', () => {
      const allowed =
        /^(dist|schemas|templates|models\/demo)\/|^(package\.json|README\.md|LICENSE|scripts\/postinstall\.mjs)$/;
      for (const name of names) {
        assert.match(name, allowed);
        assert.doesNotMatch(name, /(?<!\.d)\.ts$|\.test\.|golden|node_modules|^dist\/(test|bench|old)\//);
      }
    });

    it('names no folder of the machine that made it', async () => {
      const unpacked = path.join(folder, 'unpacked');
      mkdirSync(unpacked);
      await execa('tar', ['-xzf', tarball, '-C', unpacked]);
      for (const name of names.filter((n) => !/\.safetensors$/.test(n))) {
        const text = readFileSync(path.join(unpacked, 'package', name), 'utf8');
        for (const place of [projectRoot, folder]) assert.ok(!text.includes(place), `${name} names ${place}`);
      }
    });

    it('is small', () => assert.ok(statSync(tarball).size < 5e6));
  });

  it('every program of package.json is built and starts', async () => {
    for (const [name, file] of Object.entries<string>(manifest.bin)) {
      const { stdout } = await execa(process.execPath, [path.join(checkout, file), '--version']);
      assert.equal(stdout, manifest.version, name);
      assert.ok(readFileSync(path.join(checkout, file), 'utf8').startsWith('#!/usr/bin/env node\n'), name);
    }
  });

  it('the lock file names no host and no C library, and fits package.json', () => {
    const lock = json(path.join(projectRoot, 'package-lock.json'));
    for (const [name, entry] of Object.entries<{ resolved?: string; libc?: string[] }>(lock.packages)) {
      assert.equal(entry.resolved, undefined, name);
      assert.equal(
        entry.libc,
        undefined,
        `${name}: npm 11 and 12 may write 'libc', and npm 10 removes it; without it, none changes the file`,
      );
    }
    const { dependencies, devDependencies, optionalDependencies } = lock.packages[''];
    assert.deepEqual(dependencies, manifest.dependencies);
    assert.deepEqual(devDependencies, manifest.devDependencies);
    assert.deepEqual(optionalDependencies, manifest.optionalDependencies);
  });

  it('npm start, npm run gen and npm run tune run the programs', async () => {
    for (const [script, name] of Object.entries({ start: 'bitnet-run', gen: 'bitnet-gen', tune: 'bitnet-tune' })) {
      const { stdout, stderr } = await execa('npm', ['run', '-s', script, '--', '--help'], { cwd: checkout });
      assert.ok(stdout.startsWith(`Usage: ${name} `), script);
      assert.equal(stderr, '', script);
    }
  });

  describe('a program in a checkout without dist', () => {
    let bare = '';

    /** A small checkout, whose build writes a program that tells how it was called. */
    beforeEach(() => {
      bare = mkdtempSync(path.join(folder, 'bare-'));
      cpSync(path.join(projectRoot, 'scripts'), path.join(bare, 'scripts'), { recursive: true });
      for (const name of ['commander', 'typescript']) {
        mkdirSync(path.join(bare, 'node_modules', name), { recursive: true });
        writeFileSync(path.join(bare, 'node_modules', name, 'index.js'), '');
      }
      const program = `import { readFileSync } from 'node:fs';
        console.log(JSON.stringify({ argv: process.argv.slice(1), pid: process.pid, input: readFileSync(0, 'utf8') }));
        process.exitCode = 7;`;
      writeFileSync(
        path.join(bare, 'build.mjs'),
        `import { mkdirSync, writeFileSync } from 'node:fs';
        mkdirSync('dist');
        writeFileSync('dist/run.js', ${JSON.stringify(program)});
        console.log('built');`,
      );
      describeProject('node build.mjs');
    });
    const describeProject = (build: string) =>
      writeFileSync(
        path.join(bare, 'package.json'),
        JSON.stringify({ type: 'module', bin: { 'bitnet-run': 'dist/run.js' }, scripts: { build } }),
      );
    const start = (...args: string[]) =>
      execa(process.execPath, [path.join(bare, 'scripts', 'command.mjs'), 'bitnet-run', ...args], {
        input: 'a prompt',
        reject: false,
      });

    it('is built first, and gets arguments and stdin; its exit code is kept', async () => {
      const args = ['a model', '-n', '8', '--', '*'];
      const child = start(...args);
      const first = await child;
      const argv = [path.join(bare, 'dist', 'run.js'), ...args];
      assert.equal(first.stderr, 'bitnet-run: there is no dist/ yet; building it\nbuilt');
      // The same process: signals reach the program.
      assert.deepEqual(JSON.parse(first.stdout), { argv, pid: child.pid, input: 'a prompt' });
      assert.equal(first.exitCode, 7);
      const second = await start(...args);
      assert.equal(second.stderr, '');
      assert.deepEqual(JSON.parse(second.stdout).argv, argv);
      assert.equal(second.exitCode, 7);
    });

    it('or one line says what to run', async () => {
      const missing = (name: string) => `bitnet-run: the package '${name}' is missing; run: npm install --include=dev`;
      const refused = async (expected: string) => {
        const { exitCode, stdout, stderr } = await start();
        assert.deepEqual([exitCode, stdout, stderr], [1, '', expected]);
      };
      const building = 'bitnet-run: there is no dist/ yet; building it\n';
      describeProject('exit 3');
      await refused(`${building}bitnet-run: dist/ cannot be built; to see why, run: npm run build`);
      for (const name of ['typescript', 'commander']) {
        rmSync(path.join(bare, 'node_modules', name), { recursive: true });
        await refused(missing(name));
      }
    });
  });

  describe('installed into an empty project', () => {
    let project = '';
    let cache = '';
    let installed = '';
    /** Why npm could not install. */
    let unavailable = '';

    before(async () => {
      project = path.join(folder, 'project');
      cache = path.join(folder, 'cache');
      mkdirSync(project);
      writeFileSync(path.join(project, 'package.json'), '{ "name": "empty", "version": "1.0.0", "private": true }');
      // Scripts would compile native add-ons; koffi's binaries come with its package.
      const npm = await execa('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', tarball], {
        cwd: project,
        reject: false,
        timeout: 120000,
      });
      if (npm.failed) unavailable = `npm cannot install here: ${npm.stderr.trim().split('\n').at(-1)}`;
      if (npm.failed) return;
      installed = path.join(project, 'node_modules', 'bitnet-gen');
      spawnSync('chmod', ['-R', 'a-w', path.join(project, 'node_modules')]);
    });

    /** Names, contents and modes of everything in node_modules. */
    const fingerprint = () => {
      const root = path.join(project, 'node_modules');
      const hash = createHash('sha256');
      for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' }).sort()) {
        const stat = statSync(path.join(root, name));
        hash.update(`${name} ${stat.mode} ${stat.mtimeMs}\n`);
        if (stat.isFile() && name.startsWith('bitnet-gen')) hash.update(readFileSync(path.join(root, name)));
      }
      return hash.digest('hex');
    };

    it('runs: generates, compiles and packs into the cache, and changes nothing in node_modules', async function () {
      if (unavailable) skip(this, unavailable);
      const before_ = fingerprint();
      const npx = (...args: string[]) =>
        execa('npx', ['--no-install', ...args], { cwd: project, env: { XDG_CACHE_HOME: cache }, stdin: 'ignore' });
      const { stdout } = await npx('bitnet-run', '-n', '8', '--greedy', '--json');
      const { text, tokens } = JSON.parse(stdout);
      assert.equal(text, ' went to the park with her mom.');
      assert.equal(tokens.length, 8);
      const generated = await npx('bitnet-gen', 'bitnet-2b-4t', '--target', 'neon', '--no-compile', '--out', 'out');
      assert.match(generated.stdout, /^bitnet-2b-4t for neon: \d+ files in out\n?$/);
      assert.match((await npx('bitnet-tune', '--help')).stdout, /^Usage: bitnet-tune/);
      assert.deepEqual(readdirSync(path.join(cache, 'bitnet-gen')).sort(), [
        'builds',
        'compilers.json',
        'models',
        'requests',
        'weights',
      ]);
      assert.equal(fingerprint(), before_);
      assert.deepEqual(readdirSync(project).sort(), ['node_modules', 'out', 'package-lock.json', 'package.json']);
    });

    it('serves as a library, with types', async function () {
      if (unavailable) skip(this, unavailable);
      writeFileSync(
        path.join(project, 'use.mts'),
        `import { createSampler, load } from 'bitnet-gen';
const { engine, tokenizer } = await load('node_modules/bitnet-gen/models/demo');
const sampler = createSampler({ temperature: 0, topK: 40, topP: 0.95, minP: 0.05, repeatPenalty: 1, seed: 1 });
const prompt = tokenizer!.encode('Once upon a time', { special: false });
const { text, stopReason } = await engine.generate(prompt, tokenizer, { count: 4, sampler });
console.log(JSON.stringify([typeof text, text.length > 4, stopReason]));
engine.dispose();\n`,
      );
      const tsc = path.join(projectRoot, 'node_modules', 'typescript', 'bin', 'tsc');
      const flags = '--strict --target es2023 --module nodenext --skipLibCheck'.split(' ');
      const types = ['--types', 'node', '--typeRoots', path.join(projectRoot, 'node_modules', '@types')];
      const checked = await execa(process.execPath, [tsc, ...flags, ...types, 'use.mts'], {
        cwd: project,
        reject: false,
      });
      assert.equal(checked.exitCode, 0, checked.stdout);
      const env = { XDG_CACHE_HOME: cache };
      const { stdout } = await execa(process.execPath, ['use.mjs'], { cwd: project, env });
      assert.deepEqual(JSON.parse(stdout), ['string', true, 'length']);
    });

    it('the install step compiles the demo, and never fails', async function () {
      if (unavailable) skip(this, unavailable);
      const script = path.join(installed, 'scripts', 'postinstall.mjs');
      const { command } = await findCompiler(hostFamily);
      const install = async (env: Record<string, string>) => {
        const ran = await execa(process.execPath, [script], { env, reject: false });
        assert.equal(ran.exitCode, 0);
        assert.equal(ran.stderr, '');
        return ran.stdout;
      };
      const fresh = { XDG_CACHE_HOME: path.join(folder, 'install') };
      mkdirSync(path.join(folder, 'empty'));
      writeFileSync(path.join(folder, 'file'), '');
      assert.match(
        await install({ ...fresh, PATH: path.join(folder, 'empty'), CC: '', BITNET_CC: '' }),
        /^bitnet-gen: kernels are compiled at the first run \(no working C compiler; install [^\n]*\)$/,
      );
      assert.match(
        await install({ XDG_CACHE_HOME: path.join(folder, 'file') }),
        /^bitnet-gen: kernels are compiled at the/,
      );
      assert.equal(await install({ ...fresh, BITNET_SKIP_BUILD: '1' }), '');
      assert.equal(existsSync(fresh.XDG_CACHE_HOME), false);
      assert.match(
        await install({ XDG_CACHE_HOME: cache, BITNET_CC: command.join(' ') }),
        /^bitnet-gen: kernels for \w+ compiled by (clang|gcc) [\d.]+$/,
      );
    });
  });
});
