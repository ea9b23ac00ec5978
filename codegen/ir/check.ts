/**
 * Refuses a program that cannot be right or cannot be fast, before any C is printed:
 * loads and stores stay inside the stated extents for every permitted parameter; partial sums stay within the ISA's limit
 * for the worst data; the values that an innermost loop touches fit the vector registers.
 */
import type { Isa } from '../isa/isa.ts';
import type { Address, Affine, Param, Program, Statement, Value } from './record.ts';
import type { Word, WordName } from './words.ts';
import { words } from './words.ts';

interface Range {
  readonly min: number;
  readonly max: number;
}

function rangeOf({ constant, terms }: Affine, variables: ReadonlyMap<string, Range>): Range {
  let min = constant;
  let max = constant;
  for (const [name, c] of Object.entries(terms)) {
    const v = variables.get(name)!;
    min += c * (c > 0 ? v.min : v.max);
    max += c * (c > 0 ? v.max : v.min);
  }
  return { min, max };
}

/** Registers of one value: bytes over the bytes of a vector. */
const registersOf = (v: Value, lanes: number): number =>
  v.type === 'table64' ? Math.ceil(16 / lanes) : v.type === 'table32' ? Math.ceil(8 / lanes) : 1;

const isVector = (v: Value) => v.type !== 'int' && v.type !== 'float';

/** Registers that the values of one innermost loop body need at once: most at any statement. @param lanes 32-bit lanes of a vector */
export function pressure(body: readonly Statement[], lanes: number): number {
  const uses = new Map<string, { first: number; last: number; outside: boolean; registers: number }>();
  // Constants do not count: the compiler may use them from memory.
  const constants = new Set(body.flatMap((s) => (s.kind === 'let' && s.word === 'constant' ? [s.value.name] : [])));
  const touch = (v: Value, i: number, defined: boolean) => {
    if (!isVector(v) || constants.has(v.name)) return;
    const u = uses.get(v.name);
    if (u) u.last = i;
    else
      uses.set(v.name, {
        first: i,
        last: i,
        outside: !defined,
        registers: registersOf(v, lanes),
      });
  };
  body.forEach((s, i) => {
    if (s.kind === 'loop' || s.kind === 'note' || s.kind === 'indices') return;
    for (const a of s.args) if (typeof a === 'object' && a.kind === 'value') touch(a, i, false);
    if (s.kind === 'let') touch(s.value, i, true);
    if (s.kind === 'set') touch(s.value, i, false);
  });
  let most = 0;
  for (let i = 0; i < body.length; i++) {
    let live = 0;
    // A value from outside stays live around the loop; one defined inside from its definition to its last use.
    for (const u of uses.values()) if (u.outside || (u.first <= i && i < u.last) || u.first === i) live += u.registers;
    most = Math.max(most, live);
  }
  return most;
}

/** @returns the reasons why the program is refused, each one line; empty when it is fine */
export const check = (program: Program, isa: Isa): string[] => analyse(program, isa).problems;

/** What `check` finds, the largest magnitude that a partial sum can reach (0: there is none), and the largest code in one. */
export function analyse(program: Program, isa: Isa): { problems: string[]; largestSum: number; largestCode: number } {
  let largestCode = 0;
  const problems: string[] = [];
  const params = new Map(program.params.map((p) => [p.name, p]));
  const variables = new Map<string, Range>();
  for (const p of program.params) if (p.kind === 'long') variables.set(p.name, { min: p.min, max: p.max });

  const bounds = (word: WordName | 'indices', a: Address, elements?: number) => {
    const extent =
      program.tables.find(({ name }) => name === a.base)?.values.length ??
      (params.get(a.base) as Extract<Param, { kind: 'pointer' }>).extent;
    const touches = word === 'indices' ? undefined : (words[word] as Word).touches;
    const count = elements ?? (touches?.perLane ?? 0) * isa.lanes + (touches?.total ?? 0);
    if (!count) return;
    const { min, max } = rangeOf(a.offset, variables);
    if (min < 0 || max + count > extent)
      problems.push(`${word} may touch ${a.base}[${min}..${max + count}) of ${extent} elements`);
  };

  /** Largest magnitude of each partial sum so far; loops multiply what one pass adds. */
  const sums = new Map<string, number>();
  const visit = (body: readonly Statement[], trips: number): void => {
    if (body.length && !body.some((s) => s.kind === 'loop') && trips > 1) {
      const live = pressure(body, isa.lanes);
      if (live > isa.registers)
        problems.push(`${live} live values in a loop, but ${isa.name} has ${isa.registers} registers`);
    }
    for (const s of body) {
      if (s.kind === 'note') continue;
      if (s.kind === 'indices') {
        bounds('indices', s.address, 2 * s.names.length);
        for (const name of s.names) variables.set(name, { min: 0, max: s.max });
        continue;
      }
      if (s.kind === 'loop') {
        const from = rangeOf(s.from, variables);
        const to = rangeOf(s.to, variables);
        if (to.max <= from.min) continue;
        const count = Math.ceil((to.max - from.min) / s.step);
        variables.set(s.index, { min: from.min, max: from.min + (count - 1) * s.step });
        const before = new Map(sums);
        visit(s.body, count);
        for (const [name, sum] of sums) {
          const start = before.get(name);
          if (start !== undefined) sums.set(name, start + (sum - start) * count);
        }
        continue;
      }
      for (const a of s.args) if (typeof a === 'object' && a.kind === 'address') bounds(s.word, a);
      if (s.kind === 'do') continue;
      if (s.word === 'dot_zero') sums.set(s.value.name, 0);
      const products = (words[s.word] as Word).products?.(isa);
      if (products) {
        const [before, codes] = s.args as [Value, Value];
        const bound = codes.bound ?? 255;
        largestCode = Math.max(largestCode, bound);
        if (bound > isa.dot.codes)
          problems.push(
            `${s.word} takes codes up to ${isa.dot.codes} on ${isa.name}, but '${codes.name}' may be ${bound}`,
          );
        sums.set(s.value.name, (sums.get(before.name) ?? 0) + products * bound * 127);
      }
    }
  };
  visit(program.body, 1);
  for (const [name, sum] of sums)
    if (sum > isa.dot.limit)
      problems.push(`partial sum '${name}' may reach ${sum}, past ${isa.dot.limit} (${isa.name}); flush it earlier`);
  return { problems, largestSum: Math.max(0, ...sums.values()), largestCode };
}
