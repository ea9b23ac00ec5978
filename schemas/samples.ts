/**
 * A hash of parts of a file: its beginning, its end, and blocks at even distances. Files that differ here are different; files that do
 * not, may still differ. 384 KB are read however large the file is (docs/measurements.md#starting).
 */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

/** Bytes of the beginning and of the end: headers, and what is appended. */
const EDGE = 64 << 10;
const BLOCK = 4096;
const BLOCKS = 64;

/** Parts [offset, bytes] of a file that are read; a small file is read whole. */
function partsOf(size: number): [offset: number, bytes: number][] {
  if (size <= 2 * EDGE + BLOCKS * BLOCK) return [[0, size]];
  const between = size - 2 * EDGE - BLOCK;
  const blocks = Array.from({ length: BLOCKS }, (_, i): [number, number] => [
    EDGE + Math.floor((between * i) / (BLOCKS - 1)),
    BLOCK,
  ]);
  return [[0, EDGE], ...blocks, [size - EDGE, EDGE]];
}

/** SHA-256 over size and samples of files, in this order. @throws the system's error */
export function samplesOf(files: readonly string[]): string {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(2 * EDGE + BLOCKS * BLOCK);
  for (const file of files) {
    const fd = openSync(file, 'r');
    try {
      const { size } = fstatSync(fd);
      hash.update(`${size}:`);
      for (const [offset, bytes] of partsOf(size))
        hash.update(buffer.subarray(0, readSync(fd, buffer, 0, bytes, offset)));
    } finally {
      closeSync(fd);
    }
  }
  return hash.digest('hex');
}
