/** The program of products-main.c: the ternary products of a layer, for a shape and a target, checked against their definition. */
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { compile, findCompiler } from '../codegen/compile.ts';
import { emit } from '../codegen/emit.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { type Plan, type PlanOptions, planOf } from '../codegen/plan.ts';
import type { ModelShape } from '../schemas/types.ts';
import { buildsRoot, oddShape, profileHere } from './machine.ts';
import { smallShape } from './write-model.ts';

/** Bytes of a second-level cache that leaves room for the sums of 256 rows: a few hundred rows are cut into pieces. */
const SMALL_CACHE = 128 * 1024;

/**
 * Rows for tables with up to five threads (gate and up: 2,624), for more threads than row tiles (k and v: three of 16 rows), and
 * for pieces that cross from one matrix to the next. An odd number of lines, whether of 20 or of 16 k: 525 and 1,300 have 27 and
 * 65 of 20, 525 has 33 of 16.
 */
export const largeShape: ModelShape = smallShape({
  hidden: 525,
  heads: 16,
  kvHeads: 1,
  headSize: 36,
  intermediate: 1300,
  vocabulary: 77,
});

/** For other packings among q, k and v: each group has rows enough for tables of its own. */
export const mixedShape: ModelShape = { ...largeShape, kvHeads: 8 };
export const mixedPacking = { attn_q: 't5r16', attn_k: 'p2', attn_output: 'p2', ffn_gate: 't5', ffn_down: 't5r16' };

/** Tables of sums to look up that q and k do not share. */
export const lookUps = { attn_q: 'tl1', attn_k: 'tl2', attn_output: 'tmac', ffn_gate: 'tmac', ffn_down: 'tl2' };

/** Fewer rows, and kernels that other tests compile too: for emulators and sanitizers. 285 has 15 lines of 20, 18 of 16. */
export const smallerShape: ModelShape = { ...oddShape, hidden: 285 };

export interface ProductsProgram {
  readonly file: string;
  readonly plan: Plan;
}

/**
 * Compiles products-main.c with everything that a shape's library is made of, as its driver program.
 * @param edit what is planted in products.c: a text that occurs there once, and what comes in its place
 */
export async function productsProgram(
  shape: ModelShape,
  target: string,
  options: {
    readonly packing?: PlanOptions['packing'];
    readonly sparse?: boolean;
    readonly kernel?: PlanOptions['kernel'];
    readonly cc?: string;
    readonly extra?: readonly string[];
    readonly edit?: readonly [string, string];
  } = {},
): Promise<ProductsProgram> {
  const profile = profileHere(target);
  const cpu = { ...profile, cache: { ...profile.cache, l2: SMALL_CACHE } };
  const isa = isaOf(cpu.isa);
  const { packing, kernel, sparse } = options;
  const plan = planOf(shape, cpu, { packing, kernel, sparse });
  const files = emit(plan);
  files.set('driver.c', readFileSync(path.join(import.meta.dirname, 'products-main.c'), 'utf8'));
  if (options.edit) {
    const [text, other] = options.edit;
    const pieces = files.get('products.c')!.split(text);
    assert.equal(pieces.length, 2, `'${text}' occurs ${pieces.length - 1} times in products.c`);
    files.set('products.c', pieces.join(other));
  }
  const compiler = await findCompiler(isa.family, options.cc);
  const { driver } = await compile(files, isa, cpu.features, compiler, buildsRoot, { extra: options.extra ?? [] });
  return { file: driver, plan };
}

/** Runs the program. @param threads numbers of threads, `3c` where they read a copy of the weights; `kinds` of inputs, by default all */
export async function runProducts(
  { file }: ProductsProgram,
  threads: readonly string[],
  {
    runner = [],
    env = {},
    kinds = 99,
  }: { readonly runner?: readonly string[]; readonly env?: NodeJS.ProcessEnv; readonly kinds?: number } = {},
): Promise<{ code: number | undefined; products: number; message: string }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-products-'));
  try {
    const [command, ...args] = [...runner, file, path.join(folder, 'weights'), `${kinds}`, ...threads];
    const { exitCode, stdout, stderr } = await execa(command!, args, { reject: false, env });
    return { code: exitCode, products: Number(stdout), message: stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
