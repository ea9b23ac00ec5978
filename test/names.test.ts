/** The naming grammar: names and specs stand for each other, and a name stands for exactly one text. */
import { strict as assert } from 'node:assert';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { profileOf, readProfile } from '../codegen/cpu.ts';
import { familyOf, kernelSource } from '../codegen/generate.ts';
import { problems } from '../codegen/graph.ts';
import { isaOf, isas } from '../codegen/isa/index.ts';
import type { KernelSpec } from '../codegen/name.ts';
import { format, parse } from '../codegen/name.ts';
import { packings, packingsFor } from '../codegen/packings/index.ts';
import type { Packing } from '../codegen/packings/packing.ts';
import { kernelsOf, planOf } from '../codegen/plan.ts';
import { batches, candidates, refusal } from '../codegen/space.ts';
import { PlanError } from '../schemas/error.ts';
import { packageRoot } from '../schemas/files.ts';
import { shippedShapes } from './shapes.ts';
import { long, some } from './tier.ts';

const token = fc.stringMatching(/^[a-z0-9]{1,8}$/);
const size = fc.integer({ min: 0, max: 2 ** 40 });
const specs: fc.Arbitrary<KernelSpec> = fc
  .record({
    op: token,
    act: token,
    weight: token,
    out: token,
    shape: fc
      .uniqueArray(fc.tuple(fc.stringMatching(/^[a-z]{1,3}$/), size), {
        selector: ([l]) => l,
        minLength: 1,
        maxLength: 4,
      })
      .map((entries) => Object.fromEntries(entries)),
    tile: fc.array(size, { minLength: 1, maxLength: 4 }),
    isa: token,
    variant: fc.option(token, { nil: undefined }),
  })
  .map(({ variant, ...spec }) => (variant === undefined ? spec : { ...spec, variant }));

/** The C of a kernel without its banner and its own name. */
function bodyOf(spec: KernelSpec): string {
  const { name, text } = kernelSource(spec);
  const end = text.indexOf('*/');
  assert.ok(text.startsWith('/*') && end > 0, `${name} has no banner`);
  return text.slice(end).replaceAll(`bn_${name}`, 'bn_kernel');
}

const cpus = [
  ...Object.keys(isas).map((name) => profileOf(name)),
  ...readdirSync(path.join(packageRoot, 'schemas', 'cpus')).map((f) =>
    readProfile(path.join(packageRoot, 'schemas', 'cpus', f)),
  ),
];

describe('kernel names', () => {
  it('parse(format(spec)) is the spec, and format(parse(name)) the name', () => {
    fc.assert(
      fc.property(specs, (spec) => {
        const name = format(spec);
        assert.deepEqual(parse(name), spec);
        assert.equal(format(parse(name)), name);
      }),
      { numRuns: 1000 },
    );
  });

  it('different specs have different names', () => {
    fc.assert(
      fc.property(specs, specs, (a, b) => {
        let same = true;
        try {
          // The order of a shape's letters is part of the name.
          assert.deepEqual([a, Object.keys(a.shape)], [b, Object.keys(b.shape)]);
        } catch {
          same = false;
        }
        assert.equal(format(a) === format(b), same);
      }),
      { numRuns: 1000 },
    );
  });

  const good = 'gemv_i8_p2r16x16_i32__n2560k2560__1x16x64_avx512_p8192';
  for (const [what, bad] of Object.entries({
    empty: '',
    'no shape': 'gemv_i8_p2r16x16_i32__1x16x64_avx512',
    'no tile': 'gemv_i8_p2r16x16_i32__n2560k2560_avx512',
    'capital letters': good.toUpperCase(),
    'a symbol prefix': `bn_${good}`,
    'a path': `../${good}`,
    'a suffix': `${good}.c`,
    'two variants': `${good}_q1`,
    'a line break': `${good}\n`,
    'a size without a letter': good.replace('n2560', '2560'),
    'a letter without a size': good.replace('k2560', 'k'),
    'a letter twice': good.replace('k2560', 'n2560'),
    'a size with a leading zero': good.replace('n2560', 'n02560'),
    'a tile with a leading zero': good.replace('1x16', '01x16'),
    'a size that no number holds': good.replace('n2560', 'n99999999999999999999'),
    'a size beyond decimal notation': good.replace('n2560', `n${'9'.repeat(30)}`),
  }))
    it(`refuses a name with ${what}`, () => {
      assert.throws(() => parse(bad), PlanError);
    });

  for (const name of ['nosuch', 'constructor'])
    it(`refuses the unknown kernel and instruction set '${name}'`, () => {
      assert.throws(() => familyOf({ ...parse(good), op: name }), PlanError);
      assert.throws(() => isaOf(name), PlanError);
    });

  it('same name, same text, and different names, different text, in the plans of shipped shapes', () => {
    const texts = new Map<string, string>();
    const names = new Map<string, string>();
    for (const shape of some(shippedShapes()))
      for (const cpu of cpus)
        for (const [name, spec] of kernelsOf(planOf(shape, cpu))) {
          assert.deepEqual(parse(name), spec);
          const text = kernelSource(spec).text;
          if (texts.has(name)) {
            assert.equal(text, texts.get(name), `${name} has two texts`);
            continue;
          }
          texts.set(name, text);
          // One instruction set may spell everything as another does.
          const body = `${spec.isa}: ${bodyOf(spec)}`;
          const twin = names.get(body);
          assert.equal(twin, undefined, `${name} and ${twin} have the same text`);
          names.set(body, name);
        }
    assert.ok(texts.size > 100);
  });

  long('all legal candidates of a problem differ in text', () => {
    const { n, k } = problems(shippedShapes()[0]!)[0]!;
    for (const cpu of Object.keys(isas).map((name) => profileOf(name))) {
      const names = new Map<string, string>();
      for (const p of Object.values<Packing>(packings))
        for (const spec of [
          ...candidates(cpu, p, n, k),
          ...(packingsFor(isaOf(cpu.isa)).includes(p) ? batches(cpu, p, n, k) : []),
        ]) {
          if (refusal(spec)) continue;
          const body = bodyOf(spec);
          const twin = names.get(body);
          assert.ok(!twin || twin === format(spec), `${format(spec)} and ${twin} have the same text`);
          names.set(body, format(spec));
        }
      assert.ok(names.size > 1, `${cpu.name} has no choice`);
    }
  });
});
