/** Where the time of what was measured goes, by operation of the library. */
import { operations, type Profile } from '../runtime/library.ts';
import { mean, middleHalf } from './rotation.ts';
import { formatTable, percent } from './table.ts';

/** A run that was timed by operation: its milliseconds as the caller sees them, and its seconds by operation. */
export interface Profiled {
  readonly ms: number;
  readonly profile: Profile;
}

/** Milliseconds by operation; `outside` is what the library's job does not see: call, sampling. */
export type Parts = Profile & { readonly total: number; readonly outside: number };

/** Means over the middle half of the runs, so that the parts still add up. */
export function partsOf(runs: readonly Profiled[]): Parts {
  const middle = middleHalf(runs, (run) => run.ms);
  const total = mean(middle.map((run) => run.ms));
  const parts = operations.map((name) => [name, mean(middle.map((run) => 1000 * run.profile[name]))] as const);
  const profile = Object.fromEntries(parts) as Record<(typeof operations)[number], number>;
  return { total, ...profile, outside: total - parts.reduce((sum, [, ms]) => sum + ms, 0) };
}

/** The share of each operation. @param rows what was measured, as cells, and its parts */
export function formatShares(
  headers: readonly string[],
  rows: readonly { readonly cells: readonly string[]; readonly parts: Parts }[],
): string {
  const names = [...operations, 'outside'] as const;
  const shares = rows.map(({ cells, parts }) => [...cells, ...names.map((name) => percent(parts[name] / parts.total))]);
  return `\nTime by operation\n${formatTable([...headers, ...names], shares)}`;
}
