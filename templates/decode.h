/*
 * Decoding of stored tensors: from every encoding that model files use to ternary digits or floats. The packer calls it
 * row by row, from several threads, and writes the layouts that the kernels read; while a model runs, only rows of the
 * embedding and the head are decoded.
 *
 * All functions are pure: they read the source, write the output, and keep no state. Pointers into the source need no
 * alignment. Hosts are little-endian, as the formats are.
 */
#ifndef BN_DECODE_H
#define BN_DECODE_H

#include <stdint.h>

/* Encodings; numbers below 1000 are GGML type ids. runtime/formats/source.ts has the same list. */
enum {
  BN_F32 = 0,
  BN_F16 = 1,
  BN_Q4_0 = 2,
  BN_Q8_0 = 8,
  BN_Q6_K = 14,
  BN_BF16 = 30,
  BN_TQ1_0 = 34,
  BN_TQ2_0 = 35,
  BN_I2_S = 36,
  BN_HF_U8 = 1000
};

/* Results; 0 is success. bn_decode_message() puts them into words. */
enum {
  BN_DECODE_OK = 0,
  BN_DECODE_ENCODING, /* this function does not decode this encoding */
  BN_DECODE_SIZE,     /* rows, cols and bytes do not belong together */
  BN_DECODE_RANGE,    /* rows outside the matrix */
  BN_DECODE_VALUE,    /* NaN, infinity or a negative scale */
  BN_DECODE_CODE,     /* a two-bit code that is no ternary digit */
  BN_DECODE_SCALES    /* blocks with different scales: not a BitNet matrix */
};

/* A row-major [rows][cols] matrix as it lies in a file; cols is the input dimension. */
typedef struct {
  const uint8_t *data;
  int64_t bytes;
  int encoding;
  int64_t rows, cols;
} bn_source;

/* How a ternary matrix is read: w = scale * t with t in {-1, 0, 1}. */
typedef struct {
  /* 0 for an all-zero matrix; 1 for BN_HF_U8, whose scale is a tensor of its own. */
  float scale;
  /* Float encodings only: t = round(w * inverse) clamped to -1..1. */
  float inverse;
  /* 1: float weights of training that become ternary here; 0: the values were ternary already. */
  int masters;
} bn_ternary;

/* Finds scale and rule of a whole matrix. Reads all of it for float and TQ encodings. */
int bn_decode_scale(const bn_source *source, bn_ternary *rule);

/* Rows row0 <= r < row1 of a ternary matrix, out[row1 - row0][cols] in {-1, 0, 1}; rule as found by bn_decode_scale. */
int bn_decode_trits(const bn_source *source, const bn_ternary *rule, int64_t row0, int64_t row1, int8_t *out);

/* One row of F32, F16, BF16, Q8_0, Q6_K or Q4_0 as out[cols]; exactly the values that ggml computes. */
int bn_decode_floats(const bn_source *source, int64_t row, float *out);

/* A result in words, for messages. */
const char *bn_decode_message(int result);

/* IEEE 754 binary16 and bfloat16; to float exactly, from float rounded half to even. NaNs stay NaNs. */
float bn_f16_to_f32(uint16_t half);
uint16_t bn_f32_to_f16(float value);
float bn_bf16_to_f32(uint16_t bits);
uint16_t bn_f32_to_bf16(float value);

#endif
