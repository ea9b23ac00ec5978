/**
 * What the samples of a sweep say: medians and quartiles, since what disturbs a measurement only ever adds to it, and whether one
 * kernel is faster than another or only seems to be.
 */

/** Position `q` in [0, 1] of sorted values, interpolated. */
function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low]! + (at - low) * ((sorted[low + 1] ?? sorted[low]!) - sorted[low]!);
}

/** Median and quartiles. @param values at least one */
export function spread(values: readonly number[]): { median: number; low: number; high: number } {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: quantile(sorted, 0.5), low: quantile(sorted, 0.25), high: quantile(sorted, 0.75) };
}

/** @param values at least one */
export const median = (values: readonly number[]): number => spread(values).median;

/** The normal distribution's upper 2.5 %. */
const CRITICAL = 1.96;

/**
 * Is `a` faster than `b`, at the 5 % level (two-sided)? Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945) on samples of
 * the same rounds: pairs share whatever the machine did meanwhile, ranks make an outlier count as one round, and no distribution
 * is assumed. W = sum of the ranks of |a - b| over rounds where a < b has mean n (n + 1) / 4 and variance
 * n (n + 1) (2 n + 1) / 24 when there is no difference; its distribution is near normal from about 10 rounds on. Fewer than 6 rounds
 * cannot reach the level (2 * 2^-5 = 6 %): the answer is no.
 */
export function isFaster(a: readonly number[], b: readonly number[]): boolean {
  const differences = a.map((value, i) => b[i]! - value).filter((d) => d !== 0);
  const n = differences.length;
  if (n < 6) return false;
  const bySize = [...differences].sort((p, q) => Math.abs(p) - Math.abs(q));
  const ranks = bySize.reduce((sum, d, i) => sum + (d > 0 ? i + 1 : 0), 0);
  const deviation = Math.sqrt((n * (n + 1) * (2 * n + 1)) / 24);
  return (ranks - (n * (n + 1)) / 4 - 0.5) / deviation > CRITICAL;
}
