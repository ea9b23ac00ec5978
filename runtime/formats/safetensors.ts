/**
 * Header of a safetensors file: which tensors it holds, their types, shapes and byte ranges. huggingface.ts builds a model
 * from it; the data themselves are read later, in C.
 *
 * Layout: u64 LE header length N | N bytes JSON { name: { dtype, shape, data_offsets: [begin, end] }, "__metadata__": {...} }
 * | data. Offsets count from byte 8 + N, and no two tensors overlap. Source: huggingface/safetensors README, "Format"; its limit
 * of 100 MB for the header is lowered to what models need (json.ts).
 */
import { ModelError } from '../../schemas/error.ts';
import type { ModelFile } from './file.ts';
import { gitLfsAdvice, isGitLfsPointer, withModelFile } from './file.ts';
import { isRecord, maxJsonBytes, parseJson, shown } from './json.ts';

/** Bytes per element of every dtype of the format. */
const dtypeBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
} as const;
/** Element types by their name in the header. */
export type Dtype = keyof typeof dtypeBytes;

/** One tensor as the header describes it. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Byte range, counted from the start of the file and inside it. */
  readonly offset: number;
  readonly bytes: number;
}

/** A file's tensors by name. */
export type SafetensorsHeader = ReadonlyMap<string, SafetensorsEntry>;

/**
 * Reads the header, never the data.
 * @returns tensors in the order of the header; of duplicate names the last one counts, as in any JSON reader
 * @throws ModelError when the file is missing, truncated or not well formed
 */
export function readSafetensorsHeader(file: string): SafetensorsHeader {
  return withModelFile(file, parse);
}

function parse(file: ModelFile): SafetensorsHeader {
  const fail = (message: string): never => {
    throw new ModelError(`${file.name}: ${message}`);
  };
  if (file.size < 8) {
    fail(`has ${file.size} bytes, a safetensors file has at least 8; the file is truncated, download it again`);
  }
  const start = file.read(0, 8);
  if (isGitLfsPointer(start)) fail(gitLfsAdvice);
  const length = start.readBigUInt64LE();
  if (length > maxJsonBytes) {
    fail(`header length ${length} exceeds ${maxJsonBytes} bytes; this is not a safetensors file, or it is damaged`);
  }
  const dataStart = 8 + Number(length);
  if (dataStart > file.size) {
    fail(`header ends at byte ${dataStart}, past the end of the file (${file.size} bytes); download it again`);
  }

  const json = parseJson(file.read(8, Number(length)), `${file.name}: header`);
  const tensors = new Map<string, SafetensorsEntry>();
  for (const [name, value] of Object.entries(json)) {
    if (name !== '__metadata__') tensors.set(name, entry(file, dataStart, name, value));
  }
  const sorted = [...tensors.values()].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  for (const [i, { name, offset, bytes }] of sorted.entries()) {
    const next = sorted[i + 1];
    if (next && offset + bytes > next.offset) fail(`tensors '${name}' and '${next.name}' overlap; the file is damaged`);
  }
  return tensors;
}

/** Checks one entry of the header: its fields, its size and its place in the file. */
function entry(file: ModelFile, dataStart: number, name: string, value: unknown): SafetensorsEntry {
  const fail = (message: string): never => {
    throw new ModelError(`${file.name}: tensor '${name}' ${message}`);
  };
  // Names stand in messages.
  if (!/^[^\p{Cc}]{1,1024}$/u.test(name)) {
    throw new ModelError(`${file.name}: ${shown(name)} is no name of a tensor; the header is damaged`);
  }
  if (!isRecord(value)) return fail('is not described by a JSON object; the header is damaged');
  const { dtype, shape, data_offsets: range } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypeBytes, dtype)) {
    return fail(`has unknown dtype ${shown(dtype)}; known are ${Object.keys(dtypeBytes).join(', ')}`);
  }
  if (!isCounts(shape)) return fail(`has shape ${shown(shape)}, not a list of sizes; the header is damaged`);
  if (!isCounts(range) || range.length !== 2) {
    return fail(`has data_offsets ${shown(range)}, not [begin, end]; the header is damaged`);
  }
  const [begin, end] = range as [number, number];
  if (begin > end) return fail(`has reversed data_offsets [${begin}, ${end}]; the header is damaged`);
  const expected = shape.reduce((product, size) => product * size, dtypeBytes[dtype as Dtype]);
  if (end - begin !== expected) {
    return fail(`has ${end - begin} bytes, but ${dtype} ${shown(shape)} needs ${expected}; the header is damaged`);
  }
  if (dataStart + end > file.size) {
    return fail(
      `ends at byte ${dataStart + end}, past the end of the file (${file.size} bytes); ` +
        'the file is truncated, download it again',
    );
  }
  return { name, dtype: dtype as Dtype, shape, offset: dataStart + begin, bytes: end - begin };
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
