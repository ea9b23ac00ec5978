/**
 * A view of a file that moves forward: numbers and texts of a GGUF header, one after the other, with at most a megabyte (or one
 * long value) in memory. gguf-header.ts gives them a meaning.
 *
 * Nothing in the file is believed: a count must fit into the bytes that are left, a text into its limit, and the whole header
 * into a quarter of a gigabyte, so that a damaged file ends in a ModelError before anything large is allocated. (The header of
 * BitNet 2B4T, with 128,256 tokens and 280,147 merges, has 8 MB.)
 */
import { ModelError } from '../../schemas/error.ts';
import type { ModelFile } from './file.ts';
import { oneLine } from './json.ts';

const windowBytes = 1 << 20;
const maxHeaderBytes = 1 << 28;
/** Longest text that is kept; chat templates, the longest in use, have some 100 KB. */
const maxTextBytes = 1 << 24;

/** The part of a file in memory, and the position in it. */
export class Window {
  readonly file: ModelFile;
  /** Byte of the file at which the next value starts. */
  at = 0;
  private bytes: Buffer = Buffer.alloc(0);
  /** Byte of the file at which `bytes` starts. */
  private start = 0;
  /** Bytes read so far; what is skipped does not count. */
  private read = 0;

  constructor(file: ModelFile) {
    this.file = file;
  }

  fail(message: string): never {
    throw new ModelError(`${this.file.name}: ${oneLine(message)}`);
  }

  /** The next `length` bytes, which are gone with the next call. @param what for messages */
  take(length: number, what: string): Buffer {
    const at = this.need(length, what);
    this.at += length;
    return this.bytes.subarray(at, at + length);
  }

  u32(what: string): number {
    const at = this.need(4, what);
    this.at += 4;
    return this.bytes.readUInt32LE(at);
  }

  u64(what: string): bigint {
    const at = this.need(8, what);
    this.at += 8;
    return this.bytes.readBigUInt64LE(at);
  }

  /** A u64 count of things that take at least `least` bytes each. */
  count(least: number, what: string): number {
    const value = this.u64(what);
    const left = this.file.size - this.at;
    if (value > BigInt(Math.floor(left / least))) {
      this.fail(`${what} ${value} needs more than the ${left} bytes that are left; the file is damaged or truncated`);
    }
    return Number(value);
  }

  /** A text: u64 bytes, UTF-8. */
  text(what: string, most = maxTextBytes): string {
    const length = this.textLength(what);
    if (length > most) this.fail(`string of ${what} has ${length} bytes, more than ${most}; the file is damaged`);
    const at = this.need(length, what);
    this.at += length;
    return this.bytes.toString('utf8', at, at + length);
  }

  /** Passes over a text without reading it. */
  skipText(what: string): void {
    const length = this.textLength(what);
    this.at += length;
  }

  /** Passes over bytes without reading them. @param length already checked against the file's size */
  skip(length: number): void {
    this.at += length;
  }

  /** 64-bit lengths are put together from halves because BigInts would double the time for 400,000 tokens. */
  private textLength(what: string): number {
    const at = this.need(8, what);
    const length = this.bytes.readUInt32LE(at) + this.bytes.readUInt32LE(at + 4) * 2 ** 32;
    if (length > this.file.size - this.at - 8) {
      const exact = this.bytes.readBigUInt64LE(at);
      this.fail(`string of ${what} claims ${exact} bytes; the file is damaged or truncated`);
    }
    this.at += 8;
    return length;
  }

  /** Makes bytes available. @returns their place in `bytes` */
  private need(length: number, what: string): number {
    const at = this.at - this.start;
    if (at >= 0 && at + length <= this.bytes.length) return at;
    const { size } = this.file;
    if (this.at + length > size) {
      this.fail(`${what} needs ${length} bytes at byte ${this.at}, but the file ends at ${size}; download it again`);
    }
    const bytes = Math.min(size - this.at, Math.max(length, windowBytes));
    this.read += bytes;
    if (this.read > maxHeaderBytes) this.fail(`header exceeds ${maxHeaderBytes} bytes at ${what}; the file is damaged`);
    this.bytes = this.file.read(this.at, bytes);
    this.start = this.at;
    return 0;
  }
}
