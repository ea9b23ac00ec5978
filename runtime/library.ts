/** A generated library as an object: every failed call becomes a LibraryError with the library's own message. */
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { execa } from 'execa';
import abi from '../schemas/abi.json' with { type: 'json' };
import { LibraryError } from '../schemas/error.ts';
import { cannotRun } from '../schemas/folders.ts';
import { printJson } from '../schemas/terminal.ts';
import type { Argument, Native } from './ffi.ts';
import { loadNative } from './ffi.ts';
import { availableMemory, type KvBits } from './memory.ts';

/** Which logits `evaluate` returns. */
export const want = { none: 0, last: 1, all: 2 } as const;

/** Where decoding reads the weights: in the mapped file, in a copy in huge pages if the file is not in such itself, or in a copy in any case. */
export const pages = { mapped: 0, auto: 1, huge: 2 } as const;
export type Pages = keyof typeof pages;

/** How the largest logits are found: all that matter, or those that a screen of half the bytes, which may be wrong, lets through. */
export const heads = { exact: 0, fast: 1 } as const;
export type TopMode = keyof typeof heads;

/** What the time of an evaluation is spent on, in the order of `bn_profile`. */
export const operations = ['ternary', 'tables', 'head', 'attention', 'rest', 'wait'] as const;
/** Seconds by operation. */
export type Profile = Readonly<Record<(typeof operations)[number], number>>;

/** What single tokens leave of the MLP, in the order of `bn_live`. */
const liveParts = ['open', 'again', 'inputs', 'rows', 'columns'] as const;
/**
 * Shares of a layer's neurons: whose gate is open, and was for the token before, too; whose input of `down` is not zero; rows of `up`
 * and columns of `down` that were read.
 */
export type LiveShares = Readonly<Record<(typeof liveParts)[number], number>>;

/** What weights of zero alone leave out, in the order of `bn_dead`. */
const deadParts = ['gate', 'up', 'norm', 'down', 'dropped'] as const;
/**
 * Neurons of a layer whose row of the gate, row of `up`, weight of the norm before `down`, or column of `down` is zero; and rows of
 * the gate that are not there, as one of the first two is.
 */
export type DeadNeurons = Readonly<Record<(typeof deadParts)[number], number>>;

/** Named numbers of each layer, from [layers][names]. */
const byLayer = <T extends string>(names: readonly T[], values: Float32Array): Readonly<Record<T, number>>[] =>
  Array.from(
    { length: values.length / names.length },
    (_, l) => Object.fromEntries(names.map((name, i) => [name, values[l * names.length + i]!])) as Record<T, number>,
  );

/** Packed weights that are not what the library packed: cut, altered, of another layout, or something else in their place. */
export class DamageError extends LibraryError {}
/** What calls return for it. */
const DAMAGED = -2;

/**
 * The functions of schemas/abi.json as methods, with models and contexts as the numbers that the library gave out. In a worker
 * thread, what it opened ends with the worker, however that ends.
 */
export class Library implements Disposable {
  readonly #native: Native;
  readonly #models = new Set<number>();
  readonly #contexts = new Set<number>();
  #shape: { readonly vocabulary: number; readonly layers: number } | undefined;
  #disposed = false;

  /** @throws LibraryError when it cannot be loaded, or is of another version */
  constructor(file: string) {
    this.#native = loadNative(file);
    const found = this.#native.functions.bn_abi!();
    if (found !== abi.version)
      throw new LibraryError(
        `library '${file}' has interface version ${found}, this program needs ${abi.version}; generate it again`,
      );
    if (!isMainThread) this.#call('bn_end_with_thread');
  }

  /** Name of the foreign function interface in use. */
  get interface(): string {
    return this.#native.interface;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  #call(name: string, ...args: Argument[]): number {
    if (this.#disposed) throw new LibraryError('this library was disposed; open it again');
    const result = this.#native.functions[name]!(...args) as number;
    if (result >= 0) return result;
    const message = this.#native.functions.bn_error!() as string;
    throw result === DAMAGED ? new DamageError(message) : new LibraryError(message);
  }

  describe(): unknown {
    return JSON.parse(this.#native.functions.bn_describe!() as string);
  }

  /** Sizes of the model that it was generated for. */
  get #sizes(): { readonly vocabulary: number; readonly layers: number } {
    this.#shape ??= (this.describe() as { shape: { vocabulary: number; layers: number } }).shape;
    return this.#shape;
  }

  /** @returns a model @throws DamageError */
  open(weights: string): number {
    const model = this.#call('bn_open', weights);
    this.#models.add(model);
    return model;
  }

  /** Checks the next part of the weights. @returns megabytes left @throws DamageError */
  verify(model: number): number {
    return this.#call('bn_verify', model);
  }

  /** @throws LibraryError while contexts use it */
  close(model: number): void {
    this.#call('bn_close', model);
    this.#models.delete(model);
  }

  /**
   * @param kv bits of a cache element
   * @param spin may waiting threads burn CPU time for a moment
   * @param from where the weights are read; `auto` copies them if memory for two copies is left
   * @param head how `top` finds the largest logits
   * @returns a context
   */
  context(
    model: number,
    positions: number,
    threads: number,
    kv: KvBits,
    spin: boolean,
    from: Pages = 'auto',
    head: TopMode = 'exact',
  ): number {
    const choices = [kv, spin ? 1 : 0, pages[from], availableMemory(), heads[head]];
    const context = this.#call('bn_context', model, positions, threads, ...choices);
    this.#contexts.add(context);
    return context;
  }

  /** Megabytes of weights that a context reads from huge pages. */
  hugePages(context: number): number {
    return this.#call('bn_huge_pages', context);
  }

  release(context: number): void {
    this.#call('bn_release', context);
    this.#contexts.delete(context);
  }

  /** Refuses what would be read or written beyond the end of an array. */
  #fit(tokens: Int32Array, n: number, needed: number, ...outs: (Int32Array | Float32Array | null)[]): void {
    if (n > tokens.length) throw new LibraryError(`${n} tokens to evaluate, but the array holds ${tokens.length}`);
    for (const out of outs)
      if (out && out.length < needed)
        throw new LibraryError(`${needed} results do not fit in an array of ${out.length}; give a longer one`);
  }

  /** Evaluates the first `n` tokens; logits go to `out`. @returns positions filled */
  evaluate(context: number, tokens: Int32Array, n: number, which: 0 | 1 | 2, out: Float32Array | null): number {
    this.#fit(tokens, n, which && (which === want.all ? n : 1) * this.#sizes.vocabulary, out);
    return this.#call('bn_eval', context, tokens, n, which, out);
  }

  /**
   * Evaluates the first `n` tokens; the `k` largest logits of the last one, or of each, go to `ids` and `logits`, the largest
   * first. @returns positions filled
   */
  top(
    context: number,
    tokens: Int32Array,
    n: number,
    k: number,
    which: typeof want.last | typeof want.all,
    ids: Int32Array,
    logits: Float32Array,
  ): number {
    this.#fit(tokens, n, (which === want.all ? n : 1) * k, ids, logits);
    return this.#call('bn_top', context, tokens, n, k, which, ids, logits);
  }

  rewind(context: number, position: number): void {
    this.#call('bn_rewind', context, position);
  }

  /** Seconds by operation since the last call, averaged over the threads. @param on go on taking the time, or stop */
  profile(context: number, on: boolean): Profile {
    const seconds = new Float32Array(operations.length);
    this.#call('bn_profile', context, on ? 1 : 0, seconds);
    return Object.fromEntries(operations.map((name, i) => [name, seconds[i]!])) as Profile;
  }

  /**
   * What the tokens that were evaluated one at a time since the last call left of the MLP, by layer; empty where there were none.
   * @param on go on counting, or stop
   */
  live(context: number, on: boolean): LiveShares[] {
    const shares = new Float32Array(this.#sizes.layers * liveParts.length);
    return this.#call('bn_live', context, on ? 1 : 0, shares) ? byLayer(liveParts, shares) : [];
  }

  /** Neurons that weights of zero alone make zero, by layer; empty unless the library skips zeros in `up` and `down`. */
  dead(context: number): DeadNeurons[] {
    const counts = new Float32Array(this.#sizes.layers * deadParts.length);
    return this.#call('bn_dead', context, counts) ? byLayer(deadParts, counts) : [];
  }

  packBegin(file: string, threads: number): void {
    this.#call('bn_pack_begin', file, threads);
  }

  packTensor(
    ...args: readonly [
      tensor: number,
      file: string,
      offset: number,
      bytes: number,
      encoding: number,
      rows: number,
      cols: number,
      scale: number,
      factor: number,
      heads: number,
    ]
  ): void {
    this.#call('bn_pack_tensor', ...args);
  }

  packEnd(keep: boolean): void {
    this.#call('bn_pack_end', keep ? 1 : 0);
  }

  /** Frees the contexts and models that it opened; it is of no use afterwards. A second time does nothing. */
  dispose(): void {
    if (this.#disposed) return;
    for (const context of this.#contexts) this.release(context);
    for (const model of this.#models) this.close(model);
    this.#disposed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What the child process of `openLibrary` does: says why a library cannot be used, or that it can. */
export function tryLibrary(file: string): void {
  let problem: string | null = null;
  try {
    new Library(file).describe();
  } catch (error) {
    problem = (error as Error).message;
  }
  printJson({ problem });
}

/** Why a library cannot be used on this machine, found out in a child process that it may crash; undefined if it can. */
async function problemOf(file: string): Promise<string | undefined> {
  const script = `import(${JSON.stringify(import.meta.url)}).then(({ tryLibrary }) => tryLibrary(${JSON.stringify(file)}))`;
  const child = await execa(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], {
    reject: false,
    stdin: 'ignore',
  });
  try {
    return JSON.parse(child.stdout).problem ?? undefined;
  } catch {
    const how = child.signal ?? `exit code ${child.exitCode}: ${child.stderr.trim().slice(-200)}`;
    return `the library '${file}' does not work on this machine: it ends with ${how}`;
  }
}

/**
 * Loads a library; the first time in a child process, so that a library that crashes on this machine (wrong CPU, broken
 * compiler) is an error and not the end of the program.
 * @throws LibraryError with the loader's own reason
 */
export async function openLibrary(file: string): Promise<Library> {
  const folder = path.dirname(file);
  const mark = path.join(folder, 'tried');
  if (!existsSync(mark)) {
    const problem = await problemOf(file);
    if (problem !== undefined) {
      const fix = cannotRun(folder) ?? `remove '${folder}', so that it is built again, or try another compiler (--cc)`;
      throw new LibraryError(`${problem}; ${fix}`);
    }
    try {
      writeFileSync(mark, '', { mode: 0o644 });
    } catch {
      // A read-only cache: it is tried again next time.
    }
  }
  return new Library(file);
}
