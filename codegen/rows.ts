/**
 * Types of embedding and head rows. The packed file holds them as the model's file does: the kernels read plain floats there,
 * and blocks are decoded to float32 before, a few rows at a time (templates/rows.c).
 */
import type { FloatType, RowType } from '../schemas/types.ts';
import { LANES, roundUp } from './kernels/kernel.ts';

/** So many elements along a row in so many bytes; `id`: BN_F32 and so on in templates/decode.h. Source: ggml-common.h. */
const rowTypes = {
  f32: { id: 0, elements: 1, bytes: 4 },
  f16: { id: 1, elements: 1, bytes: 2 },
  bf16: { id: 30, elements: 1, bytes: 2 },
  q4_0: { id: 2, elements: 32, bytes: 18 },
  q8_0: { id: 8, elements: 32, bytes: 34 },
  q6_k: { id: 14, elements: 256, bytes: 210 },
} as const satisfies Record<RowType, { id: number; elements: number; bytes: number }>;

/** Is it made of blocks? */
export const isBlocks = (type: RowType): boolean => rowTypes[type].elements > 1;

/** Elements of a block; rows are whole blocks. */
export const blockElements = (type: RowType): number => rowTypes[type].elements;

/** Bytes of a row: floats are padded to whole groups of lanes, which blocks are already. */
export const rowBytes = (type: RowType, cols: number): number =>
  (roundUp(cols, LANES) / rowTypes[type].elements) * rowTypes[type].bytes;

/** The type in which the kernels see the rows. */
export const kernelType = (type: RowType): FloatType =>
  type === 'f32' || type === 'f16' || type === 'bf16' ? type : 'f32';

/** The type in C: a number, and its name as a comment. */
export const rowConstant = (type: RowType): string => `${rowTypes[type].id} /* BN_${type.toUpperCase()} */`;
