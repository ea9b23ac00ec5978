/*
 * What the parts of the decoder share: decode.c (ternary digits), decode-floats.c (float types and rows) and
 * decode-why.c (what is wrong). Rows of floats vectorise only where the small functions are inlined, hence their bodies
 * here.
 */
#ifndef BN_DECODE_INTERNAL_H
#define BN_DECODE_INTERNAL_H

#include "decode.h"

#include <string.h>

static inline float bn_bits_to_f32(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bn_f32_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline uint16_t bn_load16(const uint8_t *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

/* A block along a row: so many elements in so many bytes, and where its f16 scale lies; plain floats have none. */
typedef struct {
  int encoding, elements, bytes, scale_at;
} bn_block;

/* The block of an encoding; 0 elements for those that are not made of blocks within rows. */
bn_block bn_decode_block(int encoding);

/* Checks that the bytes are those that rows and cols need, so that no decoder can leave the data; a BN_DECODE_ result.
 */
int bn_decode_check(const bn_source *source);

/* Bits of BN_LARGEST. */
enum { BN_LARGEST_BITS = 0x49800000 };

/* F32, F16 or BF16: types whose elements stand alone, so that reading may start anywhere. */
static inline int bn_is_float(int encoding) {
  return encoding == BN_F32 || encoding == BN_F16 || encoding == BN_BF16;
}

/* n elements of F32, F16 or BF16 as out[n]. */
void bn_read_floats(int encoding, const uint8_t *data, int64_t n, float *out);

#endif
