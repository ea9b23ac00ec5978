/** What was measured, in words: a line for each problem while a sweep goes on, and the whole story for `bitnet-tune show`. */
import type { ThresholdEntry, TokenEntry, TuningEntry, TuningSample } from '../wisdom.ts';

const percent = (x: number) => `${(100 * x).toFixed(1)} %`;
const us = (seconds: number) => (seconds * 1e6).toFixed(1);

/** `2 threads` */
export const threadsOf = (n: number): string => `${n} thread${n === 1 ? '' : 's'}`;

/** What is multiplied: `2560 x 2560`, with the number of tokens where there are several. */
export const titleOf = ({ tokens, n, k }: Pick<TuningEntry['key'], 'tokens' | 'n' | 'k'>): string =>
  `${tokens === 1 ? '' : `${tokens} tokens, `}${n} x ${k}`;

/** What the roof is, for people. */
export const roofOf = ({ key }: Pick<TuningEntry, 'key'>): string => (key.tokens === 1 ? 'a plain read' : 'the roof');

/** Weights times tokens a second, in thousand millions. */
export const rateOf = ({ tokens, n, k }: TuningEntry['key'], seconds: number): number =>
  (tokens * n * k) / seconds / 1e9;

/** A candidate's sample. */
export const sampleOf = (entry: TuningEntry, kernel: string): TuningSample | undefined =>
  entry.candidates.find((c) => c.kernel === kernel);

/** The result of a problem, two lines and one for each kernel that is not exact. */
export function line(entry: TuningEntry): string {
  const { key, kernel, candidates, inexact } = entry;
  const best = sampleOf(entry, kernel)!;
  const byDefault = sampleOf(entry, entry.default_kernel);
  const compared =
    kernel === entry.default_kernel
      ? "the plan's own choice"
      : byDefault
        ? `the plan's own choice takes ${percent(byDefault.seconds / best.seconds)} of its time`
        : "the plan's own choice was not measured";
  return [
    `${titleOf(key)}, ${threadsOf(key.threads)}: ${kernel}`,
    `  ${us(best.seconds)} us, ${percent(best.roof)} of ${roofOf(entry)}, of ${candidates.length} candidates; ${compared}`,
    ...inexact.map((bad) => `  NOT EXACT, not timed: ${bad.kernel}: ${bad.problem}`),
    '',
  ].join('\n');
}

/** Everything about a problem: why, all candidates with times and spread, what was not measured. */
export function explain(entry: TuningEntry): string {
  const { key, kernel, why, finished, candidates, inexact, untried, refused, hopeless } = entry;
  const peak = entry.peak_rate ? `; peak: ${(entry.peak_rate / 1e9).toFixed(0)} GMAC/s` : '';
  const mark = (c: TuningSample) =>
    c.kernel === kernel ? 'chosen' : c.kernel === entry.default_kernel ? 'default' : '';
  const rows = candidates.map((c) => {
    const cells = [us(c.seconds), `${us(c.low)}-${us(c.high)}`, percent(c.roof), String(c.rounds), mark(c)];
    return `  ${cells.map((cell, i) => cell.padStart([10, 21, 9, 7, 8][i]!)).join(' ')}  ${c.kernel}`;
  });
  const left = [
    [untried, 'for lack of time'],
    [refused, 'as they cannot be generated (registers, words)'],
    [hopeless, 'as the estimate rules them out'],
  ] as const;
  return [
    `${key.phase}, ${titleOf(key)}, ${threadsOf(key.threads)}: ${kernel}`,
    `  why: ${why}${finished ? '' : '; the sweep was interrupted'}`,
    `  on ${key.cpu}, ${key.compiler}; plain reads: ${(entry.read_rate / 1e9).toFixed(1)} GB/s${peak}`,
    `  ${['median us', 'quartiles us', key.tokens === 1 ? 'of read' : 'of roof', 'rounds', ''].map((h, i) => h.padStart([10, 21, 9, 7, 8][i]!)).join(' ')}  candidate`,
    ...rows,
    ...inexact.map((bad) => `  NOT EXACT, not timed: ${bad.kernel}: ${bad.problem}`),
    ...left.flatMap(([count, reason]) => (count ? [`  not measured: ${count} ${reason}`] : [])),
    '',
  ].join('\n');
}

/** What whole tokens were measured, for people. */
export const aToken = ({ phase, tokens }: TokenEntry['key']): string =>
  phase === 'decode' ? 'a token' : phase === 'batch' ? `${tokens} tokens at once` : `a prompt of ${tokens} tokens`;
const ms = (seconds: number) => (seconds * 1e3).toFixed(3);

/** A final choice, in two lines. */
export function tokenLine({ key, chosen, sets }: TokenEntry): string {
  const all = sets.map(({ name, seconds }) => `'${name}' ${ms(seconds)} ms`);
  return `${aToken(key)}, ${threadsOf(key.threads)}: '${chosen}'\n  ${all.join(', ')}\n`;
}

/** A final choice: why, and all sets of kernels with times and spread. */
export function explainTokens({ key, chosen, why, sets }: TokenEntry): string {
  return [
    `${key.phase}, ${aToken(key)}, ${threadsOf(key.threads)}: '${chosen}'`,
    `  why: ${why}`,
    ...sets.flatMap(({ name, kernels, seconds, low, high, rounds }) => [
      `  '${name}': ${ms(seconds)} ms (${ms(low)}-${ms(high)}, ${rounds} rounds), with`,
      ...Object.entries(kernels).map(([size, kernel]) => `    ${size.padEnd(12)} ${kernel}`),
    ]),
    '',
  ].join('\n');
}

/** From which share of live neurons on everything is read, and what lists take for each share, of the time of everything. */
export function explainThreshold({ key, most_live, shares }: ThresholdEntry): string {
  const ratios = shares.map(({ live, listed, whole }) => `${percent(live)} ${(listed / whole).toFixed(2)}`);
  const rounds = shares[0]!.rounds;
  return [
    `${aToken(key)}, ${threadsOf(key.threads)}: zeros are skipped while at most ${most_live} % of the neurons are live`,
    `  live, and time of lists over that of everything (${rounds} rounds): ${ratios.join(', ')}`,
    '',
  ].join('\n');
}
