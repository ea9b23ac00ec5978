/*
 * Plain reads, in which nothing is computed but a sum, so that nothing is left out. A prefetch that is too short is
 * slower than none, and the hint that is best on one CPU takes two thirds of the bandwidth on another; a roof must not
 * be lower than it need be. So all hints and distances that kernels may have (codegen/kernels/prefetch.ts) are tried.
 */
#include "reads.h"
#include <time.h>

enum { TRIALS = 3 };

static const read_hint hints[] = {{0, 0},    {2048, 0}, {4096, 0},  {8192, 0}, {16384, 0},
                                  {4096, 2}, {8192, 2}, {12288, 2}, {24576, 2}};

static _Thread_local volatile uint64_t sink;

/* 64 bytes as the compiler's own vector type: one of the target's widest registers, or several. */
typedef uint64_t line __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) line sum_of(const uint8_t *p, const uint8_t *end, size_t ahead,
                                                         int level) {
  line a = {0}, b = {0}, c = {0}, d = {0};
  for (; p < end; p += READ_STEP) {
    const line *l = (const line *)(const void *)p;
    for (int i = 0; ahead && i < READ_STEP; i += 64) {
      if (level)
        __builtin_prefetch(p + ahead + i, 0, 2);
      else
        __builtin_prefetch(p + ahead + i, 0, 0);
    }
    a += l[0], b += l[1], c += l[2], d += l[3];
  }
  return (a + b) + (c + d);
}

void bn_read(void *argument, int thread, int threads) {
  const reading *r = argument;
  long first, end;
  bn_span((long)(r->bytes / READ_STEP), thread, threads, &first, &end);
  const uint8_t *from = r->data + first * READ_STEP, *to = r->data + end * READ_STEP;
  const line s = !r->hint.ahead  ? sum_of(from, to, 0, 0)
                 : r->hint.level ? sum_of(from, to, r->hint.ahead, 2)
                                 : sum_of(from, to, r->hint.ahead, 0);
  for (int i = 0; i < 8; i++) sink += s[i];
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

read_hint bn_fastest_read(bn_pool *pool, const uint8_t *data, size_t bytes) {
  reading r = {data, bytes, hints[0]};
  read_hint best = hints[0];
  double shortest = 1e9;
  /* The first round only touches the memory. */
  for (int trial = 0; trial <= TRIALS; trial++)
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
      r.hint = hints[i];
      const double start = now();
      bn_pool_run(pool, bn_read, &r);
      const double seconds = now() - start;
      if (trial && seconds < shortest) shortest = seconds, best = r.hint;
      if (!trial && i) break;
    }
  return best;
}
