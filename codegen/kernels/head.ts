/**
 * The head: float rows times float hidden states, y[t][r] = sum_k w[r][k] x[t][k]. Rows keep the file's own type and are
 * row-major, so that a tied embedding is looked up in the same bytes.
 *
 * Order of the sum: 16 strided lanes of fused multiply-adds, k ascending, then the tree. Tile: tokens x rows x k of a step.
 */
import { laneTree, reduceGroup } from '../ir/lanes.ts';
import type { Affine } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { fmaf } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { floatTypes, readFloat } from './elementwise.ts';
import type { KernelFamily } from './kernel.ts';
import { groupOf, LANES, range, roundUp } from './kernel.ts';

/** Default tile for `tokens` tokens: up to 4 rows, as the accumulators leave room. */
export function headTile(isa: Isa, tokens: number): [number, number, number] {
  const group = groupOf(isa);
  let rowsAtOnce = 4;
  while (rowsAtOnce > 1 && tokens * rowsAtOnce * group + tokens + 1 > Math.min(isa.registers, 48)) rowsAtOnce /= 2;
  return [tokens, rowsAtOnce, 2 * LANES];
}

export const head: KernelFamily = {
  source: 'head.ts',
  formula: 'y[t][n] = W[n][k] . x[t][k], float32',
  needs: ['load_floats', 'load_halves', 'load_bfloats', 'fma', 'add', 'sum'],

  record: (b, spec, isa) => {
    const { n, k } = spec.shape as { n: number; k: number };
    const [tokens, tileRows, stepK] = spec.tile as [number, number, number];
    const type = floatTypes[spec.weight as keyof typeof floatTypes];
    const ldx = roundUp(k, LANES);
    const w = b.pointer('w', {
      element: type.element,
      access: 'in',
      extent: n * ldx,
      doc: `rows [${n}][${ldx}], ${spec.weight}, zero beyond ${k}`,
    });
    const x = b.pointer('x', {
      element: 'f32',
      access: 'in',
      extent: tokens * ldx,
      doc: `hidden states [${tokens}][${ldx}], zero beyond ${k}`,
    });
    const y = b.pointer('y', { element: 'f32', access: 'out', extent: tokens * n, doc: `logits [${tokens}][${n}]` });
    const r0 = b.long('r0', 0, n, 'first row');
    const whole = b.long(
      'whole',
      0,
      Math.floor(n / tileRows) * tileRows,
      `row where the last whole group of ${tileRows} ends`,
    );
    const r1 = b.long('r1', 0, n, 'row to stop before');
    const tile = (r: Affine, high: number, id: string) => {
      const acc = range(tokens).map((t) =>
        range(high).map((i) => range(groupOf(isa)).map((v) => b.variable(`acc${id}_t${t}_r${i}_${v}`, 'constant', 0))),
      );
      b.unrolled(`i${id}`, ldx / LANES, stepK / LANES, (step, u, rest) => {
        const tag = `${id}${rest}_u${u}`;
        // One vector of the group at a time, so that few values live beside the accumulators.
        for (const v of range(groupOf(isa))) {
          const lane = plus(times(step, LANES), v * isa.lanes);
          const xs = range(tokens).map((t) => b.let(`x${tag}_t${t}_${v}`, 'load_floats', at(x, t * ldx, lane)));
          for (const i of range(high)) {
            const ws = b.let(`w${tag}_r${i}_${v}`, type.load, at(w, times(plus(r, i), ldx), lane));
            xs.forEach((xv, t) => {
              const sum = acc[t]![i]![v]!;
              b.set(sum, 'fma', ws, xv, sum);
            });
          }
        }
      });
      acc.forEach((perRow, t) => {
        perRow.forEach((group, i) => {
          b.do('put', at(y, t * n, plus(r, i)), reduceGroup(b, `y${id}_t${t}_r${i}`, 'add', group));
        });
      });
    };
    b.loop('r', r0, whole, tileRows, (r) => tile(r, tileRows, ''));
    if (tileRows > 1) b.loop('last', whole, r1, 1, (r) => tile(r, 1, 'o'));
  },

  reference: (spec, args) => {
    const { n, k } = spec.shape as { n: number; k: number };
    const ldx = roundUp(k, LANES);
    const { w, x, y } = args as unknown as Record<string, Float32Array>;
    for (let t = 0; t < spec.tile[0]!; t++)
      for (let r = 0; r < n; r++) {
        const lanes = new Float32Array(LANES);
        for (let i = 0; i < ldx; i++)
          lanes[i % LANES] = fmaf(readFloat(spec.weight, w![r * ldx + i]!), x![t * ldx + i]!, lanes[i % LANES]!);
        y![t * n + r] = laneTree(lanes);
      }
  },

  samples: (isa) =>
    ['f32', 'f16', 'bf16'].flatMap((weight) =>
      [1, 4].flatMap((tokens) =>
        [33, 100, 256].map(
          (k, i): KernelSpec => ({
            op: 'head',
            act: 'f32',
            weight,
            out: 'f32',
            shape: { n: 7 + i, k },
            tile: headTile(isa, tokens),
            isa: isa.name,
          }),
        ),
      ),
    ),

  example: (spec, random, extreme) => {
    const { n, k } = spec.shape as { n: number; k: number };
    const ldx = roundUp(k, LANES);
    const size = extreme ? 1e4 : 1;
    const fill = (count: number) =>
      Float32Array.from(range(count * ldx), (i) => (i % ldx < k ? random.normal() * size : 0));
    const halves = () =>
      Uint16Array.from(range(n * ldx), (i) =>
        i % ldx < k ? (random.integer(0, 1) << 15) | random.integer(0x3000, 0x4400) : 0,
      );
    return {
      w: spec.weight === 'f32' ? fill(n) : halves(),
      x: fill(spec.tile[0]!),
      y: new Float32Array(spec.tile[0]! * n),
      r0: 0,
      whole: Math.floor(n / spec.tile[1]!) * spec.tile[1]!,
      r1: n,
    };
  },
};
