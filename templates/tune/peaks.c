/*
 * The arithmetic roofs, as jobs of a pool: the loops that codegen/tune/peaks.ts generates, on operands as kernels meet
 * them. The argument tells which part of a call is enough: 8 runs an eighth of it.
 */
#include "peaks.h"
#include "internal.h"

static _Alignas(64) uint8_t codes[DOTS_CODES];
static _Alignas(64) int8_t activations[DOTS_ACTIVATIONS];
static _Alignas(64) uint8_t entries[ADDITIONS_BYTES];

static _Thread_local volatile int32_t result;

void bn_peaks_prepare(void) {
  for (int i = 0; i < DOTS_CODES; i++) codes[i] = (uint8_t)(i * 7 % 3);
  for (int i = 0; i < DOTS_ACTIVATIONS; i++) activations[i] = (int8_t)(i * 41 % 255 - 127);
  for (int i = 0; i < ADDITIONS_BYTES; i++) entries[i] = (uint8_t)(i * 41);
}

void bn_peak_dots(void *part, int thread, int threads) {
  int32_t sums[DOTS_SUMS];
  (void)thread, (void)threads;
  bn_dots(codes, activations, sums, DOTS_CHUNKS / *(const int *)part, DOTS_ROUNDS, DOTS_SWEEPS);
  for (int i = 0; i < DOTS_SUMS; i++) result ^= sums[i];
}

void bn_peak_additions(void *part, int thread, int threads) {
  _Alignas(64) uint8_t sums[ADDITIONS_SUMS];
  (void)thread, (void)threads;
  bn_additions(entries, sums, ADDITIONS_ROUNDS / *(const int *)part, ADDITIONS_ENTRIES);
  for (int i = 0; i < ADDITIONS_SUMS; i++) result ^= sums[i];
}
