/*
 * The bandwidth roof: a plain read of so many bytes by so many threads, each one contiguous part, from huge pages.
 * Reads the widest vectors of the target; nothing is computed but a sum, so that nothing is left out.
 *
 *     read BYTES           room for reads of up to BYTES; prints "BYTES HUGE": room, and how much of it is huge pages
 *     stdin  THREADS BYTES PASSES
 *     stdout DISTANCE, then SECONDS WORK of each pass: from start to end, and of that what a thread reads on average
 *            without waiting for the others; DISTANCE bytes ahead is what it prefetches
 *
 * The distance is the fastest of a few, tried at the first request of a number of threads: a prefetch that is too short
 * is slower than none, and a roof must not be lower than it need be. A read goes on where the one before it ended, so
 * that it finds in the cache no more than a token finds there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

enum { MOST_THREADS = 1024, STEP = 256, TRIALS = 3 };
static const size_t distances[] = {0, 1024, 2048, 4096, 8192, 16384}; /* 0: no prefetch of our own */

typedef struct {
  const uint8_t *data;
  size_t bytes, distance;
} reading;

static _Thread_local volatile uint64_t result;

/* 64 bytes as the compiler's own vector type: the target's widest registers, one or several. */
typedef uint64_t line __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) line sum_of(const uint8_t *data, size_t bytes, size_t distance) {
  line a = {0}, b = {0}, c = {0}, d = {0};
  for (const uint8_t *p = data, *end = data + bytes; p < end; p += STEP) {
    const line *l = (const line *)(const void *)p;
    if (distance)
      for (int i = 0; i < STEP; i += 64) __builtin_prefetch(p + distance + i, 0, 0);
    a += l[0];
    b += l[1];
    c += l[2];
    d += l[3];
  }
  return (a + b) + (c + d);
}

static void read_part(void *argument, int thread, int threads) {
  const reading *r = argument;
  long first, end;
  bn_span((long)(r->bytes / STEP), thread, threads, &first, &end);
  const uint8_t *data = r->data + (size_t)first * STEP;
  const size_t bytes = (size_t)(end - first) * STEP;
  const line sum = r->distance ? sum_of(data, bytes, r->distance) : sum_of(data, bytes, 0);
  for (int i = 0; i < 8; i++) result += sum[i];
}

static double seconds_of(bn_pool *pool, reading *r) {
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  bn_pool_run(pool, read_part, r);
  clock_gettime(CLOCK_MONOTONIC, &b);
  return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

/* The next bytes of the room; those that would go beyond its end begin at the start again. */
static const uint8_t *next(const uint8_t *data, size_t room, size_t bytes) {
  static size_t at;
  if (at + bytes > room) at = 0;
  const uint8_t *start = data + at;
  at += (bytes + STEP - 1) / STEP * STEP;
  return start;
}

/* The distance with the shortest time, all tried in turn. */
static size_t fastest(bn_pool *pool, reading r) {
  size_t best = 0;
  double shortest = 1e9;
  for (int trial = 0; trial < TRIALS; trial++)
    for (size_t i = 0; i < sizeof distances / sizeof *distances; i++) {
      r.distance = distances[i];
      const double seconds = seconds_of(pool, &r);
      if (seconds < shortest) {
        shortest = seconds;
        best = distances[i];
      }
    }
  return best;
}

int main(int argc, char **argv) {
  static bn_pool *pools[MOST_THREADS + 1];
  static size_t chosen[MOST_THREADS + 1];
  const size_t room = argc == 2 ? ((size_t)atoll(argv[1]) + STEP - 1) / STEP * STEP : 0;
  if (!room) return 2;
  uint8_t *data = bn_map_huge(room);
  if (!data) {
    fprintf(stderr, "no memory for a plain read of %zu MB\n", room >> 20);
    return 1;
  }
  memset(data, 1, room);
  printf("%zu %zu\n", room, bn_huge_bytes(data, room));
  fflush(stdout);

  int threads, passes;
  for (reading r = {data, 0, 0}; scanf("%d %zu %d", &threads, &r.bytes, &passes) == 3;) {
    if (threads < 1 || threads > MOST_THREADS || r.bytes < STEP || r.bytes > room) return 2;
    if (!pools[threads]) {
      pools[threads] = bn_pool_create(threads, threads <= sysconf(_SC_NPROCESSORS_ONLN));
      if (!pools[threads] || bn_pool_profile(pools[threads], 1, NULL)) return 1;
      chosen[threads] = fastest(pools[threads], (reading){data, room, 0});
    }
    r.distance = chosen[threads];
    printf("%zu", r.distance);
    for (int pass = 0; pass < passes; pass++) {
      r.data = next(data, room, r.bytes);
      float parts[BN_TIMES];
      bn_pool_profile(pools[threads], 1, parts);
      const double seconds = seconds_of(pools[threads], &r);
      bn_pool_profile(pools[threads], 1, parts);
      printf(" %.9f %.9f", seconds, parts[BN_TIME_REST]);
    }
    printf("\n");
    fflush(stdout);
  }
  return 0;
}
