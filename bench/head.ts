/**
 * Measures the k largest logits against the full head, in turn, on a head that no cache holds: 32,768 x 2560, a quarter of
 * 2B4T's. Prints what head-main.c counts and times.
 *
 *     npx tsx bench/head.ts [TARGET [TYPE]]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { RowType } from '../schemas/types.ts';
import { headProgram, headShape, matrix, runHead, stateKinds } from '../test/head.ts';
import { randomOf } from '../test/kernel-inputs.ts';
import { bestTarget } from '../test/machine.ts';

const [n, k] = [32768, 2560];
const [target = bestTarget, type = 'bf16'] = process.argv.slice(2);
const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-head-'));
try {
  const program = await headProgram(folder, headShape(n, k, type as RowType), target);
  const { normal } = randomOf('measured rows');
  const rows = matrix(n, k, () => 0.02 * normal());
  for (const name of ['normal', 'three outliers'])
    for (const threads of [1, 2]) {
      const states = matrix(20, k, stateKinds(k)[name]!);
      for (const a of await runHead(program, rows, states, { ks: [1, 40], threads, rounds: 41 }))
        process.stdout.write(
          `${target}, ${type}, ${name} states, ${threads} threads, k = ${a.k}: ${a.passed} rows passed (at most ${a.most}); ` +
            `full head ${a.full} ms, largest ${a.largest} ms, ratio ${(a.largest! / a.full!).toFixed(3)}\n`,
        );
    }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
