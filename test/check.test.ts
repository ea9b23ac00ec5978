/**
 * The nets under the kernels, each with bugs planted in it: check() refuses them before C is printed, simulate() stops at them,
 * and where neither can know, the comparison with reference() shows a difference.
 */
import { strict as assert } from 'node:assert';
import { programOf } from '../codegen/generate.ts';
import { check } from '../codegen/ir/check.ts';
import type { Arg, Program, Statement, Value } from '../codegen/ir/record.ts';
import { at, Recorder, times } from '../codegen/ir/record.ts';
import type { Arguments } from '../codegen/ir/simulate.ts';
import { simulate } from '../codegen/ir/simulate.ts';
import type { Cell, WordName } from '../codegen/ir/words.ts';
import { isas } from '../codegen/isa/index.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { kernels } from '../codegen/kernels/index.ts';
import type { KernelFamily } from '../codegen/kernels/kernel.ts';
import { stepsBeforeFlush } from '../codegen/kernels/ternary.ts';
import type { KernelSpec } from '../codegen/name.ts';
import { format } from '../codegen/name.ts';
import { bytesOf, cloned, dirtied, randomOf } from './kernel-inputs.ts';

const targets = Object.values<Isa>(isas);
const families = Object.entries<KernelFamily>(kernels);
const products = families.filter(([, family]) => family.product);

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
  return rewritten(program, (s) => (s.kind === 'note' ? [s] : [{ ...s, args: s.args.map(move) } as Statement]));
};

/** Statements of a program that satisfy a predicate, at any depth. */
function statements(body: readonly Statement[], wanted: (s: Statement) => boolean): Statement[] {
  return body.flatMap((s) => (s.kind === 'loop' ? statements(s.body, wanted) : wanted(s) ? [s] : []));
}

const firstBase = (s: Statement): string | undefined => {
  const first = s.kind === 'do' ? s.args[0] : undefined;
  return typeof first === 'object' && first.kind === 'address' ? first.base : undefined;
};

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

/** The smallest sample of a family by its shape. */
const smallest = (family: KernelFamily, isa: Isa, least = 0): KernelSpec => {
  const size = (s: KernelSpec) => Object.values(s.shape).reduce((a, b) => a * b, 1);
  return [...family.samples(isa)].filter((s) => size(s) >= least).sort((a, b) => size(a) - size(b))[0]!;
};

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
      for (const [, family] of families)
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
        assert.ok(tight >= 3, `only ${tight} buffers of ${program.name} are checked to the element`);
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

    for (const [op, family] of products)
      it(`refuses ${op} on ${isa.name} when it flushes too late`, () => {
        const long = 4 * (most + 16);
        const spec = family.samples(isa).find((s) => s.shape.k! >= long)!;
        assert.ok(spec, `no sample of ${op} is longer than ${long}`);
        // Recorded as if partial sums were twice as wide, or never overflowed.
        for (const limit of [2 * isa.dot.limit, 2 ** 31 - 1]) {
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
    for (const [op, family] of families)
      it(`stops ${op} on ${isa.name} at the end of a buffer that is too short`, () => {
        const spec = smallest(family, isa);
        const program = programOf(spec);
        let stopped = 0;
        for (const p of program.params) {
          if (p.kind !== 'pointer') continue;
          const args = cloned(family.example(spec, randomOf(op), false));
          const whole = args[p.name] as Cell['array'];
          args[p.name] = whole.slice(0, whole.length - 16 * isa.lanes);
          assert.throws(() => simulate(program, isa, args), new RegExp(`touches ${p.name}\\[`));
          stopped++;
        }
        assert.ok(stopped > 0);
      });
});

describe('reference', () => {
  /** The first few and the last of the statements: all alike, and simulating is slow. */
  const some = (all: readonly Statement[]) => [...all.slice(0, 3), ...all.slice(-1)];

  for (const isa of targets)
    for (const [op, family] of families) {
      it(`tells when ${op} on ${isa.name} skips one step of a sum or one store`, () => {
        const spec = smallest(family, isa, 32);
        const program = programOf(spec);
        assert.ok(exact(program, family, spec, isa));
        const outputs = new Set(
          program.params.flatMap((p) => (p.kind === 'pointer' && p.access !== 'scratch' ? [p.name] : [])),
        );
        const steps = statements(program.body, (s) => s.kind === 'set' && (s.word === 'dot_next' || s.word === 'fma'));
        const stores = statements(program.body, (s) => s.kind === 'do' && outputs.has(firstBase(s) ?? ''));
        const planted = [...some(steps), ...some(stores.filter((s) => s.kind === 'do' && s.word !== 'prefetch'))];
        assert.ok(planted.length > 0);
        for (const bug of planted) {
          const wrong = rewritten(program, (s) => (s === bug ? [] : [s]));
          assert.ok(!exact(wrong, family, spec, isa), `${program.name} without ${JSON.stringify(bug)}`);
        }
      });

      const spec = smallest(family, isa, 32);
      const usesFma = statements(
        programOf(spec).body,
        (s) => s.kind !== 'note' && s.kind !== 'loop' && s.word === 'fma',
      ).length;
      if (usesFma)
        it(`tells when ${op} on ${isa.name} rounds a multiply-add twice`, () => {
          const program = programOf(spec);
          let count = 0;
          const wrong = rewritten(program, (s) => {
            if (s.kind === 'note' || s.kind === 'do' || s.word !== 'fma') return [s];
            const product: Value = { kind: 'value', name: `product${count++}`, type: 'floats' };
            return [
              { kind: 'let', value: product, word: 'mul', args: s.args.slice(0, 2), mutable: false },
              { ...s, word: 'add' satisfies WordName, args: [product, s.args[2]!] },
            ];
          });
          assert.ok(!exact(wrong, family, spec, isa));
        });
    }

  it('tells when a reduction takes another order', () => {
    const isa = isas.scalar;
    const spec = kernels.norm.samples(isa).find((s) => s.shape.k === 256)!;
    const program = programOf(spec);
    const swap: Record<string, string> = { squares_0: 'squares_1', squares_1: 'squares_0' };
    // Lanes 0 and 1 change places in the first step of the tree: the same terms, paired otherwise.
    const moved = (a: Arg): Arg =>
      typeof a === 'object' && a.kind === 'value' && swap[a.name] ? ({ ...a, name: swap[a.name]! } as Value) : a;
    const wrong = rewritten(program, (s) =>
      s.kind === 'let' && s.word === 'add' && s.value.name.startsWith('total_h8') && s.value.name !== 'total_h8_1'
        ? [{ ...s, args: s.args.map(moved) }]
        : s.kind === 'let' && s.value.name === 'total_h8_1'
          ? [{ ...s, args: s.args.map(moved) }]
          : [s],
    );
    assert.ok(!exact(wrong, kernels.norm, spec, isa));
  });
});
