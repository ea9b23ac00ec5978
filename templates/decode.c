/*
 * Decoding of stored tensors, ternary: sizes, the scale of a matrix and its digits; see decode.h for the interface, and
 * decode-floats.c for rows of floats. Portable C11: plain loops over rows that compilers vectorise, no tables to
 * initialise, no division per element.
 *
 * Sources of the layouts: ggml-quants.c (TQ1_0, TQ2_0), ggml-bitnet-mad.cpp in microsoft/BitNet (I2_S), transformers
 * integrations/bitnet.py (packed U8 and the rounding of master weights).
 */
#include "decode-internal.h"

/* ---- sizes ---- */

bn_block bn_decode_block(int encoding) {
  static const bn_block sizes[] = {
      {BN_F32, 1, 4, -1},   {BN_F16, 1, 2, -1},       {BN_BF16, 1, 2, -1},     {BN_Q4_0, 32, 18, 0},
      {BN_Q8_0, 32, 34, 0}, {BN_Q6_K, 256, 210, 208}, {BN_TQ1_0, 256, 54, 52}, {BN_TQ2_0, 256, 66, 64},
  };
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    if (sizes[i].encoding == encoding) return sizes[i];
  }
  return (bn_block){encoding, 0, 0, -1};
}

int bn_decode_check(const bn_source *source) {
  /* Products of rows, cols and 210 bytes stay below 2^63. */
  const int64_t limit = (int64_t)1 << 27;
  if (source->rows < 1 || source->cols < 1 || source->rows >= limit || source->cols >= limit) return BN_DECODE_SIZE;
  const int64_t elements = source->rows * source->cols;
  const bn_block block = bn_decode_block(source->encoding);
  int64_t needed;
  if (block.elements) {
    if (source->cols % block.elements != 0) return BN_DECODE_SIZE;
    needed = elements / block.elements * block.bytes;
  } else if (source->encoding == BN_I2_S) {
    if (elements % 128 != 0) return BN_DECODE_SIZE;
    needed = elements / 4 + 32;
  } else if (source->encoding == BN_HF_U8) {
    needed = (source->rows + 3) / 4 * source->cols;
  } else {
    return BN_DECODE_ENCODING;
  }
  return source->bytes == needed ? BN_DECODE_OK : BN_DECODE_SIZE;
}

/* ---- scale of a ternary matrix ---- */

enum { CHUNK = 1024, LANES = 16 };

/*
 * Already ternary: all non-zero |w| are the same number up to the last place of the type. Whoever writes t * scale or t
 * / s rounds one magnitude, so the values are equal to the bit; a unit in the last place (two for f32: a product and a
 * reciprocal) allows for files whose values passed through another type. In float32 bits that is 1 << 13 for f16 (10 of
 * 23 mantissa bits) and 1 << 16 for bf16 (7 of 23). Trained weights cannot be mistaken for this: all of a million would
 * have to agree. A single dead weight of 1e-34 among masters makes the spread huge, as it should.
 *
 * Masters: scale = mean |w|, at least 1e-5, over the whole matrix, rounded to the type of the weights, because training
 * with transformers casts the dequantised weight back to it. t uses 1 / scale before that rounding. Lane i of 16 sums
 * elements i, i + 16, ... of each chunk in double: the order is fixed, and the sum does not wait for one addition after
 * another.
 */
static int float_rule(const bn_source *source, bn_ternary *rule) {
  const int element = source->encoding == BN_F32 ? 4 : 2;
  const uint32_t tolerance = source->encoding == BN_F32 ? 2u : source->encoding == BN_F16 ? 1u << 13 : 1u << 16;
  const int64_t n = source->rows * source->cols;
  double sum[LANES] = {0};
  uint32_t most[LANES] = {0}, least[LANES];
  for (int lane = 0; lane < LANES; lane++) least[lane] = UINT32_MAX;

  float chunk[CHUNK];
  for (int64_t start = 0; start < n; start += CHUNK) {
    const int64_t count = n - start < CHUNK ? n - start : CHUNK;
    bn_read_floats(source->encoding, source->data + start * element, count, chunk);
    for (int64_t i = count; i < CHUNK; i++) chunk[i] = 0; /* zeros change neither sum nor bounds */
    for (int i = 0; i < CHUNK; i += LANES) {
      for (int lane = 0; lane < LANES; lane++) {
        const uint32_t magnitude = bn_f32_to_bits(chunk[i + lane]) & 0x7fffffffu;
        const uint32_t nonzero = magnitude - 1u; /* zero wraps round and never is the least */
        sum[lane] += (double)bn_bits_to_f32(magnitude);
        most[lane] = magnitude > most[lane] ? magnitude : most[lane];
        least[lane] = nonzero < least[lane] ? nonzero : least[lane];
      }
    }
  }
  for (int lane = 1; lane < LANES; lane++) {
    sum[0] += sum[lane];
    if (most[lane] > most[0]) most[0] = most[lane];
    if (least[lane] < least[0]) least[0] = least[lane];
  }

  if (most[0] > BN_LARGEST_BITS) return BN_DECODE_VALUE;
  *rule = (bn_ternary){.scale = bn_bits_to_f32(most[0]), .inverse = 0, .masters = 0};
  if (most[0] == 0 || most[0] - (least[0] + 1u) <= tolerance) return BN_DECODE_OK;

  float scale = (float)(sum[0] / (double)n);
  if (scale < 1e-5f) scale = 1e-5f;
  *rule = (bn_ternary){.scale = scale, .inverse = 1.0f / scale, .masters = 1};
  if (source->encoding == BN_F16) rule->scale = bn_f16_to_f32(bn_f32_to_f16(scale));
  if (source->encoding == BN_BF16) rule->scale = bn_bf16_to_f32(bn_f32_to_bf16(scale));
  return BN_DECODE_OK;
}

/*
 * TQ blocks carry a scale each. A BitNet matrix has one scale, so all are equal but for blocks of zeros, whose scale is
 * 0; one unit in the last place of f16 is let pass. A matrix with other scales was quantised from an ordinary dense
 * model.
 */
static int block_rule(const bn_source *source, bn_ternary *rule) {
  const bn_block block = bn_decode_block(source->encoding);
  const int64_t blocks = source->rows * (source->cols / block.elements);
  uint32_t most = 0, least = UINT32_MAX;
  for (int64_t i = 0; i < blocks; i++) {
    const uint32_t d = bn_load16(source->data + i * block.bytes + block.scale_at);
    if ((d & 0x7fffu) == 0) continue;
    if (d >= 0x7c00u) return BN_DECODE_VALUE; /* infinity, NaN or negative */
    if (d > most) most = d;
    if (d < least) least = d;
  }
  if (most != 0 && most - least > 1) return BN_DECODE_SCALES;
  *rule = (bn_ternary){.scale = bn_f16_to_f32((uint16_t)most), .inverse = 0, .masters = 0};
  return BN_DECODE_OK;
}

int bn_decode_scale(const bn_source *source, bn_ternary *rule) {
  const int checked = bn_decode_check(source);
  if (checked) return checked;
  if (bn_is_float(source->encoding)) return float_rule(source, rule);
  if (source->encoding == BN_TQ1_0 || source->encoding == BN_TQ2_0) return block_rule(source, rule);
  *rule = (bn_ternary){.scale = 1, .inverse = 0, .masters = 0};
  if (source->encoding == BN_HF_U8) return BN_DECODE_OK;
  if (source->encoding != BN_I2_S) return BN_DECODE_ENCODING;
  memcpy(&rule->scale, source->data + source->bytes - 32, sizeof rule->scale);
  return BN_DECODE_OK;
}

/* ---- ternary digits ---- */

/* Two-bit code to digit: 0, 1, 2 -> -1, 0, 1, and 3, which is refused, -> 0: the even codes are -1 and 1, the odd ones
 * are masked to 0. */
static inline int8_t digit(unsigned code) {
  return (int8_t)(((int)(code & 2u) - 1) & ((int)(code & 1u) - 1));
}

/* Is one of the codes of n bytes 3? Eight bytes at a time: the low bits of codes tell. */
static inline int has_three(const uint8_t *codes, int n) {
  uint64_t bad = 0;
  for (int i = 0; i < n; i += 8) {
    uint64_t word;
    memcpy(&word, codes + i, sizeof word);
    bad |= word & word >> 1;
  }
  return (bad & 0x5555555555555555u) != 0;
}

/*
 * round(w * inverse), halves to even, clamped to -1..1: everything above one half is 1 (1.5 would round to 2), one half
 * itself rounds to 0. So two comparisons do it. Ternary values have inverse 0 and are told by their sign.
 */
static void float_trits(const float *values, int64_t n, const bn_ternary *rule, int8_t *out) {
  if (!rule->masters) {
    for (int64_t i = 0; i < n; i++) out[i] = (int8_t)((values[i] > 0) - (values[i] < 0));
    return;
  }
  const float inverse = rule->inverse;
  for (int64_t i = 0; i < n; i++) {
    const float scaled = values[i] * inverse;
    out[i] = (int8_t)((scaled > 0.5f) - (scaled < -0.5f));
  }
}

/* Packed U8 [ceil(rows / 4)][cols]: byte r holds rows r, r + stride, r + 2 stride, r + 3 stride, least significant
 * first. */
static int hf_row(const bn_source *source, int64_t row, int8_t *out) {
  const int64_t stride = (source->rows + 3) / 4, cols = source->cols;
  const uint8_t *data = source->data + row % stride * cols;
  const int shift = (int)(row / stride) * 2;
  uint8_t bad = 0;
  for (int64_t c = 0; c < cols; c++) {
    const uint8_t code = (uint8_t)(data[c] >> shift);
    bad |= code & code >> 1;
    out[c] = digit(code);
  }
  return bad & 1 ? BN_DECODE_CODE : BN_DECODE_OK;
}

/*
 * I2_S: blocks of 128 digits in 32 bytes, over the flattened matrix; byte p of a block holds elements p, p + 32, p +
 * 64, p + 96, most significant first. A row may begin and end inside a block. BitNet's kernels take code 3 for 0, but
 * no converter writes it.
 */
static int i2s_row(const bn_source *source, int64_t row, int8_t *out) {
  int64_t element = row * source->cols, left = source->cols;
  int bad = 0;
  while (left > 0) {
    const uint8_t *block = source->data + element / 128 * 32;
    const int64_t within = element % 128;
    if (within == 0 && left >= 128) {
      bad |= has_three(block, 32);
      for (int group = 0; group < 4; group++) {
        const int shift = 6 - 2 * group;
        for (int p = 0; p < 32; p++) out[32 * group + p] = digit((unsigned)block[p] >> shift);
      }
      element += 128, out += 128, left -= 128;
    } else {
      const int shift = 6 - 2 * (int)(within / 32);
      const int64_t p = within % 32, count = 32 - p < left ? 32 - p : left;
      for (int64_t i = 0; i < count; i++) {
        const int code = block[p + i] >> shift & 3;
        bad |= code & code >> 1;
        out[i] = digit((unsigned)code);
      }
      element += count, out += count, left -= count;
    }
  }
  return bad ? BN_DECODE_CODE : BN_DECODE_OK;
}

/* qs[64] | f16 d; element 128 h + 32 k + m is bits 2k of qs[32 h + m]. */
static int tq2_block(const uint8_t *qs, int8_t *out) {
  const int bad = has_three(qs, 64);
  for (int h = 0; h < 2; h++, qs += 32) {
    for (int k = 0; k < 4; k++, out += 32) {
      for (int m = 0; m < 32; m++) out[m] = digit((unsigned)qs[m] >> (2 * k));
    }
  }
  return bad ? BN_DECODE_CODE : BN_DECODE_OK;
}

/*
 * n bytes with five (last four of a block: four) base-3 digits each, first digit most significant; byte = ceil(value *
 * 256 / 243), so that multiplying by 3^k modulo 256 brings digit k to the top and times 3 / 256 reads it.
 */
static int8_t *tq1_digits(const uint8_t *qs, int n, int digits, int8_t *out) {
  unsigned power = 1;
  for (int k = 0; k < digits; k++, power *= 3, out += n) {
    for (int m = 0; m < n; m++) out[m] = (int8_t)((int)(((qs[m] * power & 255u) * 3) >> 8) - 1);
  }
  return out;
}

/*
 * qs[48] | qh[4] | f16 d; qs[0..31] hold elements 0..159, qs[32..47] 160..239, qh 240..255. As byte * 243 = value * 256
 * + a remainder below 243, other remainders show bytes that stand for no value; a fifth digit of qh must be 0.
 */
static int tq1_block(const uint8_t *qs, int8_t *out) {
  unsigned bad = 0;
  for (int m = 0; m < 52; m++) bad |= (uint8_t)(qs[m] * 243u) > 242;
  for (int m = 48; m < 52; m++) bad |= (qs[m] * 81u & 255u) * 3 >> 8;
  out = tq1_digits(qs, 32, 5, out);
  out = tq1_digits(qs + 32, 16, 5, out);
  tq1_digits(qs + 48, 4, 4, out);
  return bad ? BN_DECODE_CODE : BN_DECODE_OK;
}

/* A row of TQ blocks. A block of scale 0 is zero whatever its digits say. */
static int tq_row(const bn_source *source, int64_t row, int8_t *out) {
  const int ternary5 = source->encoding == BN_TQ1_0;
  const int block_bytes = ternary5 ? 54 : 66;
  const uint8_t *data = source->data + row * (source->cols / 256) * block_bytes;
  for (int64_t c = 0; c < source->cols; c += 256, data += block_bytes) {
    if ((bn_load16(data + block_bytes - 2) & 0x7fffu) == 0) {
      memset(out + c, 0, 256);
    } else if (ternary5 ? tq1_block(data, out + c) : tq2_block(data, out + c)) {
      return BN_DECODE_CODE;
    }
  }
  return BN_DECODE_OK;
}

int bn_decode_trits(const bn_source *source, const bn_ternary *rule, int64_t row0, int64_t row1, int8_t *out) {
  const int checked = bn_decode_check(source);
  if (checked) return checked;
  if (row0 < 0 || row1 < row0 || row1 > source->rows) return BN_DECODE_RANGE;
  const int64_t cols = source->cols;

  if (bn_is_float(source->encoding)) {
    const int element = source->encoding == BN_F32 ? 4 : 2;
    float chunk[CHUNK];
    const int64_t end = row1 * cols;
    for (int64_t at = row0 * cols; at < end; at += CHUNK, out += CHUNK) {
      const int64_t count = end - at < CHUNK ? end - at : CHUNK;
      bn_read_floats(source->encoding, source->data + at * element, count, chunk);
      float_trits(chunk, count, rule, out);
    }
    return BN_DECODE_OK;
  }
  for (int64_t row = row0; row < row1; row++, out += cols) {
    int result = BN_DECODE_OK;
    switch (source->encoding) {
    case BN_HF_U8: result = hf_row(source, row, out); break;
    case BN_I2_S: result = i2s_row(source, row, out); break;
    case BN_TQ1_0:
    case BN_TQ2_0: result = tq_row(source, row, out); break;
    default: return BN_DECODE_ENCODING;
    }
    if (result) return result;
  }
  return BN_DECODE_OK;
}
