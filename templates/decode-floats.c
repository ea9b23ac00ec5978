/*
 * Decoding of stored tensors, floats: conversions between float types, and rows of the types in which embeddings are
 * stored; see decode.h for the interface. Portable C11: plain loops over rows that compilers vectorise.
 *
 * Source of the layouts: ggml-quants.c (Q4_0, Q8_0, Q6_K).
 */
#include "decode-internal.h"

/* ---- float types ---- */

/*
 * Exponent and mantissa move to their float32 places; multiplying by 2^(127 - 15) corrects the exponent and normalises
 * subnormals, exactly. Infinity and NaN have become numbers from 2^16 on, which no finite half reaches, and get their
 * exponent back. No branches, so that rows vectorise.
 */
static inline float half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  const uint32_t magnitude = bn_f32_to_bits(bn_bits_to_f32((uint32_t)(half & 0x7fffu) << 13) * 0x1p112f);
  const uint32_t special = magnitude >= 0x47800000u ? 0x7f800000u : 0; /* 0x47800000 is 2^16 */
  return bn_bits_to_f32(sign | magnitude | special);
}

static inline float bfloat_to_float(uint16_t bits) {
  return bn_bits_to_f32((uint32_t)bits << 16);
}

float bn_f16_to_f32(uint16_t half) {
  return half_to_float(half);
}

float bn_bf16_to_f32(uint16_t bits) {
  return bfloat_to_float(bits);
}

uint16_t bn_f32_to_f16(float value) {
  const uint32_t bits = bn_f32_to_bits(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;  /* NaN */
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u; /* 65520, half way from the largest half to 2^16, and above */
  if (magnitude < 0x38800000u) {
    /* Below 2^-14: adding 0.5 makes 2^-24, the step of subnormal halves, the last place of the sum, so that the
     * addition itself rounds half to even and leaves the result in the low bits. */
    return sign | (uint16_t)(bn_f32_to_bits(bn_bits_to_f32(magnitude) + 0.5f) - 0x3f000000u);
  }
  /* Rebias from 127 to 15, then round away 13 bits; a carry out of the mantissa raises the exponent as it should. */
  const uint32_t rebased = magnitude - ((127u - 15u) << 23);
  return sign | (uint16_t)((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13);
}

uint16_t bn_f32_to_bf16(float value) {
  const uint32_t bits = bn_f32_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u); /* NaN, kept quiet */
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* ---- rows ---- */

void bn_read_floats(int encoding, const uint8_t *data, int64_t n, float *out) {
  if (encoding == BN_F32) {
    memcpy(out, data, (size_t)n * sizeof *out);
  } else if (encoding == BN_F16) {
    for (int64_t i = 0; i < n; i++) out[i] = half_to_float(bn_load16(data + 2 * i));
  } else {
    for (int64_t i = 0; i < n; i++) out[i] = bfloat_to_float(bn_load16(data + 2 * i));
  }
}

/* f16 d | 16 bytes: low nibbles are elements 0..15, high nibbles 16..31; w = (q - 8) * d */
static void read_q4_0(const uint8_t *data, int64_t n, float *out) {
  for (int64_t i = 0; i < n; i += 32, data += 18, out += 32) {
    const float d = half_to_float(bn_load16(data));
    for (int j = 0; j < 16; j++) {
      out[j] = (float)((data[2 + j] & 15) - 8) * d;
      out[j + 16] = (float)((data[2 + j] >> 4) - 8) * d;
    }
  }
}

/* out = q d. A loop of its own, and `restrict`, let it become vectors; otherwise every store might change the next q.
 */
static inline void scale_numbers(const int8_t *restrict q, int n, float d, float *restrict out) {
  for (int i = 0; i < n; i++) out[i] = d * (float)q[i];
}

/* f16 d | 32 x i8 q; w = q * d */
static void read_q8_0(const uint8_t *data, int64_t n, float *out) {
  for (int64_t i = 0; i < n; i += 32, data += 34, out += 32)
    scale_numbers((const int8_t *)data + 2, 32, half_to_float(bn_load16(data)), out);
}

/*
 * ql[128] low four bits | qh[64] high two bits | i8 scales[16] | f16 d; w = d * scale * (q - 32). Each half of a block
 * (128 elements) has 64 bytes of ql, 32 of qh and 8 scales; quarter k of the half takes nibble k / 2 of byte l + 32 *
 * (k % 2) of ql and bits 2k of qh[l]; a scale covers 16 elements. The products are formed in ggml's order, because the
 * last one rounds.
 */
static void read_q6_k(const uint8_t *data, int64_t n, float *out) {
  for (int64_t i = 0; i < n; i += 256, data += 210, out += 256) {
    int8_t q[256];
    for (int k = 0; k < 8; k++) {
      const uint8_t *low = data + 64 * (k / 4) + 32 * (k & 1), *high = data + 128 + 32 * (k / 4);
      for (int l = 0; l < 32; l++)
        q[32 * k + l] = (int8_t)(((low[l] >> 4 * (k / 2 & 1) & 15) | (high[l] >> 2 * (k & 3) & 3) << 4) - 32);
    }
    const float d = half_to_float(bn_load16(data + 208));
    for (int k = 0; k < 16; k++) scale_numbers(q + 16 * k, 16, d * (float)(int8_t)data[192 + k], out + 16 * k);
  }
}

/* Largest magnitude of n 16-bit floats, as their bits. */
static uint32_t largest16(const uint8_t *data, int64_t n) {
  uint16_t most = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint16_t magnitude = bn_load16(data + 2 * i) & 0x7fffu;
    most = magnitude > most ? magnitude : most;
  }
  return most;
}

uint32_t bn_decode_largest(int encoding, const uint8_t *data, int64_t n) {
  uint32_t most = 0;
  if (encoding == BN_F32) {
    for (int64_t i = 0; i < n; i++) {
      uint32_t bits;
      memcpy(&bits, data + 4 * i, sizeof bits);
      bits &= 0x7fffffffu;
      most = bits > most ? bits : most;
    }
    return most;
  }
  if (encoding == BN_BF16) return largest16(data, n) << 16;
  if (encoding == BN_F16) return bn_f32_to_bits(half_to_float((uint16_t)largest16(data, n)));
  const bn_block block = bn_decode_block(encoding);
  for (const uint8_t *d = data + block.scale_at, *end = d + n / block.elements * block.bytes; d < end;
       d += block.bytes) {
    const uint32_t magnitude = bn_load16(d) & 0x7fffu;
    most = magnitude > most ? magnitude : most;
  }
  return bn_f32_to_bits(half_to_float((uint16_t)most));
}

int bn_decode_floats(const bn_source *source, int64_t row, float *out) {
  const int checked = bn_decode_check(source);
  if (checked) return checked;
  if (row < 0 || row >= source->rows) return BN_DECODE_RANGE;
  const bn_block block = bn_decode_block(source->encoding);
  if (!block.elements) return BN_DECODE_ENCODING;
  const uint8_t *data = source->data + row * (source->cols / block.elements) * block.bytes;
  if (bn_is_float(source->encoding)) {
    bn_read_floats(source->encoding, data, source->cols, out);
  } else if (source->encoding == BN_Q4_0) {
    read_q4_0(data, source->cols, out);
  } else if (source->encoding == BN_Q8_0) {
    read_q8_0(data, source->cols, out);
  } else if (source->encoding == BN_Q6_K) {
    read_q6_k(data, source->cols, out);
  } else {
    return BN_DECODE_ENCODING;
  }
  return BN_DECODE_OK;
}
