/** What the tests and the measurement of the k largest logits share: the program of head-main.c, rows and states. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { compile, findCompiler } from '../codegen/compile.ts';
import { profileOf } from '../codegen/cpu.ts';
import { emit } from '../codegen/emit.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { planOf } from '../codegen/plan.ts';
import { encodings } from '../runtime/formats/source.ts';
import { heads, type TopMode } from '../runtime/library.ts';
import type { ModelShape, RowType } from '../schemas/types.ts';
import { randomOf } from './kernel-inputs.ts';
import { buildsRoot } from './machine.ts';
import { rowEncoders } from './write-gguf.ts';
import { smallShape } from './write-model.ts';

/** A model that is little more than a head of this size. */
export const headShape = (vocabulary: number, hidden: number, type: RowType): ModelShape =>
  smallShape({
    hidden,
    vocabulary,
    layers: 1,
    heads: 2,
    kvHeads: 1,
    headSize: 16,
    intermediate: 32,
    embeddingType: type,
  });

export interface HeadProgram {
  readonly file: string;
  readonly folder: string;
  readonly shape: ModelShape;
  /** Command before the program: empty, or an emulator. */
  readonly runner: readonly string[];
}

/** Compiles head-main.c with everything that a shape's library is made of. @param folder for its input and output */
export async function headProgram(
  folder: string,
  shape: ModelShape,
  target: string,
  options: { readonly runner?: readonly string[]; readonly cc?: string; readonly flags?: readonly string[] } = {},
): Promise<HeadProgram> {
  const cpu = profileOf(target);
  const isa = isaOf(cpu.isa);
  const own = path.join(folder, `${target}-${shape.vocabulary}x${shape.hidden}-${shape.headType}`);
  mkdirSync(own, { recursive: true });
  const main = readFileSync(path.join(import.meta.dirname, 'head-main.c'), 'utf8');
  const files = new Map([...emit(planOf(shape, cpu)), ['driver.c', main]]);
  const compiler = await findCompiler(isa.family, options.cc);
  const { driver } = await compile(files, isa, cpu.features, compiler, buildsRoot, { extra: options.flags ?? [] });
  return { file: driver, folder: own, shape, runner: options.runner ?? [] };
}

/** One line of the program's output. */
export interface Answer {
  readonly k: number;
  /** States that were screened, and rows that passed: their mean and largest number. */
  readonly screened: number;
  readonly passed: number;
  readonly most: number;
  /** States with wrong rows, and logits outside their bounds; 0 but for the fast head. */
  readonly wrong: number;
  readonly outside: number;
  /** Milliseconds of the full head and of bn_largest, where rounds were asked for. */
  readonly full: number | undefined;
  readonly largest: number | undefined;
}

/** Runs the program; it fails when one answer is not exactly the full head's: of the fast head, a row with another logit. */
export async function runHead(
  program: HeadProgram,
  rows: ArrayLike<number>,
  states: Float32Array,
  options: {
    readonly ks: readonly number[];
    readonly threads: number;
    readonly head?: TopMode;
    readonly rounds?: number;
    readonly env?: NodeJS.ProcessEnv;
  },
): Promise<Answer[]> {
  const { folder, shape, runner } = program;
  const at = (name: string) => path.join(folder, name);
  writeFileSync(at('rows'), rowEncoders[shape.headType](rows).bytes);
  writeFileSync(at('states'), states);
  const encoding = encodings[shape.headType];
  const numbers = [options.rounds ?? 0, options.threads, heads[options.head ?? 'exact'], ...options.ks].map(String);
  const [command, ...args] = [
    ...runner,
    program.file,
    at('weights'),
    at('rows'),
    `${encoding}`,
    at('states'),
    ...numbers,
  ];
  const { stdout } = await execa(command!, args, options.env ? { env: options.env } : {});
  return stdout.split('\n').map((line) => {
    const [k, screened, passed, most, wrong, outside, full, largest] = line.split(' ').map(Number) as number[];
    return { k, screened, passed, most, wrong, outside, full, largest } as Answer;
  });
}

/** [n][k] from a function of row and column. */
export function matrix(n: number, k: number, value: (row: number, column: number) => number): Float32Array {
  const out = new Float32Array(n * k);
  for (let i = 0; i < out.length; i++) out[i] = value(Math.floor(i / k), i % k);
  return out;
}

/** Kinds of hidden states by name: element `i` of state `t`. */
export function stateKinds(k: number): Readonly<Record<string, (t: number, i: number) => number>> {
  const { normal, integer } = randomOf('states');
  return {
    normal: () => 3 * normal(),
    'three outliers': (t, i) => normal() * ([7, 11 + t, 40].some((place) => place % k === i) ? 1000 : 1),
    'one element': (t, i) => (i === t % k ? normal() * 10 ** integer(-3, 3) : 0),
    small: () => 1e-9 * normal(),
    tiny: () => 1e-30 * normal(),
    large: () => 1e9 * normal(),
    huge: () => 1e30 * normal(),
    'all sizes': () => normal() * 10 ** integer(-12, 6),
    constant: (t) => (t % 2 ? -1 : 1) * (1 + (t >> 1)),
    zero: () => 0,
    // Multiples of the step: e = 0, and the sums are longer than a float's 24 bits.
    steps: (t, i) => (i === t % k ? 8064 : integer(-8064, 8064)),
  };
}

/** Kinds of states that are left to the full head. */
export const unscreened = ['tiny', 'huge', 'zero'];

/** Kinds of rows by name. Elements are rounded to the head's type afterwards. */
export function rowKinds(n: number, k: number): Readonly<Record<string, (row: number, i: number) => number>> {
  const { normal, integer } = randomOf('rows');
  const base = matrix(16, k, normal);
  const sizes = Array.from({ length: n }, () => 10 ** Math.min(6 * normal() - 2, 3));
  const one = (row: number, i: number) => base[(row % 16) * k + i]!;
  return {
    normal: () => 0.02 * normal(),
    // 16 different rows: every logit occurs n / 16 times, exactly.
    duplicates: one,
    // Rows that differ in one last bit of one element (of bfloat16; of float32 below).
    'last bits': (row, i) => (i === (row >> 4) % k ? one(0, i) * (1 + 2 ** -7 * (row % 3)) : one(0, i)),
    'last bits of float32': (row, i) => (i === (row >> 4) % k ? one(0, i) * (1 + 2 ** -23 * (row % 3)) : one(0, i)),
    'equal rows': (_, i) => one(0, i),
    'zero rows': (row) => (row % 3 ? 0 : 0.02 * normal()),
    'all zero but one': (row, i) => (row === 7 && i === 3 ? 1 : 0),
    'sizes from 1e-20 to 1e4': (row) => sizes[row]! * normal(),
    'one element': (row, i) => (i === row % k ? 1 : 0),
    integers: () => integer(-2, 2),
    // s = 1 and d = 0: nothing of the bound is left but the activation's part and, with `steps`, that of rounding.
    'int8 rows': (row, i) => (i === row % k ? 127 : integer(-127, 127)),
  };
}
