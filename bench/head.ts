/**
 * Measures the k largest logits against the full head, in turn, on a head that no cache holds: 32,768 x 2560, a quarter of
 * 2B4T's; and counts over thousands of hidden states how often the fast head misses one of them. Prints what head-main.c counts
 * and times.
 *
 *     npx tsx bench/head.ts [TARGET [TYPE]]          times; TYPE: of the rows (default: bf16)
 *     npx tsx bench/head.ts [TARGET [TYPE]] STATES   counts, over STATES states of each kind; no times
 */
import { rmSync } from 'node:fs';
import { heads, type TopMode } from '../runtime/library.ts';
import { temporaryFolder } from '../schemas/aside.ts';
import type { RowType } from '../schemas/types.ts';
import { headProgram, headShape, matrix, runHead, stateKinds } from '../test/head.ts';
import { randomOf } from '../test/kernel-inputs.ts';
import { bestTarget } from '../test/machine.ts';

const [n, k] = [32768, 2560];
const numbers = process.argv.slice(2).filter((argument) => /^\d+$/.test(argument));
const [target = bestTarget, type = 'bf16'] = process.argv.slice(2).filter((argument) => !numbers.includes(argument));
const counted = Number(numbers[0] ?? 0);
const folder = temporaryFolder('head');
const print = (text: string) => process.stdout.write(`${text}\n`);
try {
  const program = await headProgram(folder, headShape(n, k, type as RowType), target);
  const { normal } = randomOf('measured rows');
  const rows = matrix(n, k, () => 0.02 * normal());
  for (const name of ['normal', 'three outliers']) {
    const states = matrix(counted || 20, k, stateKinds(k)[name]!);
    for (const threads of counted ? [2] : [1, 2])
      for (const head of counted ? (['fast'] as const) : (Object.keys(heads) as TopMode[])) {
        const rounds = counted ? 0 : 41;
        for (const a of await runHead(program, rows, states, { ks: [1, 40], threads, head, rounds })) {
          const passed = `${target}, ${type}, ${head} head, ${name} states, k = ${a.k}: ${a.passed} rows passed (at most ${a.most})`;
          if (counted)
            print(
              `${passed}; ${a.wrong} of ${counted} states with other rows than the full head; ${a.outside} of ${n * counted} logits outside their bounds`,
            );
          else
            print(
              `${passed}; ${threads} threads: full head ${a.full} ms, largest ${a.largest} ms, ratio ${(a.largest! / a.full!).toFixed(3)}`,
            );
        }
      }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
