/*
 * Times whole tokens through the layers of a library, for the final choice between kernels (codegen/tune/tokens.ts).
 *
 *     tokens WEIGHTS                    random weights; they are packed first, if there is no such file
 *     time THREADS N POSITION ROUNDS    seconds of N tokens at once after POSITION others, a line a round
 *
 * Without logits, so that the head takes no part.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "decode.h"
#include "internal.h"

enum { MOST_THREADS = 1024, POSITIONS = 512, REPEATED = 3, AWAKE = 8 };

static int32_t tokens[POSITIONS];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int32_t checked(int32_t result) {
  if (result >= 0) return result;
  fprintf(stderr, "%s\n", bn_error());
  exit(1);
}

/* Half floats -1, 0 and 1 for the largest tensor, then the ones of norms. -> where those begin, in elements */
static size_t write_source(const char *path) {
  static const uint16_t values[3] = {0xbc00, 0, 0x3c00}, one = 0x3c00;
  size_t most = 0, longest = 0;
  for (int i = 0; i < BN_TENSORS; i++) {
    const size_t elements = (size_t)(bn_tensors[i].rows * bn_tensors[i].cols);
    if (elements > most) most = elements;
    if ((size_t)bn_tensors[i].cols > longest) longest = (size_t)bn_tensors[i].cols;
  }
  uint16_t *all = malloc((most + longest) * sizeof *all);
  FILE *f = all ? fopen(path, "wb") : NULL;
  uint32_t bits = 1;
  for (size_t i = 0; all && i < most + longest; i++)
    all[i] = i < most ? values[((bits = bits * 1664525 + 1013904223) >> 8) % 3] : one;
  if (!f || fwrite(all, sizeof *all, most + longest, f) != most + longest || fclose(f)) {
    fprintf(stderr, "cannot write '%s'; free some space\n", path);
    exit(1);
  }
  free(all);
  return most;
}

/* Norms are 1 and scales 1 / sqrt(2 k / 3), to the next power of two, so that activations keep
 * their size. */
static double scale_of(int64_t cols) {
  double scale = 1;
  while (scale * scale * 2 * (double)cols > 3) scale /= 2;
  return scale;
}

static void pack(const char *path) {
  char source[4096];
  snprintf(source, sizeof source, "%s.source", path);
  const size_t ones = write_source(source);
  checked(bn_pack_begin(path, (int32_t)sysconf(_SC_NPROCESSORS_ONLN)));
  for (int i = 0; i < BN_TENSORS; i++) {
    const bn_tensor *t = &bn_tensors[i];
    const size_t offset = t->kind == BN_VECTOR ? ones : 0;
    checked(bn_pack_tensor(i, source, (double)(offset * 2), (double)(t->rows * t->cols * 2), BN_F16, (int)t->rows,
                           (int)t->cols, t->kind == BN_TERNARY ? scale_of(t->cols) : 0, 1, 0));
  }
  checked(bn_pack_end(1));
  remove(source);
}

/* The context of so many threads, with POSITIONS positions filled or to be forgotten. */
static int32_t context_of(int32_t model, int threads) {
  static int32_t contexts[MOST_THREADS + 1];
  if (threads < 1 || threads > MOST_THREADS) exit(2);
  if (!contexts[threads]) {
    const int spin = threads <= sysconf(_SC_NPROCESSORS_ONLN);
    contexts[threads] = 1 + checked(bn_context(model, POSITIONS, threads, 8, spin, BN_PAGES_AUTO, BN_HEAD_EXACT));
  }
  return contexts[threads] - 1;
}

static void evaluate(int32_t context, int n) {
  checked(bn_eval(context, tokens, n, BN_WANT_NONE, NULL));
}

/* Of one token several in a row; some go before, since threads that have just slept are slow. */
static double seconds_of(int32_t context, int n, int position) {
  const int repeated = n == 1 ? REPEATED : 1;
  evaluate(context, n < AWAKE ? n : AWAKE);
  checked(bn_rewind(context, position));
  const double start = now();
  for (int i = 0; i < repeated; i++) evaluate(context, n);
  const double seconds = (now() - start) / repeated;
  checked(bn_rewind(context, position));
  return seconds;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  for (int i = 0; i < POSITIONS; i++) tokens[i] = i * 41 % BN_VOCABULARY;
  if (access(argv[1], F_OK)) pack(argv[1]);
  const int32_t model = checked(bn_open(argv[1]));
  for (int threads, n, position, rounds; scanf(" time %d %d %d %d", &threads, &n, &position, &rounds) == 4;) {
    if (n < 1 || position < 0 || n + position > POSITIONS - REPEATED) return 2;
    const int32_t context = context_of(model, threads);
    checked(bn_rewind(context, 0));
    if (position) evaluate(context, position);
    for (int round = 0; round < rounds; round++) printf("%.9f\n", seconds_of(context, n, position));
    fflush(stdout);
  }
  return 0;
}
