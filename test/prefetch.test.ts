/** How kernels fetch weights ahead: as the CPU's profile says, in products, look-ups and the head's screen. */
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { profileOf, readProfile } from '../codegen/cpu.ts';
import { kernelSource } from '../codegen/generate.ts';
import { parsePrefetch, preferredPrefetch } from '../codegen/kernels/prefetch.ts';
import { planOf } from '../codegen/plan.ts';
import { packageRoot } from '../schemas/files.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { shippedShapes } from './shapes.ts';

const shipped = (name: string) => path.join(packageRoot, 'schemas', 'cpus', `${name}.json`);

/** Variants of what streams weights in a plan for 2B4T: decoding, batches, both screens. */
function variantsOf(cpu: CpuProfile, options: Parameters<typeof planOf>[2] = {}) {
  const shape = shippedShapes().find(({ name }) => name === 'bitnet-2b-4t')!;
  const { matrices, kernels } = planOf(shape, cpu, { sparse: false, ...options });
  const { gemv, gemm } = matrices.ffn_gate;
  return [gemv, gemm[0]!, kernels.screen!, kernels.screen_fast!].map(({ variant }) => variant);
}

describe('prefetch', () => {
  it('AMD: past the second-level cache, at the distance that each packing was measured with', () => {
    assert.deepEqual(variantsOf(readProfile(shipped('zen4'))), ['p8192', 'p8192', 'p4096', 'p4096']);
  });

  it('other x86, known or not: into the second-level cache', () => {
    assert.deepEqual(variantsOf(readProfile(shipped('emeraldrapids'))), Array(4).fill('p12288l2'));
    for (const target of ['avx2', 'avx512']) {
      const own = variantsOf(profileOf(target));
      assert.deepEqual(own, Array(4).fill('p12288l2'), target);
      const lookUps = variantsOf(profileOf(target), { packing: 'tl1', kernel: ['lookup'] });
      // Look-ups at their own distance.
      assert.deepEqual(lookUps, ['p4096l2', ...Array(3).fill('p12288l2')], target);
    }
  });

  it('a profile names hint and distance, or leaves them to what suits its CPU', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-prefetch-'));
    const file = path.join(folder, 'cpu.json');
    const { prefetch: _, ...zen4 } = readProfile(shipped('zen4'));
    const read = (changes: object) => {
      writeFileSync(file, JSON.stringify({ ...zen4, ...changes }));
      return readProfile(file);
    };
    try {
      assert.deepEqual(read({}).prefetch, { hint: 'nta' });
      assert.deepEqual(read({ id: { ...zen4.id, vendor: 'GenuineIntel' } }).prefetch, { hint: 'l2', ahead: 12288 });
      assert.deepEqual(variantsOf(read({ prefetch: { hint: 'none' } })), Array(4).fill('p0'));
      const own = read({ prefetch: { hint: 'l2' } });
      assert.deepEqual(variantsOf(own), ['p8192l2', 'p8192l2', 'p4096l2', 'p4096l2']);
      assert.equal(preferredPrefetch(own, 64), 'p64l2');
      assert.throws(() => read({ prefetch: { hint: 't0' } }), /prefetch\.hint .*nta, l2, none/);
      assert.throws(() => read({ prefetch: { hint: 'l2', ahead: 100 } }), /prefetch\.ahead .*multiple of 64/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('the C says so', () => {
    const shape = shippedShapes().find(({ name }) => name === 'bitnet-2b-4t')!;
    for (const [name, hint] of [
      ['zen4', 'NTA'],
      ['emeraldrapids', 'T1'],
    ] as const) {
      const { matrices, kernels } = planOf(shape, readProfile(shipped(name)));
      for (const spec of [matrices.attn_q.gemv, kernels.screen!]) {
        const hints = kernelSource(spec).text.match(/_MM_HINT_\w+/g);
        assert.deepEqual(new Set(hints), new Set([`_MM_HINT_${hint}`]), `${spec.op} on ${name}`);
      }
    }
    assert.deepEqual(parsePrefetch('p12288l2'), { ahead: 12288, level: 2 });
    assert.deepEqual(parsePrefetch('p0'), { ahead: 0, level: 0 });
  });
});
