/**
 * Reading ranges of a model file. Model files are gigabytes; the readers (safetensors.ts, gguf.ts) look at headers and a few
 * scalars only, so nothing here ever reads a whole file. Everything is synchronous: opening a model happens once, before any
 * work that could run meanwhile. All failures become ModelErrors that name the file.
 */
import { closeSync, constants, fstatSync, openSync, readlinkSync, readSync, statSync } from 'node:fs';
import path from 'node:path';
import { ModelError } from '../../schemas/error.ts';
import type { FloatType } from '../../schemas/types.ts';

/** An open model file. */
export interface ModelFile {
  readonly path: string;
  /** Last part of the path, for messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly mtimeMs: number;
  /** Exactly `length` bytes from `offset`. @throws ModelError when the file ends before */
  read(offset: number, length: number): Buffer;
}

/** What must be remembered of a file to notice that it has changed. */
export type FileStamp = Pick<ModelFile, 'path' | 'size' | 'mtimeMs'>;

/** Opens a file, hands it to `use`, closes it. @throws ModelError when it cannot be opened or is no regular file */
export function withModelFile<T>(file: string, use: (file: ModelFile) => T): T {
  const name = path.basename(file);
  let fd: number;
  try {
    // Opening a pipe must not wait for a writer.
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new ModelError(`${file}: ${reason(error)}`, { cause: error });
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new ModelError(`${file}: not a regular file`);
    const read = (offset: number, length: number): Buffer => {
      const buffer = Buffer.allocUnsafe(length);
      let done = 0;
      while (done < length) {
        const got = readPart(fd, buffer, done, offset + done, file);
        if (got === 0) {
          throw new ModelError(
            `${name}: ends at byte ${offset + done} where ${length - done} more bytes are needed; ` +
              'the file is truncated, download it again',
          );
        }
        done += got;
      }
      return buffer;
    };
    return use({ path: file, name, size: stat.size, mtimeMs: stat.mtimeMs, read });
  } finally {
    closeSync(fd);
  }
}

function readPart(fd: number, buffer: Buffer, done: number, position: number, file: string): number {
  try {
    return readSync(fd, buffer, done, buffer.length - done, position);
  } catch (error) {
    throw new ModelError(`${file}: cannot be read at byte ${position} (${reason(error)})`, { cause: error });
  }
}

/**
 * Whether there is such a file or folder.
 * @throws ModelError when it is a link that leads nowhere (it was meant to be there), or cannot be looked at
 */
export function isPresent(file: string): boolean {
  try {
    statSync(file);
    return true;
  } catch (error) {
    if (!['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) {
      throw new ModelError(`${file}: ${reason(error)}`, { cause: error });
    }
  }
  const target = linkTarget(file);
  if (target === undefined) return false;
  throw new ModelError(
    `${file}: a link to '${target}', which does not exist; download the file again, or copy models with 'cp -L', ` +
      'which copies what links lead to',
  );
}

function linkTarget(file: string): string | undefined {
  try {
    return readlinkSync(file);
  } catch {
    return undefined;
  }
}

/** The file's stamp without its content. @throws ModelError as withModelFile */
export const stampOf = (file: string): FileStamp =>
  withModelFile(file, ({ path, size, mtimeMs }) => ({ path, size, mtimeMs }));

/**
 * A few floats from a file (scales, samples; not for bulk data).
 * @param count elements of `type` from byte `offset`
 */
export function readFloats(file: ModelFile, offset: number, count: number, type: FloatType): Float32Array {
  const bytes = file.read(offset, count * (type === 'f32' ? 4 : 2));
  const out = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    if (type === 'f32') out[i] = bytes.readFloatLE(4 * i);
    else if (type === 'f16') out[i] = halfToFloat(bytes.readUInt16LE(2 * i));
    else out[i] = bfloat16ToFloat(bytes.readUInt16LE(2 * i));
  }
  return out;
}

/** IEEE 754 binary16 -> number: (1 + m / 2^10) * 2^(e - 15); subnormals are m * 2^-24. */
function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const mantissa = half & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

const word = new DataView(new ArrayBuffer(4));

/** bfloat16 is the upper half of a float32. */
function bfloat16ToFloat(bits: number): number {
  word.setUint32(0, bits * 0x10000);
  return word.getFloat32(0);
}

/** A git checkout without git-lfs holds small text files in place of the weights. */
export function isGitLfsPointer(start: Buffer): boolean {
  return start.toString('latin1', 0, 8) === 'version ';
}

/** Message for isGitLfsPointer. */
export const gitLfsAdvice = "is a Git LFS pointer, not the weights; run 'git lfs pull' or download the file itself";

/** Why a file cannot be used, in words. */
export function reason(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'no such file';
  if (code === 'EACCES') return 'permission denied';
  if (code === 'ELOOP') return 'a link that leads back to itself';
  return (error as Error).message;
}
