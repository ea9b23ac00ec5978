/**
 * The tables of products by look-up (look-ups.ts), made once for each vector of activations and shared by all matrices that it
 * is multiplied with, a share of the lines by each thread. The digits of an index of a packing stand for some k of a line; its
 * table holds, for the numbers e that the packing lists as its entries, the sums
 *
 *   T[e] = sum_i (digit_i(e) - 1) x[k_i],   e = sum_i 3^i digit_i
 *
 * in two planes of bytes, T[e] + bias = low + radix high with low, high < 32, so that eight entries can be summed in bytes: 8 * 31 =
 * 248. A plane has as many bytes as there are entries, 9 to 16, though 16 are loaded from it: for pairs and k = 2560 the tables
 * then take 25 KB, which stay in a first-level cache, and not 41 KB.
 *
 * Look-ups that round (rounded-look-ups.ts) have one plane, of entries rounded to a byte.
 *
 * An entry is itself a byte dot product, of the digits and four activations; digit 1 for those that do not belong to the index,
 * and the sum of all of them subtracted, as in dot-products.ts. Tile: 1 x entries of a table x k of a step.
 */
import type { Affine, AffineLike, Recorder, Value } from '../ir/record.ts';
import { at, plus, times } from '../ir/record.ts';
import { isaOf } from '../isa/index.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import { packingOf, packingsFor } from '../packings/index.ts';
import type { Packing } from '../packings/packing.ts';
import { linesOf } from '../packings/packing.ts';
import type { KernelFamily } from './kernel.ts';
import { range, roundUp } from './kernel.ts';

/** Entries that a look-up of bytes can tell apart, and that a table is written and read with. */
export const ENTRIES = 16;

/** How an entry is stored: in so many planes of bytes, made of the entry + bias. */
interface Form {
  readonly planes: number;
  readonly bias: number;
  /** The planes and the entry as a banner describes them. */
  readonly names: string;
  readonly doc: string;
  readonly split: (b: Recorder, id: string, sum: Value) => Value[];
  readonly bytes: (sum: number) => number[];
}

/** Exact: low and high parts. */
const parts = (p: Packing): Form => {
  const { radix, bias } = p.lookUp!;
  return {
    planes: 2,
    names: 'low, high',
    bias,
    doc: `low + ${radix} high - ${bias}`,
    split: (b, id, sum) => {
      // Division by multiplication: below 1024 the quotient is too large by less than 1024 / 2^16 = 1 / 64.
      const scaled = b.let(`scaled${id}`, 'mul_ints', sum, Math.ceil(65536 / radix));
      const high = b.let(`high${id}`, 'shift_ints', scaled, 16);
      return [b.let(`low${id}`, 'sub_ints', sum, b.let(`rest${id}`, 'mul_ints', high, radix)), high];
    },
    bytes: (sum) => [sum % radix, Math.floor(sum / radix)],
  };
};

/** Planes of a table, what a byte counts, and the byte of zero. */
export const ROUNDED = { planes: 1, step: 4, zero: 127 } as const;
/** To the nearest multiple of four: |entry| <= 508 gives 0 to 254. */
const rounded: Form = {
  planes: ROUNDED.planes,
  names: 'rounded',
  bias: ROUNDED.step * ROUNDED.zero + ROUNDED.step / 2,
  doc: `${ROUNDED.step} (byte - ${ROUNDED.zero}), to the nearest`,
  // The byte's bits as an int8, which is what can be stored.
  split: (b, id, sum) => {
    const raised = b.let(`raised${id}`, 'mul_ints', b.let(`quarter${id}`, 'shift_ints', sum, 2), 1 << 24);
    return [b.let(`byte${id}`, 'shift_ints', raised, 24)];
  },
  bytes: (sum) => [((sum >> 2) << 24) >> 24],
};

const formOf = (op: string, p: Packing): Form => (op === 'roundtables' ? rounded : parts(p));

/** Bytes from the tables of one line to the next: behind its last plane is room for what is loaded and stored too much. */
const stride = ({ lookUp }: Packing, planes: number): number =>
  roundUp((planes * lookUp!.groups.length - 1) * lookUp!.entries.length + ENTRIES, ENTRIES);
/** Bytes of all tables for k activations. */
export const tablesBytes = (p: Packing, k: number, planes = 2): number => linesOf(p, k) * stride(p, planes);
/** Where plane `part` (0: low, 1: high) of the table of group `g` of a line begins. */
export const planeAt = (p: Packing, line: AffineLike, g: number, part: number, planes = 2): Affine =>
  plus(times(line, stride(p, planes)), (planes * g + part) * p.lookUp!.entries.length);

/** The second parameter of kernels that look up in tables which kernels `op` make. */
export function tablesParameter(op: string, p: Packing, k: number) {
  const { planes, names, doc } = formOf(op, p);
  const { groups, entries } = p.lookUp!;
  return {
    name: 'tables',
    extent: tablesBytes(p, k, planes),
    doc: `tables [${linesOf(p, k)} lines][${groups.length} groups][${names}][${entries.length} entries], lines ${stride(p, planes)} bytes apart; entry = ${doc}`,
  };
}

/** Packings whose indices have tables. */
export const lookUpPackings = (isa: Isa): Packing[] => packingsFor(isa).filter((p) => p.lookUp);

/** The kernel that makes the tables for matrices with k columns. */
export const tabulateSpec = (p: Packing, isa: string, k: number, op = 'tabulate'): KernelSpec => ({
  op,
  act: 'i8',
  weight: p.token,
  out: 'i8',
  shape: { k },
  tile: [1, ENTRIES, p.lineK],
  isa,
});

/** Digit i of an entry; 1, the digit of zero, where there is no such entry. */
const digit = (p: Packing, entry: number, i: number) => {
  const e = p.lookUp!.entries[entry];
  return e === undefined ? 1 : Math.floor(e / 3 ** i) % 3;
};

export const tabulate: KernelFamily = {
  source: 'look-up-tables.ts',
  formula: 'tables[group of a line][entry] = sum of activations by digits',
  needs: [
    'load_bytes',
    'broadcast4',
    'dot_zero',
    'dot_next',
    'dot_flush',
    'splat_int',
    'add_ints',
    'sub_ints',
    'shift_ints',
    'mul_ints',
    'store_int8',
  ],

  record: (b, spec, isa) => {
    const p = packingOf(spec.weight);
    const k = spec.shape.k!;
    const lines = linesOf(p, k);
    const { groups, entries } = p.lookUp!;
    const { planes, bias, split } = formOf(spec.op, p);
    const digits = groups[0]!.length;
    const x = b.pointer('x', {
      element: 'i8',
      access: 'in',
      extent: lines * p.lineK,
      doc: `activations [${k}], int8, zero up to ${lines * p.lineK}`,
    });
    const { name, ...about } = tablesParameter(spec.op, p, k);
    const tables = b.pointer(name, { element: 'i8', access: 'out', ...about });
    const l0 = b.long('l0', 0, lines, 'first line');
    const l1 = b.long('l1', 0, lines, 'line to stop before');
    // For digit i of an index and place j among four activations, the digits of all entries, the other three being 1.
    const codes = b.table(
      'digits',
      range(digits).flatMap((i) =>
        range(4).flatMap((j) => range(ENTRIES).flatMap((e) => range(4).map((at4) => (at4 === j ? digit(p, e, i) : 1)))),
      ),
    );
    const ones = b.let('ones', 'broadcast4', b.table('ones_table', [1, 1, 1, 1]));
    const none = b.let('none', 'splat_int', b.let('nothing', 'integer', 0));
    const less = b.let('less', 'splat_int', b.let('less_1', 'integer', -bias));

    b.loop('line', l0, l1, 1, (line) => {
      const from = times(line, p.lineK);
      const words = range(p.lineK / 4).map((f) => b.let(`x_f${f}`, 'broadcast4', at(x, from, 4 * f)));
      /** Sum of the activations that some fields have, less the bias. */
      const totals = new Map<string, Value>();
      const totalOf = (fields: readonly number[]): Value => {
        const id = fields.map((f) => `_f${f}`).join('');
        let total = totals.get(id);
        if (!total) {
          let dots = b.let(`no_ones${id}`, 'dot_zero');
          for (const f of fields) dots = b.let(`ones${id}_f${f}`, 'dot_next', dots, ones, words[f]!);
          total = b.let(`total${id}`, 'dot_flush', less, dots);
          totals.set(id, total);
        }
        return total;
      };
      groups.forEach((ks, g) => {
        const total = totalOf(ks.map((j) => j >> 2));
        const stored: Value[][] = range(planes).map(() => []);
        for (let e = 0; e < entries.length; e += isa.lanes) {
          const id = `_g${g}_e${e}`;
          let dots = b.let(`no_dots${id}`, 'dot_zero');
          ks.forEach((j, i) => {
            const own = b.let(`digit${id}_${i}`, 'load_bytes', at(codes, ((i * 4 + (j & 3)) * ENTRIES + e) * 4));
            dots = b.let(`dots${id}_${i}`, 'dot_next', dots, own, words[j >> 2]!);
          });
          const sum = b.let(`sum${id}`, 'sub_ints', b.let(`all${id}`, 'dot_flush', none, dots), total);
          split(b, id, sum).forEach((part, h) => {
            stored[h]!.push(part);
          });
        }
        // In this order each plane ends up with its own entries.
        stored.forEach((vectors, part) => {
          vectors.forEach((vector, v) => {
            b.do('store_int8', at(tables, planeAt(p, line, g, part, planes), v * isa.lanes), vector);
          });
        });
      });
    });
  },

  reference: (spec, args) => {
    const p = packingOf(spec.weight);
    const x = args.x as Int8Array;
    const tables = args.tables as Int8Array;
    const { groups, entries } = p.lookUp!;
    const { planes, bias, bytes } = formOf(spec.op, p);
    // Whole vectors are stored; the next plane lies over the surplus.
    const stored = roundUp(entries.length, isaOf(spec.isa).lanes);
    for (let line = args.l0 as number; line < (args.l1 as number); line++)
      groups.forEach((ks, g) => {
        for (let part = 0; part < planes; part++)
          for (let e = 0; e < stored; e++) {
            const sum = ks.reduce((s, j, i) => s + (digit(p, e, i) - 1) * x[line * p.lineK + j]!, bias);
            tables[planeAt(p, line, g, part, planes).constant + e] = bytes(sum)[part]!;
          }
      });
  },

  samples: (isa) =>
    lookUpPackings(isa).flatMap((p) => [1, p.lineK, 5 * p.lineK + 1].map((k) => tabulateSpec(p, isa.name, k))),

  // Extreme: all |x| = 127.
  example: (spec, random, extreme) => {
    const k = spec.shape.k!;
    const p = packingOf(spec.weight);
    const lines = linesOf(p, k);
    const x = new Int8Array(lines * p.lineK);
    for (let j = 0; j < k; j++) x[j] = extreme ? 254 * random.integer(0, 1) - 127 : random.integer(-127, 127);
    return {
      x,
      tables: new Int8Array(tablesBytes(p, k, formOf(spec.op, p).planes)),
      l0: extreme ? 0 : lines >> 1,
      l1: lines,
    };
  },
};

/** The packings whose look-ups may be rounded: two planes of bits, indices without signs (rounded-look-ups.ts). */
export const roundedPackings = (isa: Isa): Packing[] => lookUpPackings(isa).filter((p) => p.lookUp!.planes === 2);

/** The same, with entries rounded to a byte. */
export const roundedTables: KernelFamily = {
  ...tabulate,
  formula: 'tables[group of a line][entry] = sum of activations by digits, rounded',
  samples: (isa) =>
    roundedPackings(isa).flatMap((p) => [1, 5 * p.lineK + 1].map((k) => tabulateSpec(p, isa.name, k, 'roundtables'))),
};
