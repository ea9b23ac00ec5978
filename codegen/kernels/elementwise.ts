/**
 * The small element-wise steps between products, each one pass over a vector:
 *
 *   residual  x += y f            y int32 products, f = activation scale * weight scale
 *   scale     o = y f             to float32 or binary16 (values for the KV cache)
 *   narrow    o = x               float32 to binary16
 *   rows      o = x               one embedding row to float32
 *   relu2     o = max(g f, 0)^2 (u e)            gate and up products with their factors f, e
 *   silu      o = (g f) / (1 + e^-(g f)) (u e)
 *
 * relu2 and silu take a range of groups of 16 elements, so that threads can share a vector. Tile: 1 x 1 x elements of a step.
 */
import { exp, expGroup, loadGroup, mapGroup, storeGroup } from '../ir/lanes.ts';
import type { Affine, ElementType, Recorder, Value } from '../ir/record.ts';
import { at, times } from '../ir/record.ts';
import type { Arguments } from '../ir/simulate.ts';
import type { VectorWord } from '../ir/words.ts';
import { floatToHalf, halfToFloat } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import type { KernelFamily } from './kernel.ts';
import { LANES, range, roundUp } from './kernel.ts';

/** How the float types that memory holds are declared, loaded and stored. */
export const floatTypes = {
  f32: { element: 'f32', load: 'load_floats', store: 'store_floats' },
  f16: { element: 'u16', load: 'load_halves', store: 'store_halves' },
  bf16: { element: 'u16', load: 'load_bfloats', store: undefined },
} as const satisfies Record<string, { element: ElementType; load: VectorWord; store: VectorWord | undefined }>;

/** A stored float as a number, and back (bf16 is only read). */
export function readFloat(type: string, stored: number): number {
  if (type === 'f16') return halfToFloat(stored);
  if (type === 'f32') return stored;
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, stored);
  return view.getFloat32(0);
}

const f = Math.fround;
type Inputs = Record<string, Value[]>;

interface Step {
  readonly formula: string;
  /** Input buffers: name -> doc; their types come from the spec. */
  readonly inputs: (spec: KernelSpec) => Record<string, { type: 'i32' | keyof typeof floatTypes; doc: string }>;
  readonly factors: readonly string[];
  /** Works on groups [i0, i1) of 16 elements instead of all. */
  readonly ranged?: true;
  readonly output: { readonly name: string; readonly access: 'out' | 'inout' };
  readonly needs: readonly VectorWord[];
  readonly compute: (b: Recorder, id: string, inputs: Inputs, factors: Record<string, Value>) => Value[];
  readonly value: (inputs: Record<string, number>, factors: Record<string, number>) => number;
  /** act, weight, out of the specs that the tests build. */
  readonly sampled: readonly (readonly [string, string, string])[];
}

function family(op: string, step: Step): KernelFamily {
  const outType = (spec: KernelSpec) => floatTypes[spec.out as 'f32' | 'f16'];
  return {
    source: 'elementwise.ts',
    formula: step.formula,
    needs: step.needs,
    record: (b: Recorder, spec: KernelSpec, isa: Isa) => {
      const k = spec.shape.k!;
      const padded = roundUp(k, LANES);
      const inputs = Object.entries(step.inputs(spec)).map(([name, { type, doc }]) => ({
        name,
        load: type === 'i32' ? ('load_ints' as const) : floatTypes[type].load,
        type,
        p: b.pointer(name, {
          element: type === 'i32' ? 'i32' : floatTypes[type].element,
          access: 'in',
          extent: padded,
          doc: `${doc} [${k}], readable to ${padded}`,
        }),
      }));
      const factors = Object.fromEntries(
        step.factors.map((name) => [
          name,
          b.let(`${name}_all`, 'splat', b.scalar('float', name, 'scale of a product')),
        ]),
      );
      const out = b.pointer(step.output.name, {
        element: outType(spec).element,
        access: step.output.access,
        extent: padded,
        doc: `result [${k}], written to ${padded}`,
      });
      const groups = padded / LANES;
      const group = (i: Affine, id: string) => {
        const loaded = inputs.map(({ name, load, type, p }): [string, Value[]] => {
          const raw = loadGroup(b, isa.lanes, `${name}${id}`, load, at(p, times(i, LANES)));
          return [name, type === 'i32' ? mapGroup(b, `${name}_f${id}`, 'to_floats', raw) : raw];
        });
        if (step.output.access === 'inout')
          loaded.push([
            step.output.name,
            loadGroup(b, isa.lanes, `${step.output.name}${id}`, 'load_floats', at(out, times(i, LANES))),
          ]);
        const result = step.compute(b, id, Object.fromEntries(loaded), factors);
        storeGroup(b, isa.lanes, outType(spec).store, at(out, times(i, LANES)), result);
      };
      if (step.ranged) {
        const i0 = b.long('i0', 0, groups, 'first group of 16 elements');
        const i1 = b.long('i1', 0, groups, 'group to stop before');
        b.loop('i', i0, i1, 1, (i) => group(i, ''));
      } else b.unrolled('i', groups, spec.tile[2]! / LANES, (i, u, tag) => group(i, `${tag}_u${u}`));
    },
    reference: (spec: KernelSpec, args: Arguments) => {
      const out = args[step.output.name] as Float32Array | Uint16Array;
      const factors = Object.fromEntries(step.factors.map((name) => [name, f(args[name] as number)]));
      const types = step.inputs(spec);
      const [from, to] = step.ranged ? [args.i0 as number, args.i1 as number] : [0, out.length / LANES];
      for (let i = from * LANES; i < to * LANES; i++) {
        const inputs = Object.fromEntries(
          Object.entries(types).map(([name, { type }]) => {
            const stored = (args[name] as Float32Array)[i]!;
            return [name, type === 'i32' ? f(stored) : readFloat(type, stored)];
          }),
        );
        if (step.output.access === 'inout') inputs[step.output.name] = out[i]!;
        const value = step.value(inputs, factors);
        out[i] = spec.out === 'f16' ? floatToHalf(value) : value;
      }
    },
    samples: (isa) =>
      step.sampled.flatMap(([act, weight, out]) =>
        [15, 16, 17, 100, 768].map(
          (k): KernelSpec => ({
            op,
            act,
            weight,
            out,
            shape: { k },
            tile: [1, 1, step.ranged ? LANES : elementTile(isa)],
            isa: isa.name,
          }),
        ),
      ),
    example: (spec, random, extreme) => {
      const padded = roundUp(spec.shape.k!, LANES);
      const size = extreme ? 100 : 1;
      const buffer = (type: string) => {
        if (type === 'i32') return Int32Array.from(range(padded), () => random.integer(-1e4 * size, 1e4 * size));
        if (type === 'f32') return Float32Array.from(range(padded), () => random.normal() * size);
        return Uint16Array.from(range(padded), () => (random.integer(0, 1) << 15) | random.integer(0, 0x7bff));
      };
      return {
        ...Object.fromEntries(Object.entries(step.inputs(spec)).map(([name, { type }]) => [name, buffer(type)])),
        ...(step.ranged ? { i0: Math.floor(padded / LANES / 3), i1: padded / LANES } : {}),
        ...Object.fromEntries(step.factors.map((name) => [name, f(2e-4 * Math.abs(random.normal()))])),
        [step.output.name]:
          step.output.access === 'inout'
            ? buffer('f32')
            : spec.out === 'f16'
              ? new Uint16Array(padded)
              : new Float32Array(padded),
      };
    },
  };
}

/** Elements of one unrolled step: two groups of lanes. */
export const elementTile = (_isa: Isa): number => 2 * LANES;

const common = ['splat', 'mul', 'to_floats', 'load_ints', 'store_floats'] as const;
const products = () => ({ y: { type: 'i32' as const, doc: 'products' } });

export const residual = family('residual', {
  formula: 'x[k] += y[k] * f',
  inputs: products,
  factors: ['f'],
  output: { name: 'x', access: 'inout' },
  needs: [...common, 'add'],
  compute: (b, id, v, s) => mapGroup(b, `x_new${id}`, 'add', v.x!, mapGroup(b, `yf${id}`, 'mul', v.y!, s.f!)),
  value: (v, s) => f(v.x! + f(v.y! * s.f!)),
  sampled: [['i32', 'none', 'f32']],
});

export const scale = family('scale', {
  formula: 'o[k] = y[k] * f',
  inputs: products,
  factors: ['f'],
  output: { name: 'o', access: 'out' },
  needs: common,
  compute: (b, id, v, s) => mapGroup(b, `o${id}`, 'mul', v.y!, s.f!),
  value: (v, s) => f(v.y! * s.f!),
  sampled: [
    ['i32', 'none', 'f32'],
    ['i32', 'none', 'f16'],
  ],
});

export const narrow = family('narrow', {
  formula: 'o[k] = x[k]',
  inputs: () => ({ x: { type: 'f32', doc: 'values' } }),
  factors: [],
  output: { name: 'o', access: 'out' },
  needs: ['load_floats', 'store_halves'],
  compute: (_b, _id, v) => v.x!,
  value: (v) => v.x!,
  sampled: [['f32', 'none', 'f16']],
});

export const rows = family('rows', {
  formula: 'o[k] = row[k]',
  inputs: (spec) => ({ row: { type: spec.weight as keyof typeof floatTypes, doc: 'embedding row' } }),
  factors: [],
  output: { name: 'o', access: 'out' },
  needs: ['load_floats', 'load_halves', 'load_bfloats', 'store_floats'],
  compute: (_b, _id, v) => v.row!,
  value: (v) => v.row!,
  sampled: [
    ['none', 'f32', 'f32'],
    ['none', 'f16', 'f32'],
    ['none', 'bf16', 'f32'],
  ],
});

const gateUp = () => ({
  g: { type: 'i32' as const, doc: 'gate products' },
  u: { type: 'i32' as const, doc: 'up products' },
});

export const relu2 = family('relu2', {
  formula: 'o[k] = max(g[k] * f, 0)^2 * (u[k] * e)',
  inputs: gateUp,
  factors: ['f', 'e'],
  ranged: true,
  output: { name: 'o', access: 'out' },
  needs: [...common, 'max'],
  compute: (b, id, v, s) => {
    const zero = b.let(`zero${id}`, 'constant', 0);
    // In this order a gate that is NaN stays one.
    const g = mapGroup(b, `gate${id}`, 'max', zero, mapGroup(b, `gf${id}`, 'mul', v.g!, s.f!));
    return mapGroup(b, `o${id}`, 'mul', mapGroup(b, `gg${id}`, 'mul', g, g), mapGroup(b, `ue${id}`, 'mul', v.u!, s.e!));
  },
  value: (v, s) => {
    const g = Math.max(f(v.g! * s.f!), 0);
    return f(f(g * g) * f(v.u! * s.e!));
  },
  sampled: [['i32', 'i32', 'f32']],
});

export const silu = family('silu', {
  formula: 'o[k] = (g[k] * f) / (1 + exp(-g[k] * f)) * (u[k] * e)',
  inputs: gateUp,
  factors: ['f', 'e'],
  ranged: true,
  output: { name: 'o', access: 'out' },
  needs: [...common, 'add', 'div', 'fma', 'min', 'max', 'round', 'exp2i'],
  compute: (b, id, v, s) => {
    const g = mapGroup(b, `gate${id}`, 'mul', v.g!, s.f!);
    const minus = mapGroup(b, `minus${id}`, 'mul', g, b.let(`negative${id}`, 'constant', -1));
    const below = mapGroup(b, `below${id}`, 'add', expGroup(b, `e${id}`, minus), b.let(`one${id}`, 'constant', 1));
    return mapGroup(
      b,
      `o${id}`,
      'mul',
      mapGroup(b, `ratio${id}`, 'div', g, below),
      mapGroup(b, `ue${id}`, 'mul', v.u!, s.e!),
    );
  },
  value: (v, s) => {
    const g = f(v.g! * s.f!);
    return f(f(g / f(exp(-g) + 1)) * f(v.u! * s.e!));
  },
  sampled: [['i32', 'i32', 'f32']],
});
