/** Shared by the ternary product kernels: their parameters, their definition and their test data. */
import type { Address, Recorder, Value } from '../ir/record.ts';
import { at } from '../ir/record.ts';
import type { Arguments } from '../ir/simulate.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { packingOf, packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { bytesOf, draftOf, linesOf, pack, tilesOf } from '../packings/packing.ts';
import type { KernelFamily, Random } from './kernel.ts';
import { LANES, roundUp } from './kernel.ts';
import { parsePrefetch } from './prefetch.ts';

/** The digits of a packing's bytes, each with its factor and the weight that it codes: by byte, the largest factor first. */
const digits = new Map<Packing, Map<number, { factor: number; index: number }[]>>();
function digitsOf(p: Packing) {
  const known = digits.get(p);
  if (known) return known;
  const bytes = new Map<number, { factor: number; index: number }[]>();
  for (let r = 0; r < p.rows; r++)
    for (let j = 0; j < p.lineK; j++) {
      const { byte, factor } = p.place(r, j);
      bytes.set(byte, [...(bytes.get(byte) ?? []), { factor, index: r * p.lineK + j }]);
    }
  for (const list of bytes.values()) list.sort((a, b) => b.factor - a.factor);
  digits.set(p, bytes);
  return bytes;
}

/** The codes of one line [rows][k of a line], by the packing's definition: digits of mixed radix. */
export function codesOf(p: Packing, line: Uint8Array): Int8Array {
  const codes = new Int8Array(p.rows * p.lineK);
  const draft = draftOf(p, line);
  for (const [byte, list] of digitsOf(p)) {
    let rest = draft[byte]!;
    for (const { factor, index } of list) {
      codes[index] = Math.min(2, Math.floor(rest / factor));
      rest -= codes[index]! * factor;
    }
  }
  return codes;
}

/** Packings that products by tables can read on an ISA: whole vectors of rows, and four fields at least. */
export const tablePackings = (isa: Isa): Packing[] =>
  packingsFor(isa).filter((p) => p.rows % isa.lanes === 0 && p.lineK >= 16);

/**
 * y[t][r] = sum_k w[r][k] x[t][k] with the weights read back from their packed bytes, by the packing's definition. Of a panel:
 * y[t][r] += sum_k (w[r][k] + 1) x[t][k].
 */
export function dotReference(spec: KernelSpec, args: Arguments, tokens: number): void {
  const p = packingOf(spec.weight);
  const { n, k } = spec.shape as { n: number; k: number };
  const w = args.w as Uint8Array;
  const x = args.x as Int8Array;
  const y = args.y as Int32Array;
  const lines = linesOf(p, k);
  const ldx = x.length / tokens;
  const ldy = y.length / tokens;
  const tiles = tilesOf(p, n);
  const offset = isPanel(spec) ? 0 : 1;
  for (let t = 0; offset && t < tokens; t++) y.fill(0, t * ldy, t * ldy + tiles * p.rows);
  for (let tile = 0; tile < tiles; tile++)
    for (let line = 0; line < lines; line++) {
      const base = (tile * lines + line) * p.lineBytes;
      const codes = codesOf(p, w.subarray(base, base + p.lineBytes));
      for (let t = 0; t < tokens; t++)
        for (let r = 0; r < p.rows; r++) {
          let sum = 0;
          for (let j = 0; j < p.lineK; j++)
            sum += (codes[r * p.lineK + j]! - offset) * x[t * ldx + line * p.lineK + j]!;
          y[t * ldy + tile * p.rows + r]! += sum;
        }
    }
  if (ldy < n) throw new Error(`y holds ${ldy} rows of ${n}`);
}

/**
 * Random or worst-case data. Worst case: all weights +1 against all +127 (the largest u8 x s8 sums; an int16 sum that is
 * flushed too late passes random tests and fails here), alternating with all -1 and -127 by row and token.
 */
export function dotExample(n: number, k: number, tokens: number, ldx: number, random: Random, extreme: boolean) {
  const trits = Int8Array.from({ length: n * k }, (_, i) =>
    extreme ? (Math.floor(i / k) % 2 ? -1 : 1) : random.integer(-1, 1),
  );
  const x = new Int8Array(tokens * ldx);
  const sums = new Int32Array(tokens);
  for (let t = 0; t < tokens; t++)
    for (let j = 0; j < k; j++) {
      const value = extreme ? (t % 2 ? -127 : 127) : random.integer(-127, 127);
      x[t * ldx + j] = value;
      sums[t]! += value;
    }
  return { trits, x, sums };
}

/**
 * Bytes from one token's int8 activations to the next: room for k padded to whole lines of any packing, and whole panels (orders.ts: at
 * most 320 k), so that matrices with different packings share one quantised input.
 */
export const activationStride = (k: number): number => roundUp(k, 64) + 320;

/** Most tokens of one call: bounds the buffers. */
export const MAX_TOKENS = 512;

/** int32 from one token's products to the next: whole row tiles, and whole groups of lanes for what reads them. */
export const productStride = (p: Packing, n: number): number => roundUp(tilesOf(p, n) * p.rows, LANES);

/** odd^-1 modulo 2^32, as an int32: Newton's iteration doubles the number of correct bits, from 3. */
function inverse(odd: number): number {
  let x = odd;
  for (let i = 0; i < 4; i++) x = Math.imul(x, 2 - Math.imul(odd, x));
  return x;
}

/** How sums of codes that are multiples of a scale 2^shift * odd are divided, exactly: shifted, then times odd's inverse. */
export function divisorOf(scale: number): { readonly shift: number; readonly inverse: number } {
  const shift = 31 - Math.clz32(scale & -scale);
  return { shift, inverse: inverse(scale >> shift) };
}

/** Divides a variable's sums by their scale. */
export function divide(b: Recorder, sum: Value, scale: number): void {
  const { shift, inverse: factor } = divisorOf(scale);
  if (shift) b.set(sum, 'shift_ints', sum, shift);
  if (factor !== 1) b.set(sum, 'mul_ints', sum, factor);
}

/** Tokens that one call may take for a batch. */
export const BATCHES = [2, 4, 8];

/** Of each number of tokens the preferred kernel, for tests; of the first also the last, which is least like it. */
export function samplesOf(specs: readonly KernelSpec[]): KernelSpec[] {
  const first = specs.filter((spec, i) => specs.findIndex((other) => other.tile[0] === spec.tile[0]) === i);
  const last = specs.filter((spec) => spec.tile[0] === first[0]?.tile[0]).slice(-1);
  return [...new Set([...first, ...last])];
}

/** Registers that unpacking fills beside a line and its codes: with tables, and with signs and what takes them. */
export function tableRegisters({ needs, lookUp }: Packing, isa: Isa): number {
  if (lookUp) return lookUp.signs ? 5 : 1;
  return needs.includes('load_table64') ? 2 * Math.ceil(16 / isa.lanes) + Math.ceil(8 / isa.lanes) : 0;
}

/**
 * Is it a kernel for the panels of a matrix (panels.ts)? Its k is a panel's, and shape x tells how far the activations of two tokens are
 * apart. It adds to results that begin at -sum of x.
 */
export const isPanel = (spec: KernelSpec): boolean => spec.shape.x !== undefined;

/** The spec of a product kernel; its tile begins with its tokens. */
export const productSpec = (
  op: string,
  isa: string,
  p: Packing,
  n: number,
  k: number,
  tile: readonly number[],
  variant: string,
): KernelSpec => ({ op, act: 'i8', weight: p.token, out: 'i32', shape: { n, k }, tile, isa, variant });

/** The second parameter of a product kernel: int8 activations of its tokens. @param width k that are loaded at once */
export function activations(spec: KernelSpec, width = 4) {
  const p = packingOf(spec.weight);
  const k = spec.shape.k!;
  const [tokens] = spec.tile as [number];
  const ldx = spec.shape.x ?? activationStride(k);
  const lines = linesOf(p, k);
  const sizes = tokens === 1 ? `[${k}], int8, zero` : `[${tokens}][${ldx}], int8, zero from ${k}`;
  const extent = (tokens - 1) * ldx + (lines - 1) * p.lineK + roundUp(p.lineK, width);
  return { name: 'x', extent, doc: `activations ${sizes} up to ${lines * p.lineK}` };
}

/**
 * Declares the parameters of a product kernel (`bn_gemv` in templates/internal.h), and tells the sizes in its spec.
 * @param second what stands in the place of x
 */
export function parameters(b: Recorder, spec: KernelSpec, second: { name: string; extent: number; doc: string }) {
  const p = packingOf(spec.weight);
  const { n, k } = spec.shape as { n: number; k: number };
  const tokens = spec.tile[0]!;
  const lines = linesOf(p, k);
  const panel = isPanel(spec);
  const ldx = spec.shape.x ?? activationStride(k);
  const ldy = productStride(p, n);
  const tiles = tilesOf(p, n);
  const w = b.pointer('w', {
    element: 'u8',
    access: 'in',
    extent: bytesOf(p, n, k),
    doc: `weights [${tiles} row tiles][${lines} lines][${p.lineBytes} bytes], packing ${p.token}`,
  });
  const { name, ...about } = second;
  const x = b.pointer(name, { element: 'i8', access: 'in', ...about });
  const totals = b.pointer('sums', { element: 'i32', access: 'in', extent: tokens, doc: 'sum of each row of x' });
  const y = b.pointer('y', {
    element: 'i32',
    access: panel ? 'inout' : 'out',
    extent: (tokens - 1) * ldy + tiles * p.rows,
    doc: `${tokens === 1 ? `result [${n}], padded to ${tiles * p.rows}` : `results [${tokens}][${ldy}]`}${panel ? ', added to' : ''}`,
  });
  const t0 = b.long('t0', 0, tiles, 'first row tile');
  const t1 = b.long('t1', 0, tiles, 'row tile to stop before');
  const { ahead, level } = parsePrefetch(spec.variant!);
  /** Once for each 64 bytes that a step reads. @param u the line's number in its step */
  const prefetch = (line: Address, u: number): void => {
    for (let byte = 0; ahead && byte < p.lineBytes; byte += 64)
      if ((u * p.lineBytes) % 64 === 0) b.do('prefetch', at(line, ahead + byte), level);
  };
  return { p, k, panel, tokens, lines, ldx, ldy, w, x, totals, y, t0, t1, prefetch };
}

/** Definition and test data of every product kernel. */
export const ternaryProduct = {
  reference: (spec, args) => dotReference(spec, args, spec.tile[0]!),

  example: (spec, random, extreme) => {
    const p = packingOf(spec.weight);
    const { n, k } = spec.shape as { n: number; k: number };
    const tokens = spec.tile[0]!;
    // The buffers of one token end where the kernel's last access does.
    const one = tokens === 1;
    const stride = spec.shape.x ?? (one ? linesOf(p, k) * p.lineK : activationStride(k));
    const { trits, x, sums } = dotExample(n, k, tokens, stride, random, extreme);
    return {
      w: pack(p, trits, n, k),
      x,
      sums,
      y: Int32Array.from({ length: one ? tilesOf(p, n) * p.rows : tokens * productStride(p, n) }, () =>
        random.integer(-1e6, 1e6),
      ),
      t0: 0,
      t1: tilesOf(p, n),
    };
  },
} satisfies Partial<KernelFamily>;
