/** bitnet-gen from the outside: what it generates, for which targets, with which compilers, and into which folders. */
import { strict as assert } from 'node:assert';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { findCompiler, hostFamily } from '../codegen/compile.ts';
import { shippedShapes } from '../codegen/shape.ts';
import { validate } from '../schemas/validate.ts';
import { demo, largestDifference, nativeTargets, readFloats, targets } from './machine.ts';
import { projectRoot, snapshot, useCli } from './run-cli.ts';
import { long, some } from './tier.ts';
import { smallShape } from './write-model.ts';

/** All files below a folder: name -> content. */
function contents(folder: string): Map<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const files = names.filter((name) => statSync(path.join(folder, name)).isFile());
  return new Map(files.map((name) => [name, readFileSync(path.join(folder, name), 'latin1')]));
}

describe('bitnet-gen', () => {
  const cli = useCli();
  let shape = '';
  before(() => {
    shape = cli.path('tiny.json');
    writeFileSync(shape, JSON.stringify(smallShape({ name: 'tiny', layers: 1 })));
  });

  describe('shipped shapes', () => {
    for (const target of targets)
      it(`for ${target}`, async () => {
        await Promise.all(
          some(shippedShapes()).map(async (name) => {
            const out = cli.path('shipped', name, target);
            const summary = await cli.json('gen', [name, '--target', target, '--no-compile', '--out', out]);
            assert.deepEqual([summary.model, summary.target, summary.out], [name, target, out]);
            assert.deepEqual([summary.library, summary.driver, summary.compiler], [null, null, null]);
            const files = contents(out);
            assert.deepEqual([...files.keys()], [...summary.files].sort());
            const manifest = JSON.parse(files.get('manifest.json')!);
            assert.equal(validate('manifest', manifest), undefined);
            assert.equal(manifest.layout.id, summary.layout);
            type Kernels = { gemv: string; panel?: string; gemm: string[]; tables?: string[] };
            for (const { gemv, panel, gemm, tables } of Object.values<Kernels>(manifest.matrices))
              for (const kernel of [gemv, ...(panel ? [panel] : []), ...gemm, ...(tables ?? [])])
                assert.ok(files.has(`kernels/${kernel}.c`), kernel);
          }),
        );
      });

    long(
      'up by rows and down by columns, where the activation makes zeros in large matrices, or as it is asked for',
      async () => {
        const args = ['--target', 'avx512', '--no-compile', '--out'];
        const cases: [string, string[], boolean][] = [
          ['bitnet-2b-4t', [], true],
          ['bitnet-2b-4t', ['--no-sparse'], false],
          [demo, [], false],
          [demo, ['--sparse'], true],
          ['llama3-8b-158', [], false],
        ];
        for (const [i, [model, options, sparse]] of cases.entries()) {
          const out = cli.path('sparse', String(i));
          await cli.json('gen', [model, ...options, ...args, out]);
          const { matrices } = JSON.parse(readFileSync(path.join(out, 'manifest.json'), 'utf8'));
          const what = `${model} ${options}`;
          assert.equal(/rows$/.test(matrices.ffn_up.packing), sparse, what);
          assert.equal(/columns$/.test(matrices.ffn_down.packing), sparse, what);
          assert.doesNotMatch(matrices.ffn_gate.packing, /rows|columns/, what);
        }
        await cli.refuses('gen', ['llama3-8b-158', '--sparse', ...args, cli.path('silu')], 1, [
          /activation 'silu': only squared ReLU \(relu2\) makes zeros/,
          /leave out --sparse/,
        ]);
      },
    );

    it('the layout of the weights depends on the packings alone, not on the target', () => {
      for (const name of some(shippedShapes())) {
        const layouts = new Map<string, unknown>();
        for (const target of targets) {
          const file = cli.path('shipped', name, target, 'manifest.json');
          const { layout, matrices } = JSON.parse(readFileSync(file, 'utf8'));
          const packings = JSON.stringify(Object.values<{ packing: string }>(matrices).map((m) => m.packing));
          if (!layouts.has(packings)) layouts.set(packings, layout);
          assert.deepEqual(layout, layouts.get(packings), `${name} for ${target}`);
        }
        assert.ok(layouts.size < targets.length, 'no two targets share a layout');
      }
    });
  });

  describe('output', () => {
    it('same input, same output, byte for byte, whatever the folder and the environment', async () => {
      const other = {
        cwd: cli.path(),
        env: { TZ: 'Asia/Tokyo', LANG: 'tr_TR.UTF-8', XDG_CACHE_HOME: cli.path('other') },
      };
      await Promise.all(
        some([...targets].sort((one) => (one === 'avx2' ? -1 : 1))).map(async (target) => {
          const [a, b] = [cli.path(`a-${target}`), cli.path(`b-${target}`)];
          await Promise.all([
            cli.ok('gen', [shape, '--target', target, '--no-compile', '--out', a]),
            cli.ok('gen', ['tiny.json', '--target', target, '--no-compile', '--out', `b-${target}`], other),
          ]);
          assert.ok(contents(a).size > 20);
          assert.deepEqual(contents(b), contents(a));
        }),
      );
    });

    it('--dump plan, program and c: what is generated, without writing', async () => {
      const cwd = cli.path('dumps');
      mkdirSync(cwd);
      const dump = (what: string) => cli.ok('gen', [shape, '--target', 'avx2', '--dump', what], { cwd });
      const [plan, program, c, lookUps] = await Promise.all([
        dump('plan'),
        dump('program'),
        dump('c'),
        cli.ok('gen', [shape, '--target', 'avx2', '--dump', 'plan', '--packing', 'tl1', '--kernel', 'lookup'], { cwd }),
      ]);
      assert.equal(JSON.parse(lookUps!).matrices.attn_q.gemv.op, 'lookup');
      assert.deepEqual(readdirSync(cwd), []);
      const { cpu, matrices, kernels } = JSON.parse(plan!);
      assert.equal(cpu.isa, 'avx2');
      assert.equal(matrices.attn_q.gemv.op, 'gemv');
      const programs = JSON.parse(program!) as { name: string }[];
      const generated = [...contents(cli.path('a-avx2'))].filter(([name]) => name.startsWith('kernels/'));
      assert.deepEqual(
        programs.map((p) => `kernels/${p.name}.c`).sort(),
        generated.map(([name]) => name),
      );
      assert.ok(Object.keys(kernels).length > 10);
      for (const [name, text] of generated) assert.ok(c!.includes(text), name);
    });

    it('the default: the demo model for this machine, below generated/ of the current folder', async () => {
      const cwd = cli.path('default');
      mkdirSync(cwd);
      const text = await cli.ok('gen', ['--no-compile'], { cwd });
      assert.match(text, /^demo-[0-9a-f]{6} for \w+: \d+ files in generated\/demo-[0-9a-f]{6}\/\w+\n$/);
      assert.deepEqual(readdirSync(cwd), ['generated']);
    });

    long('--out: takes a new, an empty and its own earlier folder, and clears what is stale', async () => {
      const out = cli.path('own');
      mkdirSync(out);
      const generate = (...args: string[]) => cli.ok('gen', [shape, '--out', out, ...args]);
      await generate('--target', nativeTargets[0]!);
      assert.ok(existsSync(path.join(out, 'libbitnet.so')) && existsSync(path.join(out, 'driver')));
      await generate('--target', 'avx2', '--no-compile');
      assert.deepEqual(contents(out), contents(cli.path('a-avx2')), 'no kernel and no binary of the earlier target');
    });

    it('--out: refuses a folder with other files, and a file', async () => {
      const folder = cli.path('foreign');
      mkdirSync(folder);
      const file = path.join(folder, 'thesis.txt');
      writeFileSync(file, 'precious');
      const [other, notFolder] = await Promise.all([
        cli.run('gen', [shape, '--no-compile', '--out', folder]),
        cli.run('gen', [shape, '--no-compile', '--out', file]),
      ]);
      assert.deepEqual([other!.code, notFolder!.code], [2, 2]);
      assert.match(other!.stderr, /^bitnet-gen: --out '.*foreign' holds other files; choose an empty or new folder\n$/);
      assert.match(notFolder!.stderr, /^bitnet-gen: --out '.*thesis\.txt' is not a folder\n$/);
      assert.deepEqual(readdirSync(folder), ['thesis.txt']);
      assert.equal(readFileSync(file, 'utf8'), 'precious');
    });

    long('bindings.ts passes a strict type checker and describes the C interface', async () => {
      const folder = cli.path('typed');
      cpSync(cli.path('a-scalar', 'bindings.ts'), path.join(folder, 'bindings.ts'));
      writeFileSync(
        path.join(folder, 'user.ts'),
        `import { type BitnetLibrary, functions, vocabulary } from './bindings.ts';
         export const use = (library: BitnetLibrary): number => library.eval(1, new Int32Array(1), 1, 1, new Float32Array(vocabulary));
         export const result: 'int32' = functions.bn_eval[0];
         // @ts-expect-error tokens are an Int32Array
         export const wrong = (library: BitnetLibrary): number => library.eval(1, [1], 1, 1, null);\n`,
      );
      const tsc = path.join(projectRoot, 'node_modules', 'typescript', 'bin', 'tsc');
      const flags = '--noEmit --strict --target es2023 --module nodenext --allowImportingTsExtensions'.split(' ');
      const checked = await execa(process.execPath, [tsc, ...flags, 'user.ts'], { cwd: folder, reject: false });
      assert.equal(checked.exitCode, 0, checked.stdout);
    });
  });

  describe('CPU profiles', () => {
    const zen4 = path.join(projectRoot, 'schemas/cpus/zen4.json');
    const profile = JSON.parse(readFileSync(zen4, 'utf8'));

    it('--cpu FILE', async () => {
      const out = cli.path('zen4');
      const summary = await cli.json('gen', [shape, '--cpu', zen4, '--no-compile', '--out', out]);
      assert.deepEqual([summary.target, summary.cpu], ['avx512', 'zen4']);
      assert.deepEqual(JSON.parse(readFileSync(path.join(out, 'manifest.json'), 'utf8')).cpu, profile);
    });

    long('bad profiles: what is wrong and what to do', async () => {
      const cases: [content: string | undefined, says: RegExp][] = [
        [undefined, /no CPU profile '.*0\.json'; give a JSON file like those in schemas\/cpus/],
        ['{ "name":', /CPU profile '.*1\.json' is not JSON/],
        ['{}', /'.*2\.json': the document must have required property 'name'/],
        [JSON.stringify({ ...profile, cache: { l1: '32K', l2: 1, l3: 1 } }), /'.*3\.json': cache\.l1 must be integer/],
        [JSON.stringify({ ...profile, speed: 9 }), /'.*4\.json': .*'speed'/],
        [JSON.stringify({ ...profile, isa: 'mmx' }), /unknown target 'mmx'; known targets: /],
        [
          JSON.stringify({ ...profile, features: ['avx512f'] }),
          /'.*6\.json': avx512 needs the features avx512bw.*; add /,
        ],
      ];
      await Promise.all(
        cases.map(async ([content, says], i) => {
          const file = cli.path(`${i}.json`);
          if (content !== undefined) writeFileSync(file, content);
          const out = cli.path('bad-profile');
          const { code, stdout, stderr } = await cli.run('gen', [shape, '--cpu', file, '--no-compile', '--out', out]);
          assert.equal(code, 1, stderr);
          assert.equal(stdout, '');
          assert.match(stderr, /^bitnet-gen: [^\n]+\n$/);
          assert.match(stderr, says);
          assert.equal(snapshot(out), 'nothing');
        }),
      );
    });
  });

  describe('compiling', () => {
    long('library, driver and summary; the driver computes what the runtime does', async () => {
      const out = cli.path('compiled');
      const summary = await cli.json('gen', ['--target', nativeTargets[0]!, '--out', out]);
      assert.equal(summary.library, path.join(out, 'libbitnet.so'));
      assert.match(summary.compiler, /^(clang|gcc) [\d.]+$/);
      // The packed weights that the runtime keeps are those that any target's driver reads.
      const golden = JSON.parse(readFileSync(path.join(demo, 'golden.json'), 'utf8'));
      await cli.ok('run', ['--tokens', '1', '-n', '0', '--target', nativeTargets[0]!]);
      const [weights] = readdirSync(cli.cache('weights'));
      writeFileSync(cli.path('tokens'), Int32Array.from(golden.prompt_ids));
      await execa(summary.driver, [cli.cache('weights', weights!), cli.path('tokens'), cli.path('logits'), '2', '32']);
      const difference = largestDifference(readFloats(cli.path('logits')), readFloats(path.join(demo, golden.logits)));
      assert.ok(difference <= 2e-4, String(difference));
    });

    long('the driver says what is wrong with its input', async () => {
      const driver = cli.path('compiled', 'driver');
      const run = async (...args: string[]) => {
        const { exitCode, stderr } = await execa(driver, args, { reject: false });
        assert.equal(exitCode, 1);
        return stderr;
      };
      assert.match(await run(), /^driver: usage: driver WEIGHTS TOKENS LOGITS/);
      assert.match(await run('/no/such/weights', cli.path('tokens'), cli.path('l')), /^driver: .*\/no\/such\/weights/);
      assert.match(await run(cli.path('tokens'), cli.path('tokens'), cli.path('l')), /^driver: .*tokens/);
    });

    long('--cc and BITNET_CC choose the compiler; one with a blank in its path works', async () => {
      const { command } = await findCompiler(hostFamily);
      const wrapper = cli.path('my cc');
      writeFileSync(wrapper, `#!/bin/sh\necho "$@" >> '${cli.path('calls')}'\nexec ${command.join(' ')} "$@"\n`, {
        mode: 0o755,
      });
      const [target] = nativeTargets as [string];
      const out = cli.path('by-wrapper');
      await cli.ok('gen', [shape, '--target', target, '--out', out, '--cc', wrapper]);
      const calls = () => readFileSync(cli.path('calls'), 'utf8');
      assert.match(calls(), /-c src\/model\.c/);
      const before_ = calls();
      await cli.ok('gen', [shape, '--target', target, '--out', out], { env: { BITNET_CC: wrapper } });
      assert.equal(calls(), before_, 'the same compiler: nothing is compiled again');
      symlinkSync(wrapper, cli.path('linked'));
      const env = { BITNET_CC: cli.path('linked') };
      await cli.ok('gen', [shape, '--target', target, '--out', out], { env });
      assert.ok(calls().length > before_.length, 'another command is another compiler');
    });
  });
});
