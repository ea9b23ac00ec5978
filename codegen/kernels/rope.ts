/**
 * Rotary position embedding of one head, on the int32 products of q or k:
 *
 *   a = y[i] f, b = y[i + d/2] f:   o[i] = a cos - b sin,   o[i + d/2] = b cos + a sin      i < d/2
 *
 * Rotate-half (NEOX) pairs, as in Hugging Face's apply_rotary_pos_emb; each product is rounded before the sum. d/2 need not be
 * a multiple of the lanes: the low half is written first, so that what its last vector writes too far is overwritten.
 * Tile: 1 x 1 x 16 lanes.
 */
import { loadGroup, mapGroup, storeGroup } from '../ir/lanes.ts';
import { at } from '../ir/record.ts';
import type { KernelSpec } from '../name.ts';
import type { KernelFamily } from './kernel.ts';
import { LANES, range, roundUp } from './kernel.ts';

/** Floats that a rotated head occupies: its last vector may reach past d. */
export const headStride = (d: number): number => roundUp(d / 2 + roundUp(d / 2, LANES), LANES);

export const rope: KernelFamily = {
  source: 'rope.ts',
  formula: 'o = rotate(y * f) by the angles of one position',
  needs: ['load_ints', 'to_floats', 'mul', 'add', 'sub', 'splat', 'load_floats', 'store_floats'],

  record: (b, spec, isa) => {
    const d = spec.shape.d!;
    const half = d / 2;
    const reach = half + roundUp(half, LANES);
    const y = b.pointer('y', {
      element: 'i32',
      access: 'in',
      extent: reach,
      doc: `products of one head [${d}], readable to ${reach}`,
    });
    const f = b.let('factor', 'splat', b.scalar('float', 'f', 'scale of the products'));
    const angle = (name: string) =>
      b.pointer(name, {
        element: 'f32',
        access: 'in',
        extent: roundUp(half, LANES),
        doc: `[${half}], readable to ${roundUp(half, LANES)}`,
      });
    const cos = angle('cosine');
    const sin = angle('sine');
    const o = b.pointer('o', {
      element: 'f32',
      access: 'out',
      extent: reach,
      doc: `rotated head [${d}], written to ${reach}`,
    });
    for (const part of ['low', 'high'] as const)
      for (let i = 0; i < half; i += LANES) {
        const id = `${part}${i}`;
        const load = (name: string, offset: number) =>
          mapGroup(
            b,
            `${name}_${id}`,
            'mul',
            mapGroup(
              b,
              `${name}f_${id}`,
              'to_floats',
              loadGroup(b, isa.lanes, `${name}i_${id}`, 'load_ints', at(y, offset)),
            ),
            f,
          );
        const first = load('a', i);
        const second = load('b', half + i);
        const c = loadGroup(b, isa.lanes, `c_${id}`, 'load_floats', at(cos, i));
        const s = loadGroup(b, isa.lanes, `s_${id}`, 'load_floats', at(sin, i));
        const product = (name: string, p: typeof c, q: typeof c) => mapGroup(b, `${name}_${id}`, 'mul', p, q);
        const rotated =
          part === 'low'
            ? mapGroup(b, `o_${id}`, 'sub', product('ac', first, c), product('bs', second, s))
            : mapGroup(b, `o_${id}`, 'add', product('bc', second, c), product('as', first, s));
        storeGroup(b, isa.lanes, 'store_floats', at(o, part === 'low' ? i : half + i), rotated);
      }
  },

  reference: (spec, args) => {
    const r = Math.fround;
    const half = spec.shape.d! / 2;
    const { y, cosine, sine, o } = args as unknown as Record<string, Float32Array>;
    const f = r(args.f as number);
    const reach = roundUp(half, LANES);
    for (let i = 0; i < reach; i++) {
      const a = r(r(y![i]!) * f);
      const b = r(r(y![half + i]!) * f);
      const c = cosine![i]!;
      const s = sine![i]!;
      if (i < half) o![i] = r(r(a * c) - r(b * s));
      o![half + i] = r(r(b * c) + r(a * s));
    }
  },

  samples: (isa) =>
    [20, 64, 96, 100, 128, 256].map(
      (d): KernelSpec => ({
        op: 'rope',
        act: 'i32',
        weight: 'f32',
        out: 'f32',
        shape: { d },
        tile: [1, 1, LANES],
        isa: isa.name,
      }),
    ),

  example: (spec, random, extreme) => {
    const half = spec.shape.d! / 2;
    const padded = roundUp(half, LANES);
    const angles = range(padded).map(() => random.normal() * 3);
    return {
      y: Int32Array.from(range(half + padded), () => (extreme ? 3_000_000 : random.integer(-20000, 20000))),
      f: 1e-4,
      cosine: Float32Array.from(angles, Math.cos),
      sine: Float32Array.from(angles, Math.sin),
      o: new Float32Array(half + padded),
    };
  },
};
