/**
 * What reading a prompt and evaluating a batch have in common: n tokens pass through the layers at once, and the speed of the
 * ternary products is held against the arithmetic roof, measured in the same rotation by as many threads.
 */
import type { Engine } from '../../runtime/engine.ts';
import { about, type Ready, withEngines } from '../engines.ts';
import { Peaks, type PeakTimer } from '../peak.ts';
import { formatShares, partsOf } from '../profile.ts';
import { median, type Pace, rotate } from '../rotation.ts';
import { formatTable, percent } from '../table.ts';
import type { RunTimer } from '../timers.ts';
import type { Request } from './subject.ts';

/** One combination: an engine, and how many tokens it evaluates at once. */
interface Combination extends Ready {
  readonly n: number;
  readonly timer: RunTimer;
  readonly peak: PeakTimer;
}

/** A row of the result; times are milliseconds of all n tokens, and medians. */
export type RateRow = ReturnType<typeof rowOf>;

function rowOf({ n, timer, peak, ...ready }: Combination) {
  const ms = median(timer.ms);
  const profile = partsOf(timer.profiled);
  const ternary = ready.prepared.manifest.layout.tensors.filter(({ kind }) => kind === 'ternary');
  const weights = ternary.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  const kernelGmacs = (weights * n) / profile.ternary / 1e6;
  const peakGmacs = peak.gmacs;
  return {
    ...about(ready),
    context: ready.context,
    n,
    ms,
    tok_s: (1000 * n) / ms,
    kernel_gmacs: kernelGmacs,
    peak_gmacs: peakGmacs,
    peak_fraction: kernelGmacs / peakGmacs,
    /** The rate over the one that it would be if nothing but the products took time. */
    kernel_only_fraction: profile.ternary / ms,
    profile,
    samples: timer.ms.length,
  };
}

/** What a subject measures. */
interface Wanted {
  readonly contexts: readonly number[];
  readonly sizes: readonly number[];
  /** Positions beyond the context. */
  readonly room: number;
  readonly pace: Pace;
  readonly timerOf: (engine: Engine, n: number) => RunTimer;
}

/** Measures all sizes on all engines in one rotation. @returns rows, those of an engine together and in the order of the sizes */
export async function measureRates(request: Request, wanted: Wanted, notes: string[]): Promise<RateRow[]> {
  const { contexts, sizes, room, pace, timerOf } = wanted;
  const peaks = new Peaks();
  const run = async (engines: readonly Ready[]) => {
    const combinations: Combination[] = [];
    for (const ready of engines) {
      const peak = await peaks.timer(ready.prepared, ready.engine.threads, request.signal);
      for (const n of sizes) combinations.push({ ...ready, n, timer: timerOf(ready.engine, n), peak });
    }
    const rounds = await rotate(
      [...combinations.map(({ timer }) => timer), ...peaks.timers],
      pace,
      (...at) => request.onProgress('measuring, s', ...at),
      request.signal,
    );
    notes.push(`${rounds} rounds`);
    return combinations.map(rowOf);
  };
  try {
    return await withEngines(request, { packings: 'planned', contexts, room }, notes, run);
  } finally {
    await peaks.close();
  }
}

/** Speed and roof, then the share of each operation. @param more further columns: headers and cells */
export function formatRates<Row extends RateRow>(
  rows: readonly Row[],
  more: Readonly<Record<string, (row: Row) => string>> = {},
): string {
  const sparse = rows.some((row) => row.path !== undefined);
  const headers = ['target', 'packing', 'threads', 'kv', 'context', ...(sparse ? ['sparsity', 'path'] : []), 'n'];
  const cellsOf = (row: Row) => [
    row.target,
    row.packing,
    ...[row.threads, row.kv, row.context].map(String),
    ...(sparse ? [String(row.sparsity), String(row.path)] : []),
    String(row.n),
  ];
  const speed = rows.map((row) => [
    ...cellsOf(row),
    row.ms.toFixed(1),
    row.tok_s.toFixed(1),
    ...Object.values(more).map((cell) => cell(row)),
    row.kernel_gmacs.toFixed(0),
    row.peak_gmacs.toFixed(0),
    percent(row.peak_fraction),
    percent(row.kernel_only_fraction),
  ]);
  const speedHeaders = ['ms', 'tok/s', ...Object.keys(more), 'GMAC/s', 'peak GMAC/s', 'of peak', 'of kernels alone'];
  const shares = rows.map((row) => ({ cells: cellsOf(row), parts: row.profile }));
  return `${formatTable([...headers, ...speedHeaders], speed)}${formatShares(headers, shares)}`;
}
