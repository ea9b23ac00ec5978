/**
 * Measuring many things at once: turn and turn about (A B C A B C ...), so that whatever the machine does meanwhile happens to all
 * of them, and a ratio of two is one of the same minutes. Medians, since what disturbs a measurement only ever adds to it.
 */

/** Something that is measured in turns; it keeps its own samples. */
export interface Measured {
  turn(): Promise<void>;
}

/** How long a rotation goes on. */
export interface Pace {
  readonly seconds: number;
  /** Rounds that are made however long they take; default: 3. */
  readonly least?: number;
  /** Turns differ a lot in length: after the least rounds, whatever had more than an equal share of the time sits out. */
  readonly even?: boolean;
}

/**
 * Gives everything its turn, round after round, until the time is over; each round begins one further.
 * @param onProgress seconds gone, and in all @returns the number of rounds
 */
export async function rotate(
  all: readonly Measured[],
  { seconds, least = 3, even = false }: Pace,
  onProgress: (done: number, total: number) => void,
  signal: AbortSignal,
): Promise<number> {
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  const spent = new Map(all.map((each) => [each, 0]));
  let round = 0;
  for (; round < least || elapsed() < seconds; round++)
    for (let i = 0; i < all.length; i++) {
      const each = all[(i + round) % all.length]!;
      const begun = elapsed();
      if (even && round >= least && spent.get(each)! * all.length > begun) continue;
      await each.turn();
      spent.set(each, spent.get(each)! + elapsed() - begun);
      onProgress(Math.min(Math.round(elapsed()), seconds), seconds);
      // Lets Ctrl-C through.
      await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
    }
  return round;
}

/** @param values at least one */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** The middle half of some items by a size: what is left is free of outliers, and means over it still add up. */
export function middleHalf<T>(items: readonly T[], sizeOf: (item: T) => number): T[] {
  const sorted = [...items].sort((a, b) => sizeOf(a) - sizeOf(b));
  const cut = Math.floor(sorted.length / 4);
  return sorted.slice(cut, sorted.length - cut);
}

/** @param values at least one */
export const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;
