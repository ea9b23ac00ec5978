/**
 * The generated code under the compiler's sanitizers: no access beside a buffer, no leak, no undefined behaviour, no data race,
 * and the same logits as the ordinary build. Node cannot load such a library, so the driver program runs it.
 */
import { strict as assert } from 'node:assert';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { openModel } from '../../runtime/formats/open.ts';
import { encodings, type ModelSource } from '../../runtime/formats/source.ts';
import { skip } from '../fixtures.ts';
import {
  assertSameBits,
  type Built,
  buildFor,
  drive,
  nativeTargets,
  oddShape,
  packedFor,
  prepare,
  useCache,
} from '../machine.ts';
import { generator } from '../oracle.ts';
import { compilerWith, env, sanitizers } from '../sanitizer.ts';
import { projectRoot } from '../setup.ts';
import { writeHuggingFace } from '../write-huggingface.ts';
import { mapMatrices, randomModel, smallShape } from '../write-model.ts';

for (const { name, flags } of sanitizers) {
  describe(`sanitizers: ${name}`, () => {
    const cache = useCache();
    let found: Awaited<ReturnType<typeof compilerWith>>;
    let source: ModelSource;
    let model = '';
    /** Has dead neurons. */
    let small = '';
    /** All within the bounds of packing, but together too large. */
    let overflowing = '';
    let weights = '';
    let plain: Built;
    let tokens: number[] = [];

    before(async () => {
      found = await compilerWith(flags);
      model = path.join(cache(), 'model');
      writeHuggingFace(model, randomModel(oddShape, 5), { weights: 'packed-divide' });
      source = openModel(model);
      overflowing = path.join(cache(), 'overflowing');
      const large = randomModel(oddShape, 5);
      const scaled = large.layers.map((layer) => ({
        ...mapMatrices(layer, (matrix) => ({ ...matrix, scale: 2 ** 20 })),
        ffnNorm: layer.ffnNorm.map(() => 2 ** 20),
      }));
      writeHuggingFace(overflowing, { ...large, layers: scaled }, { weights: 'packed-divide' });
      small = path.join(cache(), 'small');
      const ordinary = randomModel(smallShape({ hidden: 68, headSize: 20, intermediate: 148 }), 6);
      const isDead = { gate: (row: number) => row % 5 === 2, up: (row: number) => row % 3 === 1 };
      const layers = ordinary.layers.map((layer) =>
        mapMatrices(layer, (matrix, kind) => {
          if (kind !== 'gate' && kind !== 'up') return matrix;
          const trits = matrix.trits.map((trit, i) => (isDead[kind](Math.floor(i / matrix.cols)) ? 0 : trit));
          return { ...matrix, trits };
        }),
      );
      writeHuggingFace(small, { ...ordinary, layers }, { weights: 'packed-divide' });
      const ready = await prepare(model);
      ready.library.close(ready.model);
      ({ weights, built: plain } = ready);
      const random = generator(2);
      tokens = Array.from({ length: 70 }, () => Math.floor(oddShape.vocabulary * random()));
    });

    const sanitized = (context: Mocha.Context, target: string): Promise<Built> =>
      'reason' in found ? skip(context, found.reason) : buildFor(source.shape, target, { cc: found.cc, extra: flags });

    const buildSparse = (cc: string, target = nativeTargets[0]!): Promise<Built> =>
      buildFor(openModel(small).shape, target, { cc, extra: flags, sparse: true });

    for (const target of nativeTargets) {
      it(`${target}: driver`, async function () {
        const built = await sanitized(this, target);
        const own = await packedFor(model, built);
        for (const options of [
          { threads: 1, kv: 16 },
          { threads: 3, kv: 32 },
          { threads: 3, kv: 16, chunk: 1 },
          { threads: 3, kv: 16, chunk: 7 },
          { threads: 3, kv: 8, chunk: 7 },
        ] as const) {
          const expected = await drive(plain, [], weights, tokens, { kv: options.kv });
          const actual = await drive(built, [], own, tokens, { ...options, env });
          assertSameBits(actual, expected, JSON.stringify(options));
        }
      });
    }

    for (const target of nativeTargets)
      it(`${target}: numbers that are not finite`, async function () {
        const built = await sanitized(this, target);
        const own = await packedFor(overflowing, built);
        writeFileSync(path.join(cache(), 'tokens'), Int32Array.from(tokens));
        // The driver ends where it fails, and frees nothing.
        const unfreed = { ...env, ASAN_OPTIONS: `${env.ASAN_OPTIONS}:detect_leaks=0` };
        for (const kv of ['8', '16', '32'])
          for (const chunk of ['1', '70'])
            for (const top of ['0', '3']) {
              const args = [own, path.join(cache(), 'tokens'), path.join(cache(), 'logits'), '3', kv, chunk, top];
              const ran = await execa(built.driver, args, { reject: false, env: unfreed });
              assert.equal(ran.exitCode, 1, ran.stderr);
              assert.match(ran.stderr, /token \d+ at position 0 gives numbers that are not finite/);
            }
      });

    // Thread sanitizers do not watch stores of wide vectors, and plain C has none.
    for (const target of new Set([nativeTargets[0]!, 'scalar']))
      it(`${target}: zeros are skipped`, async function () {
        if ('reason' in found) return skip(this, found.reason);
        const { built: dense, weights: whole } = await prepare(small, target, [], undefined, false);
        const built = await buildSparse(found.cc, target);
        assert.ok(built.manifest.matrices.ffn_up!.panel && built.manifest.matrices.ffn_down!.panel);
        const own = await packedFor(small, built);
        const few = tokens.slice(0, 20);
        const expected = await drive(dense, [], whole, few);
        for (const chunk of [1, 3, 20])
          for (const pages of [0, 2] as const)
            assertSameBits(
              await drive(built, [], own, few, { threads: 3, chunk, pages, env }),
              expected,
              `${chunk}, ${pages}`,
            );
      });

    it('packing', async function () {
      await pack(await sanitized(this, nativeTargets[0]!), source, weights);
    });

    it('packing where dead neurons are dropped', async function () {
      if ('reason' in found) return skip(this, found.reason);
      const built = await buildSparse(found.cc);
      await pack(built, openModel(small), await packedFor(small, built));
    });

    it('many threads in one library, of which some leave what they opened', async function () {
      const built = await sanitized(this, nativeTargets[0]!);
      const program = await link(built, 'threads-main');
      const folder = path.join(cache(), 'threads');
      mkdirSync(folder);
      const ran = await execa(program, [await packedFor(model, built), folder], {
        reject: false,
        env,
        timeout: 60_000,
      });
      assert.equal(ran.exitCode, 0, ran.stderr);
      assert.deepEqual(readdirSync(folder), [], 'packings are left');
    });

    /** A program of the tests with a build's library. @returns its file */
    async function link(built: Built, name: string): Promise<string> {
      const [cc, ...args] = (found as { cc: string }).cc.split(' ');
      const program = path.join(cache(), name);
      const main = path.join(projectRoot, 'test', `${name}.c`);
      const linked = [`-I${built.folder}/src`, main, built.library, `-Wl,-rpath,${built.folder}`, '-lpthread'];
      await execa(cc!, [...args, '-Wall', '-Wextra', ...flags, '-o', program, ...linked]);
      return program;
    }

    /** Packs by a program, and compares with what was packed by the runtime. */
    async function pack(built: Built, from: ModelSource, expected: string) {
      const program = await link(built, 'pack-main');
      const lines = built.manifest.layout.tensors.flatMap(({ name: tensor, kind }, i) => {
        if (kind === 'int32') return [];
        const t = from.tensors.get(tensor)!;
        const numbers = [i, t.offset, t.bytes, encodings[t.encoding], t.rows, t.cols, t.scale ?? 0, t.factor ?? 1];
        return [...numbers, t.permutedHeads ?? 0, t.file].join(' ');
      });
      const file = path.join(cache(), 'packed.bnw');
      const ran = await execa(program, [file, '3'], { input: lines.join('\n'), reject: false, env });
      assert.equal(ran.exitCode, 0, ran.stderr);
      assert.ok(readFileSync(file).equals(readFileSync(expected)), 'other bytes');
      assert.ok(!existsSync(`${file}.second`));
      rmSync(file);
    }

    it('the sanitizer finds what it is meant to find', async function () {
      if ('reason' in found) return skip(this, found.reason);
      const bad =
        name === 'thread'
          ? `#include <pthread.h>
           static int x;
           static void *add(void *p) { for (int i = 0; i < 1000; i++) x++; return p; }
           int main(void) { pthread_t t; pthread_create(&t, 0, add, 0); add(0); pthread_join(t, 0); return 0; }`
          : `#include <stdlib.h>
           int main(int argc, char **argv) { (void)argv; char *p = malloc(8); p[7 + argc] = 1; return p[7 + argc] - 1; }`;
      const file = path.join(cache(), 'bad.c');
      writeFileSync(file, bad);
      const [cc, ...args] = found.cc.split(' ');
      const program = path.join(cache(), 'bad');
      await execa(cc!, [...args, ...flags, '-o', program, file, '-lpthread']);
      const ran = await execa(program, [], { reject: false, env });
      assert.equal(ran.exitCode, 99, ran.stderr);
    });
  });
}
