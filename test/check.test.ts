/**
 * The nets under the kernels, each with bugs planted in it: check() refuses them before C is printed, simulate() stops at them,
 * and where neither can know, the comparison with reference() shows a difference.
 */
import { strict as assert } from 'node:assert';
import { profileOf } from '../codegen/cpu.ts';
import { programOf } from '../codegen/generate.ts';
import { check } from '../codegen/ir/check.ts';
import type { Address, Arg, Program, Statement, Value } from '../codegen/ir/record.ts';
import { at, Recorder, times } from '../codegen/ir/record.ts';
import type { Arguments } from '../codegen/ir/simulate.ts';
import { simulate } from '../codegen/ir/simulate.ts';
import type { Cell } from '../codegen/ir/words.ts';
import { isas } from '../codegen/isa/index.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { kernels, kernelsFor } from '../codegen/kernels/index.ts';
import type { KernelFamily } from '../codegen/kernels/kernel.ts';
import { stepsBeforeFlush } from '../codegen/kernels/kernel.ts';
import type { KernelSpec } from '../codegen/name.ts';
import { format } from '../codegen/name.ts';
import { packings } from '../codegen/packings/index.ts';
import type { Packing } from '../codegen/packings/packing.ts';
import { bytesOf, cloned, dirtied, randomOf } from './kernel-inputs.ts';

const targets = Object.values<Isa>(isas);
const products = Object.entries<KernelFamily>(kernels).filter(([, family]) => family.product);

/** What the family records, unchecked; `pretended` may differ from the instruction set that is checked. */
function recorded(family: KernelFamily, spec: KernelSpec, pretended: Isa): Program {
  const b = new Recorder();
  family.record(b, spec, pretended);
  return b.program(format(spec));
}

/** A copy of the program in which every statement but loops has been replaced; no statements: it is dropped. */
function rewritten(program: Program, replace: (s: Exclude<Statement, { kind: 'loop' }>) => Statement[]): Program {
  const visit = (body: readonly Statement[]): Statement[] =>
    body.flatMap((s) => (s.kind === 'loop' ? [{ ...s, body: visit(s.body) }] : replace(s)));
  return { ...program, body: visit(program.body) };
}

/** Every access to `base` one element further on. */
const shifted = (program: Program, base: string): Program => {
  const move = (a: Arg): Arg => (typeof a === 'object' && a.kind === 'address' && a.base === base ? at(a, 1) : a);
  return rewritten(program, (s) => {
    if (s.kind === 'note') return [s];
    if (s.kind === 'indices') return [{ ...s, address: move(s.address) as Address }];
    return [{ ...s, args: s.args.map(move) } as Statement];
  });
};

/** Statements of a program that satisfy a predicate, at any depth. */
function statements(body: readonly Statement[], wanted: (s: Statement) => boolean): Statement[] {
  return body.flatMap((s) => (s.kind === 'loop' ? statements(s.body, wanted) : wanted(s) ? [s] : []));
}

const firstBase = (s: Statement): string | undefined => {
  const first = s.kind === 'do' ? s.args[0] : undefined;
  return typeof first === 'object' && first.kind === 'address' ? first.base : undefined;
};

/** Is a statement of the program reached with this spec's examples? It is replaced by one that stops the simulator. */
function reached(program: Program, statement: Statement, family: KernelFamily, spec: KernelSpec, isa: Isa): boolean {
  const base = program.params.find((p) => p.kind === 'pointer')!.name;
  const outside: Address = { kind: 'address', base, offset: { constant: -1, terms: {} } };
  const trapped = rewritten(program, (s) => (s === statement ? [{ kind: 'do', word: 'get', args: [outside] }] : [s]));
  try {
    simulate(trapped, isa, cloned(family.example(spec, randomOf(format(spec)), false)));
    return false;
  } catch {
    return true;
  }
}

/** Does the program compute what the family defines, on several examples? */
function exact(program: Program, family: KernelFamily, spec: KernelSpec, isa: Isa, examples = 3): boolean {
  const random = randomOf(format(spec));
  for (let i = 0; i < examples; i++) {
    const args = dirtied(program.params, family.example(spec, random, i === 1));
    const expected = cloned(args);
    family.reference(spec, expected);
    simulate(program, isa, args);
    for (const p of program.params)
      if (p.kind === 'pointer' && p.access !== 'scratch')
        if (bytesOf(args[p.name] as Cell['array']).compare(bytesOf(expected[p.name] as Cell['array']))) return false;
  }
  return true;
}

const sizeOf = (s: KernelSpec) => Object.values(s.shape).reduce((a, b) => a * b, 1);

/** The smallest sample of a family by its shape, of those that have a size; the largest of all where none has. */
function smallest(family: KernelFamily, isa: Isa, least = 0): KernelSpec {
  const samples = [...family.samples(isa)].sort((a, b) => sizeOf(a) - sizeOf(b));
  return samples.find((s) => sizeOf(s) >= least) ?? samples.at(-1)!;
}

/** n dot steps of codes up to 2 into one partial sum; `named` gives each sum a name of its own instead of changing one. */
function dotChain(isa: Isa, n: number, named: boolean): Program {
  const b = new Recorder();
  const bytes = 4 * isa.lanes;
  const u = b.pointer('u', { element: 'u8', access: 'in', extent: bytes, doc: 'codes', bound: 2 });
  const s = b.pointer('s', { element: 'i8', access: 'in', extent: bytes, doc: 'activations' });
  const y = b.pointer('y', { element: 'i32', access: 'out', extent: isa.lanes, doc: 'result' });
  let sum = b.variable('sum', 'dot_zero');
  const codes = b.let('codes', 'load_bytes', u);
  const x = b.let('x', 'load_bytes', s);
  for (let i = 0; i < n; i++)
    if (named) sum = b.let(`sum${i}`, 'dot_next', sum, codes, x);
    else b.set(sum, 'dot_next', sum, codes, x);
  const zero = b.let('start', 'splat_int', b.let('zero', 'integer', 0));
  b.do('store_ints', y, b.let('result', 'dot_flush', zero, sum));
  return b.program('chain');
}

const chainArgs = (isa: Isa): Arguments => ({
  u: new Uint8Array(4 * isa.lanes).fill(2),
  s: new Int8Array(4 * isa.lanes).fill(127),
  y: new Int32Array(isa.lanes),
});

describe('check', () => {
  for (const isa of targets) {
    it(`accepts every sample on ${isa.name}`, () => {
      for (const [, family] of kernelsFor(isa))
        for (const spec of family.samples(isa)) assert.deepEqual(check(programOf(spec), isa), [], format(spec));
    });

    for (const [op, family] of products)
      it(`refuses ${op} on ${isa.name} when a buffer is accessed one element too far`, () => {
        const program = programOf(smallest(family, isa));
        let tight = 0;
        for (const p of program.params) {
          if (p.kind !== 'pointer') continue;
          const problems = check(shifted(program, p.name), isa);
          // An extent that only the largest batch reaches may be round.
          if (!problems.length) continue;
          tight++;
          assert.match(problems[0]!, new RegExp(`may touch ${p.name}\\[`));
        }
        assert.ok(tight >= 2, `only ${tight} buffers of ${program.name} are checked to the element`);
      });
  }

  // Where partial sums have 32 bits, no k is long enough to test.
  for (const isa of targets.filter((i) => stepsBeforeFlush(i) < 1000)) {
    const most = stepsBeforeFlush(isa);
    for (const named of [false, true])
      it(`${isa.name} takes ${most} dot steps before a flush and no more (${named ? 'new names' : 'a variable'})`, () => {
        assert.deepEqual(check(dotChain(isa, most, named), isa), []);
        assert.match(check(dotChain(isa, most + 1, named), isa)[0]!, /partial sum .* may reach .* flush it earlier/);
        simulate(dotChain(isa, most, named), isa, chainArgs(isa));
        assert.throws(() => simulate(dotChain(isa, most + 1, named), isa, chainArgs(isa)), /passes the limit/);
      });

    for (const [op, family] of products.filter(([, { needs }]) => needs.includes('dot_next')))
      it(`refuses ${op} on ${isa.name} when it flushes too late`, () => {
        const packing = Object.values<Packing>(packings)[0]!;
        const spec = family.product!.candidates(profileOf(isa.name), packing, 2 * packing.rows, 2560)[0]!;
        assert.deepEqual(check(recorded(family, spec, isa), isa), []);
        // Recorded as if partial sums were three bits wider, or never overflowed.
        for (const limit of [8 * isa.dot.limit, 2 ** 31 - 1]) {
          const late = recorded(family, spec, { ...isa, dot: { ...isa.dot, limit } });
          assert.match(check(late, isa)[0]!, /flush it earlier/);
          const args = family.example(spec, randomOf(op), true);
          assert.throws(() => simulate(late, isa, args), /passes the limit/);
        }
      });
  }

  for (const isa of targets.filter((i) => Number.isFinite(i.registers)))
    it(`refuses a loop that needs more registers than ${isa.name} has`, () => {
      const loop = (accumulators: number): Program => {
        const b = new Recorder();
        const x = b.pointer('x', { element: 'f32', access: 'in', extent: 8 * isa.lanes, doc: 'input' });
        const y = b.pointer('y', { element: 'f32', access: 'out', extent: accumulators * isa.lanes, doc: 'result' });
        const sums = Array.from({ length: accumulators }, (_, i) => b.variable(`sum${i}`, 'constant', 0));
        b.loop('i', 0, 8, 1, (i) => {
          const v = b.let('v', 'load_floats', at(x, times(i, isa.lanes)));
          for (const sum of sums) b.set(sum, 'fma', v, v, sum);
        });
        sums.forEach((sum, i) => {
          b.do('store_floats', at(y, i * isa.lanes), sum);
        });
        return b.program('loop');
      };
      // One more for v.
      assert.deepEqual(check(loop(isa.registers - 1), isa), []);
      assert.match(check(loop(isa.registers), isa)[0]!, /live values in a loop/);
    });

  it('refuses a negative index and one that only the largest parameter reaches', () => {
    const isa = isas.scalar;
    const touching = (offset: number, extent: number): Program => {
      const b = new Recorder();
      const x = b.pointer('x', { element: 'f32', access: 'out', extent, doc: 'result' });
      const n = b.long('n', 0, 10, 'length');
      b.loop('i', 0, n, 1, (i) => b.do('put', at(x, i, offset), b.let('one', 'number', 1)));
      return b.program('touching');
    };
    assert.deepEqual(check(touching(0, 10), isa), []);
    assert.equal(check(touching(0, 9), isa).length, 1);
    assert.equal(check(touching(-1, 10), isa).length, 1);
    const args = () => ({ x: new Float32Array(9), n: 10 });
    assert.throws(() => simulate(touching(0, 10), isa, args()), /touches x\[9\.\.10\) of 9/);
    assert.throws(() => simulate(touching(-1, 10), isa, args()), /touches x\[-1\.\.0\)/);
    simulate(touching(0, 10), isa, { ...args(), n: 9 });
  });
});

describe('simulate', () => {
  for (const isa of targets)
    for (const [op, family] of kernelsFor(isa))
      it(`stops ${op} on ${isa.name} at the end of a buffer that is too short`, () => {
        const spec = smallest(family, isa);
        const program = programOf(spec);
        const random = randomOf(op);
        for (const p of program.params) {
          // Scratch is sized for the largest block, which small samples do not fill.
          if (p.kind !== 'pointer' || p.access === 'scratch') continue;
          const args = cloned(family.example(spec, random, false));
          const whole = args[p.name] as Cell['array'];
          if (!whole.length) continue;
          args[p.name] = whole.slice(0, whole.length / 2);
          assert.throws(() => simulate(program, isa, args), new RegExp(`touches ${p.name}\\[`));
        }
      });
});

describe('reference', () => {
  /** Simulating is slow, and a kernel's steps are all alike. */
  const SOME = 4;

  for (const isa of targets)
    for (const [op, family] of kernelsFor(isa)) {
      it(`tells when ${op} on ${isa.name} skips one step of a sum or one store`, () => {
        const spec = smallest(family, isa, 32);
        const program = programOf(spec);
        assert.ok(exact(program, family, spec, isa));
        const outputs = new Set(
          program.params.flatMap((p) => (p.kind === 'pointer' && p.access !== 'scratch' ? [p.name] : [])),
        );
        const steps = statements(program.body, (s) => s.kind === 'set' && /_next$|^fma$/.test(s.word));
        const stores = statements(
          program.body,
          (s) => s.kind === 'do' && !s.word.startsWith('prefetch') && outputs.has(firstBase(s) ?? ''),
        );
        const planted = [steps, stores].flatMap((all) => {
          const bugs: Statement[] = [];
          for (const s of all) if (bugs.length < SOME && reached(program, s, family, spec, isa)) bugs.push(s);
          return bugs;
        });
        assert.ok(planted.length > 0);
        for (const bug of planted) {
          const wrong = rewritten(program, (s) => (s === bug ? [] : [s]));
          assert.ok(!exact(wrong, family, spec, isa), `${program.name} without ${JSON.stringify(bug)}`);
        }
      });

      if (!family.needs.includes('fma')) continue;
      it(`tells when ${op} on ${isa.name} rounds a multiply-add twice`, () => {
        const twice = (spec: KernelSpec): Program => {
          let count = 0;
          return rewritten(programOf(spec), (s) => {
            if (s.kind === 'note' || s.kind === 'indices' || s.kind === 'do' || s.word !== 'fma') return [s];
            const product: Value = { kind: 'value', name: `product${count++}`, type: 'floats' };
            return [
              { kind: 'let', value: product, word: 'mul', args: s.args.slice(0, 2), mutable: false },
              { ...s, word: 'add', args: [product, s.args[2]!] },
            ];
          });
        };
        // Not every sample can tell: quantising may hide a last bit.
        const small = family.samples(isa).filter((s) => sizeOf(s) <= 2000);
        assert.ok(small.some((spec) => !exact(twice(spec), family, spec, isa, 10)));
      });
    }

  it('tells when a reduction takes another order', () => {
    const isa = isas.scalar;
    const spec = kernels.head.samples(isa).find((s) => s.shape.k === 256)!;
    const program = programOf(spec);
    // Lanes 0 and 1 change places in the first step of the tree: the same terms, paired otherwise.
    const places: Record<string, string> = { acc_t0_r0_0: 'acc_t0_r0_1', acc_t0_r0_1: 'acc_t0_r0_0' };
    let count = 0;
    const wrong = rewritten(program, (s) => {
      if (s.kind !== 'let' || s.word !== 'add') return [s];
      const [first, second] = s.args as [Value, Value];
      const other = places[first.name];
      if (!other) return [s];
      count++;
      return [{ ...s, args: [{ ...first, name: other }, second] }];
    });
    assert.equal(count, 2);
    assert.ok(exact(program, kernels.head, spec, isa));
    assert.ok(!exact(wrong, kernels.head, spec, isa));
  });
});
