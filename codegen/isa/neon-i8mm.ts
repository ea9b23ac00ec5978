/**
 * AArch64 NEON with the dot product and the int8 matrix product extensions (ARMv8.6-A, FEAT_I8MM; Neoverse N2 and V1, Cortex-X2 and
 * A510, Apple M2 and later ones). smmla multiplies 2 x 8 by 8 x 2 bytes, s8 x s8 into int32: twice the products of sdot.
 * Everything else is NEON. Intrinsics: Arm C Language Extensions, Advanced SIMD.
 */
import type { Isa } from './isa.ts';
import { neon } from './neon.ts';

const helpers = {
  ...neon.helpers,
  bn_pin: `/* stays where it is, in the order of all others */
static inline int32x4_t bn_pin(int32x4_t v) {
  __asm__ volatile("" : "+w"(v));
  return v;
}`,
  bn_load_pair8: `static inline int8x16_t bn_load_pair8(const int8_t *p, const int8_t *q) {
  const int64x2_t low = vreinterpretq_s64_s8(vcombine_s8(vld1_s8(p), vdup_n_s8(0)));
  return vreinterpretq_s8_s64(vld1q_lane_s64((const int64_t *)(const void *)q, low, 1));
}`,
};

export const neoni8mm: Isa = {
  ...neon,
  name: 'neoni8mm',
  requires: [...neon.requires, 'i8mm'],
  flags: () => ['-march=armv8.2-a+dotprod+i8mm'],
  helpers,
  words: {
    ...neon.words,
    load_pair8: (p, q) => `bn_load_pair8(${p}, ${q})`,
    zip4_low: (a, b) => `vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(${a}), vreinterpretq_s32_s8(${b})))`,
    zip4_high: (a, b) => `vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(${a}), vreinterpretq_s32_s8(${b})))`,
    pin: (acc) => `bn_pin(${acc})`,
    mat_next: (acc, u, s) => `vmmlaq_s32(${acc}, ${u}, ${s})`,
  },
};
