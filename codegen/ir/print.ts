/** Prints a recorded program as a C function, in the intrinsics of one instruction set. */
import type { Isa } from '../isa/isa.ts';
import type { Address, Affine, Arg, ElementType, Param, Program, Statement } from './record.ts';
import type { ScalarWord, VectorWord, WordName } from './words.ts';
import { scalarWords } from './words.ts';

const elementTypes: Record<ElementType, string> = {
  u8: 'uint8_t',
  i8: 'int8_t',
  u16: 'uint16_t',
  i32: 'int32_t',
  f32: 'float',
};

/** The C spelling of scalar words, the same on every ISA. */
const scalars: Record<ScalarWord, (...args: string[]) => string> = {
  get: (p) => `*(${p})`,
  put: (p, x) => `*(${p}) = ${x}`,
  get_int: (p) => `*(${p})`,
  put_int: (p, x) => `*(${p}) = ${x}`,
  number: (x) => x!,
  integer: (x) => x!,
  negate_int: (a) => `-${a}`,
  add_int: (a, b) => `${a} + ${b}`,
  add1: (a, b) => `${a} + ${b}`,
  sub1: (a, b) => `${a} - ${b}`,
  mul1: (a, b) => `${a} * ${b}`,
  div1: (a, b) => `${a} / ${b}`,
  max1: (a, b) => `${a} > ${b} ? ${a} : ${b}`,
  sqrt1: (a) => `__builtin_sqrtf(${a})`,
};

/** `64 * tile + 16`, constants last. */
export function printAffine({ constant, terms }: Affine): string {
  const parts = Object.entries(terms).map(([name, c]) => (c === 1 ? name : `${c} * ${name}`));
  if (constant || !parts.length) parts.push(String(constant));
  return parts.join(' + ').replaceAll('+ -', '- ');
}

function printAddress({ base, offset }: Address): string {
  const text = printAffine(offset);
  return text === '0' ? base : `${base} + ${text}`;
}

/** A float constant as C: hexadecimal, so that no digit is lost. */
export function floatLiteral(x: number): string {
  const value = Math.fround(x);
  if (Object.is(value, -0)) return '-0.0f';
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return `${value}.0f`;
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  const exponent = ((bits >>> 23) & 255) - 127;
  if (exponent === -127 || exponent === 128) throw new Error(`float constant ${x} is not a normal number`);
  const fraction = ((bits & 0x7fffff) << 1).toString(16).padStart(6, '0').replace(/0+$/, '');
  return `${bits >>> 31 ? '-' : ''}0x1${fraction ? `.${fraction}` : ''}p${exponent}f /* ${Number(value.toPrecision(9))} */`;
}

function printArg(word: WordName, arg: Arg): string {
  if (typeof arg === 'number') return word === 'number' || word === 'constant' ? floatLiteral(arg) : String(arg);
  return arg.kind === 'value' ? arg.name : printAddress(arg);
}

function printCall(isa: Isa, word: WordName, args: readonly Arg[]): string {
  const texts = args.map((a) => printArg(word, a));
  if ((scalarWords as readonly string[]).includes(word)) return scalars[word as ScalarWord](...texts);
  const spell = isa.words[word as VectorWord];
  if (!spell) throw new Error(`${isa.name} has no word '${word}'`);
  return spell(...texts);
}

function printParam(p: Param): string {
  if (p.kind !== 'pointer') return `${p.kind === 'int' ? 'int32_t' : p.kind} ${p.name}`;
  return `${p.access === 'in' ? 'const ' : ''}${elementTypes[p.element]} *restrict ${p.name}`;
}

function printStatement(isa: Isa, s: Statement, indent: string, out: string[]): void {
  switch (s.kind) {
    case 'note':
      out.push(`${indent}/* ${s.text} */`);
      break;
    case 'do':
      out.push(`${indent}${printCall(isa, s.word, s.args)};`);
      break;
    case 'set':
      out.push(`${indent}${s.value.name} = ${printCall(isa, s.word, s.args)};`);
      break;
    case 'let': {
      const type = s.value.type === 'int' ? 'int32_t' : s.value.type === 'float' ? 'float' : isa.types[s.value.type];
      out.push(`${indent}${s.mutable ? '' : 'const '}${type} ${s.value.name} = ${printCall(isa, s.word, s.args)};`);
      break;
    }
    case 'indices': {
      const [first] = s.names;
      const bits = `bn_load${2 * s.names.length}(${printAddress(s.address)})`;
      if (s.names.length === 1) {
        out.push(`${indent}const long ${first} = ${bits};`);
        break;
      }
      out.push(`${indent}const uint64_t ${first}_on = ${bits};`);
      s.names.forEach((name, i) => {
        const shifted = i ? `${first}_on >> ${16 * i}` : `${first}_on`;
        out.push(
          `${indent}const long ${name} = ${i + 1 < s.names.length ? `(uint16_t)(${shifted})` : `(long)(${shifted})`};`,
        );
      });
      break;
    }
    case 'loop':
      out.push(
        `${indent}for (long ${s.index} = ${printAffine(s.from)}; ${s.index} < ${printAffine(s.to)}; ${s.index} += ${s.step}) {`,
      );
      for (const inner of s.body) printStatement(isa, inner, `${indent}  `, out);
      out.push(`${indent}}`);
      break;
  }
}

/** `void bn_...(...)` without a semicolon; the parameters are broken into lines of at most 120 columns. */
export function printSignature(program: Program): string {
  const lines = [`void bn_${program.name}(`];
  program.params.map(printParam).forEach((param, i, all) => {
    const text = `${param}${i + 1 < all.length ? ', ' : ')'}`;
    if (lines.at(-1)!.length + text.trimEnd().length <= 118) lines[lines.length - 1] += text;
    else lines.push(`    ${text}`);
  });
  return lines.map((line) => line.trimEnd()).join('\n');
}

/** Unsigned numbers of 2, 4 and 8 bytes, wherever they lie. */
const loads = Object.fromEntries(
  [2, 4, 8].map((bytes) => [
    `bn_load${bytes}`,
    `static inline uint${8 * bytes}_t bn_load${bytes}(const void *p) {
  uint${8 * bytes}_t v;
  __builtin_memcpy(&v, p, ${bytes});
  return v;
}`,
  ]),
);

/** The C functions that printed kernels may call, by name; callees come first. */
export const helpersOf = (isa: Isa): Readonly<Record<string, string>> => ({ ...loads, ...isa.helpers });

/** Numbers of a table, as many in a line as fit. */
const tableLines = (values: readonly number[]): string[] =>
  `${values.join(', ')},`.match(/.{1,110}(?:,|$)/g)!.map((line) => `      ${line.trim()}`);

/** The whole function. */
export function printFunction(program: Program, isa: Isa): string {
  const out: string[] = [`${printSignature(program)} {`];
  for (const p of program.params)
    if (p.kind === 'long') out.push(`  BN_ASSERT(${p.min} <= ${p.name} && ${p.name} <= ${p.max});`);
  const body: string[] = [];
  for (const s of program.body) printStatement(isa, s, '  ', body);
  for (const { name, values } of program.tables)
    out.push(`  static const _Alignas(64) uint8_t ${name}[${values.length}] = {`, ...tableLines(values), '  };');
  // A family's signature is the same for all its kernels, so that some do not need all of it.
  for (const { name } of program.params)
    if (!body.some((line) => new RegExp(`\\b${name}\\b`).test(line))) out.push(`  (void)${name};`);
  out.push(...body, '}');
  return `${out.join('\n')}\n`;
}
