/** What one decoded token must read from memory, by the layout of the packed weights file. */
import { fastBytes } from '../codegen/graph.ts';
import type { HeadMode } from '../runtime/engine.ts';
import { positionBytes } from '../runtime/memory.ts';
import type { ModelShape } from '../schemas/types.ts';

type CacheBits = Parameters<typeof positionBytes>[1];

/** Bytes of one token, each kind once. */
export interface TokenBytes {
  /** Ternary matrices, padding included. */
  readonly ternary: number;
  /** The head's rows, or its screen where there is one, of 4 bits for the fast head; the few rows that a screen lets pass are not counted. */
  readonly head: number;
  /** Keys and values of all positions of the context. */
  readonly kv: number;
  /** One row of the embedding, and the norms' weights. */
  readonly other: number;
}

/** Shares of the rows of the gate and of `up`, and of the columns of `down`, that a token reads. */
interface Shares {
  readonly gates: number;
  readonly rows: number;
  readonly columns: number;
}

interface Tensor {
  readonly name: string;
  readonly kind: string;
  readonly rows: number;
  readonly bytes: number;
}

/** Keys and values of one position: without layers, a position costs its rotary angles only. */
const cacheBytes = (shape: ModelShape, kv: CacheBits): number =>
  positionBytes(shape, kv) - positionBytes({ ...shape, layers: 0 }, kv);

/** @param tensors of the layout @param context positions that are filled @param shares what is not skipped: everything by default */
export function tokenBytes(
  tensors: readonly Tensor[],
  shape: ModelShape,
  kv: CacheBits,
  context: number,
  head: HeadMode,
  shares: Shares = { gates: 1, rows: 1, columns: 1 },
): TokenBytes {
  const shareOf: Readonly<Record<string, number>> = {
    ffn_gate: shares.gates,
    ffn_up: shares.rows,
    ffn_down: shares.columns,
  };
  const sum = (kind: string) =>
    tensors
      .filter((t) => t.kind === kind)
      .reduce((all, t) => all + Math.round(t.bytes * (shareOf[t.name.split('.').at(-1)!] ?? 1)), 0);
  const named = (name: string) => tensors.find((t) => t.name === name);
  const embedding = named('token_embd')!;
  const screen = head === 'full' ? undefined : named('output_screen');
  return {
    ternary: sum('ternary'),
    head: head === 'fast' && screen ? fastBytes(shape) : (screen ?? named('output') ?? embedding).bytes,
    kv: cacheBytes(shape, kv) * context,
    other: embedding.bytes / embedding.rows + sum('vector'),
  };
}

/** All bytes of a token. */
export const totalOf = (bytes: TokenBytes): number => bytes.ternary + bytes.head + bytes.kv + bytes.other;
