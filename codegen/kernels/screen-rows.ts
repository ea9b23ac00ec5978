/**
 * The rows of the head's screen, of two widths: 8 bits, kept in the packed weights file, and 4 bits, which a context with the
 * fast head makes of them in memory (templates/screen.c makes both). A line is 64 bytes of 16 rows; byte 4 r + b belongs to row r:
 *
 *   i8   q              of k = 4 line + b
 *   u4   q + 8          of k = 8 line + b (low half) and of k = 8 line + 4 + b (high half)
 *
 * Row tile after row tile, the lines of a tile follow each other. Beyond k there are zero bytes, which meet zero codes or, with
 * i8, are zero codes themselves. The factors lie apart, [row tiles][s, A, N][16 rows].
 */
import type { KernelSpec } from '../name.ts';
import type { Target } from './kernel.ts';
import { LANES } from './kernel.ts';
import { preferredPrefetch } from './prefetch.ts';

/** Bytes of a line, and of one factor of 16 rows. */
const LINE = 64;
/** Floats of a row, each in a line of 16 rows: s, A, N. */
export const FACTORS = 3;

/**
 * How the two widths differ for the kernel. shifts: where the codes of a byte begin; act: digits of the state, unsigned or signed;
 * codes: the largest on the unsigned side of a dot step.
 */
export const widths = {
  i8: { shifts: [0], act: 'u7', codes: 127 },
  u4: { shifts: [0, 4], act: 'i7', codes: 15 },
} as const;
export type ScreenWidth = keyof typeof widths;

/** Row tiles, k of a line, lines of a tile, and bytes of all lines, of the starts (i8 only) and of the factors. */
export function screenSize(n: number, k: number, width: ScreenWidth = 'i8') {
  const tiles = Math.ceil(n / LANES);
  const lineK = 4 * widths[width].shifts.length;
  const lines = Math.ceil(k / lineK);
  return {
    tiles,
    lineK,
    lines,
    weights: tiles * lines * LINE,
    starts: tiles * LINE,
    factors: tiles * FACTORS * LINE,
  };
}

/** Byte of element (row, k) among the lines of a screen, and the position of its code there. */
export function placeOf(width: ScreenWidth, lines: number, row: number, k: number): { byte: number; shift: number } {
  const { shifts } = widths[width];
  const lineK = 4 * shifts.length;
  const line = Math.floor(row / LANES) * lines + Math.floor(k / lineK);
  return { byte: (line * LANES + (row % LANES)) * 4 + (k & 3), shift: shifts[(k % lineK) >> 2]! };
}

/** Largest k whose sums stay in int32: see screen.ts. */
const MOST_K = 2 ** 17;
/** Rows from which on a screen pays: a smaller head stays in a core's second-level cache, where half the bytes gain little. */
const LEAST_ROWS = 8192;
/** Does a head of this size have a screen? */
export const isScreened = (n: number, k: number): boolean => n >= LEAST_ROWS && k <= MOST_K;

/** Lines of one unrolled step. */
const UNROLL = 4;

/** Bytes fetched ahead where the CPU's profile names no distance. */
const AHEAD = 4096;

/** The kernel for a head of n rows. */
export const screenSpec = (n: number, k: number, cpu: Target, width: ScreenWidth): KernelSpec => ({
  op: 'screen',
  act: widths[width].act,
  weight: width,
  out: 'f32',
  shape: { n, k },
  tile: [1, LANES, UNROLL * screenSize(n, k, width).lineK],
  isa: cpu.isa,
  variant: preferredPrefetch(cpu, AHEAD),
});
