/* Driver for test/decode-program.ts: decodes a file and writes the result to standard output in binary.
 *   trits   <encoding> <rows> <cols> <file>   i32 result, f32 scale, i32 masters, i8[rows][cols]
 *   floats  <encoding> <rows> <cols> <file>   i32 result, f32[rows][cols]
 *   why     <encoding> <rows> <cols> <file> <result>  text: what is wrong
 *   largest <encoding> <rows> <cols> <file>   f32 largest magnitude
 *   halves                                    f32[65536] f16 patterns, f32[65536] bf16 patterns
 *   narrow  <file of f32>                     u16[n] f16, u16[n] bf16
 *   speed   <encoding> <rows> <cols>          text: seconds for rule and digits of a synthetic matrix */
#define _POSIX_C_SOURCE 200809L
#include "../templates/decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint8_t *load(const char *path, int64_t *bytes) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) exit(3);
  *bytes = ftell(file);
  rewind(file);
  /* One byte in front: the data are never aligned, and a sanitizer sees the first byte read past the end. */
  uint8_t *data = malloc((size_t)*bytes + 1);
  if (!data || fread(data + 1, 1, (size_t)*bytes, file) != (size_t)*bytes) exit(3);
  fclose(file);
  return data;
}

static void put(const void *data, size_t size, int64_t count) {
  if (fwrite(data, size, (size_t)count, stdout) != (size_t)count) exit(3);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int narrow(const char *path) {
  int64_t bytes;
  uint8_t *data = load(path, &bytes);
  for (int type = 0; type < 2; type++) {
    for (int64_t i = 0; i < bytes / 4; i++) {
      float value;
      memcpy(&value, data + 1 + 4 * i, sizeof value);
      const uint16_t bits = type ? bn_f32_to_bf16(value) : bn_f32_to_f16(value);
      put(&bits, sizeof bits, 1);
    }
  }
  free(data);
  return 0;
}

static int halves(void) {
  for (int type = 0; type < 2; type++) {
    for (uint32_t i = 0; i < 65536; i++) {
      const float value = type ? bn_bf16_to_f32((uint16_t)i) : bn_f16_to_f32((uint16_t)i);
      put(&value, sizeof value, 1);
    }
  }
  return 0;
}

static int speed(bn_source source, int64_t bytes) {
  uint8_t *data = calloc((size_t)bytes, 1);
  int8_t *out = malloc((size_t)source.cols * 64);
  if (!data || !out) return 3;
  for (int64_t i = 0; i < bytes; i++)
    data[i] = source.encoding == BN_BF16 ? (uint8_t)(i & 1 ? 0x3c : i * 37) : (uint8_t)(i % 2 ? 0x24 : 0x11);
  for (int64_t i = 0; source.encoding == BN_TQ1_0 && i < bytes; i += 54) memset(data + i + 48, 0x7f, 4); /* 1 1 1 1 0 */
  source.data = data;
  source.bytes = bytes;
  bn_ternary rule;
  const double start = now();
  const int first = bn_decode_scale(&source, &rule);
  const double middle = now();
  int second = 0;
  for (int64_t row = 0; row + 64 <= source.rows; row += 64)
    second |= bn_decode_trits(&source, &rule, row, row + 64, out);
  const double end = now();
  printf("results %d %d, rule %.3f s, digits %.3f s, %.0f M weights/s\n", first, second, middle - start, end - middle,
         1e-6 * (double)(source.rows * source.cols) / (end - start));
  free(data);
  free(out);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "halves")) return halves();
  if (argc == 3 && !strcmp(argv[1], "narrow")) return narrow(argv[2]);
  if (argc < 5) return 2;
  bn_source source = {.encoding = atoi(argv[2]), .rows = atoll(argv[3]), .cols = atoll(argv[4])};
  if (!strcmp(argv[1], "speed")) return speed(source, atoll(argv[5]));

  uint8_t *data = load(argv[5], &source.bytes);
  source.data = data + 1;
  if (!strcmp(argv[1], "why")) {
    char text[256];
    printf("%s", bn_decode_why(&source, atoi(argv[6]), text, sizeof text));
  } else if (!strcmp(argv[1], "largest")) {
    const uint32_t bits = bn_decode_largest(source.encoding, source.data, source.rows * source.cols);
    put(&bits, sizeof bits, 1);
  } else if (!strcmp(argv[1], "floats")) {
    float *out = malloc((size_t)source.cols * sizeof *out);
    for (int64_t row = 0; row < source.rows; row++) {
      const int result = bn_decode_floats(&source, row, out);
      if (row == 0) put(&result, sizeof result, 1);
      if (result) break;
      put(out, sizeof *out, source.cols);
    }
    free(out);
  } else {
    bn_ternary rule = {0};
    int result = bn_decode_scale(&source, &rule);
    /* Pieces of 1, 2, 3, ... rows: each call stands alone. */
    const int64_t size = source.rows * source.cols;
    int8_t *out = malloc(size > 0 && size < 1 << 28 ? (size_t)size : 1);
    for (int64_t row = 0, step = 1; !result && row < source.rows; row += step, step = step % 7 + 1) {
      if (row + step > source.rows) step = source.rows - row;
      result = bn_decode_trits(&source, &rule, row, row + step, out + row * source.cols);
    }
    put(&result, sizeof result, 1);
    put(&rule.scale, sizeof rule.scale, 1);
    put(&rule.masters, sizeof rule.masters, 1);
    if (!result) put(out, 1, size);
    free(out);
  }
  free(data);
  return 0;
}
