/**
 * Every kernel family on every instruction set: the recorded program, simulated, and the compiled C give exactly the bits of the
 * family's reference(), on random and on extreme data, for every sample of the registry; nothing outside the buffers is touched.
 * NaN and infinity in an input never become a number.
 */
import { strict as assert } from 'node:assert';
import { setImmediate } from 'node:timers/promises';
import { kernelSource, neededFeatures, programOf } from '../codegen/generate.ts';
import type { Param } from '../codegen/ir/record.ts';
import type { Arguments } from '../codegen/ir/simulate.ts';
import { simulate } from '../codegen/ir/simulate.ts';
import type { Cell } from '../codegen/ir/words.ts';
import { isas } from '../codegen/isa/index.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { kernels, kernelsFor } from '../codegen/kernels/index.ts';
import type { KernelFamily } from '../codegen/kernels/kernel.ts';
import { format, type KernelSpec } from '../codegen/name.ts';
import { hostFeatures } from '../schemas/host.ts';
import { skip } from './fixtures.ts';
import { bytesOf, cloned, dirtied, randomOf } from './kernel-inputs.ts';
import type { Call, Runner } from './kernel-runner.ts';
import { compileKernels, isForeign, subsetOf, unavailable } from './kernel-runner.ts';
import { poisoned, poisons, swallowed } from './not-finite.ts';
import { isLong, some } from './tier.ts';

/** Bytes of arguments from which on a sample is large, and is called and simulated less often. */
const LARGE = 1 << 16;

interface Checked extends Call {
  readonly title: string;
  readonly expected: Arguments;
  /** By the simulator, where the call is simulated. */
  readonly simulated: Arguments | undefined;
  readonly params: readonly Param[];
}

/** The samples whose optional features this CPU has; emulators have all. In the short tier the first and the last of each kind. */
function samplesHere(family: KernelFamily, isa: Isa): readonly KernelSpec[] {
  const all = family
    .samples(isa)
    .filter((spec) => isForeign(isa.family) || neededFeatures(spec).every((feature) => hostFeatures().has(feature)));
  const kindOf = ({ act, weight, out }: KernelSpec) => `${act} ${weight} ${out}`;
  const isEnd = (spec: KernelSpec, i: number) =>
    all.findIndex((other) => kindOf(other) === kindOf(spec)) === i ||
    all.findLastIndex((other) => kindOf(other) === kindOf(spec)) === i;
  return isLong ? all : all.filter(isEnd);
}

/** The families of an instruction set. In the short tier without those that a subset of it serves in the same way. */
function familiesOf(isa: Isa): [string, KernelFamily][] {
  const subset = isLong ? undefined : subsetOf(isa);
  const known = new Set(subset ? kernelsFor(subset).map(([op]) => op) : []);
  return kernelsFor(isa).filter(([op]) => !known.has(op));
}

/** Data of the calls: in the short tier two kinds, of which one is simulated. */
const KINDS = some(['random', 'extreme', 'random again', 'random a third time'], 2);

/** The calls of a family's samples; compilers go on working in between. */
async function callsOf(family: KernelFamily, isa: Isa): Promise<Checked[]> {
  const calls: Checked[] = [];
  for (const spec of samplesHere(family, isa)) {
    const program = programOf(spec);
    const random = randomOf(program.name);
    for (const [i, kind] of KINDS.entries()) {
      const args = dirtied(program.params, family.example(spec, random, kind === 'extreme'));
      const size = Object.values(args).reduce<number>((sum, v) => sum + (typeof v === 'number' ? 8 : v.byteLength), 0);
      if (size > LARGE && i > 1) break;
      const expected = cloned(args);
      family.reference(spec, expected);
      let simulated: Arguments | undefined;
      if (i === 0 || (isLong && i === 1 && size <= LARGE)) {
        simulated = cloned(args);
        simulate(program, isa, simulated);
      }
      const title = `${program.name}, ${kind}`;
      calls.push({ kernel: program.name, title, args, expected, simulated, params: program.params });
      await setImmediate();
    }
  }
  return calls;
}

/** Every result bit for bit; what a scratch buffer holds in the end is nobody's business. */
function assertSame(call: Checked, what: string, actual: Arguments): void {
  for (const p of call.params) {
    if (p.kind !== 'pointer' || p.access === 'scratch') continue;
    const [a, e] = [actual[p.name], call.expected[p.name]] as [Cell['array'], Cell['array']];
    if (!bytesOf(a).compare(bytesOf(e))) continue;
    const i = a.findIndex((v, j) => !Object.is(v, e[j]));
    assert.fail(`${call.title}: ${what} ${p.name}[${i}] is ${a[i]}, reference ${e[i]}`);
  }
}

describe('kernels', () => {
  /** The compiled kernels of all families by ISA, or why they cannot run. All are compiled at once, while this process simulates. */
  const runners = new Map<Isa, Promise<Runner | string>>();
  const prepare = async (isa: Isa): Promise<Runner | string> => {
    const all = familiesOf(isa).flatMap(([op, family]) => {
      const specs = samplesHere(family, isa);
      assert.ok(specs.length > 0 && specs.every((spec) => spec.op === op && spec.isa === isa.name));
      assert.equal(new Set(specs.map(format)).size, specs.length, `${op} has a sample twice`);
      return specs;
    });
    return (await unavailable(isa)) ?? compileKernels(isa, all.map(kernelSource));
  };

  before(() => {
    for (const isa of Object.values<Isa>(isas)) {
      const runner = prepare(isa);
      runner.catch(() => undefined); // reported by the test that waits for it
      runners.set(isa, runner);
    }
  });

  after(async () => {
    for (const runner of await Promise.allSettled(runners.values()))
      if (runner.status === 'fulfilled' && typeof runner.value !== 'string') await runner.value.dispose();
  });

  for (const isa of Object.values<Isa>(isas))
    for (const [op, family] of familiesOf(isa))
      it(`${op} on ${isa.name}`, async function () {
        const calls = await callsOf(family, isa);
        for (const call of calls) if (call.simulated) assertSame(call, 'simulated', call.simulated);
        const runner = await runners.get(isa)!;
        if (typeof runner === 'string') skip(this, `only simulated: ${runner}`);
        const outcomes = await runner.run(calls);
        calls.forEach((call, i) => {
          assert.deepEqual(outcomes[i]!.damage, [], call.title);
          assertSame(call, 'compiled', outcomes[i]!.buffers);
        });
      });

  for (const isa of Object.values<Isa>(isas))
    for (const [op, family] of familiesOf(isa).filter(([name]) => name in poisons))
      it(`${op} on ${isa.name}: what is not finite stays so`, async function () {
        const runner = await runners.get(isa)!;
        if (typeof runner === 'string') skip(this, runner);
        const calls = samplesHere(family, isa).flatMap((spec) => {
          const { name, params } = programOf(spec);
          const args = dirtied(params, family.example(spec, randomOf(name), false));
          return poisoned(spec, args).map((call) => ({ ...call, spec, kernel: name }));
        });
        const outcomes = await runner.run(calls);
        calls.forEach(({ spec, kernel, title }, i) => {
          assert.deepEqual(outcomes[i]!.damage, [], title);
          assert.equal(swallowed(spec, outcomes[i]!.buffers), undefined, `${kernel}, ${title}`);
        });
      });

  it('every family is for some instruction set', () => {
    const served = new Set(Object.values<Isa>(isas).flatMap((isa) => kernelsFor(isa).map(([op]) => op)));
    assert.deepEqual([...served].sort(), Object.keys(kernels).sort());
  });
});
