/** Hashes of whole files. Gigabytes are read by threads of their own, so that packing, Ctrl-C and progress go on meanwhile. */
import crypto from 'node:crypto';
import fs from 'node:fs';
import { Worker } from 'node:worker_threads';

/** Files are hashed in pieces of so many bytes, which several threads can share. */
const PIECE = 64 << 20;
/** Less than this is hashed before a thread would have started. */
const SMALL = 16 << 20;

interface Piece {
  readonly file: string;
  readonly offset: number;
  readonly bytes: number;
}

/**
 * SHA-256 of each piece. It knows no name outside itself: a thread gets its text. (A thread that imports this file would need the same
 * loader of TypeScript as its parent, and not every loader works in threads.)
 * @param onBytes gets the bytes that were read since its last call
 */
function hashPieces(
  pieces: readonly Piece[],
  { openSync, readSync, closeSync }: Pick<typeof fs, 'openSync' | 'readSync' | 'closeSync'>,
  { createHash }: Pick<typeof crypto, 'createHash'>,
  onBytes: (bytes: number) => void,
): string[] {
  const buffer = Buffer.allocUnsafe(4 << 20);
  return pieces.map(({ file, offset, bytes }) => {
    const hash = createHash('sha256');
    const fd = openSync(file, 'r');
    try {
      for (let at = 0, got = 1; got > 0; at += got) {
        got = readSync(fd, buffer, 0, Math.min(buffer.length, bytes - at), offset + at);
        hash.update(buffer.subarray(0, got));
        onBytes(got);
      }
    } finally {
      closeSync(fd);
    }
    return hash.digest('hex');
  });
}

/** A thread tells how many bytes it has read, and in the end the hashes. */
const THREAD = `
  const { parentPort, workerData } = require('node:worker_threads');
  const tell = (what) => parentPort.postMessage(what);
  tell((${hashPieces})(workerData, require('node:fs'), require('node:crypto'), tell));`;

/** Pieces of one thread. */
async function inThread(
  pieces: readonly Piece[],
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<string[]> {
  const thread = new Worker(THREAD, { eval: true, execArgv: [], workerData: pieces });
  const stop = () => thread.terminate();
  signal.addEventListener('abort', stop);
  try {
    return await new Promise((resolve, reject) => {
      thread.on('message', (message: number | string[]) =>
        typeof message === 'number' ? onBytes(message) : resolve(message),
      );
      thread.on('error', reject);
      thread.on('exit', () => reject(signal.reason ?? new Error('a thread that hashes files ended early')));
    });
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/**
 * SHA-256 over the sizes of files and the SHA-256 of all their pieces, in this order.
 * @param threads most that read at the same time
 * @param onProgress bytes read so far, and in all @throws the system's error; AbortError
 */
export async function hashFiles(
  files: readonly string[],
  threads: number,
  signal: AbortSignal,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<string> {
  signal.throwIfAborted();
  const sizes = files.map((file) => fs.statSync(file).size);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const pieces = files.flatMap((file, i) =>
    Array.from({ length: Math.ceil(sizes[i]! / PIECE) }, (_, p) => ({
      file,
      offset: p * PIECE,
      bytes: Math.min(PIECE, sizes[i]! - p * PIECE),
    })),
  );
  let done = 0;
  const onBytes = (bytes: number) => {
    done += bytes;
    onProgress(done, total);
  };
  const count = Math.min(threads, pieces.length);
  const shares = Array.from({ length: count }, (_, t) => pieces.filter((_, i) => i % count === t));
  // When one fails, the others need not go on.
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  try {
    const hashed =
      total < SMALL
        ? [hashPieces(pieces, fs, crypto, onBytes)]
        : await Promise.all(shares.map((share) => inThread(share, either, onBytes)));
    const hashes = pieces.map((_, i) => hashed[i % hashed.length]![Math.floor(i / hashed.length)]);
    return crypto
      .createHash('sha256')
      .update(JSON.stringify([sizes, hashes]))
      .digest('hex');
  } finally {
    stop.abort();
  }
}
