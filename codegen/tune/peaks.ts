/**
 * The loops of the arithmetic roofs, in the vocabulary: what a product kernel would be if nothing but its innermost step took time.
 *
 * Of dot products: sum += codes[i] . activations[j] for all pairs (i, j) of a sweep's vectors, in turn by one of `chains` partial
 * sums. A sweep loads a few vectors of each operand and multiplies them all with each other, so that its dot steps work on
 * registers and outnumber the loads. (Of operands that never change, a compiler takes the products out of the loop.) Partial sums are
 * flushed when they must be, as in kernels/dot-products.ts, or else once in k = 2560.
 *
 * Of sums by tables: sums[i] += entries[j], each entry loaded from the L1 cache: an addition and a load for four weights and T
 * tokens (kernels/tables.ts).
 */
import { fileOf } from '../generate.ts';
import { check } from '../ir/check.ts';
import { printSignature } from '../ir/print.ts';
import { type Address, at, type Program, Recorder, times } from '../ir/record.ts';
import type { Isa } from '../isa/isa.ts';
import { range, stepsBeforeFlush } from '../kernels/kernel.ts';
import { entryBytes, tableTokens } from '../kernels/tables.ts';
import { ownTemplate } from './process.ts';

/** Sweeps over different memory, which stays in the L1 cache: 8 x (4 + 8) x 64 bytes = 6 KB at most. */
const SWEEPS = 8;
/** Dot steps of a partial sum between two flushes, where the instruction set permits: k = 2560. */
const STEPS = 2560 / 4;
/** Steps of one call: 10 to 20 ms at two or one a cycle. */
const CALL = 2 ** 26;
/** Sums at once, and entries: 16 KB at most. */
const SUMS = 8;
const ENTRIES = 256;

/** Sizes of the loop for an instruction set. Operands, partial sums, one product and the flushed sums fit its registers. */
function sizesOf(isa: Isa) {
  // A partial sum waits for an addition (one cycle) where products come in pairs, else for the whole dot step (four or five).
  const [chains, codes, activations] = isa.dot.products === 2 ? [6, 3, 4] : [16, 4, 8];
  const pairs = codes * activations;
  const rounds = Math.floor(Math.min(stepsBeforeFlush(isa), STEPS) / ((pairs / chains) * SWEEPS));
  return { chains, codes, activations, rounds, chunks: Math.round(CALL / (rounds * SWEEPS * pairs)) };
}

/** Records the dot products. How often they run are parameters, so that the compiler does not unroll them further. */
function dots(isa: Isa): Program {
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
    const partial = range(chains).map((c) => b.variable(`dots_c${c}`, 'dot_zero'));
    b.loop('round', 0, roundCount, 1, () =>
      b.loop('sweep', 0, sweepCount, 1, (sweep) => {
        const load = (base: Address, count: number, name: string) =>
          range(count).map((v) =>
            b.let(`${name}_v${v}`, 'load_bytes', at(base, times(sweep, count * vector), v * vector)),
          );
        const ws = load(w, codes, 'w');
        const xs = load(x, activations, 'x');
        xs.flatMap((a) => ws.map((code) => [code, a] as const)).forEach(([code, a], i) => {
          const chain = partial[i % chains]!;
          b.set(chain, 'dot_next', chain, code, a);
        });
      }),
    );
    for (const chain of partial) b.set(sum, 'dot_flush', sum, chain);
  });
  b.do('store_ints', y, sum);
  return b.program('dots');
}

/** Records the additions. */
function additions(isa: Isa): Program {
  const entry = entryBytes(isa);
  const b = new Recorder();
  const table = b.pointer('entries', {
    element: 'u8',
    access: 'in',
    extent: ENTRIES * entry,
    doc: `int16 [${ENTRIES}][${tableTokens(isa)}]`,
  });
  const y = b.pointer('sums', { element: 'u8', access: 'out', extent: SUMS * entry, doc: 'int16 modulo 2^16' });
  const roundCount = b.long('rounds', 0, CALL / ENTRIES, 'rounds over all entries');
  const entryCount = b.long('count', 0, ENTRIES, 'entries');
  const sums = range(SUMS).map((i) => b.variable(`sum_${i}`, 'zero_shorts'));
  b.loop('round', 0, roundCount, 1, () =>
    b.loop('e', 0, entryCount, SUMS, (e) => {
      sums.forEach((sum, i) => {
        const value = b.let(`value_${i}`, 'load_shorts', at(table, times(e, entry), i * entry));
        b.set(sum, 'add_shorts', sum, value);
      });
    }),
  );
  sums.forEach((sum, i) => {
    b.do('store_shorts', at(y, i * entry), sum);
  });
  return b.program('additions');
}

/** A loop, and the multiply-adds that one call of it stands for. */
export interface Peak {
  readonly name: 'dots' | 'additions';
  readonly multiplyAdds: number;
}

/** templates/tune/peaks.c with the files that it needs, and the loops. */
export function peaksFor(isa: Isa): { readonly files: ReadonlyMap<string, string>; readonly peaks: readonly Peak[] } {
  const programs = [dots(isa), additions(isa)];
  const problems = programs.flatMap((program) => check(program, isa));
  if (problems.length) throw new Error(`the loops of the arithmetic roof are refused: ${problems[0]}`);
  const { codes, activations, rounds, chunks } = sizesOf(isa);
  const numbers = {
    DOTS_CODES: SWEEPS * codes * 4 * isa.lanes,
    DOTS_ACTIVATIONS: SWEEPS * activations * 4 * isa.lanes,
    DOTS_SUMS: isa.lanes,
    DOTS_CHUNKS: chunks,
    DOTS_ROUNDS: rounds,
    DOTS_SWEEPS: SWEEPS,
    ADDITIONS_BYTES: ENTRIES * entryBytes(isa),
    ADDITIONS_SUMS: SUMS * entryBytes(isa),
    ADDITIONS_ROUNDS: CALL / ENTRIES,
    ADDITIONS_ENTRIES: ENTRIES,
  };
  const header = [
    '/* The loops of the arithmetic roofs, and their sizes. Generated from codegen/tune/peaks.ts. */',
    '#include <stdint.h>',
    ...Object.entries(numbers).map(([name, value]) => `#define ${name} ${value}`),
    ...programs.map((program) => `${printSignature(program)};`),
    '/* peaks.c: fills the operands; jobs of a pool */',
    'void bn_peaks_prepare(void);',
    'void bn_peak_dots(void *part, int thread, int threads);',
    'void bn_peak_additions(void *part, int thread, int threads);',
    '',
  ];
  const banner = (what: string) => [`${what}, for ${isa.name}.`, '', 'Generated from codegen/tune/peaks.ts.'];
  return {
    files: new Map([
      ['peaks.c', ownTemplate('peaks.c')],
      ['peaks.h', header.join('\n')],
      ['kernels/dots.c', fileOf(programs[0]!, isa, banner('Dot steps on registers'))],
      ['kernels/additions.c', fileOf(programs[1]!, isa, banner('Additions of entries in the L1 cache'))],
    ]),
    peaks: [
      { name: 'dots', multiplyAdds: chunks * rounds * SWEEPS * codes * activations * 4 * isa.lanes },
      { name: 'additions', multiplyAdds: CALL * 4 * tableTokens(isa) },
    ],
  };
}
