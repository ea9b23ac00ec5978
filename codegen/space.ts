/**
 * The space of legal kernels for a ternary product: every packing, tile and prefetch distance that the ISA can run, each spec
 * in order of default preference. The plan takes the first legal one; the tuner measures them.
 */
import { PlanError } from '../schemas/error.ts';
import type { CpuProfile } from '../schemas/types.ts';
import { isaOf, programOf } from './generate.ts';
import { gemmTile } from './kernels/gemm.ts';
import type { KernelSpec } from './name.ts';
import type { Packing } from './packings/packing.ts';

/** Unrolled lines and prefetch distances (bytes, 0: none) of the decode kernel. */
const unrolls = [4, 2, 8, 1, 16];
const prefetches = [8192, 0, 2048, 4096, 16384];

/** Decode kernels for y[n] = W[n][k] x[k] with this packing. */
export function gemvCandidates(cpu: CpuProfile, p: Packing, n: number, k: number): KernelSpec[] {
  const base = { op: 'gemv', act: 'i8', weight: p.token, out: 'i32', shape: { n, k }, isa: cpu.isa } as const;
  return prefetches.flatMap((ahead) =>
    unrolls.map((lines): KernelSpec => ({ ...base, tile: [1, p.rows, lines * p.lineK], variant: `p${ahead}` })),
  );
}

/** Prompt kernels with this packing: the panel's block of k takes at most a quarter of the L2 cache. */
export function gemmCandidates(cpu: CpuProfile, p: Packing, n: number, k: number): KernelSpec[] {
  const isa = isaOf(cpu.isa);
  const [tokens, rows, step] = gemmTile(isa, p);
  const base = { op: 'gemm', act: 'i8', weight: p.token, out: 'i32', shape: { n, k }, isa: cpu.isa } as const;
  const block = (share: number) => {
    const most = Math.floor((cpu.cache.l2 * share) / rows / p.lineK) * p.lineK;
    return `kb${Math.max(p.lineK, Math.min(most, Math.ceil(k / p.lineK) * p.lineK))}`;
  };
  const tiles = [tokens, tokens / 2, 2 * tokens].filter((t) => t >= 1 && t <= 16);
  return [0.25, 0.125, 0.5].flatMap((share) =>
    tiles.map((t): KernelSpec => ({ ...base, tile: [t, rows, step], variant: block(share) })),
  );
}

/** Why this kernel cannot be generated; undefined when it can. */
export function refusal(spec: KernelSpec): string | undefined {
  try {
    programOf(spec);
    return undefined;
  } catch (error) {
    if (error instanceof PlanError) return error.message;
    throw error;
  }
}

/** The first candidate that can be generated, or the reason why none can. */
export function firstLegal(candidates: readonly KernelSpec[]): KernelSpec | string {
  let reason = 'there is no candidate';
  for (const spec of candidates) {
    const refused = refusal(spec);
    if (!refused) return spec;
    reason = refused;
  }
  return reason;
}
