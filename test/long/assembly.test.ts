/**
 * What clang makes of the default product kernels, 2560 x 2560: the innermost loops touch no stack, and each pass holds exactly
 * the dot instructions that the program has dot steps, or as many look-ups, so that nothing was unrolled further, split or left
 * unvectorised.
 */
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { FLAGS, hostFamily } from '../../codegen/compile.ts';
import { profileOf } from '../../codegen/cpu.ts';
import { kernelSource } from '../../codegen/generate.ts';
import type { Program, Statement } from '../../codegen/ir/record.ts';
import { Recorder } from '../../codegen/ir/record.ts';
import type { Word } from '../../codegen/ir/words.ts';
import { words } from '../../codegen/ir/words.ts';
import { isas } from '../../codegen/isa/index.ts';
import type { Isa } from '../../codegen/isa/isa.ts';
import { kernels } from '../../codegen/kernels/index.ts';
import type { KernelFamily } from '../../codegen/kernels/kernel.ts';
import { packings, packingsFor } from '../../codegen/packings/index.ts';
import type { Packing } from '../../codegen/packings/packing.ts';
import { batches, firstLegal } from '../../codegen/space.ts';
import { skip } from '../fixtures.ts';
import type { Kernel } from '../kernel-runner.ts';
import { compilerFor, standalone } from '../kernel-runner.ts';

/** The instructions of dot steps and of look-ups, by instruction set. */
const instructions: Readonly<
  Record<string, { readonly dots: readonly string[]; readonly lookUps: readonly string[] }>
> = {
  avx512: { dots: ['vpdpbusd'], lookUps: ['vpshufb'] },
  avx2: { dots: ['vpmaddubsw'], lookUps: ['vpshufb'] },
  neon: { dots: ['sdot'], lookUps: ['tbl'] },
  neoni8mm: { dots: ['sdot', 'smmla'], lookUps: ['tbl'] },
};

interface Loop {
  /** Times that one of the instructions occurs. */
  readonly steps: number;
  /** Lines that read or write the stack. */
  readonly stack: readonly string[];
}

/** The innermost loops of an assembly text that contain one of the instructions: from a label to a jump back to it. */
function hotLoops(assembly: string, wanted: readonly string[]): Loop[] {
  const lines = assembly.split('\n');
  const labels = new Map<string, number>();
  const loops: [number, number][] = [];
  lines.forEach((line, i) => {
    const label = /^(\.LBB\w+):/.exec(line)?.[1];
    if (label) labels.set(label, i);
    const target = /^\s+(?:j\w+|b|b\.\w+|cbn?z|tbn?z)\s.*?(\.LBB\w+)/.exec(line)?.[1];
    const from = target === undefined ? undefined : labels.get(target);
    if (from !== undefined) loops.push([from, i]);
  });
  return loops
    .filter(([from, to]) => !loops.some(([f, t]) => (f > from && t <= to) || (f >= from && t < to)))
    .map(([from, to]) => lines.slice(from, to + 1))
    .map((body) => ({
      steps: body.filter((line) => wanted.includes(line.trim().split(/\s/)[0]!)).length,
      // clang marks spills; x86 and ARM address the stack by these registers.
      stack: body.filter((line) => /\(%rsp|\[sp\b|\b(Spill|Reload)\b/.test(line)),
    }))
    .filter(({ steps }) => steps > 0);
}

const isDot = (word: string) => (words as Record<string, Word>)[word]!.products !== undefined;
const isLookUp = (word: string) => word === 'lookup16';

/** Such steps of each innermost loop that has any. */
function stepsOf(body: readonly Statement[], isStep: (word: string) => boolean): number[] {
  const inner = body.flatMap((s) => (s.kind === 'loop' ? stepsOf(s.body, isStep) : []));
  const own = body.some((s) => s.kind === 'loop')
    ? 0
    : body.filter((s) => (s.kind === 'set' || s.kind === 'let') && isStep(s.word)).length;
  return own ? [own] : inner;
}
const loopsOf = (program: Program, isStep: (word: string) => boolean) =>
  program.body.flatMap((s) => (s.kind === 'loop' ? stepsOf(s.body, isStep) : [])).sort((a, b) => a - b);

describe('assembly', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'bitnet-assembly-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** The kernel's assembly by clang, or skips the test. */
  async function assemblyOf(context: Mocha.Context, isa: Isa, kernel: Kernel): Promise<string> {
    const compiler = await compilerFor(isa.family);
    if (typeof compiler === 'string') return skip(context, compiler);
    if (!compiler.label.startsWith('clang')) skip(context, `clang is not installed (${compiler.label} is)`);
    const file = path.join(folder, `${kernel.program.name}.c`);
    writeFileSync(file, kernel.text);
    const [cc, ...first] = compiler.command;
    const result = await execa(cc!, [
      ...first,
      ...FLAGS,
      ...isa.flags([...isa.requires, ...isa.optional]),
      '-w',
      '-S',
      '-o',
      '-',
      file,
    ]);
    return result.stdout;
  }

  for (const isa of Object.values<Isa>(isas)) {
    const wanted = instructions[isa.name];
    const cpu = profileOf(isa.name);
    if (!wanted) {
      it(`${isa.name}`, function () {
        skip(this, 'it has no instructions to look for');
      });
      continue;
    }
    /** What each family would take first. */
    const firsts = (p: Packing, k: number) =>
      Object.entries<KernelFamily>(kernels).flatMap(([op, { product }]) => {
        const offered = product?.candidates(cpu, p, 2560, k) ?? [];
        return offered.length ? [[op, firstLegal(offered)] as const] : [];
      });
    for (const p of packingsFor(isa)) {
      // Whole lines, also between flushes: clang writes down a rest of two lines without a loop.
      const k = 2560 % p.lineK ? 2520 : 2560;
      for (const [what, spec] of [
        ...firsts(p, k),
        ...batches(cpu, p, 2560, k).map((s) => [`${s.op} of ${s.tile[0]} tokens`, s] as const),
      ]) {
        it(`${what} over ${p.token} on ${isa.name}: no stack traffic, all its instructions`, async function () {
          if (typeof spec === 'string') skip(this, spec);
          const source = kernelSource(spec);
          const [isStep, which] = loopsOf(source.program, isDot).length
            ? [isDot, wanted.dots]
            : [isLookUp, wanted.lookUps];
          const expected = loopsOf(source.program, isStep);
          assert.ok(expected.length > 0, 'the program has a loop of dot steps or look-ups');
          const found = hotLoops(await assemblyOf(this, isa, source), which);
          assert.deepEqual(
            found.flatMap((loop) => loop.stack),
            [],
          );
          assert.deepEqual(
            found.map((loop) => loop.steps).sort((a, b) => a - b),
            expected,
          );
        });
      }
    }

    it(`a tile that does not fit the registers of ${isa.name} shows as stack traffic`, async function () {
      // With more accumulators than registers, recorded without check().
      const p = Object.values<Packing>(packings)[0]!;
      const spec = kernels.gemm.batch!(profileOf(isa.name), p, 2560, 2560)[0]!;
      const vectors = spec.tile[1]! / isa.lanes;
      const large = {
        ...spec,
        tile: [2 ** Math.ceil(Math.log2((1.5 * isa.registers) / vectors)), ...spec.tile.slice(1)],
      };
      const b = new Recorder();
      kernels.gemm.record(b, large, isa);
      const assembly = await assemblyOf(this, isa, standalone(b.program(`spilling_${isa.name}`), isa));
      assert.ok(hotLoops(assembly, wanted.dots).some((loop) => loop.stack.length > 0));
    });
  }

  it('is read on this machine for its own instruction sets', () => {
    const own = Object.values<Isa>(isas).filter((isa) => isa.family === hostFamily);
    for (const isa of own) assert.ok(instructions[isa.name], `name the instructions of ${isa.name}`);
  });
});
