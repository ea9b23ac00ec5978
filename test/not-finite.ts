/**
 * NaN and infinity in the inputs of kernels: which inputs of a family may hold them, and what of its results must then not be
 * finite, so that no later step can take it for a number. Codes made from such inputs must stay in their range.
 */
import type { Arguments } from '../codegen/ir/simulate.ts';
import type { Cell } from '../codegen/ir/words.ts';
import { positionsOf } from '../codegen/kernels/attention-blocks.ts';
import { readFloat } from '../codegen/kernels/elementwise.ts';
import { LANES, roundUp } from '../codegen/kernels/kernel.ts';
import type { KernelSpec } from '../codegen/name.ts';
import { cloned } from './kernel-inputs.ts';

const NAN = Number.NaN;
const INF = Number.POSITIVE_INFINITY;
const all = [NAN, INF, -INF];

interface Poison {
  /** Inputs, the values they may hold, and where; scalars have no place. */
  readonly inputs: (spec: KernelSpec, args: Arguments) => readonly (readonly [string, readonly number[], number])[];
  /** Results one of whose elements must be NaN or infinite; the first `count`, or all. */
  readonly result: string;
  readonly count?: (spec: KernelSpec) => number;
  /** Codes and their bounds. */
  readonly codes?: (spec: KernelSpec) => readonly [name: string, least: number, most: number];
}

const shapeOf = (spec: KernelSpec) => spec.shape as Record<string, number>;
const sums = (spec: KernelSpec) => shapeOf(spec).g! * roundUp(shapeOf(spec).d!, LANES);
const middle = (n: number) => n >> 1;

const gates: Poison = {
  inputs: () => [
    ['f', [NAN, INF], 0],
    ['e', all, 0],
  ],
  result: 'o',
};

/** By family; `norm` that quantises has other results (below). */
export const poisons: Readonly<Record<string, Poison>> = {
  norm: {
    inputs: (spec) => {
      const place = middle(shapeOf(spec).k!);
      // 2e19 squared overflows.
      return spec.weight === 'none'
        ? [['x', all, place]]
        : [
            ['x', [...all, 2e19], place],
            ['w', all, place],
          ];
    },
    result: 'h',
  },
  quantise: {
    inputs: (spec) => [
      ['x', all, 0],
      ['x', all, shapeOf(spec).d! - 1],
    ],
    result: 'scale',
    codes: (spec) => (spec.out === 'i8' ? ['q', -127, 127] : ['q', 1, 127]),
  },
  attention: {
    inputs: (spec, args) => {
      const last = positionsOf(args) - 1;
      const { d } = shapeOf(spec) as { d: number };
      return [
        ['q', all, 0],
        ['keys', all, Math.floor(last / LANES) * d * LANES + (last % LANES)],
        ['values', all, last * roundUp(d, LANES)],
      ];
    },
    result: 'part',
    count: sums,
  },
  qattention: {
    inputs: (_spec, args) => [
      ['query_scales', all, 0],
      ['key_scales', all, positionsOf(args) - 1],
      ['value_scales', [NAN, INF], positionsOf(args) - 1],
      ['value_scales', [NAN, INF], 0],
    ],
    result: 'part',
    count: sums,
  },
  combine: {
    inputs: (spec) => [
      ['sums', all, 0],
      ['state', [NAN, INF], 0],
      ['state', [NAN], roundUp(shapeOf(spec).g!, LANES)],
    ],
    result: 'o',
  },
  relu2: gates,
  silu: gates,
  residual: { inputs: () => [['f', all, 0]], result: 'x' },
};

/** What must not be finite in this kernel's results, and its codes. */
function expectedOf(spec: KernelSpec): Poison {
  const poison = poisons[spec.op]!;
  if (spec.op !== 'norm' || spec.out !== 'i8') return poison;
  return { ...poison, result: 'inverse', codes: () => ['q', -127, 127] };
}

/** Numbers as they lie in a buffer: halves are bits there. */
const stored = (array: Cell['array'], value: number): number =>
  array instanceof Uint16Array ? (Number.isNaN(value) ? 0x7e00 : value > 0 ? 0x7c00 : 0xfc00) : value;

/** The same call with NaN, or with an infinity, in one place; each such call. */
export function poisoned(spec: KernelSpec, args: Arguments): { readonly title: string; readonly args: Arguments }[] {
  return poisons[spec.op]!.inputs(spec, args).flatMap(([name, values, place]) =>
    values.map((value) => {
      const copy = cloned(args);
      const input = copy[name]!;
      if (typeof input === 'number') copy[name] = value;
      else input[place] = stored(input, value);
      return { title: `${name}[${place}] = ${value}`, args: copy };
    }),
  );
}

/** @returns what is wrong with the results of such a call, or undefined */
export function swallowed(spec: KernelSpec, buffers: Readonly<Record<string, Cell['array']>>): string | undefined {
  const { result, count, codes } = expectedOf(spec);
  const values = Array.from(buffers[result]!.subarray(0, count?.(spec)), (v) =>
    buffers[result] instanceof Uint16Array ? readFloat('f16', v) : v,
  );
  if (values.every(Number.isFinite)) return `${result} is finite`;
  if (!codes) return undefined;
  const [name, least, most] = codes(spec);
  const code = buffers[name]!.find((q) => q < least || q > most);
  return code === undefined ? undefined : `${name} has the code ${code}`;
}
