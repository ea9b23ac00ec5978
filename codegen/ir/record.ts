/**
 * Recording: a kernel algorithm calls methods of a `Recorder`; the result is a `Program`, plain data that can be printed as C,
 * simulated, checked and dumped as JSON. Nothing is optimised here: clang does that.
 */
import type { ValueType, WordName } from './words.ts';
import { words } from './words.ts';

/** constant + sum of coefficient * variable; variables are `long` parameters and loop indices. */
export interface Affine {
  readonly constant: number;
  readonly terms: Readonly<Record<string, number>>;
}
/** A number counts as a constant expression. */
export type AffineLike = Affine | number;

/** An affine expression of a number or of itself. */
export const affine = (a: AffineLike): Affine => (typeof a === 'number' ? { constant: a, terms: {} } : a);

/** Sum of affine expressions. */
export function plus(...parts: AffineLike[]): Affine {
  let constant = 0;
  const terms: Record<string, number> = {};
  for (const part of parts.map(affine)) {
    constant += part.constant;
    for (const [name, c] of Object.entries(part.terms)) {
      const sum = (terms[name] ?? 0) + c;
      if (sum) terms[name] = sum;
      else delete terms[name];
    }
  }
  return { constant, terms };
}

/** An affine expression times a constant. */
export function times(a: AffineLike, factor: number): Affine {
  const { constant, terms } = affine(a);
  return {
    constant: constant * factor,
    terms: factor ? Object.fromEntries(Object.entries(terms).map(([name, c]) => [name, c * factor])) : {},
  };
}

/** A named value; `type` decides which words accept it. `bound`: largest unsigned byte, for bytes. */
export interface Value {
  readonly kind: 'value';
  readonly name: string;
  readonly type: ValueType;
  readonly bound?: number;
}

/** Element `offset` of the buffer that parameter `base` points to. */
export interface Address {
  readonly kind: 'address';
  readonly base: string;
  readonly offset: Affine;
}

/** What a buffer is made of. */
export type ElementType = 'u8' | 'i8' | 'u16' | 'i32' | 'f32';

/** A parameter of the C function. Pointers state their extent, so that every access can be checked. */
export type Param =
  | {
      readonly kind: 'pointer';
      readonly name: string;
      readonly element: ElementType;
      readonly access: 'in' | 'out' | 'inout' | 'scratch';
      /** Elements that the buffer has. */
      readonly extent: number;
      /** Shape, unit and layout, for the banner. */
      readonly doc: string;
      /** Largest unsigned byte that the buffer holds (codes); 255 when absent. */
      readonly bound?: number;
    }
  | {
      readonly kind: 'long';
      readonly name: string;
      readonly min: number;
      readonly max: number;
      readonly doc: string;
    }
  | { readonly kind: 'int' | 'float'; readonly name: string; readonly doc: string };

/** What a word takes. */
export type Arg = Value | Address | number;

/** One recorded step. */
export type Statement =
  | {
      readonly kind: 'let';
      readonly value: Value;
      readonly word: WordName;
      readonly args: readonly Arg[];
      readonly mutable: boolean;
    }
  | { readonly kind: 'set'; readonly value: Value; readonly word: WordName; readonly args: readonly Arg[] }
  | { readonly kind: 'do'; readonly word: WordName; readonly args: readonly Arg[] }
  | { readonly kind: 'indices'; readonly names: readonly string[]; readonly address: Address; readonly max: number }
  | {
      readonly kind: 'loop';
      readonly index: string;
      readonly from: Affine;
      readonly to: Affine;
      readonly step: number;
      readonly body: readonly Statement[];
    }
  | { readonly kind: 'note'; readonly text: string };

/** Constant bytes that belong to a function. */
export interface Table {
  readonly name: string;
  readonly values: readonly number[];
}

/** One C function. */
export interface Program {
  readonly name: string;
  readonly params: readonly Param[];
  readonly tables: readonly Table[];
  readonly body: readonly Statement[];
}

/** Records the statements of one function. Names carry coordinates (`acc_r2`) and must be unique in the function. */
export class Recorder {
  #body: Statement[] = [];
  readonly #root = this.#body;
  readonly #names = new Set<string>();
  readonly #params: Param[] = [];
  readonly #tables: Table[] = [];

  #claim(name: string): string {
    if (this.#names.has(name)) throw new Error(`the name '${name}' is used twice in one kernel`);
    this.#names.add(name);
    return name;
  }

  /** Declares a pointer parameter and returns its address at element 0. */
  pointer(name: string, param: Omit<Extract<Param, { kind: 'pointer' }>, 'kind' | 'name'>): Address {
    this.#params.push({ kind: 'pointer', name: this.#claim(name), ...param });
    return { kind: 'address', base: name, offset: affine(0) };
  }

  /** Declares a table of constant bytes and returns its address. */
  table(name: string, values: readonly number[]): Address {
    this.#tables.push({ name: this.#claim(name), values });
    return { kind: 'address', base: name, offset: affine(0) };
  }

  /** Declares an integer parameter usable in addresses and loop bounds; [min, max] is its precondition. */
  long(name: string, min: number, max: number, doc: string): Affine {
    this.#params.push({ kind: 'long', name: this.#claim(name), min, max, doc });
    return { constant: 0, terms: { [name]: 1 } };
  }

  /** Declares a scalar parameter that is data. */
  scalar(type: 'int' | 'float', name: string, doc: string): Value {
    this.#params.push({ kind: type, name: this.#claim(name), doc });
    return { kind: 'value', name, type };
  }

  #value(name: string, word: WordName, args: readonly Arg[]): Value {
    const type = (words[word] as { result?: ValueType }).result;
    if (!type) throw new Error(`${word} has no result`);
    return { kind: 'value', name: this.#claim(name), type, ...this.#bound(word, args) };
  }

  #bound(word: WordName, args: readonly Arg[]): { bound?: number } {
    if (word === 'field') return { bound: args[2] as number };
    const first = args[0];
    const table =
      typeof first === 'object' && first.kind === 'address' && this.#tables.find((t) => t.name === first.base);
    if (table) return { bound: Math.max(...table.values) };
    if (word === 'lookup64' || word === 'lookup96' || word === 'lookup16')
      return {
        bound: Math.max(
          ...args.map((a) =>
            typeof a === 'object' && a.kind === 'value' && a.type.startsWith('table') ? (a.bound ?? 255) : 0,
          ),
        ),
      };
    if ((word === 'load_bytes' || word === 'broadcast4') && typeof first === 'object' && first.kind === 'address') {
      const param = this.#params.find((p) => p.name === first.base);
      return { bound: (param?.kind === 'pointer' ? param.bound : undefined) ?? 255 };
    }
    if (word === 'zip4_low' || word === 'zip4_high')
      return { bound: Math.max(...args.map((a) => (a as Value).bound ?? 255)) };
    return {};
  }

  /** Names the result of a word. */
  let(name: string, word: WordName, ...args: Arg[]): Value {
    const value = this.#value(name, word, args);
    this.#body.push({ kind: 'let', value, word, args, mutable: false });
    return value;
  }

  /** As `let`, for a value that `set` changes later (an accumulator). */
  variable(name: string, word: WordName, ...args: Arg[]): Value {
    const value = this.#value(name, word, args);
    this.#body.push({ kind: 'let', value, word, args, mutable: true });
    return value;
  }

  /** Changes a variable. */
  set(value: Value, word: WordName, ...args: Arg[]): void {
    this.#body.push({ kind: 'set', value, word, args });
  }

  /** A word without result: a store or a hint. */
  do(word: WordName, ...args: Arg[]): void {
    this.#body.push({ kind: 'do', word, args });
  }

  /**
   * One, two or four unsigned 16-bit numbers that follow each other in memory (bytes, the lower first), none above `max`: they
   * can be parts of addresses, and bounds of loops.
   */
  indices(names: readonly string[], address: Address, max: number): Affine[] {
    for (const name of names) this.#claim(name);
    this.#body.push({ kind: 'indices', names, address, max });
    return names.map((name) => ({ constant: 0, terms: { [name]: 1 } }));
  }

  /** A comment line in the generated C. */
  note(text: string): void {
    this.#body.push({ kind: 'note', text });
  }

  /** for (index = from; index < to; index += step) */
  loop(index: string, from: AffineLike, to: AffineLike, step: number, record: (index: Affine) => void): void {
    const a = affine(from);
    const b = affine(to);
    const outer = this.#body;
    const body: Statement[] = [];
    this.#body = body;
    record({ constant: 0, terms: { [this.#claim(index)]: 1 } });
    this.#body = outer;
    outer.push({ kind: 'loop', index, from: a, to: b, step, body });
  }

  /** Straight-line unrolling of `total` steps: a loop over groups of `unroll`, then the rest without a loop. */
  unrolled(index: string, total: number, unroll: number, record: (step: Affine, u: number, tag: string) => void): void {
    this.chunks(index, total, unroll, (base, count, tag) => {
      for (let u = 0; u < count; u++) record(plus(base, u), u, tag);
    });
  }

  /** Covers [0, total) in chunks: a loop over whole chunks of `size` (no loop when there is one), then the rest. */
  chunks(index: string, total: number, size: number, record: (base: Affine, count: number, tag: string) => void): void {
    const whole = Math.floor(total / size) * size;
    if (whole > size) this.loop(index, 0, whole, size, (base) => record(base, size, ''));
    else if (whole) record(affine(0), size, '');
    if (whole < total) record(affine(whole), total - whole, 'z');
  }

  program(name: string): Program {
    return { name, params: this.#params, tables: this.#tables, body: this.#root };
  }
}

/** Element `offset` further on. */
export function at(base: Address, ...offset: AffineLike[]): Address {
  return { kind: 'address', base: base.base, offset: plus(base.offset, ...offset) };
}
