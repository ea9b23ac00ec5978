/** Decode kernels that are asked for by name or by operation: the plan takes them, or says what is wrong and what there is. */
import { strict as assert } from 'node:assert';
import { profileOf } from '../codegen/cpu.ts';
import { emit } from '../codegen/emit.ts';
import { isas } from '../codegen/isa/index.ts';
import { format } from '../codegen/name.ts';
import { packingsFor } from '../codegen/packings/index.ts';
import { kernelsOf, planOf, roundingOf } from '../codegen/plan.ts';
import { candidates } from '../codegen/space.ts';
import { demoShape } from './shapes.ts';

describe('kernels that are asked for', () => {
  const shape = demoShape();
  const cpu = profileOf('avx2');
  const own = planOf(shape, cpu).matrices;

  for (const isa of Object.values(isas))
    it(`look-ups over every packing that has tables, on ${isa.name}`, () => {
      const tabled = packingsFor(isa).filter((p) => p.lookUp);
      assert.deepEqual(new Set(tabled.map((p) => p.token.split('r')[0])), new Set(['tl1', 'tl2', 'tmac']));
      for (const { token } of tabled) {
        const plan = planOf(shape, profileOf(isa.name), { packing: token, kernel: ['lookup'] });
        for (const { packing, gemv, tabulate, gemm, why } of Object.values(plan.matrices)) {
          assert.equal(packing, token);
          assert.equal(gemv.op, 'lookup');
          assert.equal(tabulate!.op, 'tabulate');
          assert.ok(gemm.length > 0);
          assert.match(why, /as asked for$/);
        }
        const files = emit(plan);
        for (const name of kernelsOf(plan).keys()) assert.ok(files.has(`kernels/${name}.c`), name);
      }
    });

  it('look-ups that round, by name only; the plan says that they do', () => {
    const { n, k } = own.attn_q.gemv.shape as { n: number; k: number };
    const offered = packingsFor(isas.avx2).flatMap((p) => candidates(cpu, p, n, k));
    assert.ok(offered.every(({ op }) => op === 'gemv' || op === 'lookup'));
    assert.equal(planOf(shape, cpu, { packing: 'tmac' }).matrices.attn_q.gemv.op, 'lookup');
    const rounding = planOf(shape, cpu, { kernel: ['roundlookup'] });
    assert.match(roundingOf(rounding)!, /^kernel 'roundlookup' rounds: /);
    assert.equal(roundingOf(planOf(shape, cpu)), undefined);
    for (const { gemv, tabulate, why } of Object.values(rounding.matrices)) {
      assert.equal(gemv.op, 'roundlookup');
      assert.equal(tabulate!.op, 'roundtables');
      assert.match(why, /as asked for; rounds, so single tokens are not exact$/);
    }
  });

  it('a name, for the matrices of its size; the others stay what they are', () => {
    const { n, k } = own.attn_q.gemv.shape as { n: number; k: number };
    const last = packingsFor(isas.avx2)
      .flatMap((p) => candidates(cpu, p, n, k))
      .at(-1)!;
    const { matrices } = planOf(shape, cpu, { kernel: [format(last)] });
    assert.deepEqual(matrices.attn_q.gemv, last);
    assert.equal(matrices.attn_q.packing, last.weight);
    assert.deepEqual(matrices.ffn_gate, own.ffn_gate);
    const { matrices: both } = planOf(shape, cpu, { kernel: ['lookup', format(own.attn_q.gemv)] });
    assert.deepEqual(both.attn_q.gemv, own.attn_q.gemv);
    assert.equal(both.ffn_gate.gemv.op, 'lookup');
  });

  const name = format(own.attn_q.gemv);
  for (const [asked, packing, says] of [
    ['nosuch', undefined, /'nosuch' is no decode kernel; there are gemv, lookup, roundlookup, or a whole kernel name/],
    ['gemm', undefined, /'gemm' is no decode kernel/],
    [name.replace('avx2', 'neon'), undefined, /is for neon, and the target is avx2/],
    [name.replace(/n\d+k/, 'n17k'), undefined, /is for a 17 x \d+ matrix; demo-\w+ has \d+ x \d+, /],
    [
      name.replace(/__1x\d+/, '__1x3'),
      undefined,
      /no kernel '.*__1x3x.*' for a \d+ x \d+ matrix .*; there are gemv over p2/,
    ],
    ['gemv', 'tl1', /no kernel 'gemv' with packing 'tl1' for a .*; there are .*lookup over tl1r64x16/],
    ['gemv__x', undefined, /is not a kernel name; the grammar is/],
  ] as const)
    it(`refuses ${asked}${packing ? ` over ${packing}` : ''}`, () => {
      assert.throws(() => planOf(shape, cpu, { packing, kernel: [asked] }), says);
    });
});
