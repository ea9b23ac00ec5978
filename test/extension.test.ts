/**
 * One object each: an instruction set, a packing and a kernel family are added at run time to the registries, and everything
 * that is driven by them (samples, plan, emission, compiled C against reference()) works with them. Then they are removed.
 */
import { strict as assert } from 'node:assert';
import { profileOf } from '../codegen/cpu.ts';
import { emit } from '../codegen/emit.ts';
import { kernelSource } from '../codegen/generate.ts';
import { isaOf, isas } from '../codegen/isa/index.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { gemv } from '../codegen/kernels/dot-products.ts';
import { kernels, kernelsFor } from '../codegen/kernels/index.ts';
import type { KernelFamily } from '../codegen/kernels/kernel.ts';
import type { KernelSpec } from '../codegen/name.ts';
import { packings } from '../codegen/packings/index.ts';
import type { Packing } from '../codegen/packings/packing.ts';
import { kernelsOf, planOf } from '../codegen/plan.ts';
import { PlanError } from '../schemas/error.ts';
import { skip } from './fixtures.ts';
import { bytesOf, cloned, dirtied, randomOf } from './kernel-inputs.ts';
import { runKernels, unavailable } from './kernel-runner.ts';
import { demoShape } from './shapes.ts';

/** With `key` in a registry while `work` runs. */
async function registered<T>(registry: object, key: string, value: T, work: () => Promise<void>): Promise<void> {
  const open = registry as Record<string, T>;
  assert.ok(!(key in open));
  open[key] = value;
  try {
    await work();
  } finally {
    delete open[key];
  }
}

/** Makes a registry hold what it held, in the same order. */
function restore(registry: object, all: Readonly<Record<string, unknown>>): void {
  const open = registry as Record<string, unknown>;
  for (const key of Object.keys(open)) delete open[key];
  Object.assign(open, all);
}

/** Compiled C of these specs against reference(). */
async function assertExact(context: Mocha.Context, isa: Isa, specs: readonly KernelSpec[]): Promise<void> {
  const reason = await unavailable(isa);
  if (reason) skip(context, reason);
  assert.ok(specs.length > 0);
  const cases = specs.map((spec) => {
    const family = (kernels as Record<string, KernelFamily>)[spec.op]!;
    const source = kernelSource(spec);
    const args = dirtied(source.program.params, family.example(spec, randomOf(source.name), false));
    const expected = cloned(args);
    family.reference(spec, expected);
    return { source, args, expected };
  });
  const outcomes = await runKernels(
    isa,
    cases.map((c) => c.source),
    cases.map(({ source, args }) => ({ kernel: source.name, args })),
  );
  outcomes.forEach(({ buffers, damage }, i) => {
    const { source, expected } = cases[i]!;
    assert.deepEqual(damage, [], source.name);
    for (const p of source.program.params)
      if (p.kind === 'pointer' && p.access !== 'scratch')
        assert.deepEqual(
          bytesOf(buffers[p.name]!),
          bytesOf(expected[p.name] as Uint8Array),
          `${source.name}: ${p.name}`,
        );
  });
}

const small = (spec: KernelSpec) => Object.values(spec.shape).every((size) => size < 600);

describe('extension', () => {
  const dummyIsa: Isa = { ...isas.scalar, name: 'testisa' };

  it('an instruction set is one object', async function () {
    await registered(isas, 'testisa', dummyIsa, async () => {
      assert.equal(isaOf('testisa'), dummyIsa);
      const plan = planOf(demoShape(), profileOf('testisa'));
      const files = emit(plan);
      for (const name of kernelsOf(plan).keys()) {
        assert.match(name, /_testisa(_|$)/);
        assert.ok(files.has(`kernels/${name}.c`));
      }
      const specs = kernelsFor(dummyIsa).flatMap(([, family]) => family.samples(dummyIsa).filter(small).slice(0, 1));
      await assertExact(this, dummyIsa, specs);
    });
    assert.throws(() => isaOf('testisa'), PlanError);
  });

  it('an instruction set without a word rules out the kernels that need it', async () => {
    const { dot_next: _, ...words } = isas.scalar.words;
    await registered(isas, 'testisa', { ...dummyIsa, words }, async () => {
      assert.throws(() => planOf(demoShape(), profileOf('testisa')), /testisa has no word 'dot_next'/);
    });
  });

  /** One weight a byte: line = 16 rows x 4 k; byte 4 r + k holds code w + 1. */
  const bytes: Packing = {
    token: 'x8r16x4',
    rows: 16,
    lineK: 4,
    lineBytes: 64,
    unroll: 4,
    ahead: 4096,
    needs: [],
    place: (row, k) => ({ byte: 4 * row + k, factor: 1 }),
    unpacker: () => ({
      scales: [1],
      fields: (line) => [() => line.map((codes) => ({ ...codes, bound: 2 }))],
      // A line of four k is too short for products by tables.
      base3: () => assert.fail('not for tables'),
    }),
  };
  for (const isa of Object.values<Isa>(isas))
    it(`a packing is one object, on ${isa.name}`, async function () {
      await registered(packings, 'testpacking', bytes, async () => {
        const specs = Object.values<KernelFamily>(kernels)
          .filter((family) => family.product)
          .flatMap((family) => family.samples(isa).filter((spec) => spec.weight === bytes.token && small(spec)));
        await assertExact(this, isa, specs);
        // Four times the bytes of two bits a weight: never the plan's choice.
        const plan = planOf(demoShape(), profileOf(isa.name));
        for (const matrix of Object.values(plan.matrices)) assert.notEqual(matrix.packing, bytes.token);
      });
    });

  it('a packing serves a whole model when it is the only one', async () => {
    const all = { ...packings } as Record<string, Packing>;
    for (const key of Object.keys(all)) delete (packings as Record<string, Packing>)[key];
    try {
      await registered(packings, 'testpacking', bytes, async () => {
        const plan = planOf(demoShape(), profileOf('scalar'), { sparse: false });
        for (const matrix of Object.values(plan.matrices)) assert.equal(matrix.packing, bytes.token);
        assert.match(emit(plan).get('plan.c')!, /x8r16x4/);
      });
    } finally {
      restore(packings, all);
    }
  });

  const dummyKernel: KernelFamily = {
    ...gemv,
    product: {
      ...gemv.product!,
      candidates: (...args) => gemv.product!.candidates(...args).map((spec) => ({ ...spec, op: 'testkernel' })),
    },
    samples: (isa) => gemv.samples(isa).map((spec) => ({ ...spec, op: 'testkernel' })),
  };
  for (const isa of Object.values<Isa>(isas))
    it(`a kernel family is one object, on ${isa.name}`, async function () {
      await registered(kernels, 'testkernel', dummyKernel, async () => {
        await assertExact(this, isa, dummyKernel.samples(isa).filter(small));
      });
    });

  it('a kernel family serves a plan when it is the only one for decoding', async () => {
    const all = { ...kernels };
    const others = Object.entries<KernelFamily>(kernels).filter(([, family]) => family.product);
    for (const [op] of others) delete (kernels as Record<string, KernelFamily>)[op];
    try {
      await registered(kernels, 'testkernel', dummyKernel, async () => {
        const plan = planOf(demoShape(), profileOf('scalar'), { sparse: false });
        for (const matrix of Object.values(plan.matrices)) assert.equal(matrix.gemv.op, 'testkernel');
        assert.ok([...emit(plan).keys()].some((name) => name.startsWith('kernels/testkernel_')));
      });
    } finally {
      restore(kernels, all);
    }
  });
});
