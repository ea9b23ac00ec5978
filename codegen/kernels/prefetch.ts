/**
 * How a kernel that streams weights fetches them ahead, as the variant in its name: pN: N bytes ahead, past the second-level cache;
 * pNl2: into it; p0: not at all. The CPU's profile says which suits it. Zen 4 reads fastest with the first kind, 8 KB ahead; on Intel's
 * Emerald Rapids a token takes 1.8 times as long with that kind (docs/measurements.md).
 */
import type { Target } from './kernel.ts';

/** Bytes ahead, and the level that the vocabulary's `prefetch` takes. */
export function parsePrefetch(variant: string): { readonly ahead: number; readonly level: 0 | 2 } {
  const [, ahead, level] = /^p(\d+)(l2)?$/.exec(variant)!;
  return { ahead: Number(ahead), level: level ? 2 : 0 };
}

/** The variant that a CPU begins with. @param own distance for kernels like this one where the profile names none */
export function preferredPrefetch({ prefetch: { hint, ahead } }: Target, own: number): string {
  if (hint === 'none') return 'p0';
  return `p${ahead ?? own}${hint === 'l2' ? 'l2' : ''}`;
}

/** The preferred variant, then the others that the tuner tries for one token. The hint that does not suit a CPU gets one try. */
export const prefetches = (cpu: Target, own: number): string[] =>
  distinct(
    preferredPrefetch(cpu, own),
    ...(cpu.prefetch.hint === 'nta'
      ? ['p4096', 'p8192', 'p12288l2', 'p24576l2', 'p0']
      : ['p4096l2', 'p8192l2', 'p12288l2', 'p24576l2', 'p0', 'p4096']),
  );

/** The same for kernels that compute more for each byte, so that it matters less. */
export const fewPrefetches = (cpu: Target, own: number): string[] =>
  distinct(
    preferredPrefetch(cpu, own),
    ...(cpu.prefetch.hint === 'nta' ? ['p4096', 'p8192', 'p0'] : ['p12288l2', 'p0']),
  );

const distinct = (...variants: readonly string[]): string[] => [...new Set(variants)];
