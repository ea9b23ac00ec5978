/**
 * AArch64 NEON with the dot product and the int8 matrix product extensions (ARMv8.6-A, FEAT_I8MM; Neoverse N2 and V1, Cortex-X2 and
 * A510, Apple M2 and later ones). smmla multiplies 2 x 8 by 8 x 2 bytes, s8 x s8 into int32: twice the products of sdot.
 * Everything else is NEON. Intrinsics: Arm C Language Extensions, Advanced SIMD.
 */
import type { Isa } from './isa.ts';
import { neon } from './neon.ts';

export const neoni8mm: Isa = {
  ...neon,
  name: 'neoni8mm',
  requires: [...neon.requires, 'i8mm'],
  flags: () => ['-march=armv8.2-a+dotprod+i8mm'],
  words: {
    ...neon.words,
    load_pair8: (p, q) => `vcombine_s8(vld1_s8(${p}), vld1_s8(${q}))`,
    zip4_low: (a, b) => `vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(${a}), vreinterpretq_s32_s8(${b})))`,
    zip4_high: (a, b) => `vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(${a}), vreinterpretq_s32_s8(${b})))`,
    mat_next: (acc, u, s) => `vmmlaq_s32(${acc}, ${u}, ${s})`,
  },
};
