/**
 * The container part of a GGUF file: metadata and tensor list, without an opinion about either. gguf.ts makes a model of it.
 *
 * Layout (ggml docs/gguf.md, versions 2 and 3; numbers are little-endian):
 *   "GGUF" | u32 version | u64 tensors | u64 pairs | pairs | tensor infos | padding to general.alignment | data
 *   pair    string key | u32 type | value        string = u64 bytes | UTF-8        array = u32 type | u64 count | items
 *   info    string name | u32 dimensions | u64 size each, fastest first | u32 type | u64 offset into the data
 *
 * Values that nobody asks for are passed over unread. What is kept is bounded: lists by the largest vocabulary, numbers of
 * lists as the file stores them (a JavaScript list would take eight bytes for each).
 */
import type { ModelFile } from './file.ts';
import { gitLfsAdvice, isGitLfsPointer } from './file.ts';
import { Window } from './gguf-window.ts';
import { shown } from './json.ts';

/** A list of numbers; u64 and i64 are held as doubles, booleans as 0 and 1. */
export type NumberList =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

/** A metadata value; 64-bit integers lose precision above 2^53, where no valid value lies. */
export type MetadataValue = number | boolean | string | NumberList | readonly string[];

/** A tensor as the file lists it. */
export interface TensorInfo {
  readonly name: string;
  /** Elements per dimension, fastest first; 0 to 4 of them, none zero. */
  readonly dims: readonly number[];
  /** GGML type id. */
  readonly type: number;
  /** Bytes from the start of the data section, a multiple of the alignment. */
  readonly offset: number;
}

/** Everything before the data of a GGUF file. */
export interface GgufHeader {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  /** Keys whose values were passed over. */
  readonly skipped: readonly string[];
  readonly tensors: readonly TensorInfo[];
  readonly alignment: number;
  /** Byte of the file at which the data section starts. */
  readonly dataStart: number;
}

/** Far above any published file: 60 keys, 333 tensors, 280,147 merges. */
const limits = { pairs: 10_000, tensors: 100_000, items: 4_194_304, nameBytes: 1024 } as const;

/** Value types: bytes of a number, how to read one, and many. */
interface NumberType {
  readonly bytes: number;
  readonly read: (b: Buffer, at: number) => number | boolean;
  /** @param b a copy of the items, aligned for any type; x86 and ARM are little-endian as the file is */
  readonly list: (b: ArrayBuffer) => NumberList;
}
const numberTypes: Readonly<Record<number, NumberType>> = {
  0: { bytes: 1, read: (b, at) => b.readUInt8(at), list: (b) => new Uint8Array(b) },
  1: { bytes: 1, read: (b, at) => b.readInt8(at), list: (b) => new Int8Array(b) },
  2: { bytes: 2, read: (b, at) => b.readUInt16LE(at), list: (b) => new Uint16Array(b) },
  3: { bytes: 2, read: (b, at) => b.readInt16LE(at), list: (b) => new Int16Array(b) },
  4: { bytes: 4, read: (b, at) => b.readUInt32LE(at), list: (b) => new Uint32Array(b) },
  5: { bytes: 4, read: (b, at) => b.readInt32LE(at), list: (b) => new Int32Array(b) },
  6: { bytes: 4, read: (b, at) => shortestFloat(b.readFloatLE(at)), list: (b) => new Float32Array(b) },
  7: { bytes: 1, read: (b, at) => b.readUInt8(at) !== 0, list: (b) => new Uint8Array(b).map((x) => (x ? 1 : 0)) },
  10: { bytes: 8, read: (b, at) => Number(b.readBigUInt64LE(at)), list: (b) => doubles(new BigUint64Array(b)) },
  11: { bytes: 8, read: (b, at) => Number(b.readBigInt64LE(at)), list: (b) => doubles(new BigInt64Array(b)) },
  12: { bytes: 8, read: (b, at) => b.readDoubleLE(at), list: (b) => new Float64Array(b) },
};
const string = 8;
const array = 9;

/**
 * Reads a header.
 * @param keeps whether the value of a key is wanted
 * @throws ModelError when the file is no GGUF of version 2 or 3, damaged or truncated
 */
export function readGgufHeader(file: ModelFile, keeps: (key: string) => boolean): GgufHeader {
  const window = new Window(file);
  const version = readPreamble(window);
  const tensorCount = atMost(window, limits.tensors, window.count(24, 'tensor count'), 'tensors');
  const pairCount = atMost(window, limits.pairs, window.count(13, 'metadata count'), 'metadata');

  const metadata = new Map<string, MetadataValue>();
  const skipped = new Set<string>();
  for (let i = 0; i < pairCount; i++) {
    const key = plainName(window, `metadata key ${i}`);
    if (metadata.has(key) || skipped.has(key)) {
      window.fail(`metadata key '${key}' appears twice; the file is damaged`);
    }
    if (key === alignmentKey || keeps(key)) metadata.set(key, value(window, key));
    else {
      skipped.add(key);
      skip(window, key);
    }
  }

  const alignment = metadata.get(alignmentKey) ?? 32;
  if (
    typeof alignment !== 'number' ||
    !Number.isInteger(Math.log2(alignment)) ||
    alignment < 1 ||
    alignment > 1 << 20
  ) {
    return window.fail(`${alignmentKey} ${shown(alignment)} is not a power of two up to 2^20`);
  }
  const tensors = new Map<string, TensorInfo>();
  for (let i = 0; i < tensorCount; i++) {
    const info = tensorInfo(window, i, alignment);
    if (tensors.has(info.name)) window.fail(`tensor '${info.name}' appears twice; the file is damaged`);
    tensors.set(info.name, info);
  }
  const dataStart = Math.ceil(window.at / alignment) * alignment;
  return { version, metadata, skipped: [...skipped], tensors: [...tensors.values()], alignment, dataStart };
}

const alignmentKey = 'general.alignment';

/** Magic and version. */
function readPreamble(window: Window): number {
  const start = window.take(8, 'magic and version');
  if (isGitLfsPointer(start)) window.fail(gitLfsAdvice);
  if (start.toString('latin1', 0, 4) !== 'GGUF') window.fail('does not begin with "GGUF"; not a GGUF file');
  const version = start.readUInt32LE(4);
  if (version === 2 || version === 3) return version;
  // The version is stored in the file's byte order, and no version exceeds 16 bits.
  if (version >= 0x10000 && (version & 0xffff) === 0) {
    return window.fail(
      'is a big-endian GGUF file; only little-endian files are read, convert it again on this machine',
    );
  }
  return window.fail(`GGUF version ${version} is not supported; versions 2 and 3 are, convert the model again`);
}

function atMost(window: Window, most: number, count: number, what: string): number {
  if (count > most) window.fail(`${what}: ${count} entries, more than ${most}; the file is damaged`);
  return count;
}

/** A key, or the name of a tensor; both stand in messages. */
function plainName(window: Window, what: string): string {
  const text = window.text(what, limits.nameBytes);
  if (!/^\P{Cc}+$/u.test(text)) window.fail(`${what} is ${shown(text)}, which is no name; the file is damaged`);
  return text;
}

function value(window: Window, key: string): MetadataValue {
  const type = window.u32(`type of '${key}'`);
  if (type === string) return window.text(`value of '${key}'`);
  if (type === array) return items(window, key);
  const { bytes, read } = numberType(window, key, type);
  return read(window.take(bytes, `value of '${key}'`), 0);
}

/** Passes over a value. */
function skip(window: Window, key: string): void {
  const type = window.u32(`type of '${key}'`);
  if (type === string) window.skipText(`value of '${key}'`);
  else if (type === array) {
    const { numbers, length } = listHead(window, key);
    if (numbers) window.skip(length * numbers.bytes);
    else for (let i = 0; i < length; i++) window.skipText(key);
  } else window.take(numberType(window, key, type).bytes, `value of '${key}'`);
}

/** An array value. */
function items(window: Window, key: string): NumberList | string[] {
  const { numbers, length } = listHead(window, key);
  atMost(window, limits.items, length, `metadata '${key}'`);
  if (!numbers) {
    const strings = new Array<string>(length);
    for (let i = 0; i < length; i++) strings[i] = window.text(key);
    return strings;
  }
  return numbers.list(new Uint8Array(window.take(length * numbers.bytes, `items of '${key}'`)).buffer);
}

/** Type and count of an array; arrays of arrays exist in the format but in no model, and are refused. */
function listHead(window: Window, key: string): { numbers: NumberType | undefined; length: number } {
  const type = window.u32(`item type of '${key}'`);
  if (type === array) window.fail(`metadata '${key}' is an array of arrays, which no known model uses`);
  const numbers = type === string ? undefined : numberType(window, key, type);
  // A string has at least its length.
  return { numbers, length: window.count(numbers?.bytes ?? 8, `item count of '${key}'`) };
}

function numberType(window: Window, key: string, type: number): NumberType {
  return (
    numberTypes[type] ??
    window.fail(`metadata '${key}' has unknown value type ${type}; the file is damaged or newer than this program`)
  );
}

function tensorInfo(window: Window, index: number, alignment: number): TensorInfo {
  const name = plainName(window, `name of tensor ${index}`);
  const rank = window.u32(`dimensions of '${name}'`);
  if (rank > 4) window.fail(`tensor '${name}' has ${rank} dimensions; GGUF allows 4, the file is damaged`);
  const dims: number[] = [];
  for (let i = 0; i < rank; i++) {
    const size = window.u64(`size of '${name}'`);
    if (size === 0n) window.fail(`tensor '${name}' has a dimension of size 0; the file is damaged`);
    dims.push(Number(size));
  }
  if (dims.reduce((a, b) => a * b, 1) > Number.MAX_SAFE_INTEGER) {
    window.fail(`tensor '${name}' is ${dims.join(' x ')}, more than 2^53 elements; the file is damaged`);
  }
  const type = window.u32(`type of '${name}'`);
  const offset = window.u64(`offset of '${name}'`);
  if (offset > BigInt(window.file.size)) {
    window.fail(
      `tensor '${name}' starts at byte ${offset} of the data, past the end of the file (${window.file.size} bytes); ` +
        'the file is truncated, download it again',
    );
  }
  if (Number(offset) % alignment !== 0) {
    window.fail(`tensor '${name}' starts at byte ${offset}, not a multiple of the alignment ${alignment}`);
  }
  return { name, dims, type, offset: Number(offset) };
}

/** The shortest decimal that is this float32, so that 1e-5 reads as 1e-5 and equals the number in a config.json. */
function shortestFloat(value: number): number {
  if (!Number.isFinite(value)) return value;
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}

const doubles = (list: BigUint64Array | BigInt64Array): Float64Array => Float64Array.from(list, Number);
