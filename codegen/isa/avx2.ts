/**
 * AVX2 with FMA and F16C (x86-64-v3). The byte dot product is vpmaddubsw: pairs of u8 x s8 products in int16, which saturates,
 * so partial sums must be flushed to int32 before they can reach 32,767 (`limit`).
 * Intrinsics: Intel Intrinsics Guide.
 */
import type { Isa } from './isa.ts';

const helpers = {
  bn_sum_ints: `static inline int32_t bn_sum_ints(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}`,
  bn_sum: `/* lanes i and i+4, then +2, then +1 */
static inline float bn_sum(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}`,
  bn_peak: `static inline float bn_peak(__m256 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}`,
  bn_max_or_nan: `/* without sign bits, floats are ordered as their bits are, NaN above infinity */
static inline __m256 bn_max_or_nan(__m256 a, __m256 b) {
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}`,
  bn_peak_or_nan: `static inline float bn_peak_or_nan(__m256 v) {
  const __m256i i = _mm256_castps_si256(v);
  __m128i s = _mm_max_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  s = _mm_max_epi32(s, _mm_unpackhi_epi64(s, s));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(s, _mm_shuffle_epi32(s, 1))));
}`,
  bn_store_int8: `static inline void bn_store_int8(int8_t *p, __m256i v) {
  const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(w, w));
}`,
  bn_signed_bytes: `static inline __m256i bn_signed_bytes(__m256i a, __m256i b, int shift) {
  const __m256i even = _mm256_srai_epi32(_mm256_slli_epi32(a, shift), 24);
  return _mm256_blend_epi16(even, _mm256_srai_epi32(_mm256_slli_epi32(b, shift), 8), 0xaa);
}`,
  bn_pin: `/* nothing is known of the result */
static inline __m256i bn_pin(__m256i v) {
  __asm__("" : "+x"(v));
  return v;
}`,
  bn_zip_low: `static inline __m256i bn_zip_low(__m256i a, __m256i b) {
  return _mm256_permute2x128_si256(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b), 0x20);
}`,
  bn_zip_high: `static inline __m256i bn_zip_high(__m256i a, __m256i b) {
  return _mm256_permute2x128_si256(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b), 0x31);
}`,
  bn_add_odd: `/* pairs of b are multiplied by 0 and c */
static inline __m256i bn_add_odd(__m256i sum, __m256i a, __m256i b, int c) {
  const __m256i odd = _mm256_srli_epi16(a, 8);
  return _mm256_add_epi16(sum, _mm256_add_epi16(odd, _mm256_maddubs_epi16(b, _mm256_set1_epi16((short)(c << 8)))));
}`,
  bn_after: `static inline __m256i bn_after(__m256i a, __m256i b) {
  __asm__("" : "+x"(a) : "x"(b));
  return a;
}`,
  bn_load_columns: `static inline __m256i bn_load_columns(const void *a, const void *b, const void *c, const void *d) {
  const __m128i ab = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)a), _mm_loadl_epi64((const __m128i *)b));
  const __m128i cd = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)c), _mm_loadl_epi64((const __m128i *)d));
  return _mm256_setr_m128i(_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd));
}`,
  bn_mix4: `/* bytes 8 q .. 8 q + 7 of each: unpacking stays within 128 bits, so that they are brought there first */
static inline __m256i bn_mix4(__m256i a, __m256i b, __m256i c, __m256i d, int q) {
  const __m256i i = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  const __m256i e = _mm256_permutevar8x32_epi32(a, i), f = _mm256_permutevar8x32_epi32(b, i);
  const __m256i g = _mm256_permutevar8x32_epi32(c, i), h = _mm256_permutevar8x32_epi32(d, i);
  const __m256i ef = q < 2 ? _mm256_unpacklo_epi8(e, f) : _mm256_unpackhi_epi8(e, f);
  const __m256i gh = q < 2 ? _mm256_unpacklo_epi8(g, h) : _mm256_unpackhi_epi8(g, h);
  return q & 1 ? _mm256_unpackhi_epi16(ef, gh) : _mm256_unpacklo_epi16(ef, gh);
}`,
  bn_broadcast4: `static inline __m256i bn_broadcast4(const void *p) {
  int32_t x;
  __builtin_memcpy(&x, p, 4);
  return _mm256_set1_epi32(x);
}`,
};

export const avx2: Isa = {
  name: 'avx2',
  family: 'x64',
  requires: ['avx2', 'fma', 'f16c'],
  optional: [],
  flags: () => ['-mavx2', '-mfma', '-mf16c'],
  lanes: 8,
  registers: 16,
  dot: { products: 2, limit: 32767, codes: 255 },
  types: {
    table16: '__m256i',
    bytes: '__m256i',
    shorts: '__m256i',
    dots: '__m256i',
    ints: '__m256i',
    floats: '__m256',
  },
  include: '#include <immintrin.h>',
  helpers,
  pause: '__builtin_ia32_pause()',
  words: {
    load_bytes: (p) => `_mm256_loadu_si256((const __m256i *)(${p}))`,
    store_bytes: (p, v) => `_mm256_storeu_si256((__m256i *)(${p}), ${v})`,
    broadcast4: (p) => `bn_broadcast4(${p})`,
    load_columns: (a, b, c, d) => `bn_load_columns(${a}, ${b}, ${c}, ${d})`,
    load_ints: (p) => `_mm256_loadu_si256((const __m256i *)(${p}))`,
    store_ints: (p, v) => `_mm256_storeu_si256((__m256i *)(${p}), ${v})`,
    load_floats: (p) => `_mm256_loadu_ps(${p})`,
    store_floats: (p, v) => `_mm256_storeu_ps(${p}, ${v})`,
    load_halves: (p) => `_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(${p})))`,
    store_halves: (p, v) => `_mm_storeu_si128((__m128i *)(${p}), _mm256_cvtps_ph(${v}, 0))`,
    load_bfloats: (p) =>
      `_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(${p}))), 16))`,
    store_int8: (p, v) => `bn_store_int8(${p}, ${v})`,
    prefetch: (p, level) => `_mm_prefetch((const char *)(${p}), ${level === '2' ? '_MM_HINT_T1' : '_MM_HINT_NTA'})`,
    // Bits that a 16-bit shift brings over from the neighbouring byte lie outside the mask.
    field: (v, shift, mask) =>
      shift === '0'
        ? `_mm256_and_si256(${v}, _mm256_set1_epi8((char)${mask}))`
        : `_mm256_and_si256(_mm256_srli_epi16(${v}, ${shift}), _mm256_set1_epi8((char)${mask}))`,
    sub_bytes: (a, b) => `_mm256_sub_epi8(${a}, ${b})`,
    add_bytes: (a, b) => `_mm256_add_epi8(${a}, ${b})`,
    and_bytes: (a, b) => `_mm256_and_si256(${a}, ${b})`,
    average_bytes: (a, b) => `_mm256_avg_epu8(${a}, ${b})`,
    xor_bytes: (a, b) => `_mm256_xor_si256(${a}, ${b})`,
    after: (a, b) => `bn_after(${a}, ${b})`,
    mix4: (a, b, c, d, q) => `bn_mix4(${a}, ${b}, ${c}, ${d}, ${q})`,
    bytes_as_ints: (v) => v!,
    load_shorts: (p) => `_mm256_loadu_si256((const __m256i *)(${p}))`,
    store_shorts: (p, v) => `_mm256_storeu_si256((__m256i *)(${p}), ${v})`,
    zero_shorts: () => '_mm256_setzero_si256()',
    add_shorts: (a, b) => `_mm256_add_epi16(${a}, ${b})`,
    sub_shorts: (a, b) => `_mm256_sub_epi16(${a}, ${b})`,
    raise_shorts: (a, n) => `_mm256_slli_epi16(${a}, ${n})`,
    low_bytes: (v) => `_mm256_cvtepu8_epi16(_mm256_castsi256_si128(${v}))`,
    high_bytes: (v) => `_mm256_cvtepu8_epi16(_mm256_extracti128_si256(${v}, 1))`,
    signed_bytes: (a, b, j) => `bn_signed_bytes(${a}, ${b}, ${24 - 8 * Number(j)})`,
    add_words: (sum, a, b, c) =>
      `_mm256_add_epi16(${sum}, _mm256_add_epi16(${a}, _mm256_mullo_epi16(${b}, _mm256_set1_epi16(${c}))))`,
    add_odd: (sum, a, b, c) => `bn_add_odd(${sum}, ${a}, ${b}, ${c})`,
    shorts_as_ints: (v) => v!,
    ints_as_shorts: (v) => v!,
    load_table16: (p) => `_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(${p})))`,
    lookup16: (table, v) => `_mm256_shuffle_epi8(${table}, ${v})`,
    dot_zero: () => '_mm256_setzero_si256()',
    dot_next: (acc, u, s) => `_mm256_add_epi16(${acc}, _mm256_maddubs_epi16(${u}, ${s}))`,
    pin: (acc) => `bn_pin(${acc})`,
    dot_flush: (acc, d) => `_mm256_add_epi32(${acc}, _mm256_madd_epi16(${d}, _mm256_set1_epi16(1)))`,
    splat_int: (x) => `_mm256_set1_epi32(${x})`,
    add_ints: (a, b) => `_mm256_add_epi32(${a}, ${b})`,
    sub_ints: (a, b) => `_mm256_sub_epi32(${a}, ${b})`,
    shift_ints: (a, n) => `_mm256_srai_epi32(${a}, ${n})`,
    mul_ints: (a, c) => `_mm256_mullo_epi32(${a}, _mm256_set1_epi32(${c}))`,
    low_half: (a) => `_mm256_srai_epi32(_mm256_slli_epi32(${a}, 16), 16)`,
    zip_low: (a, b) => `bn_zip_low(${a}, ${b})`,
    zip_high: (a, b) => `bn_zip_high(${a}, ${b})`,
    sum_ints: (a) => `bn_sum_ints(${a})`,
    to_floats: (a) => `_mm256_cvtepi32_ps(${a})`,
    round: (a) => `_mm256_cvtps_epi32(${a})`,
    constant: (x) => `_mm256_set1_ps(${x})`,
    splat: (x) => `_mm256_set1_ps(${x})`,
    add: (a, b) => `_mm256_add_ps(${a}, ${b})`,
    sub: (a, b) => `_mm256_sub_ps(${a}, ${b})`,
    mul: (a, b) => `_mm256_mul_ps(${a}, ${b})`,
    div: (a, b) => `_mm256_div_ps(${a}, ${b})`,
    fma: (a, b, c) => `_mm256_fmadd_ps(${a}, ${b}, ${c})`,
    max: (a, b) => `_mm256_max_ps(${a}, ${b})`,
    min: (a, b) => `_mm256_min_ps(${a}, ${b})`,
    max_or_nan: (a, b) => `bn_max_or_nan(${a}, ${b})`,
    abs: (a) => `_mm256_andnot_ps(_mm256_set1_ps(-0.0f), ${a})`,
    exp2i: (n) => `_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(${n}, _mm256_set1_epi32(127)), 23))`,
    sum: (a) => `bn_sum(${a})`,
    peak: (a) => `bn_peak(${a})`,
    peak_or_nan: (a) => `bn_peak_or_nan(${a})`,
  },
};
