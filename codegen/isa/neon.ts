/**
 * AArch64 NEON with the dot product extension (ARMv8.2-A, FEAT_DotProd). The byte dot product is sdot, s8 x s8 into int32:
 * codes must stay below 128, which ternary codes do.
 * Intrinsics: Arm C Language Extensions, Advanced SIMD.
 */
import type { Isa } from './isa.ts';

const helpers = {
  bn_broadcast4: `static inline int8x16_t bn_broadcast4(const void *p) {
  int32_t x;
  __builtin_memcpy(&x, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(x));
}`,
  bn_add_odd: `static inline int16x8_t bn_add_odd(int16x8_t sum, int8x16_t a, int8x16_t b, int16_t c) {
  const uint16x8_t low = vsraq_n_u16(vreinterpretq_u16_s16(sum), vreinterpretq_u16_s8(a), 8);
  return vreinterpretq_s16_u16(vmlaq_n_u16(low, vshrq_n_u16(vreinterpretq_u16_s8(b), 8), (uint16_t)c));
}`,
  bn_after: `static inline int8x16_t bn_after(int8x16_t a, int8x16_t b) {
  __asm__("" : "+w"(a) : "w"(b));
  return a;
}`,
  bn_load_columns: `static inline int8x16_t bn_load_columns(const void *a, const void *b, const void *c, const void *d) {
  int64_t column[4] = {0};
  __builtin_memcpy(&column[0], a, 4);
  __builtin_memcpy(&column[1], b, 4);
  __builtin_memcpy(&column[2], c, 4);
  __builtin_memcpy(&column[3], d, 4);
  const int8x8_t ab = vzip1_s8(vcreate_s8((uint64_t)column[0]), vcreate_s8((uint64_t)column[1]));
  const int8x8_t cd = vzip1_s8(vcreate_s8((uint64_t)column[2]), vcreate_s8((uint64_t)column[3]));
  const int16x4x2_t lanes = vzip_s16(vreinterpret_s16_s8(ab), vreinterpret_s16_s8(cd));
  return vreinterpretq_s8_s16(vcombine_s16(lanes.val[0], lanes.val[1]));
}`,
  bn_mix4: `/* bytes 4 q .. 4 q + 3 of each */
static inline int8x16_t bn_mix4(int8x16_t a, int8x16_t b, int8x16_t c, int8x16_t d, int q) {
  const int16x8_t ab = vreinterpretq_s16_s8(q < 2 ? vzip1q_s8(a, b) : vzip2q_s8(a, b));
  const int16x8_t cd = vreinterpretq_s16_s8(q < 2 ? vzip1q_s8(c, d) : vzip2q_s8(c, d));
  return vreinterpretq_s8_s16(q & 1 ? vzip2q_s16(ab, cd) : vzip1q_s16(ab, cd));
}`,
  bn_signed_bytes: `/* the even int16 lanes of both */
static inline int16x8_t bn_signed_bytes(int32x4_t a, int32x4_t b, int shift) {
  const int32x4_t left = vdupq_n_s32(shift);
  return vtrn1q_s16(vreinterpretq_s16_s32(vshrq_n_s32(vshlq_s32(a, left), 24)),
                    vreinterpretq_s16_s32(vshrq_n_s32(vshlq_s32(b, left), 24)));
}`,
  bn_lookup96: `static inline int8x16_t bn_lookup96(int8x16x4_t low, int8x16x2_t high, int8x16_t v) {
  const uint8x16_t i = vreinterpretq_u8_s8(v);
  return vqtbx2q_s8(vqtbl4q_s8(low, i), high, vsubq_u8(i, vdupq_n_u8(64)));
}`,
  bn_sum: `/* lanes i and i+2, then +1 */
static inline float bn_sum(float32x4_t v) {
  const float32x2_t s = vadd_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}`,
  bn_store_int8: `static inline void bn_store_int8(int8_t *p, int32x4_t v) {
  const int16x4_t w = vqmovn_s32(v);
  const int8x8_t b = vqmovn_s16(vcombine_s16(w, w));
  __builtin_memcpy(p, &b, 4);
}`,
};

export const neon: Isa = {
  name: 'neon',
  family: 'arm64',
  requires: ['asimddp'],
  optional: [],
  flags: () => ['-march=armv8.2-a+dotprod'],
  lanes: 4,
  registers: 32,
  dot: { products: 4, limit: 2 ** 31 - 1, codes: 127 },
  types: {
    table64: 'int8x16x4_t',
    table32: 'int8x16x2_t',
    table16: 'int8x16_t',
    bytes: 'int8x16_t',
    shorts: 'int16x8_t',
    dots: 'int32x4_t',
    ints: 'int32x4_t',
    floats: 'float32x4_t',
  },
  include: '#include <arm_neon.h>',
  helpers,
  pause: '__asm__ volatile("isb")',
  words: {
    load_bytes: (p) => `vld1q_s8((const int8_t *)(${p}))`,
    store_bytes: (p, v) => `vst1q_s8((int8_t *)(${p}), ${v})`,
    broadcast4: (p) => `bn_broadcast4(${p})`,
    load_columns: (a, b, c, d) => `bn_load_columns(${a}, ${b}, ${c}, ${d})`,
    load_ints: (p) => `vld1q_s32(${p})`,
    store_ints: (p, v) => `vst1q_s32(${p}, ${v})`,
    load_floats: (p) => `vld1q_f32(${p})`,
    store_floats: (p, v) => `vst1q_f32(${p}, ${v})`,
    load_halves: (p) => `vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(${p})))`,
    store_halves: (p, v) => `vst1_u16(${p}, vreinterpret_u16_f16(vcvt_f16_f32(${v})))`,
    load_bfloats: (p) => `vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(${p}), 16))`,
    store_int8: (p, v) => `bn_store_int8(${p}, ${v})`,
    prefetch: (p, level) => `__builtin_prefetch(${p}, 0, ${level})`,
    field: (v, shift, mask) => {
      const shifted = shift === '0' ? v : `vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(${v}), ${shift}))`;
      return Number(mask) === 255 >> Number(shift) ? shifted! : `vandq_s8(${shifted}, vdupq_n_s8(${mask}))`;
    },
    sub_bytes: (a, b) => `vsubq_s8(${a}, ${b})`,
    add_bytes: (a, b) => `vaddq_s8(${a}, ${b})`,
    and_bytes: (a, b) => `vandq_s8(${a}, ${b})`,
    average_bytes: (a, b) => `vreinterpretq_s8_u8(vrhaddq_u8(vreinterpretq_u8_s8(${a}), vreinterpretq_u8_s8(${b})))`,
    xor_bytes: (a, b) => `veorq_s8(${a}, ${b})`,
    after: (a, b) => `bn_after(${a}, ${b})`,
    mix4: (a, b, c, d, q) => `bn_mix4(${a}, ${b}, ${c}, ${d}, ${q})`,
    bytes_as_ints: (v) => `vreinterpretq_s32_s8(${v})`,
    load_shorts: (p) => `vreinterpretq_s16_u8(vld1q_u8(${p}))`,
    store_shorts: (p, v) => `vst1q_u8(${p}, vreinterpretq_u8_s16(${v}))`,
    zero_shorts: () => 'vdupq_n_s16(0)',
    add_shorts: (a, b) => `vaddq_s16(${a}, ${b})`,
    sub_shorts: (a, b) => `vsubq_s16(${a}, ${b})`,
    raise_shorts: (a, n) => `vshlq_n_s16(${a}, ${n})`,
    low_bytes: (v) => `vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(vreinterpretq_u8_s8(${v}))))`,
    high_bytes: (v) => `vreinterpretq_s16_u16(vmovl_high_u8(vreinterpretq_u8_s8(${v})))`,
    signed_bytes: (a, b, j) => `bn_signed_bytes(${a}, ${b}, ${24 - 8 * Number(j)})`,
    add_words: (sum, a, b, c) =>
      `vmlaq_n_s16(vaddq_s16(${sum}, vreinterpretq_s16_s8(${a})), vreinterpretq_s16_s8(${b}), ${c})`,
    add_odd: (sum, a, b, c) => `bn_add_odd(${sum}, ${a}, ${b}, ${c})`,
    shorts_as_ints: (v) => `vreinterpretq_s32_s16(${v})`,
    ints_as_shorts: (v) => `vreinterpretq_s16_s32(${v})`,
    load_table64: (p) => `vld1q_s8_x4((const int8_t *)(${p}))`,
    lookup64: (table, v, shift) => {
      const bytes = `vreinterpretq_u8_s8(${v})`;
      const shifted = shift === '0' ? bytes : `vshrq_n_u8(${bytes}, ${shift})`;
      return `vqtbl4q_s8(${table}, ${shift === '2' ? shifted : `vandq_u8(${shifted}, vdupq_n_u8(63))`})`;
    },
    // tbl gives 0 and tbx its first argument where the index is beyond the table.
    load_table32: (p) => `vld1q_s8_x2((const int8_t *)(${p}))`,
    lookup96: (low, high, v) => `bn_lookup96(${low}, ${high}, ${v})`,
    load_table16: (p) => `vld1q_s8((const int8_t *)(${p}))`,
    lookup16: (table, v) => `vqtbl1q_s8(${table}, vreinterpretq_u8_s8(${v}))`,
    dot_zero: () => 'vdupq_n_s32(0)',
    dot_next: (acc, u, s) => `vdotq_s32(${acc}, ${u}, ${s})`,
    pin: (acc) => acc!,
    dot_flush: (acc, d) => `vaddq_s32(${acc}, ${d})`,
    splat_int: (x) => `vdupq_n_s32(${x})`,
    add_ints: (a, b) => `vaddq_s32(${a}, ${b})`,
    sub_ints: (a, b) => `vsubq_s32(${a}, ${b})`,
    shift_ints: (a, n) => `vshrq_n_s32(${a}, ${n})`,
    mul_ints: (a, c) => `vmulq_n_s32(${a}, ${c})`,
    low_half: (a) => `vshrq_n_s32(vshlq_n_s32(${a}, 16), 16)`,
    zip_low: (a, b) => `vzip1q_s32(${a}, ${b})`,
    zip_high: (a, b) => `vzip2q_s32(${a}, ${b})`,
    sum_ints: (a) => `vaddvq_s32(${a})`,
    to_floats: (a) => `vcvtq_f32_s32(${a})`,
    round: (a) => `vcvtnq_s32_f32(${a})`,
    constant: (x) => `vdupq_n_f32(${x})`,
    splat: (x) => `vdupq_n_f32(${x})`,
    add: (a, b) => `vaddq_f32(${a}, ${b})`,
    sub: (a, b) => `vsubq_f32(${a}, ${b})`,
    mul: (a, b) => `vmulq_f32(${a}, ${b})`,
    div: (a, b) => `vdivq_f32(${a}, ${b})`,
    fma: (a, b, c) => `vfmaq_f32(${c}, ${a}, ${b})`,
    max: (a, b) => `vmaxq_f32(${a}, ${b})`,
    min: (a, b) => `vminq_f32(${a}, ${b})`,
    // fmax is NaN where one operand is, as fmaxv is.
    max_or_nan: (a, b) => `vmaxq_f32(${a}, ${b})`,
    abs: (a) => `vabsq_f32(${a})`,
    exp2i: (n) => `vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(${n}, vdupq_n_s32(127)), 23))`,
    sum: (a) => `bn_sum(${a})`,
    peak: (a) => `vmaxvq_f32(${a})`,
    peak_or_nan: (a) => `vmaxvq_f32(${a})`,
  },
};
