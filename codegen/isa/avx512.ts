/**
 * AVX-512 F, BW, DQ, VL with VNNI. The byte dot product is vpdpbusd: four u8 x s8 products summed straight into int32, without
 * saturation. VBMI is an optional feature of the CPU profile.
 * Intrinsics: Intel Intrinsics Guide.
 */
import type { Isa } from './isa.ts';

const helpers = {
  bn_sum: `/* lanes i and i+8, then +4, +2, +1 (the compiler's own reduction has no fixed order) */
static inline float bn_sum(__m512 v) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}`,
  bn_max_or_nan: `/* without sign bits, floats are ordered as their bits are, NaN above infinity */
static inline __m512 bn_max_or_nan(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}`,
  bn_peak_or_nan: `static inline float bn_peak_or_nan(__m512 v) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(_mm512_castps_si512(v)))));
}`,
  bn_signed_bytes: `static inline __m512i bn_signed_bytes(__m512i a, __m512i b, int shift) {
  const __m512i even = _mm512_srai_epi32(_mm512_slli_epi32(a, (unsigned)shift), 24);
  return _mm512_mask_blend_epi16(0xaaaaaaaa, even, _mm512_srai_epi32(_mm512_slli_epi32(b, (unsigned)shift), 8));
}`,
  bn_zip_low: `static inline __m512i bn_zip_low(__m512i a, __m512i b) {
  const __m512i i = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  return _mm512_permutex2var_epi32(a, i, b);
}`,
  bn_zip_high: `static inline __m512i bn_zip_high(__m512i a, __m512i b) {
  const __m512i i = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return _mm512_permutex2var_epi32(a, i, b);
}`,
  bn_add_odd: `/* pairs of b are multiplied by 0 and c */
static inline __m512i bn_add_odd(__m512i sum, __m512i a, __m512i b, int c) {
  const __m512i odd = _mm512_srli_epi16(a, 8);
  return _mm512_add_epi16(sum, _mm512_add_epi16(odd, _mm512_maddubs_epi16(b, _mm512_set1_epi16((short)(c << 8)))));
}`,
  bn_load_columns: `static inline __m512i bn_load_columns(const void *a, const void *b, const void *c, const void *d) {
  const __m512i ab = _mm512_or_si512(_mm512_cvtepu8_epi32(_mm_loadu_si128(a)),
                                     _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(b)), 8));
  const __m512i cd = _mm512_or_si512(_mm512_cvtepu8_epi32(_mm_loadu_si128(c)),
                                     _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(d)), 8));
  return _mm512_or_si512(ab, _mm512_slli_epi32(cd, 16));
}`,
  bn_mix4: `/* bytes 16 q .. 16 q + 15 of each: unpacking stays within 128 bits, so that they are brought there first */
static inline __m512i bn_mix4(__m512i a, __m512i b, __m512i c, __m512i d, int q) {
  const __m512i i = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i e = _mm512_permutexvar_epi32(i, a), f = _mm512_permutexvar_epi32(i, b);
  const __m512i g = _mm512_permutexvar_epi32(i, c), h = _mm512_permutexvar_epi32(i, d);
  const __m512i ef = q < 2 ? _mm512_unpacklo_epi8(e, f) : _mm512_unpackhi_epi8(e, f);
  const __m512i gh = q < 2 ? _mm512_unpacklo_epi8(g, h) : _mm512_unpackhi_epi8(g, h);
  return q & 1 ? _mm512_unpackhi_epi16(ef, gh) : _mm512_unpacklo_epi16(ef, gh);
}`,
  bn_broadcast4: `static inline __m512i bn_broadcast4(const void *p) {
  int32_t x;
  __builtin_memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}`,
};

export const avx512: Isa = {
  name: 'avx512',
  family: 'x64',
  requires: ['avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx512_vnni', 'avx2', 'fma', 'f16c'],
  optional: ['avx512vbmi'],
  flags: (features) => [
    '-mavx512f',
    '-mavx512bw',
    '-mavx512dq',
    '-mavx512vl',
    '-mavx512vnni',
    '-mavx2',
    '-mfma',
    '-mf16c',
    '-mprefer-vector-width=512',
    ...(features.includes('avx512vbmi') ? ['-mavx512vbmi'] : []),
  ],
  lanes: 16,
  registers: 32,
  dot: { products: 4, limit: 2 ** 31 - 1, codes: 255 },
  types: {
    table64: '__m512i',
    table32: '__m512i',
    table16: '__m512i',
    bytes: '__m512i',
    shorts: '__m512i',
    dots: '__m512i',
    ints: '__m512i',
    floats: '__m512',
  },
  include: '#include <immintrin.h>',
  helpers,
  pause: '__builtin_ia32_pause()',
  gated: { lookup64: 'avx512vbmi', lookup96: 'avx512vbmi' },
  words: {
    load_bytes: (p) => `_mm512_loadu_si512(${p})`,
    store_bytes: (p, v) => `_mm512_storeu_si512(${p}, ${v})`,
    broadcast4: (p) => `bn_broadcast4(${p})`,
    load_columns: (a, b, c, d) => `bn_load_columns(${a}, ${b}, ${c}, ${d})`,
    load_ints: (p) => `_mm512_loadu_si512(${p})`,
    store_ints: (p, v) => `_mm512_storeu_si512(${p}, ${v})`,
    load_floats: (p) => `_mm512_loadu_ps(${p})`,
    store_floats: (p, v) => `_mm512_storeu_ps(${p}, ${v})`,
    load_halves: (p) => `_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(${p})))`,
    store_halves: (p, v) => `_mm256_storeu_si256((__m256i *)(${p}), _mm512_cvtps_ph(${v}, 0))`,
    load_bfloats: (p) =>
      `_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(${p}))), 16))`,
    store_int8: (p, v) => `_mm_storeu_si128((__m128i *)(${p}), _mm512_cvtsepi32_epi8(${v}))`,
    prefetch: (p, level) => `_mm_prefetch((const char *)(${p}), ${level === '2' ? '_MM_HINT_T1' : '_MM_HINT_NTA'})`,
    // Bits that a 16-bit shift brings over from the neighbouring byte lie outside the mask.
    field: (v, shift, mask) =>
      shift === '0'
        ? `_mm512_and_si512(${v}, _mm512_set1_epi8((char)${mask}))`
        : `_mm512_and_si512(_mm512_srli_epi16(${v}, ${shift}), _mm512_set1_epi8((char)${mask}))`,
    sub_bytes: (a, b) => `_mm512_sub_epi8(${a}, ${b})`,
    add_bytes: (a, b) => `_mm512_add_epi8(${a}, ${b})`,
    and_bytes: (a, b) => `_mm512_and_si512(${a}, ${b})`,
    average_bytes: (a, b) => `_mm512_avg_epu8(${a}, ${b})`,
    xor_bytes: (a, b) => `_mm512_xor_si512(${a}, ${b})`,
    after: (a) => a!,
    mix4: (a, b, c, d, q) => `bn_mix4(${a}, ${b}, ${c}, ${d}, ${q})`,
    bytes_as_ints: (v) => v!,
    load_shorts: (p) => `_mm512_loadu_si512(${p})`,
    store_shorts: (p, v) => `_mm512_storeu_si512(${p}, ${v})`,
    zero_shorts: () => '_mm512_setzero_si512()',
    add_shorts: (a, b) => `_mm512_add_epi16(${a}, ${b})`,
    sub_shorts: (a, b) => `_mm512_sub_epi16(${a}, ${b})`,
    raise_shorts: (a, n) => `_mm512_slli_epi16(${a}, ${n})`,
    low_bytes: (v) => `_mm512_cvtepu8_epi16(_mm512_castsi512_si256(${v}))`,
    high_bytes: (v) => `_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(${v}, 1))`,
    signed_bytes: (a, b, j) => `bn_signed_bytes(${a}, ${b}, ${24 - 8 * Number(j)})`,
    add_words: (sum, a, b, c) =>
      `_mm512_add_epi16(${sum}, _mm512_add_epi16(${a}, _mm512_mullo_epi16(${b}, _mm512_set1_epi16(${c}))))`,
    add_odd: (sum, a, b, c) => `bn_add_odd(${sum}, ${a}, ${b}, ${c})`,
    shorts_as_ints: (v) => v!,
    ints_as_shorts: (v) => v!,
    load_table64: (p) => `_mm512_loadu_si512(${p})`,
    // The instructions look at six and seven bits of an index: what a 16-bit shift brings over does not matter.
    lookup64: (table, v, shift) =>
      `_mm512_permutexvar_epi8(${shift === '0' ? v : `_mm512_srli_epi16(${v}, ${shift})`}, ${table})`,
    load_table32: (p) => `_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(${p})))`,
    lookup96: (low, high, v) => `_mm512_permutex2var_epi8(${low}, ${v}, ${high})`,
    load_table16: (p) => `_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(${p})))`,
    lookup16: (table, v) => `_mm512_shuffle_epi8(${table}, ${v})`,
    dot_zero: () => '_mm512_setzero_si512()',
    dot_next: (acc, u, s) => `_mm512_dpbusd_epi32(${acc}, ${u}, ${s})`,
    pin: (acc) => acc!,
    dot_flush: (acc, d) => `_mm512_add_epi32(${acc}, ${d})`,
    splat_int: (x) => `_mm512_set1_epi32(${x})`,
    add_ints: (a, b) => `_mm512_add_epi32(${a}, ${b})`,
    sub_ints: (a, b) => `_mm512_sub_epi32(${a}, ${b})`,
    shift_ints: (a, n) => `_mm512_srai_epi32(${a}, ${n})`,
    mul_ints: (a, c) => `_mm512_mullo_epi32(${a}, _mm512_set1_epi32(${c}))`,
    low_half: (a) => `_mm512_srai_epi32(_mm512_slli_epi32(${a}, 16), 16)`,
    zip_low: (a, b) => `bn_zip_low(${a}, ${b})`,
    zip_high: (a, b) => `bn_zip_high(${a}, ${b})`,
    sum_ints: (a) => `_mm512_reduce_add_epi32(${a})`,
    to_floats: (a) => `_mm512_cvtepi32_ps(${a})`,
    round: (a) => `_mm512_cvtps_epi32(${a})`,
    constant: (x) => `_mm512_set1_ps(${x})`,
    splat: (x) => `_mm512_set1_ps(${x})`,
    add: (a, b) => `_mm512_add_ps(${a}, ${b})`,
    sub: (a, b) => `_mm512_sub_ps(${a}, ${b})`,
    mul: (a, b) => `_mm512_mul_ps(${a}, ${b})`,
    div: (a, b) => `_mm512_div_ps(${a}, ${b})`,
    fma: (a, b, c) => `_mm512_fmadd_ps(${a}, ${b}, ${c})`,
    max: (a, b) => `_mm512_max_ps(${a}, ${b})`,
    min: (a, b) => `_mm512_min_ps(${a}, ${b})`,
    max_or_nan: (a, b) => `bn_max_or_nan(${a}, ${b})`,
    abs: (a) => `_mm512_abs_ps(${a})`,
    exp2i: (n) => `_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(${n}, _mm512_set1_epi32(127)), 23))`,
    sum: (a) => `bn_sum(${a})`,
    peak: (a) => `_mm512_reduce_max_ps(${a})`,
    peak_or_nan: (a) => `bn_peak_or_nan(${a})`,
  },
};
