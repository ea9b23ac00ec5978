/** Hashes of whole files. Gigabytes are read by a thread of their own, so that packing, Ctrl-C and progress go on meanwhile. */
import crypto from 'node:crypto';
import fs from 'node:fs';
import { Worker } from 'node:worker_threads';

/** Less than this is hashed before a thread would have started. */
const SMALL = 16 << 20;

/**
 * SHA-256 of each file. It knows no name outside itself: the thread gets its text. (A thread that imports this file would need the same
 * loader of TypeScript as its parent, and not every loader works in threads.)
 * @param onBytes gets the bytes that were read since its last call
 */
function hashAll(
  files: readonly string[],
  { openSync, readSync, closeSync }: Pick<typeof fs, 'openSync' | 'readSync' | 'closeSync'>,
  { createHash }: Pick<typeof crypto, 'createHash'>,
  onBytes: (bytes: number) => void,
): string[] {
  const buffer = Buffer.allocUnsafe(4 << 20);
  return files.map((file) => {
    const hash = createHash('sha256');
    const fd = openSync(file, 'r');
    try {
      for (let at = 0, got = 1; got > 0; at += got) {
        got = readSync(fd, buffer, 0, buffer.length, at);
        hash.update(buffer.subarray(0, got));
        onBytes(got);
      }
    } finally {
      closeSync(fd);
    }
    return hash.digest('hex');
  });
}

/** The thread tells how many bytes it has read, and in the end the hashes. */
const THREAD = `
  const { parentPort, workerData } = require('node:worker_threads');
  const tell = (what) => parentPort.postMessage(what);
  tell((${hashAll})(workerData, require('node:fs'), require('node:crypto'), tell));`;

/**
 * SHA-256 of each file.
 * @param onProgress bytes read so far, and in all @throws the system's error; AbortError
 */
export async function hashFiles(
  files: readonly string[],
  signal: AbortSignal,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<string[]> {
  const total = files.reduce((sum, file) => sum + fs.statSync(file).size, 0);
  if (total < SMALL) {
    const hashes = hashAll(files, fs, crypto, () => {});
    onProgress(total, total);
    return hashes;
  }
  signal.throwIfAborted();
  const thread = new Worker(THREAD, { eval: true, execArgv: [], workerData: files });
  const stop = () => thread.terminate();
  signal.addEventListener('abort', stop);
  try {
    return await new Promise((resolve, reject) => {
      let done = 0;
      thread.on('message', (message: number | string[]) => {
        if (typeof message !== 'number') return resolve(message);
        done += message;
        onProgress(done, total);
      });
      thread.on('error', reject);
      thread.on('exit', () => reject(signal.reason ?? new Error('the thread that hashes files ended early')));
    });
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
