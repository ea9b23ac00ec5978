/*
 * Decoding of stored tensors, damage: what is wrong with one that was refused, and where. Refusing takes a flag in
 * loops over millions of elements; this goes through them again, one by one.
 */
#include "decode-internal.h"

#include <math.h>
#include <stdio.h>

/* An element that is not as it should be: its number in the flattened matrix, -1 for none, and what it is. */
typedef struct {
  int64_t at;
  double value;
} fault;

static float scale_of(const bn_source *s, const bn_block *block, int64_t i) {
  return bn_f16_to_f32(bn_load16(s->data + i * block->bytes + block->scale_at));
}

/* The first value out of bounds; of blocks, the first such scale. */
static fault wrong_value(const bn_source *s) {
  const bn_block block = bn_decode_block(s->encoding);
  const int ternary = s->encoding == BN_TQ1_0 || s->encoding == BN_TQ2_0;
  for (int64_t i = 0; block.elements && i < s->rows * s->cols / block.elements; i++) {
    float value;
    if (bn_is_float(s->encoding))
      bn_read_floats(s->encoding, s->data + i * block.bytes, 1, &value);
    else
      value = scale_of(s, &block, i);
    if (!(fabsf(value) <= BN_LARGEST) || (ternary && value < 0)) return (fault){i * block.elements, (double)value};
  }
  return (fault){-1, 0};
}

/* The first block whose scale is another than those before. */
static fault other_scale(const bn_source *s) {
  const bn_block block = bn_decode_block(s->encoding);
  int least = 0xffff, most = 0;
  for (int64_t i = 0; i < s->rows * s->cols / block.elements; i++) {
    const int d = bn_load16(s->data + i * block.bytes + block.scale_at);
    if ((d & 0x7fff) == 0) continue;
    least = d < least ? d : least;
    most = d > most ? d : most;
    if (most - least > 1) return (fault){i * block.elements, (double)scale_of(s, &block, i)};
  }
  return (fault){-1, 0};
}

/* Of one byte of a TQ1_0 block: does it stand for digits? */
static int is_code(int byte, int m) {
  return (uint8_t)(byte * 243) < 243 && (m < 48 || (byte * 81 & 255) * 3 < 256);
}

/* Element that bits of byte m of a TQ block hold first. */
static int first_of(int encoding, int m) {
  if (encoding == BN_TQ2_0) return m / 32 * 128 + m % 32;
  return m < 32 ? m : m < 48 ? 160 + m - 32 : 240 + m - 48;
}

static fault wrong_code_in_blocks(const bn_source *s) {
  const bn_block block = bn_decode_block(s->encoding);
  for (int64_t i = 0; i < s->rows * s->cols / 256; i++) {
    const uint8_t *qs = s->data + i * block.bytes;
    if ((bn_load16(qs + block.scale_at) & 0x7fff) == 0) continue;
    for (int m = 0; m < block.scale_at; m++) {
      const int64_t first = i * 256 + first_of(s->encoding, m);
      if (s->encoding == BN_TQ1_0 && !is_code(qs[m], m)) return (fault){first, qs[m]};
      for (int k = 0; s->encoding == BN_TQ2_0 && k < 4; k++)
        if ((qs[m] >> 2 * k & 3) == 3) return (fault){first + 32 * k, 3};
    }
  }
  return (fault){-1, 0};
}

static fault wrong_code(const bn_source *s) {
  if (s->encoding == BN_TQ1_0 || s->encoding == BN_TQ2_0) return wrong_code_in_blocks(s);
  const int64_t stride = (s->rows + 3) / 4;
  for (int64_t i = 0; i < s->rows * s->cols; i++) {
    const int64_t row = i / s->cols, p = i % 128;
    const int code = s->encoding == BN_HF_U8 ? s->data[row % stride * s->cols + i % s->cols] >> row / stride * 2
                                             : s->data[i / 128 * 32 + p % 32] >> (6 - p / 32 * 2);
    if ((code & 3) == 3) return (fault){i, 3};
  }
  return (fault){-1, 0};
}

/* ": row 3, column 5 has the code 3", with an element's place before `has` and its value behind. */
static void tell(const bn_source *s, fault f, const char *what, const char *has, char *text, int size) {
  char value[32];
  if (isfinite(f.value))
    snprintf(value, sizeof value, "%g", f.value);
  else
    snprintf(value, sizeof value, "%s", isnan(f.value) ? "NaN" : f.value > 0 ? "infinity" : "-infinity");
  if (s->rows == 1)
    snprintf(text, (size_t)size, "%selement %lld %s %s", what, (long long)f.at, has, value);
  else
    snprintf(text, (size_t)size, "%srow %lld, column %lld %s %s", what, (long long)(f.at / s->cols),
             (long long)(f.at % s->cols), has, value);
}

const char *bn_decode_why(const bn_source *s, int result, char *text, int size) {
  static const char *const rules[] = {
      [BN_DECODE_OK] = "no error",
      [BN_DECODE_ENCODING] = "this encoding cannot be decoded here",
      [BN_DECODE_SIZE] = "the number of bytes does not fit rows and columns",
      [BN_DECODE_RANGE] = "rows outside the matrix",
      [BN_DECODE_VALUE] = "weights are finite and at most 2^20 in size; the file is damaged, download it again",
      [BN_DECODE_CODE] = "which is no ternary digit; the file is damaged or not a BitNet model",
      [BN_DECODE_SCALES] = "another than before; it was quantised from a dense model, not from BitNet",
      [BN_DECODE_EMPTY] =
          "nothing in it is other than zero; a download that broke off leaves such files, download it again",
  };
  const bn_block block = bn_decode_block(s->encoding);
  const char *const of = block.elements > 1 ? "the scale of the block at " : "";
  fault f = {-1, 0};
  char where[128] = "";
  if (result == BN_DECODE_VALUE && (f = wrong_value(s)).at >= 0)
    tell(s, f, of, "is", where, sizeof where);
  else if (result == BN_DECODE_CODE && (f = wrong_code(s)).at >= 0)
    tell(s, f, "", s->encoding == BN_TQ1_0 ? "is in the byte" : "has the code", where, sizeof where);
  else if (result == BN_DECODE_SCALES && (f = other_scale(s)).at >= 0)
    tell(s, f, of, "is", where, sizeof where);
  const char *const rule = rules[result];
  snprintf(text, (size_t)size, "%s%s%s", where, f.at < 0 ? "" : result == BN_DECODE_VALUE ? ": " : ", ", rule);
  return text;
}
