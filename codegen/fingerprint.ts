/**
 * One hash for what determines the texts of a phase's product kernels on a CPU, so that measurements of other texts do not count:
 * which kernels are offered, by name, and the text that each family prints for each packing, at a small size with tails. The
 * candidates of one family and packing come from the same lines of code, so one text stands for all. Of each phase on its own: a
 * change of one family's text leaves what was measured of others.
 */
import { createHash } from 'node:crypto';
import type { CpuProfile } from '../schemas/types.ts';
import { familyOf, kernelSource } from './generate.ts';
import { isaOf } from './isa/index.ts';
import { panelSpec } from './kernels/panels.ts';
import { columnSumsSpec } from './kernels/sparse-columns.ts';
import { rowDotsSpec } from './kernels/sparse-rows.ts';
import type { KernelSpec } from './name.ts';
import { format } from './name.ts';
import { orderedPackings, packingsFor } from './packings/index.ts';
import { panelK } from './packings/orders.ts';
import type { Packing } from './packings/packing.ts';
import {
  batchCandidates,
  candidates,
  firstLegal,
  kernelsOfTables,
  refusal,
  tableCandidates,
  tableSteps,
} from './space.ts';
import type { Phase } from './wisdom.ts';

const known = new Map<string, string>();

/** What a phase may take for a matrix besides what another one takes, and the kernels whose texts stand for all. */
function offeredFor(phase: Phase, cpu: CpuProfile, p: Packing, n: number, k: number) {
  if (phase === 'prefill') {
    const sums = tableCandidates(cpu, p, k);
    const steps = sums.slice(0, 1).flatMap((first) => kernelsOfTables(tableSteps(first, n)));
    return { offered: sums, texts: steps.filter((spec) => !refusal(spec)) };
  }
  const offered = phase === 'decode' ? candidates(cpu, p, n, k) : batchCandidates(cpu, p, n, k);
  const kindOf = ({ op, tile }: KernelSpec) => `${op} ${tile[0]}`;
  const texts = [...new Set(offered.map(kindOf))].flatMap((kind) => {
    const first = firstLegal(offered.filter((spec) => kindOf(spec) === kind));
    if (typeof first === 'string') return [];
    const tabulate = familyOf(first).product?.tabulate?.(first);
    return [first, ...(tabulate && !refusal(tabulate) ? [tabulate] : [])];
  });
  return { offered, texts };
}

/** The hash of some texts, made once for a CPU and a purpose. */
function hashOf(cpu: CpuProfile, purpose: string, texts: () => readonly string[]): string {
  const key = JSON.stringify([cpu.isa, cpu.features, cpu.cache, cpu.prefetch, purpose]);
  const hash = known.get(key) ?? createHash('sha256').update(JSON.stringify(texts())).digest('hex').slice(0, 16);
  known.set(key, hash);
  return hash;
}

/** The hash, for this CPU's instructions and caches. */
export const fingerprint = (cpu: CpuProfile, phase: Phase): string =>
  hashOf(cpu, phase, () => {
    const all = packingsFor(isaOf(cpu.isa)).flatMap((p) => {
      const { offered, texts } = offeredFor(phase, cpu, p, 3 * p.rows - 1, 5 * p.lineK + 1);
      return [...offered.map(format), ...texts.map((spec) => kernelSource(spec).text)];
    });
    // Prompts may also be multiplied as batches are.
    return phase === 'prefill' ? [...all, fingerprint(cpu, 'batch')] : all;
  });

/** The same with the kernels that skip zeros, and the panels that others read then: for thresholds (tune/thresholds.ts). */
export const skippingFingerprint = (cpu: CpuProfile, phase: Phase): string =>
  hashOf(cpu, `${phase}, skipping zeros`, () => {
    const isa = isaOf(cpu.isa);
    const specs = (['rows', 'columns'] as const).flatMap((order) =>
      orderedPackings(isa, order).flatMap((o) => {
        const [n, k] = [3 * o.tiles.rows - 1, panelK(o) + 1];
        return [
          o.order === 'rows' ? rowDotsSpec(o, isa.name, n, k) : columnSumsSpec(o, isa.name, n, k),
          panelSpec(o, isa.name, n, k),
        ];
      }),
    );
    return [fingerprint(cpu, phase), ...specs.filter((s) => !refusal(s)).map((s) => kernelSource(s).text)];
  });
