/**
 * Shapes of published models, whose weights no test has: they are generated and compiled for every target without a warning,
 * and the library loads where the CPU allows and says what it is.
 */
import { strict as assert } from 'node:assert';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { findCompiler, hostFamily } from '../../codegen/compile.ts';
import { isaOf } from '../../codegen/isa/index.ts';
import { openLibrary } from '../../runtime/library.ts';
import { packageRoot } from '../../schemas/files.ts';
import type { ModelShape } from '../../schemas/types.ts';
import { skip } from '../fixtures.ts';
import { buildFor, nativeTargets, runnerOf, targets, useCache } from '../machine.ts';

const shapeOf = (name: string): ModelShape =>
  JSON.parse(readFileSync(path.join(packageRoot, 'schemas', 'models', `${name}.json`), 'utf8'));

/** What ternary weights take at 2 bits, the rows of a tied embedding, and their int8 screen; a packed file has little else. */
function leastBytes(
  { hidden, layers, heads, kvHeads, headSize, intermediate, ...rest }: ModelShape,
  weightsInByte: number,
): number {
  assert.ok(rest.tiedEmbedding);
  const element = rest.embeddingType === 'f32' ? 4 : 2;
  const attention = hidden * headSize * (2 * heads + 2 * kvHeads);
  return (layers * (attention + 3 * hidden * intermediate)) / weightsInByte + (element + 1) * rest.vocabulary * hidden;
}

for (const name of ['bitnet-2b-4t', 'bitnet-3b']) {
  describe(`shapes: ${name}`, () => {
    useCache();
    const shape = shapeOf(name);

    for (const target of targets)
      it(`compiles for ${target}${nativeTargets.includes(target) ? ' and loads' : ''}`, async function () {
        const { family } = isaOf(target);
        try {
          await findCompiler(family);
        } catch (error) {
          if (family === 'any' || family === hostFamily) throw error;
          skip(this, (error as Error).message);
        }
        // clang needs 20 s for scalar attention with -O3. The last option wins.
        const extra = ['-Werror', ...(target === 'scalar' ? ['-O1'] : [])];
        const built = await buildFor(shape, target, { extra });
        assert.ok(statSync(built.library).size > 10_000);
        const packed = Object.values(built.manifest.matrices).map((m) => m.packing);
        const least = leastBytes(shape, packed.every((token) => token.startsWith('t5')) ? 5 : 4);
        const { fileBytes, id } = built.manifest.layout;
        assert.ok(fileBytes >= least && fileBytes < 1.05 * least, `${fileBytes} bytes, at least ${least}`);

        if (nativeTargets.includes(target)) {
          const library = await openLibrary(built.library);
          const described = library.describe() as { shape: ModelShape; cpu: { isa: string }; layout: string };
          assert.deepEqual({ ...described.shape, name: built.manifest.shape.name }, built.manifest.shape);
          assert.deepEqual({ ...described.shape, name: shape.name, context: shape.context }, shape);
          assert.equal(described.cpu.isa, target);
          assert.equal(described.layout, id);
          return;
        }
        const runner = runnerOf(target);
        if (typeof runner === 'string') return;
        // Without arguments the driver says how it is used: the emulator loads and starts it.
        const [command, ...args] = [...runner, built.driver];
        const ran = await execa(command!, args, { reject: false });
        assert.deepEqual([ran.exitCode, ran.stderr.includes('usage: driver')], [1, true], ran.stderr);
      });
  });
}
