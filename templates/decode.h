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

/*
 * What sound weights keep to; beyond, a file is damaged. Trained models store 16-bit floats, whose largest is 65504,
 * and stay below a few hundred: 2^20 leaves a factor of 16, and refuses a wrong bit in the upper exponent of a float32.
 * Scales are 1e-5 or more where training makes them (decode.c); 2^-40 is far below. Within these limits, what is
 * computed before attention stays finite: of 2^17 normed activations (at most 2^8.5 2^20) products of 2^24 steps, times
 * a scale, are below 2^(8.5 + 20 + 24 + 20).
 */
#define BN_LARGEST 0x1p20f
#define BN_LEAST_SCALE 0x1p-40f

/* Results; 0 is success. bn_decode_why() puts them into words. */
enum {
  BN_DECODE_OK = 0,
  BN_DECODE_ENCODING, /* this function does not decode this encoding */
  BN_DECODE_SIZE,     /* rows, cols and bytes do not belong together */
  BN_DECODE_RANGE,    /* rows outside the matrix */
  BN_DECODE_VALUE,    /* NaN, infinity, a value above BN_LARGEST, or a scale that is out of bounds */
  BN_DECODE_CODE,     /* bits that are no ternary digits */
  BN_DECODE_SCALES,   /* blocks with different scales: not a BitNet matrix */
  BN_DECODE_EMPTY     /* nothing but zeros, or nothing but the code 0: never written */
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
  /* 0 for an all-zero matrix; 1 for BN_HF_U8, whose scale is a tensor of its own; of BN_I2_S whatever the file says. */
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

/*
 * The largest magnitude among n stored elements of F32, F16 or BF16, as the bits of a float32: above those of infinity
 * if one is NaN. Of the blocks of Q4_0, Q8_0 and Q6_K that hold n elements: the largest scale.
 */
uint32_t bn_decode_largest(int encoding, const uint8_t *data, int64_t n);

/* What is wrong with a source that gave this result, in words: which element, by row and column, and its value. It goes
 * through the data anew and slowly. -> text */
const char *bn_decode_why(const bn_source *source, int result, char *text, int size);

/* IEEE 754 binary16 and bfloat16; to float exactly, from float rounded half to even. NaNs stay NaNs. */
float bn_f16_to_f32(uint16_t half);
uint16_t bn_f32_to_f16(float value);
float bn_bf16_to_f32(uint16_t bits);
uint16_t bn_f32_to_bf16(float value);

#endif
