/** The exactness gate of the sweep: bugs are planted in kernels of each phase, and none that has one is ever timed. */
import { strict as assert } from 'node:assert';
import { findCompiler } from '../../codegen/compile.ts';
import { hostProfile, nativeProfile, runnableIsas } from '../../codegen/cpu.ts';
import { kernelSource } from '../../codegen/generate.ts';
import { isaOf } from '../../codegen/isa/index.ts';
import { activationStride } from '../../codegen/kernels/ternary.ts';
import { format, type KernelSpec } from '../../codegen/name.ts';
import { packingOf } from '../../codegen/packings/index.ts';
import { inTiles } from '../../codegen/tune/contests.ts';
import { sweep } from '../../codegen/tune/sweep.ts';
import type { Phase, TuningEntry } from '../../codegen/wisdom.ts';
import type { CpuProfile } from '../../schemas/types.ts';
import { skip } from '../fixtures.ts';
import { smallShape } from '../write-model.ts';

const withoutCaches = (cpu: CpuProfile): CpuProfile => ({ ...cpu, cache: { ...cpu.cache, l3: 1 << 20 } });

describe('the exactness gate of the tuner', () => {
  // An int16 sum of 640 products can overflow: 640 x 2 x 127 > 32,767. There are rows enough for tables.
  const shape = smallShape({ layers: 1, hidden: 640, heads: 10, kvHeads: 10, intermediate: 640, context: 64 });
  /** Of each phase, the kernels that have a bug: not those that the plan takes. */
  const hasBug: Readonly<Record<Phase, (spec: KernelSpec) => boolean>> = {
    decode: ({ variant }) => variant === 'p12288l2' || variant === 'p0',
    batch: ({ op, tile, weight }) => op !== 'sums' && tile[2]! > packingOf(weight).lineK,
    prefill: ({ op, tile }) => op === 'sums' && tile[1] !== 4,
  };
  /** Sweeps one problem, some of whose candidates have a bug. @returns what is said of them */
  async function sweepWith(
    plant: (text: string) => string,
    isa = isaOf(nativeProfile().isa),
    phase: Phase = 'decode',
    isBad = hasBug[phase],
  ): Promise<string[]> {
    const planted: string[] = [];
    const entries: TuningEntry[] = [];
    for await (const { entries: found = [] } of sweep({
      shape,
      // Nothing is timed for its own sake: what is read need not come cold from memory.
      cpu: withoutCaches(hostProfile(isa)),
      compiler: await findCompiler(isa.family),
      phases: [phase],
      threads: [1],
      seconds: 6,
      textOf: (spec) => {
        const { name, text } = kernelSource(spec);
        const changed = isBad(spec) ? plant(text) : text;
        if (changed !== text) planted.push(name);
        return changed;
      },
      onProgress: () => {},
      signal: new AbortController().signal,
    }))
      entries.push(...found);
    const [{ inexact, candidates, kernel }] = entries as [TuningEntry];
    assert.ok(planted.length > 0, 'nothing was planted');
    assert.ok(inexact.length > 0, 'no bug was found');
    assert.deepEqual(
      inexact.map((bad) => bad.kernel).filter((name) => !planted.includes(name)),
      [],
    );
    for (const timed of [kernel, ...candidates.map((c) => c.kernel)])
      assert.ok(!planted.includes(timed), `${timed} was timed`);
    return inexact.map(({ problem }) => problem);
  }
  const wrong = /^random: row \d+( of token \d+)? is -?\d+ instead of -?\d+$/;

  it('catches an off-by-one in k', async () => {
    for (const problem of await sweepWith((text) => text.replace('(x + ', '(x + 1 + '))) assert.match(problem, wrong);
  });

  it('catches a wrong field and a wrong half of a table', async () => {
    const mask = await sweepWith((text) => text.replace(/\(char\)12\b|\(12\)/, '(char)3'));
    for (const problem of mask) assert.match(problem, wrong);
    // Tables that do not fit one register have two halves; packings without tables stay as they are.
    const tables = await sweepWith((text) => text.replace('(low, ', '(high, ')).catch((error: Error) => error);
    if (Array.isArray(tables)) for (const problem of tables) assert.match(problem, wrong);
    else assert.match(tables.message, /nothing was planted/);
  });

  it('catches several tokens that are mistaken for each other', async () => {
    // The second token's activations are the first one's.
    const stride = activationStride(shape.hidden);
    const mistaken = (text: string) => text.replaceAll(new RegExp(`\\(x \\+ (.*?)\\b${stride}\\b`, 'g'), '(x + $10');
    for (const problem of await sweepWith(mistaken, undefined, 'batch')) assert.match(problem, wrong);
  });

  it('catches a wrong half of a table of sums', async function () {
    const isa = isaOf(nativeProfile().isa);
    if (isa.lanes === 1) return skip(this, 'this machine has no vectors, and so no tables of sums');
    const half = (text: string) => text.replace(/(?<=s_q_12 = \w+\(low_q_3, high_q_)1/, '0');
    for (const problem of await sweepWith(half, isa, 'prefill')) assert.match(problem, wrong);
  });

  /** Whole chunks become one. */
  const flushedLate = (text: string) => {
    const [loop, all, step] = /for \(long chunk = 0; chunk < (\d+); chunk \+= (\d+)\)/.exec(text) ?? [];
    // A chunk that is unrolled has no loop to be made longer.
    if (!loop || !text.includes(`i < ${step};`)) return text;
    return text.replace(loop, loop.replace(`+= ${step}`, `+= ${all}`)).replace(`i < ${step};`, `i < ${all};`);
  };
  /** The packing of a kernel that looks up. */
  const lookedUp = (text: string) => /bn_lookup_i8_(tl1|tl2|tmac)/.exec(text)?.[1];

  it('catches a wrong half of a table, a wrong line and a late int16 sum of kernels that look up', async () => {
    const problems = await sweepWith((text) => {
      switch (lookedUp(text)) {
        case 'tl1':
          return text.replace(/(table_l0_g0_1 = .*?) \+ 9\)/, '$1)');
        case 'tl2':
          return text.replace('(tables + ', '(tables + 240 + ');
        case 'tmac':
          return flushedLate(text);
        default:
          return text;
      }
    });
    // Random data show the first two.
    const late = problems.filter((problem) => !wrong.test(problem));
    assert.ok(late.length > 0 && late.length < problems.length);
    for (const problem of late) assert.match(problem, /^all \+-1 and 127: row \d+ is /);
  });

  it('catches an int16 sum that is flushed too late, by the worst case', async function () {
    const isa = runnableIsas().find(({ dot }) => dot.limit <= 32767);
    if (!isa) return skip(this, 'no instruction set of this CPU has int16 sums');
    // A sum of look-ups begins with its length.
    const late = await sweepWith((text) => (lookedUp(text) ? text : flushedLate(text)), isa);
    // Random data do not show it.
    for (const problem of late) assert.match(problem, /^all \+-1 and 127: row \d+ is /);
  });

  it('catches crashes, foreign writes and compile errors', async () => {
    const bugs: readonly (readonly [code: string, says: RegExp])[] = [
      ['__builtin_trap();', /Illegal instruction|Trace/],
      ['*(volatile int *)8 = 0;', /Segmentation fault/],
      ['y[-3] = 0;', /writes outside the result/],
      ['nonsense;', /error/],
    ];
    // In all but the plan's own kernels, one after the other.
    let next = 0;
    const entry = '  BN_ASSERT(0 <= t0';
    const plant = (text: string) =>
      text.includes(entry) ? text.replace(entry, `  ${bugs[next++ % bugs.length]![0]}\n$&`) : text;
    const { matrices } = inTiles(shape, nativeProfile());
    const own = Object.values(matrices).map(({ gemv }) => format(gemv));
    const found = await sweepWith(plant, undefined, 'decode', (spec) => !own.includes(format(spec)));
    for (const problem of found)
      assert.ok(
        bugs.some(([, says]) => says.test(problem)),
        problem,
      );
    for (const [code, says] of bugs)
      assert.ok(
        found.some((problem) => says.test(problem)),
        code,
      );
  });
});
