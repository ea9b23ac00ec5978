/**
 * The loop of the arithmetic roof, in the vocabulary: what a product kernel would be if nothing but its dot steps took time.
 *
 *   sum += codes[i] . activations[j]     for all pairs (i, j) of a sweep's vectors, in turn by one of `chains` partial sums
 *
 * A sweep loads a few vectors of each operand and multiplies them all with each other, so that its dot steps work on registers
 * and outnumber the loads. (Of operands that never change, a compiler takes the products out of the loop.) Partial sums are
 * flushed when they must be, as in dot-products.ts, or else once in k = 2560.
 */
import { fileOf } from '../codegen/generate.ts';
import { check } from '../codegen/ir/check.ts';
import { printSignature } from '../codegen/ir/print.ts';
import { type Address, at, type Program, Recorder, times } from '../codegen/ir/record.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { range, stepsBeforeFlush } from '../codegen/kernels/kernel.ts';

/** Sweeps over different memory, which stays in the L1 cache: 8 x (4 + 8) x 64 bytes = 6 KB at most. */
const SWEEPS = 8;
/** Dot steps of a partial sum between two flushes, where the instruction set permits: k = 2560. */
const STEPS = 2560 / 4;
/** Dot steps of one call: 10 to 20 ms at two or one a cycle. */
const CALL = 2 ** 26;

/** Sizes of the loop for an instruction set. Operands, partial sums, one product and the flushed sums fit its registers. */
function sizesOf(isa: Isa) {
  // A partial sum waits for an addition (one cycle) where products come in pairs, else for the whole dot step (four or five).
  const [chains, codes, activations] = isa.dot.products === 2 ? [6, 3, 4] : [16, 4, 8];
  const pairs = codes * activations;
  const rounds = Math.floor(Math.min(stepsBeforeFlush(isa), STEPS) / ((pairs / chains) * SWEEPS));
  return { chains, codes, activations, rounds, chunks: Math.round(CALL / (rounds * SWEEPS * pairs)) };
}

/** Records the loop. How often it runs are parameters, so that the compiler does not unroll it further. */
function programOf(isa: Isa): Program {
  const { chains, codes, activations, rounds, chunks } = sizesOf(isa);
  const vector = 4 * isa.lanes;
  const b = new Recorder();
  const operand = (vectors: number) =>
    ({ access: 'in', extent: SWEEPS * vectors * vector, doc: `[sweeps][${vectors} vectors][${vector}]` }) as const;
  const w = b.pointer('codes', { element: 'u8', ...operand(codes), bound: 2 });
  const x = b.pointer('activations', { element: 'i8', ...operand(activations) });
  const y = b.pointer('sums', { element: 'i32', access: 'out', extent: isa.lanes, doc: 'modulo 2^32' });
  const chunkCount = b.long('chunks', 0, chunks, 'flushes of each partial sum');
  const roundCount = b.long('rounds', 0, rounds, 'rounds of sweeps between two flushes');
  const sweepCount = b.long('sweeps', 0, SWEEPS, 'sweeps of a round');

  const sum = b.variable('sum', 'splat_int', b.let('zero', 'integer', 0));
  b.loop('chunk', 0, chunkCount, 1, () => {
    const dots = range(chains).map((c) => b.variable(`dots_c${c}`, 'dot_zero'));
    b.loop('round', 0, roundCount, 1, () =>
      b.loop('sweep', 0, sweepCount, 1, (sweep) => {
        const load = (base: Address, count: number, name: string) =>
          range(count).map((v) =>
            b.let(`${name}_v${v}`, 'load_bytes', at(base, times(sweep, count * vector), v * vector)),
          );
        const ws = load(w, codes, 'w');
        const xs = load(x, activations, 'x');
        xs.flatMap((a) => ws.map((code) => [code, a] as const)).forEach(([code, a], i) => {
          const chain = dots[i % chains]!;
          b.set(chain, 'dot_next', chain, code, a);
        });
      }),
    );
    for (const chain of dots) b.set(sum, 'dot_flush', sum, chain);
  });
  b.do('store_ints', y, sum);
  return b.program('dots');
}

/** The files that bench/peak.c needs, and the multiply-adds of one call. */
export function dotsFor(isa: Isa): { readonly files: ReadonlyMap<string, string>; readonly multiplyAdds: number } {
  const program = programOf(isa);
  const problems = check(program, isa);
  if (problems.length) throw new Error(`the loop of the arithmetic roof is refused: ${problems[0]}`);
  const { codes, activations, rounds, chunks } = sizesOf(isa);
  const numbers = {
    CODES: SWEEPS * codes * 4 * isa.lanes,
    ACTIVATIONS: SWEEPS * activations * 4 * isa.lanes,
    SUMS: isa.lanes,
    CHUNKS: chunks,
    ROUNDS: rounds,
    SWEEPS,
  };
  const banner = [`Dot steps on registers, for ${isa.name}.`, '', 'Generated from bench/dots.ts.'];
  const header = [
    '/* The loop of dots.c, and its sizes. Generated from bench/dots.ts. */',
    '#include <stdint.h>',
    ...Object.entries(numbers).map(([name, value]) => `#define DOTS_${name} ${value}`),
    `${printSignature(program)};\n`,
  ];
  return {
    files: new Map([
      ['dots.h', header.join('\n')],
      ['kernels/dots.c', fileOf(program, isa, banner)],
    ]),
    multiplyAdds: chunks * rounds * SWEEPS * codes * activations * 4 * isa.lanes,
  };
}
