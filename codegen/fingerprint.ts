/**
 * One hash for what determines the texts of product kernels on a CPU, so that measurements of other texts do not count: which
 * kernels are offered, by name, and the text that each family prints for each packing, at a small size with tails. The candidates
 * of one family and packing come from the same lines of code, so one text stands for all.
 */
import { createHash } from 'node:crypto';
import type { CpuProfile } from '../schemas/types.ts';
import { kernelSource } from './generate.ts';
import { isaOf } from './isa/index.ts';
import { format } from './name.ts';
import { packingsFor } from './packings/index.ts';
import { candidates, firstLegal } from './space.ts';

const known = new Map<string, string>();

/** The hash, for this CPU's instructions. */
export function fingerprint(cpu: CpuProfile): string {
  const key = JSON.stringify([cpu.isa, cpu.features]);
  let hash = known.get(key);
  if (!hash) {
    const texts = packingsFor(isaOf(cpu.isa)).flatMap((p) => {
      const offered = candidates(cpu, p, 3 * p.rows - 1, 5 * p.lineK + 1);
      const families = [...new Set(offered.map(({ op }) => op))].map((op) => {
        const first = firstLegal(offered.filter((spec) => spec.op === op));
        return typeof first === 'string' ? first : kernelSource(first).text;
      });
      return [...offered.map(format), ...families];
    });
    hash = createHash('sha256').update(JSON.stringify(texts)).digest('hex').slice(0, 16);
    known.set(key, hash);
  }
  return hash;
}
