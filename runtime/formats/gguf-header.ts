/**
 * The container part of a GGUF file: metadata and tensor list, without an opinion about either. gguf.ts makes a model of it.
 *
 * Layout (ggml docs/gguf.md, versions 2 and 3; numbers are little-endian):
 *   "GGUF" | u32 version | u64 tensors | u64 pairs | pairs | tensor infos | padding to general.alignment | data
 *   pair    string key | u32 type | value        string = u64 bytes | UTF-8        array = u32 type | u64 count | items
 *   info    string name | u32 dimensions | u64 size each, fastest first | u32 type | u64 offset into the data
 *
 * Nothing in the file is believed: a count must fit into the bytes that are left, so a damaged file ends in a ModelError
 * before anything large is allocated. The header is read through one growing window from the start of the file; that of
 * BitNet 2B4T (128,256 tokens, 280,147 merges) has 8 MB.
 */
import { ModelError } from '../../schemas/error.ts';
import type { ModelFile } from './file.ts';
import { gitLfsAdvice, isGitLfsPointer } from './file.ts';

/** A metadata value; 64-bit integers lose precision above 2^53, where no valid value lies. */
export type MetadataValue = number | boolean | string | readonly number[] | readonly boolean[] | readonly string[];

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
  readonly tensors: readonly TensorInfo[];
  readonly alignment: number;
  /** Byte of the file at which the data section starts. */
  readonly dataStart: number;
}

const firstWindow = 1 << 20;
const maxHeaderBytes = 1 << 28;
const maxNameBytes = 65_535;

/** Value types: bytes of a number, and how to read one. */
const scalarTypes: Readonly<Record<number, { bytes: number; read: (b: Buffer, at: number) => number | boolean }>> = {
  0: { bytes: 1, read: (b, at) => b.readUInt8(at) },
  1: { bytes: 1, read: (b, at) => b.readInt8(at) },
  2: { bytes: 2, read: (b, at) => b.readUInt16LE(at) },
  3: { bytes: 2, read: (b, at) => b.readInt16LE(at) },
  4: { bytes: 4, read: (b, at) => b.readUInt32LE(at) },
  5: { bytes: 4, read: (b, at) => b.readInt32LE(at) },
  6: { bytes: 4, read: (b, at) => b.readFloatLE(at) },
  7: { bytes: 1, read: (b, at) => b.readUInt8(at) !== 0 },
  10: { bytes: 8, read: (b, at) => Number(b.readBigUInt64LE(at)) },
  11: { bytes: 8, read: (b, at) => Number(b.readBigInt64LE(at)) },
  12: { bytes: 8, read: (b, at) => b.readDoubleLE(at) },
};
const float32 = 6;
const string = 8;
const array = 9;

/** Position in the header and the part of the file read so far. */
interface Cursor {
  readonly file: ModelFile;
  window: Buffer;
  at: number;
}

/** @throws ModelError when the file is no GGUF of version 2 or 3, damaged or truncated */
export function readGgufHeader(file: ModelFile): GgufHeader {
  const cursor: Cursor = { file, window: Buffer.alloc(0), at: 0 };
  const version = readPreamble(cursor);
  const tensorCount = count(cursor, 24, 'tensor count');
  const pairCount = count(cursor, 13, 'metadata count');

  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < pairCount; i++) {
    const key = text(cursor, `metadata key ${i}`, maxNameBytes);
    if (metadata.has(key)) fail(cursor, `metadata key '${key}' appears twice; the file is damaged`);
    metadata.set(key, value(cursor, key));
  }

  const alignment = metadata.get('general.alignment') ?? 32;
  if (
    typeof alignment !== 'number' ||
    !Number.isInteger(Math.log2(alignment)) ||
    alignment < 1 ||
    alignment > 1 << 20
  ) {
    return fail(cursor, `general.alignment ${JSON.stringify(alignment)} is not a power of two up to 2^20`);
  }
  const tensors: TensorInfo[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const info = tensorInfo(cursor, i, alignment);
    if (names.has(info.name)) fail(cursor, `tensor '${info.name}' appears twice; the file is damaged`);
    names.add(info.name);
    tensors.push(info);
  }
  return { version, metadata, tensors, alignment, dataStart: Math.ceil(cursor.at / alignment) * alignment };
}

/** Magic and version. */
function readPreamble(cursor: Cursor): number {
  need(cursor, 8, 'magic and version');
  if (isGitLfsPointer(cursor.window)) fail(cursor, gitLfsAdvice);
  if (cursor.window.toString('latin1', 0, 4) !== 'GGUF') fail(cursor, 'does not begin with "GGUF"; not a GGUF file');
  const version = cursor.window.readUInt32LE(4);
  cursor.at = 8;
  if (version === 2 || version === 3) return version;
  // The version is stored in the file's byte order, and no version exceeds 16 bits.
  if (version >= 0x10000 && (version & 0xffff) === 0) {
    return fail(
      cursor,
      'is a big-endian GGUF file; only little-endian files are read, convert it again on this machine',
    );
  }
  return fail(cursor, `GGUF version ${version} is not supported; versions 2 and 3 are, convert the model again`);
}

function value(cursor: Cursor, key: string): MetadataValue {
  const type = u32(cursor, `type of '${key}'`);
  if (type === string) return text(cursor, `value of '${key}'`);
  if (type === array) return items(cursor, key);
  const scalar = scalarTypes[type] ?? unknownType(cursor, key, type);
  need(cursor, scalar.bytes, `value of '${key}'`);
  const result = scalar.read(cursor.window, cursor.at);
  cursor.at += scalar.bytes;
  return type === float32 ? shortestFloat(result as number) : result;
}

/** An array value; arrays of arrays exist in the format but in no model, and are refused. */
function items(cursor: Cursor, key: string): MetadataValue {
  const type = u32(cursor, `item type of '${key}'`);
  if (type === array) fail(cursor, `metadata '${key}' is an array of arrays, which no known model uses`);
  const scalar = type === string ? undefined : (scalarTypes[type] ?? unknownType(cursor, key, type));
  // A string has at least its length.
  const length = count(cursor, scalar?.bytes ?? 8, `item count of '${key}'`);
  if (!scalar) {
    const strings = new Array<string>(length);
    for (let i = 0; i < length; i++) strings[i] = text(cursor, key);
    return strings;
  }
  need(cursor, length * scalar.bytes, `items of '${key}'`);
  const { bytes, read } = scalar;
  const { window, at } = cursor;
  const result = new Array<number | boolean>(length);
  for (let i = 0; i < length; i++) result[i] = read(window, at + i * bytes);
  cursor.at += length * bytes;
  return result as number[] | boolean[];
}

function unknownType(cursor: Cursor, key: string, type: number): never {
  return fail(
    cursor,
    `metadata '${key}' has unknown value type ${type}; the file is damaged or newer than this program`,
  );
}

function tensorInfo(cursor: Cursor, index: number, alignment: number): TensorInfo {
  const name = text(cursor, `name of tensor ${index}`, maxNameBytes);
  const rank = u32(cursor, `dimensions of '${name}'`);
  if (rank > 4) fail(cursor, `tensor '${name}' has ${rank} dimensions; GGUF allows 4, the file is damaged`);
  const dims: number[] = [];
  for (let i = 0; i < rank; i++) {
    const size = u64(cursor, `size of '${name}'`);
    if (size === 0n) fail(cursor, `tensor '${name}' has a dimension of size 0; the file is damaged`);
    dims.push(Number(size));
  }
  if (dims.reduce((a, b) => a * b, 1) > Number.MAX_SAFE_INTEGER) {
    fail(cursor, `tensor '${name}' is ${dims.join(' x ')}, more than 2^53 elements; the file is damaged`);
  }
  const type = u32(cursor, `type of '${name}'`);
  const offset = u64(cursor, `offset of '${name}'`);
  if (offset > BigInt(cursor.file.size)) {
    fail(
      cursor,
      `tensor '${name}' starts at byte ${offset} of the data, past the end of the file (${cursor.file.size} bytes); ` +
        'the file is truncated, download it again',
    );
  }
  if (Number(offset) % alignment !== 0) {
    fail(cursor, `tensor '${name}' starts at byte ${offset}, not a multiple of the alignment ${alignment}`);
  }
  return { name, dims, type, offset: Number(offset) };
}

/** Makes `bytes` bytes from the position available. */
function need(cursor: Cursor, bytes: number, what: string): void {
  const end = cursor.at + bytes;
  if (end <= cursor.window.length) return;
  const { size } = cursor.file;
  if (end > size) {
    fail(cursor, `${what} needs ${bytes} bytes at byte ${cursor.at}, but the file ends at ${size}; download it again`);
  }
  if (end > maxHeaderBytes) fail(cursor, `header exceeds ${maxHeaderBytes} bytes at ${what}; the file is damaged`);
  // Doubling keeps the copying linear.
  const have = cursor.window.length;
  const target = Math.min(size, Math.max(end, 2 * have, firstWindow));
  cursor.window = Buffer.concat([cursor.window, cursor.file.read(have, target - have)]);
}

function u32(cursor: Cursor, what: string): number {
  need(cursor, 4, what);
  cursor.at += 4;
  return cursor.window.readUInt32LE(cursor.at - 4);
}

function u64(cursor: Cursor, what: string): bigint {
  need(cursor, 8, what);
  cursor.at += 8;
  return cursor.window.readBigUInt64LE(cursor.at - 8);
}

/** A u64 count of things that take at least `least` bytes each. */
function count(cursor: Cursor, least: number, what: string): number {
  const value = u64(cursor, what);
  const left = cursor.file.size - cursor.at;
  if (value > BigInt(Math.floor(left / least))) {
    fail(cursor, `${what} ${value} needs more than the ${left} bytes that are left; the file is damaged or truncated`);
  }
  return Number(value);
}

/** A string; 64-bit lengths are put together from halves because BigInts would double the time for 400,000 tokens. */
function text(cursor: Cursor, what: string, most = maxHeaderBytes): string {
  need(cursor, 8, what);
  const { window, at } = cursor;
  const length = window.readUInt32LE(at) + window.readUInt32LE(at + 4) * 2 ** 32;
  if (length > most || length > cursor.file.size - at - 8) {
    const exact = window.readBigUInt64LE(at);
    fail(cursor, `string of ${what} claims ${exact} bytes; the file is damaged or truncated`);
  }
  cursor.at = at + 8;
  need(cursor, length, what);
  cursor.at += length;
  return cursor.window.toString('utf8', at + 8, cursor.at);
}

function fail(cursor: Cursor, message: string): never {
  throw new ModelError(`${cursor.file.name}: ${message}`);
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
