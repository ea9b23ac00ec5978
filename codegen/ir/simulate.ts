/** Executes a recorded program by the meanings of its words, with every access checked against its buffer. */
import type { Address, Affine, Arg, Program, Statement, Value } from './record.ts';
import type { Cell, Datum, Machine, Word, WordName } from './words.ts';
import { words } from './words.ts';

/** A kernel's arguments by parameter name. */
export type Arguments = Readonly<Record<string, number | Cell['array']>>;

/** Runs the program; buffers among `args` are changed in place. @throws on an access outside a buffer or an overflow */
export function simulate(program: Program, machine: Machine, args: Arguments): void {
  const values = new Map<string, Datum>();
  const longs: Record<string, number> = {};
  for (const p of program.params) {
    const value = args[p.name];
    if (p.kind === 'pointer') {
      if (typeof value !== 'object') throw new Error(`${program.name}: argument '${p.name}' must be a buffer`);
    } else {
      if (typeof value !== 'number') throw new Error(`${program.name}: argument '${p.name}' must be a number`);
      if (p.kind === 'long') longs[p.name] = value;
      else values.set(p.name, p.kind === 'float' ? Math.fround(value) : value);
    }
  }
  const tables = new Map(program.tables.map(({ name, values }) => [name, Uint8Array.from(values)]));
  const evaluate = ({ constant, terms }: Affine) =>
    Object.entries(terms).reduce((sum, [name, c]) => sum + c * longs[name]!, constant);

  /** `count` elements from an address on, all of them inside its buffer. */
  const elements = (a: Address, count: number, what: string): Cell => {
    const array = tables.get(a.base) ?? (args[a.base] as Cell['array']);
    const index = evaluate(a.offset);
    if (count && (index < 0 || index + count > array.length))
      throw new Error(`${program.name}: ${what} touches ${a.base}[${index}..${index + count}) of ${array.length}`);
    return { array, index };
  };
  const cell = (a: Address, word: WordName): Cell => {
    const touches = (words[word] as Word).touches;
    return elements(a, (touches?.perLane ?? 0) * machine.lanes + (touches?.total ?? 0), word);
  };
  const datum = (arg: Arg, word: WordName): Datum | Cell =>
    typeof arg === 'number' ? arg : arg.kind === 'value' ? values.get(arg.name)! : cell(arg, word);
  const call = (word: WordName, list: readonly Arg[]) =>
    (words[word].meaning as (m: Machine, ...a: unknown[]) => Datum | undefined)(
      machine,
      ...list.map((a) => datum(a, word)),
    );
  const define = (value: Value, d: Datum | undefined) => values.set(value.name, d!);

  const run = (body: readonly Statement[]): void => {
    for (const s of body)
      switch (s.kind) {
        case 'let':
        case 'set':
          define(s.value, call(s.word, s.args));
          break;
        case 'do':
          call(s.word, s.args);
          break;
        case 'indices': {
          const { array, index } = elements(s.address, 2 * s.names.length, 'indices');
          s.names.forEach((name, i) => {
            const value = array[index + 2 * i]! | (array[index + 2 * i + 1]! << 8);
            if (!(value <= s.max)) throw new Error(`${program.name}: ${name} = ${value} passes ${s.max}`);
            longs[name] = value;
          });
          break;
        }
        case 'loop':
          for (let i = evaluate(s.from); i < evaluate(s.to); i += s.step) {
            longs[s.index] = i;
            run(s.body);
          }
          break;
      }
  };
  run(program.body);
}
