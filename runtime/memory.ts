/** How much memory a context needs, and how much there is. */
import { freemem } from 'node:os';
import path from 'node:path';
import { groupMemory, readSystem } from '../schemas/cgroup.ts';
import { LibraryError } from '../schemas/error.ts';
import type { ModelShape } from '../schemas/types.ts';

/** Types of the key-value cache by name, in bits of an element. */
export const kvTypes = { i8: 8, f16: 16, f32: 32 } as const;
export type KvType = keyof typeof kvTypes;
export type KvBits = (typeof kvTypes)[KvType];

/** The type unless another is asked for: the fastest (docs/measurements.md), and as good as f32 on held-out text. */
export const DEFAULT_KV: KvType = 'i8';

/** Bytes of key-value cache and rotary tables for one position. @param kv bits of a cache element */
export function positionBytes(shape: ModelShape, kv: KvBits): number {
  const padded = Math.ceil(shape.headSize / 16) * 16;
  const angles = Math.ceil(shape.headSize / 32) * 16;
  // Codes come with a float scale for each key and value, and keys of codes are padded to four dims.
  const head = kv === 8 ? Math.ceil(shape.headSize / 4) * 4 + padded + 2 * 4 : (shape.headSize + padded) * (kv / 8);
  return shape.layers * shape.kvHeads * head + 2 * angles * 4;
}

/**
 * Bytes that this process can still take: free or reclaimable memory, within the limits of its control groups.
 * @param root folder that holds /proc and /sys
 */
export function availableMemory(root = '/'): number {
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(readSystem(path.join(root, 'proc/meminfo')))?.[1];
  return Math.min(available ? Number(available) * 1024 : freemem(), groupMemory(root));
}

const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;

/**
 * Positions of a context: as asked (0: the model's), else the model's, at most 4096.
 * @param root as of availableMemory @throws LibraryError when the memory does not suffice
 */
export function contextSize(
  shape: ModelShape,
  kv: KvBits,
  wanted = Math.min(shape.context, 4096),
  root?: string,
): number {
  const asked = wanted || shape.context;
  const each = positionBytes(shape, kv);
  const available = availableMemory(root);
  if (each * asked > available)
    throw new LibraryError(
      `a context of ${asked} tokens needs ${megabytes(each * asked)}, but ${Math.floor(available / 1e6)} MB are available; --ctx ${Math.max(1, Math.floor((available * 0.9) / each))} would fit`,
    );
  return asked;
}

/**
 * What to tell whose weights and full cache exceed the memory: it works, since weights are a mapped file, but slowly.
 * @param weightBytes of the packed file @param root as of availableMemory
 */
export function shortageNote(weightBytes: number, cacheBytes: number, root?: string): string | undefined {
  const available = availableMemory(root);
  if (weightBytes + cacheBytes <= available) return undefined;
  return `the weights (${megabytes(weightBytes)}) and a full context (${megabytes(cacheBytes)}) exceed the ${Math.floor(available / 1e6)} MB of memory that are available: weights will be read from the disk again and again; free some memory, or take a smaller model or context`;
}
