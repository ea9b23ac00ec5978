/**
 * The generated text itself. For every instruction set one kernel of each family is committed under generated/golden/, and the tables of
 * the demo model's library: a change of the generator shows as a diff there, a refactoring as none. UPDATE_GOLDEN=1 rewrites it. All
 * shipped shapes are emitted for every instruction set, and what is emitted compiles without a warning with every compiler there is.
 */
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { writeFiles } from '../codegen/compile.ts';
import { profileOf, readProfile } from '../codegen/cpu.ts';
import { emit, templates } from '../codegen/emit.ts';
import { kernelSource } from '../codegen/generate.ts';
import { isas } from '../codegen/isa/index.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { kernelsFor } from '../codegen/kernels/index.ts';
import { format, type KernelSpec } from '../codegen/name.ts';
import { kernelsOf, planOf } from '../codegen/plan.ts';
import { packageRoot } from '../schemas/files.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { skip } from './fixtures.ts';
import { compilerFor, isForeign, unitSources } from './kernel-runner.ts';
import { demoShape, shippedShapes } from './shapes.ts';
import { long } from './tier.ts';

const golden = path.join(packageRoot, 'generated', 'golden');
const targets = Object.values<Isa>(isas);
const planFor = (isa: Isa) => planOf(demoShape(), profileOf(isa.name));

/** Longer texts are committed as their hash: nobody reads hundreds of unrolled lines. */
const READABLE = 20_000;

/** The shipped CPU profiles with an instruction set, the one that is named as it first. */
const profilesOf = (isa: Isa): CpuProfile[] =>
  readdirSync(path.join(packageRoot, 'schemas', 'cpus'))
    .map((file) => readProfile(path.join(packageRoot, 'schemas', 'cpus', file)))
    .filter((cpu) => cpu.isa === isa.name)
    .sort((a, b) => Number(b.name === isa.name) - Number(a.name === isa.name));

/** Of each family the demo model's first kernel, on each CPU profile, or the family's first sample where no plan takes it. */
function goldenKernels(isa: Isa): KernelSpec[] {
  const plans = profilesOf(isa).map((cpu) => [...kernelsOf(planOf(demoShape(), cpu)).values()]);
  const found = kernelsFor(isa).flatMap(([op, family]) => {
    const planned = plans.flatMap((specs) => specs.find((spec) => spec.op === op) ?? []);
    return planned.length ? planned : family.samples(isa).slice(0, 1);
  });
  return [...new Map(found.map((spec) => [format(spec), spec])).values()];
}

/** What is committed for an instruction set: kernels, and what is printed around them but for the copies of templates. */
function goldenFiles(isa: Isa): Map<string, string> {
  const copied = templates();
  const tables = [...emit(planFor(isa))].filter(
    ([name]) => !copied.has(name) && !name.startsWith('kernels/') && name !== 'bindings.ts',
  );
  const kernels = goldenKernels(isa).map((spec): [string, string] => {
    const { name, text } = kernelSource(spec);
    return [`kernels/${name}.c`, text];
  });
  const isReadable = ([, text]: [string, string]) => text.length <= READABLE;
  const all = [...tables, ...kernels];
  const hashes = all
    .filter((file) => !isReadable(file))
    .map(([name, text]) => `${createHash('sha256').update(text).digest('hex')} ${name}\n`);
  return new Map([...all.filter(isReadable), ['longer.sha256', hashes.join('')]]);
}

/** Files below a folder, by path relative to it. */
function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
    .sort();
}

/** Where two texts first differ, for a message. */
function difference(actual: string, expected: string): string {
  const [a, e] = [actual.split('\n'), expected.split('\n')];
  const i = a.findIndex((line, j) => line !== e[j]);
  return `line ${i + 1} is now\n  ${a[i]}\nand was\n  ${e[i]}`;
}

describe('golden text', () => {
  for (const isa of targets)
    it(`${isa.name}: what generated/golden/${isa.name} holds`, function () {
      const folder = path.join(golden, isa.name);
      const files = goldenFiles(isa);
      if (process.env.UPDATE_GOLDEN === '1') {
        rmSync(folder, { recursive: true, force: true });
        for (const [name, text] of files) {
          mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
          writeFileSync(path.join(folder, name), text);
        }
      }
      if (!existsSync(folder)) skip(this, 'an instruction set without golden text; UPDATE_GOLDEN=1 writes it');
      const advice = 'run with UPDATE_GOLDEN=1 if that is meant, and read the diff';
      assert.deepEqual(filesBelow(folder), [...files.keys()].sort(), `other files than before; ${advice}`);
      for (const [name, text] of files) {
        const before = readFileSync(path.join(folder, name), 'utf8');
        if (text !== before) assert.fail(`${isa.name}/${name}: ${difference(text, before)}\n${advice}`);
      }
    });

  it('holds nothing else, and is small enough to be read', () => {
    for (const name of readdirSync(golden)) assert.ok(Object.hasOwn(isas, name), name);
    const bytes = filesBelow(golden).reduce((sum, name) => sum + statSync(path.join(golden, name)).size, 0);
    assert.ok(bytes <= 1 << 20, `${bytes} bytes`);
  });

  it('has the packing that decoding takes on each CPU profile', () => {
    for (const isa of targets)
      for (const cpu of profilesOf(isa)) {
        const { gemv } = planOf(demoShape(), cpu).matrices.ffn_up;
        assert.ok(
          goldenKernels(isa).some((spec) => format({ ...spec, shape: gemv.shape }) === format(gemv)),
          cpu.name,
        );
      }
  });
});

describe('emit', () => {
  for (const isa of targets) {
    it(`gives the same bytes twice for ${isa.name}`, () => {
      assert.deepEqual([...emit(planFor(isa))], [...emit(planFor(isa))]);
    });

    long(`serves all shipped shapes on ${isa.name}`, () => {
      const copied = templates();
      for (const shape of shippedShapes()) {
        const plan = planOf(shape, profileOf(isa.name));
        const files = emit(plan);
        for (const name of kernelsOf(plan).keys()) assert.ok(files.get(`kernels/${name}.c`)?.includes(`bn_${name}(`));
        assert.equal(JSON.parse(files.get('manifest.json')!).shape.hidden, shape.hidden);
        for (const [name, text] of files) {
          if (copied.has(name)) continue;
          assert.ok(text.endsWith('\n') && !text.includes('\r'), name);
          const code = text.replaceAll(/\/\*.*?\*\//gs, '');
          assert.doesNotMatch(code, /\bundefined\b|\bNaN\b|\[object/, `${shape.name}: ${name}`);
          assert.ok(!text.includes(packageRoot), `${name} mentions a path of this machine`);
        }
      }
    });
  }
});

const WARNINGS = ['-std=gnu11', '-Wall', '-Wextra', '-Werror', '-fsyntax-only'];
/** Kinds of compilers by how they name themselves, and what to ask for; undefined: the best there is. */
const compilers: Record<string, (foreign: boolean) => string | undefined> = {
  clang: () => undefined,
  gcc: (foreign) => (foreign ? 'aarch64-linux-gnu-gcc' : 'gcc'),
};

/** The command of a compiler for a family, or skips the test. */
async function compilerOr(context: Mocha.Context, kind: string, family: Isa['family']): Promise<readonly string[]> {
  const foreign = isForeign(family);
  if (foreign && family !== 'arm64') skip(context, `no cross compiler for ${family}`);
  const compiler = await compilerFor(family, compilers[kind]!(foreign));
  if (typeof compiler === 'string') return skip(context, compiler);
  return compiler.label.startsWith(kind) ? compiler.command : skip(context, `${kind} is not installed`);
}

describe('warnings', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'bitnet-warnings-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const compileIn = async (command: readonly string[], cwd: string, flags: readonly string[], file: string) => {
    const [cc, ...first] = command;
    const result = await execa(cc!, [...first, ...WARNINGS, ...flags, file], { cwd, reject: false });
    assert.equal(result.stderr, '', `${command.join(' ')} on ${file}`);
    assert.equal(result.exitCode, 0);
  };

  for (const kind of Object.keys(compilers))
    for (const isa of targets) {
      long(`none from ${kind} on the kernels for ${isa.name}`, async function () {
        const command = await compilerOr(this, kind, isa.family);
        const sources = [...kernelsOf(planFor(isa)).values()].map(kernelSource);
        const units = unitSources(sources, isa);
        const cwd = path.join(folder, `${isa.name}-${kind}`);
        await writeFiles(
          new Map([
            ...sources.map(({ name, text }): [string, string] => [`kernels/${name}.c`, text]),
            ...units.map((text, i): [string, string] => [`unit${i}.c`, text]),
          ]),
          cwd,
        );
        for (const i of units.keys()) await compileIn(command, cwd, isa.flags(isa.requires), `unit${i}.c`);
      });

      long(`none from ${kind} on each file of the library around them for ${isa.name}`, async function () {
        const command = await compilerOr(this, kind, isa.family);
        const files = new Map([...emit(planFor(isa))].filter(([name]) => /^[^/]*\.[ch]$/.test(name)));
        // Headers too: each includes what it needs.
        const sources = [...files.keys()].map((name) => (name.endsWith('.c') ? name : `${name}.c`));
        for (const name of sources) if (!files.has(name)) files.set(name, `#include "${path.basename(name, '.c')}"\n`);
        const cwd = path.join(folder, `${isa.name}-${kind}-library`);
        await writeFiles(files, cwd);
        for (const name of sources) await compileIn(command, cwd, isa.flags(isa.requires), name);
      });
    }

  it('all C that is written by hand is formatted', async function () {
    const asked = await execa('clang-format-19', ['--version'], { reject: false });
    if (asked.failed) skip(this, 'clang-format-19 is not installed; other versions format differently');
    const sources = ['templates', 'test'].flatMap((name) =>
      filesBelow(path.join(packageRoot, name))
        .filter((file) => /\.[ch]$/.test(file))
        .map((file) => path.join(name, file)),
    );
    assert.ok(sources.length >= templates().size);
    const result = await execa('clang-format-19', ['--dry-run', '-Werror', ...sources], {
      cwd: packageRoot,
      reject: false,
    });
    assert.equal(result.stderr, '');
  });
});
