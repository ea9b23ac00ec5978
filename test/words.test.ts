/**
 * Every word of every instruction set as compiled C, against the word's meaning in codegen/ir/words.ts. A test program is made
 * from a word's argument and result types; this file adds which inputs are edge cases, and what a word may not be given.
 * So a new word is covered as it is registered; one that reads or writes memory must be given its element type here.
 */
import { strict as assert } from 'node:assert';
import type { Address, Affine, Arg, ElementType, Program, Value } from '../codegen/ir/record.ts';
import { at, Recorder, times } from '../codegen/ir/record.ts';
import type { Arguments } from '../codegen/ir/simulate.ts';
import { simulate } from '../codegen/ir/simulate.ts';
import type { ArgType, Cell, VectorWord, Word, WordName } from '../codegen/ir/words.ts';
import { halfToFloat, scalarWords, words } from '../codegen/ir/words.ts';
import { isas } from '../codegen/isa/index.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { hostFeatures } from '../schemas/host.ts';
import { skip } from './fixtures.ts';
import type { Random } from './kernel-inputs.ts';
import { bitsToFloat, filled, randomOf } from './kernel-inputs.ts';
import type { Kernel } from './kernel-runner.ts';
import { isForeign, runKernels, standalone, subsetOf, unavailable } from './kernel-runner.ts';
import { isLong } from './tier.ts';

/** Elements of every test buffer of vectors; a multiple of all lane counts. */
const COUNT = 4096;

type Draw = (random: Random, i: number) => number;

/** Everything that a word's test needs beyond its types; all of it is optional except `memory` where there is an address. */
interface Recipe {
  /** Element type behind the word's address. */
  readonly memory?: ElementType;
  /** Values of what the word reads, argument by argument, where any value of the type will not do. */
  readonly draw?: readonly (Draw | undefined)[];
  /** Constants to try, one list for each set of constant arguments. */
  readonly constants?: readonly (readonly number[])[];
  /** Zeros of either sign are equal in the result; why. */
  readonly eitherZero?: string;
}

const special = [
  0,
  -0,
  1,
  -1,
  0.5,
  -0.5,
  1.5,
  2.5,
  -2.5,
  2 ** -126,
  2 ** -149,
  -(2 ** -149),
  3e-39,
  3.4e38,
  -3.4e38,
  1e-30,
];
/** Any float but NaN and infinity: special values, then random exponents, then values near each other. */
const anyFloat: Draw = (random, i) => {
  if (i < 16) return special[i]!;
  if (i % 3 === 0) return random.normal();
  const bits = random.integer(0, 2 ** 32 - 1);
  return ((bits >>> 23) & 255) === 255 ? 1 : bitsToFloat(bits);
};
/** The same, and NaN now and then. */
const orNaN =
  (draw: Draw): Draw =>
  (random, i) =>
    random.integer(0, 31) ? draw(random, i) : Number.NaN;
/** Without a sign bit. */
const sizeOrNaN: Draw = orNaN((random, i) => Math.abs(i === 4 ? Number.POSITIVE_INFINITY : anyFloat(random, i)));
/** Moderate floats: no result overflows or becomes subnormal. */
const moderate: Draw = (random) => random.normal() * 2 ** random.integer(-20, 20);
const integers =
  (low: number, high: number): Draw =>
  (random, i) =>
    i === 0 ? low : i === 1 ? high : random.integer(low, high);
/** Halves between integers, and their neighbours. */
const ties: Draw = (random, i) => {
  const limit = 2 ** 22;
  if (i < 4) return [limit, -limit, limit - 0.5, 0.5 - limit][i]!;
  if (i % 4 === 3) return random.normal() * 100;
  const tie = random.integer(-200, 200) + 0.5;
  return i % 4 === 0 ? tie : i % 4 === 1 ? tie * (1 + 2 ** -23) : tie * (1 - 2 ** -24);
};
/** Floats at, just below and just above the middle between two halves, subnormal halves and the limit of infinity included. */
const halfTies: Draw = (random, i) => {
  const edge = [65504, 65519.99609375, 65520, 65536, 1e30, 2 ** -14, 2 ** -24, 2 ** -25, 2 ** -25 * 1.0000001, 0, -0];
  if (i < edge.length) return edge[i]!;
  const h = random.integer(0, 0x7bfe);
  const middle = (halfToFloat(h) + halfToFloat(h + 1)) / 2;
  const near = middle * (1 + [0, 2 ** -23, -(2 ** -23)][i % 3]!);
  return i % 2 ? near : -near;
};
/** All patterns in turn, NaNs replaced: their payload is the only thing hardware may change. */
const halves: Draw = (_random, i) => ((i & 0x7c00) === 0x7c00 && i & 0x3ff ? 0x3c00 : i & 0xffff);
const bfloats: Draw = (_random, i) => ((i & 0x7f80) === 0x7f80 && i & 0x7f ? 0x3f80 : i & 0xffff);
/** a * b halfway between two floats, and c a little beside it: a second rounding would go the other way. */
const fmaCases: readonly Draw[] = [
  (random, i) => (i % 2 ? 1 + 2 ** -12 * random.integer(1, 4095) : moderate(random, i)),
  (random, i) => (i % 2 ? 1 + 2 ** -12 * (2 * random.integer(0, 2047) + 1) : moderate(random, i)),
  (random, i) => (i % 2 ? (i % 4 === 1 ? 1 : -1) * 2 ** -random.integer(25, 60) : moderate(random, i)),
];
/** Codes and activations whose partial sums stay inside int16: the contract of the strictest instruction. */
const dotCodes: Draw = (random, i) => (i < 256 ? 120 : random.integer(0, 120));
const dotBytes: Draw = (random, i) => (i < 128 ? 127 : i < 256 ? 0x80 : random.integer(0, 255));
const zeroSign =
  'x86 returns the second operand of two zeros; kernels use it only where the sign of zero is lost again';

const recipes: Partial<Record<WordName, Recipe>> = {
  load_bytes: { memory: 'u8' },
  store_bytes: { memory: 'u8' },
  broadcast4: { memory: 'i8', draw: [(random) => random.integer(-128, 127)] },
  load_ints: { memory: 'i32' },
  store_ints: { memory: 'i32' },
  load_floats: { memory: 'f32' },
  store_floats: { memory: 'f32' },
  load_halves: { memory: 'u16', draw: [halves] },
  store_halves: { memory: 'u16', draw: [undefined, halfTies] },
  load_bfloats: { memory: 'u16', draw: [bfloats] },
  store_int8: { memory: 'i8', draw: [undefined, integers(-128, 127)] },
  prefetch: { memory: 'u8', constants: [[0], [2]] },
  get: { memory: 'f32' },
  put: { memory: 'f32' },
  get_int: { memory: 'i32' },
  put_int: { memory: 'i32' },
  field: {
    // Every shift and mask that the meaning permits.
    constants: Array.from({ length: 8 }, (_, shift) =>
      Array.from({ length: (255 >> shift) + 1 }, (_m, mask) => [shift, mask]),
    ).flat(),
  },
  mix4: { constants: [[0], [1], [2], [3]] },
  constant: { constants: [[0], [-0], [1], [-1], [0.1], [-87], [1e-5], [3e-38], [-3e38], [16777217]] },
  number: { constants: [[0], [-0], [1], [-1], [0.1], [-87], [1e-5], [3e-38], [-3e38], [16777217]] },
  integer: { constants: [[0], [-1], [2 ** 31 - 1], [-(2 ** 31) + 1]] },
  // Sums that overflow int32 are undefined in C.
  add_ints: { draw: [integers(-(2 ** 30), 2 ** 30 - 1), integers(-(2 ** 30), 2 ** 30 - 1)] },
  sub_ints: { draw: [integers(-(2 ** 30), 2 ** 30 - 1), integers(-(2 ** 30), 2 ** 30 - 1)] },
  add_int: { draw: [integers(-(2 ** 30), 2 ** 30 - 1), integers(-(2 ** 30), 2 ** 30 - 1)] },
  negate_int: { draw: [integers(-(2 ** 31) + 1, 2 ** 31 - 1)] },
  sum_ints: { draw: [integers(-(2 ** 26), 2 ** 26)] },
  round: { draw: [ties] },
  load_table64: { memory: 'u8' },
  lookup64: { constants: [[0], [1], [2]] },
  load_table32: { memory: 'u8' },
  load_columns: { memory: 'i8' },
  load_table16: { memory: 'u8' },
  lookup16: { draw: [undefined, integers(0, 15)] },
  lookup96: { draw: [undefined, undefined, integers(0, 95)] },
  add_words: { constants: [[31], [32]] },
  add_odd: { constants: [[31], [32]] },
  load_shorts: { memory: 'u8' },
  store_shorts: { memory: 'u8' },
  raise_shorts: { constants: [[1], [5], [6], [15]] },
  signed_bytes: { constants: [[0], [1], [2], [3]] },
  shift_ints: { constants: [[1], [2], [31]] },
  mul_ints: { constants: [[3], [-1], [1022611261]] },
  exp2i: { draw: [integers(-126, 127)] },
  fma: { draw: fmaCases },
  div: { draw: [anyFloat, (random, i) => anyFloat(random, i) || 3] },
  div1: { draw: [anyFloat, (random, i) => anyFloat(random, i) || 3] },
  sqrt1: { draw: [(random, i) => Math.abs(anyFloat(random, i))] },
  // Of moderate size, so that every order of the sum is a different number.
  sum: { draw: [moderate] },
  // NaN as the second operand alone: what becomes of it as the first differs.
  max: { eitherZero: zeroSign, draw: [undefined, orNaN(anyFloat)] },
  min: { eitherZero: zeroSign, draw: [undefined, orNaN(anyFloat)] },
  max1: { eitherZero: zeroSign, draw: [undefined, orNaN(anyFloat)] },
  max_or_nan: { draw: [sizeOrNaN, sizeOrNaN] },
  peak_or_nan: { draw: [sizeOrNaN] },
  peak: { eitherZero: zeroSign },
  dot_next: { draw: [undefined, dotCodes, dotBytes] },
  load_pair8: { memory: 'i8' },
  mat_next: { draw: [undefined, dotCodes, dotBytes] },
  dot_flush: { draw: [integers(-(2 ** 30), 2 ** 30)] },
};

const defaults: Record<'bytes' | 'shorts' | 'ints' | 'floats' | 'int' | 'float', Draw> = {
  bytes: (random) => random.integer(0, 255),
  shorts: (random) => random.integer(0, 255),
  ints: integers(-(2 ** 31), 2 ** 31 - 1),
  floats: anyFloat,
  int: integers(-(2 ** 31), 2 ** 31 - 1),
  float: anyFloat,
};
const elements = { bytes: 'u8', shorts: 'u8', ints: 'i32', floats: 'f32', int: 'i32', float: 'f32' } as const;
const loads = {
  bytes: 'load_bytes',
  shorts: 'load_shorts',
  ints: 'load_ints',
  floats: 'load_floats',
  int: 'get_int',
  float: 'get',
} as const;
const stores = {
  bytes: 'store_bytes',
  shorts: 'store_shorts',
  ints: 'store_ints',
  floats: 'store_floats',
  int: 'put_int',
  float: 'put',
} as const;
type Plain = keyof typeof loads;

/** Elements that one step of the loop takes from a buffer of this type. */
const stepOf = (type: Plain, isa: Isa) =>
  type === 'bytes' || type === 'shorts' ? 4 * isa.lanes : type === 'int' || type === 'float' ? 1 : isa.lanes;

interface Prepared {
  readonly program: Program;
  readonly args: Arguments;
}

/** A program that applies one word to buffers of inputs, and the inputs. @throws when the word has no recipe that it needs */
function prepare(word: WordName, isa: Isa): Prepared {
  const { args: types, result, touches } = words[word] as Word;
  const recipe = recipes[word] ?? {};
  const b = new Recorder();
  const steps = COUNT / Math.max(isa.lanes, 4);
  const args: Record<string, number | Cell['array']> = { n: steps };
  const random = randomOf(word);
  const n = b.long('n', 0, steps, 'steps');

  const input = (name: string, element: ElementType, perStep: number, draw: Draw): Address => {
    args[name] = filled(element, steps * perStep, (i) => draw(random, i));
    return b.pointer(name, { element, access: 'in', extent: steps * perStep, doc: 'input' });
  };
  const output = (name: string, element: ElementType, perStep: number): Address => {
    args[name] = filled(element, steps * perStep, () => 0);
    return b.pointer(name, { element, access: 'out', extent: steps * perStep, doc: 'result' });
  };
  const fetch = (name: string, type: Plain, draw: Draw | undefined) => {
    const step = stepOf(type, isa);
    const p = input(name, elements[type], step, draw ?? defaults[type]);
    return (i: Affine): Value => b.let(`${name}_v`, loads[type], at(p, times(i, step)));
  };

  /** What supplies each argument inside the loop. */
  const suppliers = types.map((type: ArgType, a): ((i: Affine) => Arg) | undefined => {
    const draw = recipe.draw?.[a];
    if (type === 'constant') return undefined;
    if (type === 'address') {
      if (!recipe.memory) throw new Error(`'${word}' has an address: add its element type to the recipes in this file`);
      const perStep = Math.max(1, (touches?.perLane ?? 0) * isa.lanes + (touches?.total ?? 0));
      const p =
        result || !types.some((t) => t !== 'address')
          ? input(`m${a}`, recipe.memory, perStep, draw ?? memoryDraw(recipe.memory))
          : output(`m${a}`, recipe.memory, perStep);
      return (i) => at(p, times(i, perStep));
    }
    if (type === 'dots') {
      const u = fetch(`u${a}`, 'bytes', (r) => r.integer(0, 2));
      const s = fetch(`s${a}`, 'bytes', undefined);
      return (i) => b.let(`d${a}`, 'dot_next', b.let(`z${a}`, 'dot_zero'), u(i), s(i));
    }
    if (type === 'table64' || type === 'table32' || type === 'table16') {
      const size = Number(type.slice(5));
      const p = input(`t${a}`, 'u8', size, defaults.bytes);
      return (i) => b.let(`t${a}_v`, `load_${type}`, at(p, times(i, size)));
    }
    return fetch(`a${a}`, type, draw);
  });
  const constants = recipe.constants ?? [[]];
  const missing = types.filter((t) => t === 'constant').length !== constants[0]!.length;
  if (missing) throw new Error(`'${word}' has constants: add some to the recipes in this file`);

  const isTable = result === 'table64' || result === 'table32' || result === 'table16';
  const keep = result && (result === 'dots' ? 'ints' : isTable ? 'bytes' : result);
  const index = isTable ? fetch('index', 'bytes', integers(0, result === 'table16' ? 15 : 95)) : undefined;
  /** A table of zeros before a table of 32 bytes. */
  const zeros =
    result === 'table32' ? b.let('zeros', 'load_table64', b.table('zeros_table', Array(64).fill(0))) : undefined;
  const step = keep ? stepOf(keep, isa) * constants.length : 1;
  const out = output('out', keep ? elements[keep] : 'i32', step);
  b.loop('i', 0, n, 1, (i) => {
    const supplied = suppliers.map((supply) => supply?.(i));
    constants.forEach((values, c) => {
      let used = 0;
      const all = supplied.map((arg) => arg ?? values[used++]!);
      if (!result) {
        b.do(word, ...all);
        return;
      }
      let value = b.let(`r${c}`, word, ...all);
      if (result === 'dots')
        value = b.let(
          `flushed${c}`,
          'dot_flush',
          b.let(`none${c}`, 'splat_int', b.let(`zero${c}`, 'integer', 0)),
          value,
        );
      if (index)
        value = zeros
          ? b.let(`entries${c}`, 'lookup96', zeros, value, index(i))
          : result === 'table16'
            ? b.let(`entries${c}`, 'lookup16', value, index(i))
            : b.let(`entries${c}`, 'lookup64', value, index(i), 0);
      b.do(stores[keep!], at(out, times(i, step), c * stepOf(keep!, isa)), value);
    });
  });
  return { program: b.program(`word_${word}`), args };
}

const memoryDraw = (element: ElementType): Draw =>
  element === 'f32'
    ? anyFloat
    : element === 'i32'
      ? defaults.ints
      : element === 'i8'
        ? integers(-128, 127)
        : integers(0, 65535);

/** Chains of dot steps that end exactly at the limit of an int16 sum, where vpmaddubsw and vpaddw would begin to saturate. */
function dotLimit(isa: Isa): Prepared {
  const chain = [
    [127, 127],
    [4, 127],
    [1, 1],
  ] as const;
  const bytes = 4 * isa.lanes;
  const b = new Recorder();
  const u = b.pointer('u', { element: 'u8', access: 'in', extent: chain.length * bytes, doc: 'codes' });
  const s = b.pointer('s', { element: 'u8', access: 'in', extent: 2 * chain.length * bytes, doc: 'signed bytes' });
  const out = b.pointer('out', { element: 'i32', access: 'out', extent: 2 * isa.lanes, doc: 'result' });
  const start = b.let('start', 'splat_int', b.let('zero', 'integer', 0));
  // Each pair of products: 127 * 127 * 2 + 4 * 127 + 1 = 32,767; the last product only in even bytes.
  for (const sign of [0, 1]) {
    const sum = b.variable(`sum${sign}`, 'dot_zero');
    chain.forEach((_, c) => {
      const code = b.let(`u${sign}_${c}`, 'load_bytes', at(u, c * bytes));
      b.set(sum, 'dot_next', sum, code, b.let(`s${sign}_${c}`, 'load_bytes', at(s, (sign * chain.length + c) * bytes)));
    });
    b.do('store_ints', at(out, sign * isa.lanes), b.let(`r${sign}`, 'dot_flush', start, sum));
  }
  const once = (c: number, i: number) => c === 0 || i % 2 === 0;
  return {
    program: b.program('dot_limit'),
    args: {
      u: filled('u8', chain.length * bytes, (i) => chain[Math.floor(i / bytes)]![0]),
      s: filled('u8', 2 * chain.length * bytes, (i) => {
        const c = Math.floor(i / bytes) % chain.length;
        const value = once(c, i) ? chain[c]![1] : 0;
        return i < chain.length * bytes ? value : 256 - value;
      }),
      out: new Int32Array(2 * isa.lanes),
    },
  };
}

const copyOf = (args: Arguments): Arguments =>
  Object.fromEntries(Object.entries(args).map(([name, v]) => [name, typeof v === 'number' ? v : v.slice()]));

function compare(word: string, actual: Cell['array'], expected: Cell['array'], eitherZero: boolean): void {
  for (let i = 0; i < expected.length; i++) {
    const [x, y] = [actual[i]!, expected[i]!];
    if (!Object.is(x, y) && !(eitherZero && x === 0 && y === 0)) assert.fail(`${word}: element ${i} is ${x}, not ${y}`);
  }
}

describe('words', () => {
  for (const isa of Object.values<Isa>(isas)) {
    // In the short tier without those of a subset.
    const subset = isLong ? undefined : subsetOf(isa);
    const known: readonly string[] = subset ? [...scalarWords, ...Object.keys(subset.words)] : [];
    const here = (w: WordName) => {
      const feature = isa.gated?.[w as VectorWord];
      return !feature || isForeign(isa.family) || hostFeatures().has(feature);
    };
    const spelled = (Object.keys(words) as WordName[]).filter(
      (w) => !known.includes(w) && ((scalarWords as readonly string[]).includes(w) || isa.words[w as VectorWord]),
    );
    describe(isa.name, () => {
      const results = new Map<string, { actual: Arguments; expected: Arguments; damage: readonly string[] }>();
      const failures = new Map<string, Error>();
      let reason: string | undefined;

      before(async () => {
        reason = await unavailable(isa);
        if (reason) return;
        const prepared = new Map<string, Prepared>();
        for (const word of spelled.filter(here)) {
          try {
            prepared.set(word, prepare(word, isa));
          } catch (error) {
            failures.set(word, error as Error);
          }
        }
        prepared.set('dot_limit', dotLimit(isa));
        const kernels: Kernel[] = [...prepared.values()].map(({ program }) => standalone(program, isa));
        const calls = [...prepared.values()].map(({ program, args }) => ({ kernel: program.name, args }));
        const outcomes = await runKernels(isa, kernels, calls);
        [...prepared].forEach(([word, { program, args }], i) => {
          const expected = copyOf(args);
          simulate(program, isa, expected);
          results.set(word, { actual: outcomes[i]!.buffers, expected, damage: outcomes[i]!.damage });
        });
      });

      const check = (context: Mocha.Context, word: string, eitherZero: boolean) => {
        if (reason) skip(context, reason);
        const failure = failures.get(word);
        if (failure) throw failure;
        const { actual, expected, damage } = results.get(word)!;
        assert.deepEqual(damage, []);
        for (const [name, array] of Object.entries(actual))
          compare(word, array as Cell['array'], expected[name] as Cell['array'], eitherZero);
      };
      for (const word of spelled)
        it(word, function () {
          if (!here(word)) skip(this, `this CPU lacks ${isa.gated![word as VectorWord]}`);
          check(this, word, recipes[word]?.eitherZero !== undefined);
        });
      it('partial sums up to the limit of int16', function () {
        check(this, 'dot_limit', false);
        // Two pairs a lane, each at the limit.
        assert.deepEqual([...new Set(results.get('dot_limit')!.expected.out as Int32Array)], [65534, -65534]);
      });
    });
  }

  it('every word is spelled by some instruction set', () => {
    const spelled = new Set<string>([
      ...scalarWords,
      ...Object.values<Isa>(isas).flatMap((isa) => Object.keys(isa.words)),
    ]);
    assert.deepEqual(
      Object.keys(words).filter((w) => !spelled.has(w)),
      [],
    );
  });

  it('only known words have recipes', () => {
    assert.deepEqual(
      Object.keys(recipes).filter((w) => !(w in words)),
      [],
    );
  });
});
