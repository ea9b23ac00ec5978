/**
 * Calls of compiled kernels by programs that know nothing of them: a table of C functions that take their arguments from slots, and
 * arguments as bytes. Tests and benches run kernels by it (test/kernel-runner.ts, bench/kernels.c).
 */
import { printSignature } from './print.ts';
import type { Param, Program } from './record.ts';
import type { Arguments } from './simulate.ts';

/** The kinds of parameters, as the table tells them. */
const kinds: Record<Param['kind'], string> = { pointer: 'p', long: 'l', int: 'i', float: 'f' };

/** What callers declare. */
export const CALL_TYPES = `typedef union {
  int64_t number;
  float real;
  void *at;
} slot;
typedef struct {
  const char *name, *kinds; /* of its parameters: p pointer, l long, i int, f float */
  void (*call)(const slot *);
} kernel;
`;

function argument(p: Param, i: number): string {
  if (p.kind === 'pointer') return `slots[${i}].at`;
  return p.kind === 'float' ? `slots[${i}].real` : `(${p.kind === 'int' ? 'int32_t' : 'long'})slots[${i}].number`;
}

/** C: `kernels`, the table of these programs, in this order. */
export function printCalls(programs: readonly Program[]): string {
  const calls = programs.map(
    (program, i) => `${printSignature(program)};
static void call_${i}(const slot *slots) { bn_${program.name}(${program.params.map(argument).join(', ')}); }
`,
  );
  const entries = programs.map(
    (p, i) => `    {"${p.name}", "${p.params.map(({ kind }) => kinds[kind]).join('')}", call_${i}},`,
  );
  return `${calls.join('')}\nstatic const kernel kernels[] = {\n${entries.join('\n')}\n};\n`;
}

/**
 * The arguments of a call: eight bytes each, the value or a buffer's size in bytes, which the buffer follows.
 * @throws Error when an argument is not what its parameter wants
 */
export const encodeArguments = (program: Program, args: Arguments): Buffer =>
  Buffer.concat(
    program.params.flatMap((p) => {
      const value = args[p.name];
      const word = Buffer.alloc(8);
      if (p.kind === 'pointer') {
        if (typeof value !== 'object') throw new Error(`${program.name}: argument '${p.name}' must be a buffer`);
        word.writeBigInt64LE(BigInt(value.byteLength));
        return [word, Buffer.from(value.buffer, value.byteOffset, value.byteLength)];
      }
      if (typeof value !== 'number') throw new Error(`${program.name}: argument '${p.name}' must be a number`);
      if (p.kind === 'float') word.writeFloatLE(value);
      else word.writeBigInt64LE(BigInt(value));
      return [word];
    }),
  );
