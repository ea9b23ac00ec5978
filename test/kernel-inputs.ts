/** Test data for kernels: seeded random numbers, typed buffers, float bits. */
import type { ElementType, Param } from '../codegen/ir/record.ts';
import type { Arguments } from '../codegen/ir/simulate.ts';
import type { Cell } from '../codegen/ir/words.ts';
import type { Random } from '../codegen/kernels/kernel.ts';

export type { Random };

/** A generator that gives the same numbers for the same seed, here and everywhere (splitmix32, public domain, by S. Vigna). */
export function randomOf(seed: string): Random {
  let state = 0x9e3779b9;
  for (const c of seed) state = Math.imul(state ^ c.codePointAt(0)!, 0x01000193);
  const next = (): number => {
    state = (state + 0x9e3779b9) | 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  const unit = () => next() / 2 ** 32;
  return {
    integer: (low, high) => low + Math.floor(unit() * (high - low + 1)),
    // Sum of twelve uniform numbers: no logarithm, whose last bit differs between engines.
    normal: () => {
      let sum = -6;
      for (let i = 0; i < 12; i++) sum += unit();
      return sum;
    },
  };
}

const arrays = {
  u8: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i32: Int32Array,
  f32: Float32Array,
} as const satisfies Record<ElementType, unknown>;

/** A buffer of this element type. */
export function filled(element: ElementType, length: number, value: (i: number) => number): Cell['array'] {
  const array = new arrays[element](length);
  for (let i = 0; i < length; i++) array[i] = value(i);
  return array;
}

const view = new DataView(new ArrayBuffer(4));

/** The float with these bits. */
export function bitsToFloat(bits: number): number {
  view.setUint32(0, bits);
  return view.getFloat32(0);
}

/** The bytes of a buffer, not copied. */
export const bytesOf = (array: Cell['array']): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);

/** Arguments with buffers of their own. */
export const cloned = (args: Arguments): Record<string, number | Cell['array']> =>
  Object.fromEntries(Object.entries(args).map(([name, v]) => [name, typeof v === 'number' ? v : v.slice()]));

/** Arguments whose results and scratch hold rubbish, floats NaN: a kernel that reads them before it writes is found out. */
export function dirtied(params: readonly Param[], args: Arguments): Arguments {
  const copy = cloned(args);
  for (const p of params) {
    const value = copy[p.name];
    if (p.kind === 'pointer' && (p.access === 'out' || p.access === 'scratch') && typeof value === 'object')
      bytesOf(value).fill(0xff);
  }
  return copy;
}
