/** The runner of compiled kernels reports what it is there to report: each kind of damage is planted once. */
import { strict as assert } from 'node:assert';
import type { Address, Param, Program } from '../codegen/ir/record.ts';
import { at, Recorder } from '../codegen/ir/record.ts';
import { isas } from '../codegen/isa/index.ts';
import { skip } from './fixtures.ts';
import { runKernels, standalone, unavailable } from './kernel-runner.ts';

const isa = isas.scalar;

/** A program with an input x[4], a result y[4] and a length n <= 4. */
function program(record: (b: Recorder, x: Address, y: Address) => void): Program {
  const b = new Recorder();
  const pointer = (name: string, access: 'in' | 'out') =>
    b.pointer(name, { element: 'f32', access, extent: 4, doc: 'test data' });
  const x = pointer('x', 'in');
  const y = pointer('y', 'out');
  b.long('n', 0, 4, 'length');
  record(b, x, y);
  return b.program('planted');
}
const args = (n = 4) => ({ x: Float32Array.of(1, 2, 3, 4), y: new Float32Array(4), n });
const copy = (from: number, to: number) => program((b, x, y) => b.do('put', at(y, to), b.let('v', 'get', at(x, from))));
const run = async (p: Program, n?: number) =>
  (await runKernels(isa, [standalone(p, isa)], [{ kernel: 'planted', args: args(n) }]))[0]!;

describe('kernel runner', () => {
  before(async function () {
    const reason = await unavailable(isa);
    if (reason) skip(this as unknown as Mocha.Context, reason);
  });

  it('returns what the kernel wrote, and leaves the arguments alone', async () => {
    const given = args();
    const [first, second] = await runKernels(
      isa,
      [standalone(copy(2, 1), isa)],
      [
        { kernel: 'planted', args: given },
        { kernel: 'planted', args: { ...given, x: Float32Array.of(5, 6, 7, 8) } },
      ],
    );
    assert.deepEqual(first, { buffers: { x: given.x, y: Float32Array.of(0, 3, 0, 0) }, damage: [] });
    assert.deepEqual(second!.buffers.y, Float32Array.of(0, 7, 0, 0));
    assert.deepEqual(given.y, new Float32Array(4));
  });

  it('stops at a read or write past an end or before a start', async () => {
    await assert.rejects(run(copy(4, 0)), /planted stopped in call 0: .*past the end of a buffer/);
    await assert.rejects(run(copy(0, 4)), /planted stopped in call 0: .*past the end of a buffer/);
    await assert.rejects(run(copy(-1, 0)), /planted stopped in call 0: .*before the start of a buffer/);
    await assert.rejects(run(copy(0, -1)), /planted stopped in call 0: .*before the start of a buffer/);
  });

  it('stops where a precondition does not hold', async () => {
    await run(copy(0, 0), 4);
    await assert.rejects(run(copy(0, 0), 5), /planted stopped in call 0: precondition/);
  });

  it('reports an input that was changed', async () => {
    const p = program((b, x) => b.do('put', x, b.let('v', 'number', 9)));
    // The printer would declare x const.
    const open = { ...p, params: p.params.map((q): Param => (q.kind === 'pointer' ? { ...q, access: 'out' } : q)) };
    const { text } = standalone(open, isa);
    const [outcome] = await runKernels(isa, [{ program: open, text }], [{ kernel: 'planted', args: args() }]);
    assert.deepEqual(outcome!.damage, []);
    assert.equal(outcome!.buffers.x![0], 9);
    const signature = text.replace('void bn_planted(float *restrict x', 'void bn_planted(const float *restrict x');
    const written = signature.replace('*(x) =', '*(float *)(x) =');
    assert.notEqual(written, signature);
    const [changed] = await runKernels(isa, [{ program: p, text: written }], [{ kernel: 'planted', args: args() }]);
    assert.deepEqual(changed!.damage, ['x: an input was changed']);
  });

  it('reports a write outside that hits no unmapped page, and a result that depends on alignment', async () => {
    const { text } = standalone(copy(0, 0), isa);
    const outside = text.replace('*(y) = v', '*(y) = v; y[((uintptr_t)y & 4095) ? -1 : 4] = v');
    assert.notEqual(outside, text);
    const [damaged] = await runKernels(
      isa,
      [{ program: copy(0, 0), text: outside }],
      [{ kernel: 'planted', args: args() }],
    );
    assert.deepEqual(damaged!.damage, ['y: written before its start', 'y: written past its end']);
    const aligned = text.replace('*(y) = v', '*(y) = (float)((uintptr_t)y & 4095)');
    const [unsteady] = await runKernels(
      isa,
      [{ program: copy(0, 0), text: aligned }],
      [{ kernel: 'planted', args: args() }],
    );
    assert.deepEqual(unsteady!.damage, ['y: its result depends on alignment']);
  });
});
