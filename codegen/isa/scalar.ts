/**
 * Portable C: a "vector" is one lane of 32 bits. It runs on every CPU and is what the other instruction sets are compared
 * with. fmaf is the C library's: correctly rounded by its standard, so it gives the same bits as a fused instruction.
 */
import type { Isa } from './isa.ts';

const helpers = {
  bn_store4: `static inline void bn_store4(void *p, uint32_t v) { memcpy(p, &v, 4); }`,
  bn_dot4: `/* sum of four products u8 x s8 */
static inline int32_t bn_dot4(uint32_t u, uint32_t s) {
  return (int32_t)(u & 255) * (int8_t)s + (int32_t)(u >> 8 & 255) * (int8_t)(s >> 8) +
         (int32_t)(u >> 16 & 255) * (int8_t)(s >> 16) + (int32_t)(u >> 24) * (int8_t)(s >> 24);
}`,
  bn_sub_bytes: `/* a - b in each byte: no borrow leaves a byte whose high bit is set in a and clear in b */
static inline uint32_t bn_sub_bytes(uint32_t a, uint32_t b) {
  return ((a | 0x80808080u) - (b & 0x7f7f7f7fu)) ^ ((a ^ ~b) & 0x80808080u);
}`,
  bn_add_bytes: `/* a + b in each byte: the high bits are added without carry */
static inline uint32_t bn_add_bytes(uint32_t a, uint32_t b) {
  return ((a & 0x7f7f7f7fu) + (b & 0x7f7f7f7fu)) ^ ((a ^ b) & 0x80808080u);
}`,
  bn_average_bytes: `/* (a + b + 1) >> 1 in each byte: a | b less half of what differs */
static inline uint32_t bn_average_bytes(uint32_t a, uint32_t b) {
  return (a | b) - ((a ^ b) >> 1 & 0x7f7f7f7fu);
}`,
  bn_add_shorts: `/* the two halves apart: their high bits are added without carry */
static inline uint32_t bn_add_shorts(uint32_t a, uint32_t b) {
  return ((a & 0x7fff7fffu) + (b & 0x7fff7fffu)) ^ ((a ^ b) & 0x80008000u);
}`,
  bn_sub_shorts: `static inline uint32_t bn_sub_shorts(uint32_t a, uint32_t b) {
  return ((a | 0x80008000u) - (b & 0x7fff7fffu)) ^ ((a ^ ~b) & 0x80008000u);
}`,
  bn_lookup64: `static inline uint32_t bn_lookup64(const uint8_t *table, uint32_t v, int shift) {
  uint32_t r = 0;
  for (int i = 0; i < 32; i += 8) r |= (uint32_t)table[v >> i >> shift & (255 >> shift) & 63] << i;
  return r;
}`,
  bn_add_words: `static inline uint32_t bn_add_words(uint32_t sum, uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t low = (sum & 0xffff) + (a & 0xffff) + c * (b & 0xffff), high = (sum >> 16) + (a >> 16) + c * (b >> 16);
  return (low & 0xffff) | high << 16;
}`,
  bn_lookup16: `static inline uint32_t bn_lookup16(const uint8_t *table, uint32_t v) {
  uint32_t r = 0;
  for (int i = 0; i < 32; i += 8) r |= (uint32_t)table[v >> i & 255] << i;
  return r;
}`,
  bn_lookup96: `static inline uint32_t bn_lookup96(const uint8_t *low, const uint8_t *high, uint32_t v) {
  uint32_t r = 0;
  for (int i = 0; i < 32; i += 8) r |= (uint32_t)((v >> i & 64) ? high : low)[v >> i & 63] << i;
  return r;
}`,
  bn_float: `static inline float bn_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}`,
  bn_bits: `static inline uint32_t bn_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
}`,
  bn_from_half: `/* binary16 -> float: rebias by a multiplication, which also handles subnormals */
static inline float bn_from_half(uint16_t h) {
  const float magnitude = bn_float((uint32_t)(h & 0x7fff) << 13) * 0x1p112f;
  return (h & 0x7c00) == 0x7c00 ? bn_float((uint32_t)(h & 0x8000) << 16 | 0x7f800000u | (uint32_t)(h & 0x3ff) << 13)
                                : (h & 0x8000 ? -magnitude : magnitude);
}`,
  bn_to_half: `/* float -> binary16, ties to even: adding 0.5 (subnormals) or half of the last kept bit rounds in hardware */
static inline uint16_t bn_to_half(float f) {
  const uint32_t bits = bn_bits(f), sign = bits >> 16 & 0x8000;
  const uint32_t a = bits & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
  if (a < 0x38800000u) return (uint16_t)(sign | (bn_bits(bn_float(a) + 0.5f) - 0x3f000000u));
  return (uint16_t)(sign | ((a + 0xc8000fffu + (a >> 13 & 1)) >> 13));
}`,
  bn_round: `/* ties to even for |x| < 2^22: the sum's last bit is worth one */
static inline int32_t bn_round(float x) { return (int32_t)(bn_bits(x + 0x1.8p23f) - 0x4b400000u); }`,
};

export const scalar: Isa = {
  name: 'scalar',
  family: 'any',
  requires: [],
  optional: [],
  flags: () => [],
  lanes: 1,
  registers: Number.POSITIVE_INFINITY,
  dot: { products: 4, limit: 2 ** 31 - 1, codes: 255 },
  types: {
    table64: 'uint8_t *',
    table32: 'uint8_t *',
    table16: 'uint8_t *',
    bytes: 'uint32_t',
    shorts: 'uint32_t',
    dots: 'int32_t',
    ints: 'int32_t',
    floats: 'float',
  },
  include: '#include <math.h>\n#include <string.h>',
  helpers,
  pause: '(void)0',
  words: {
    load_bytes: (p) => `bn_load4(${p})`,
    store_bytes: (p, v) => `bn_store4(${p}, ${v})`,
    broadcast4: (p) => `bn_load4(${p})`,
    load_columns: (a, b, c, d) =>
      `(uint8_t)*(${a}) | (uint32_t)(uint8_t)*(${b}) << 8 | (uint32_t)(uint8_t)*(${c}) << 16 | (uint32_t)(uint8_t)*(${d}) << 24`,
    load_ints: (p) => `*(${p})`,
    store_ints: (p, v) => `*(${p}) = ${v}`,
    load_floats: (p) => `*(${p})`,
    store_floats: (p, v) => `*(${p}) = ${v}`,
    load_halves: (p) => `bn_from_half(*(${p}))`,
    store_halves: (p, v) => `*(${p}) = bn_to_half(${v})`,
    load_bfloats: (p) => `bn_float((uint32_t)*(${p}) << 16)`,
    store_int8: (p, v) => `*(${p}) = (int8_t)${v}`,
    prefetch: (p) => `(void)(${p})`,
    field: (v, shift, mask) => {
      const wide = `0x${Number(mask).toString(16).padStart(2, '0').repeat(4)}u`;
      return shift === '0' ? `${v} & ${wide}` : `${v} >> ${shift} & ${wide}`;
    },
    sub_bytes: (a, b) => `bn_sub_bytes(${a}, ${b})`,
    add_bytes: (a, b) => `bn_add_bytes(${a}, ${b})`,
    and_bytes: (a, b) => `${a} & ${b}`,
    average_bytes: (a, b) => `bn_average_bytes(${a}, ${b})`,
    xor_bytes: (a, b) => `${a} ^ ${b}`,
    after: (a) => a!,
    mix4: (a, b, c, d, q) => {
      const byte = (v: string, place: number) => `(${v} >> ${8 * Number(q)} & 255)${place ? ` << ${8 * place}` : ''}`;
      return [a!, b!, c!, d!].map(byte).join(' | ');
    },
    bytes_as_ints: (v) => `(int32_t)${v}`,
    load_shorts: (p) => `bn_load4(${p})`,
    store_shorts: (p, v) => `bn_store4(${p}, ${v})`,
    zero_shorts: () => '0',
    add_shorts: (a, b) => `bn_add_shorts(${a}, ${b})`,
    sub_shorts: (a, b) => `bn_sub_shorts(${a}, ${b})`,
    raise_shorts: (a, n) =>
      `${a} << ${n} & 0x${((0xffff << Number(n)) & 0xffff).toString(16).padStart(4, '0').repeat(2)}u`,
    low_bytes: (v) => `(${v} & 255) | (${v} >> 8 & 255) << 16`,
    high_bytes: (v) => `(${v} >> 16 & 255) | ${v} >> 24 << 16`,
    signed_bytes: (a, b, j) =>
      `(uint16_t)(int8_t)(${a} >> ${8 * Number(j)}) | (uint32_t)(int8_t)(${b} >> ${8 * Number(j)}) << 16`,
    add_words: (sum, a, b, c) => `bn_add_words(${sum}, ${a}, ${b}, ${c})`,
    add_odd: (sum, a, b, c) => `bn_add_shorts(${sum}, (${a} >> 8 & 0xff00ffu) + (${b} >> 8 & 0xff00ffu) * ${c})`,
    shorts_as_ints: (v) => `(int32_t)${v}`,
    ints_as_shorts: (v) => `(uint32_t)${v}`,
    load_table64: (p) => p!,
    lookup64: (table, v, shift) => `bn_lookup64(${table}, ${v}, ${shift})`,
    load_table32: (p) => p!,
    lookup96: (low, high, v) => `bn_lookup96(${low}, ${high}, ${v})`,
    load_table16: (p) => `(const uint8_t *)(${p})`,
    lookup16: (table, v) => `bn_lookup16(${table}, ${v})`,
    dot_zero: () => '0',
    dot_next: (acc, u, s) => `${acc} + bn_dot4(${u}, ${s})`,
    pin: (acc) => acc!,
    dot_flush: (acc, d) => `${acc} + ${d}`,
    splat_int: (x) => x!,
    add_ints: (a, b) => `${a} + ${b}`,
    sub_ints: (a, b) => `${a} - ${b}`,
    shift_ints: (a, n) => `${a} >> ${n}`,
    mul_ints: (a, c) => `(int32_t)((uint32_t)${a} * (uint32_t)${c})`,
    low_half: (a) => `(int16_t)${a}`,
    zip_low: (a) => a!,
    zip_high: (_, b) => b!,
    sum_ints: (a) => a!,
    to_floats: (a) => `(float)${a}`,
    round: (a) => `bn_round(${a})`,
    constant: (x) => x!,
    splat: (x) => x!,
    add: (a, b) => `${a} + ${b}`,
    sub: (a, b) => `${a} - ${b}`,
    mul: (a, b) => `${a} * ${b}`,
    div: (a, b) => `${a} / ${b}`,
    fma: (a, b, c) => `fmaf(${a}, ${b}, ${c})`,
    max: (a, b) => `${a} > ${b} ? ${a} : ${b}`,
    min: (a, b) => `${a} < ${b} ? ${a} : ${b}`,
    // Without sign bits, floats are ordered as their bits are, NaN above infinity.
    max_or_nan: (a, b) => `bn_bits(${a}) > bn_bits(${b}) ? ${a} : ${b}`,
    abs: (a) => `bn_float(bn_bits(${a}) & 0x7fffffffu)`,
    exp2i: (n) => `bn_float((uint32_t)(${n} + 127) << 23)`,
    sum: (a) => a!,
    peak: (a) => a!,
    peak_or_nan: (a) => a!,
  },
};
