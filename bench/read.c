/*
 * The bandwidth roof: a plain read of so many bytes by so many threads, each one contiguous part, from huge pages
 * (templates/tune/reads.c).
 *
 *     read BYTES           room for reads of up to BYTES; prints "BYTES HUGE": room, and how much of it is huge pages
 *     stdin  THREADS BYTES PASSES
 *     stdout AHEAD LEVEL, then SECONDS WORK of each pass: from start to end, and of that what a thread reads on average
 *            without waiting for the others; AHEAD and LEVEL are the hint, the fastest at the first request of a number
 *            of threads
 *
 * A read goes on where the one before it ended, so that it finds in the cache no more than a token finds there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "reads.h"

enum { MOST_THREADS = 1024 };

static double seconds_of(bn_pool *pool, reading *r) {
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  bn_pool_run(pool, bn_read, r);
  clock_gettime(CLOCK_MONOTONIC, &b);
  return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

/* The next bytes of the room; those that would go beyond its end begin at the start again. */
static const uint8_t *next(const uint8_t *data, size_t room, size_t bytes) {
  static size_t at;
  if (at + bytes > room) at = 0;
  const uint8_t *start = data + at;
  at += (bytes + READ_STEP - 1) / READ_STEP * READ_STEP;
  return start;
}

int main(int argc, char **argv) {
  static bn_pool *pools[MOST_THREADS + 1];
  static read_hint chosen[MOST_THREADS + 1];
  const size_t room = argc == 2 ? ((size_t)atoll(argv[1]) + READ_STEP - 1) / READ_STEP * READ_STEP : 0;
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
  for (reading r = {data, 0, {0, 0}}; scanf("%d %zu %d", &threads, &r.bytes, &passes) == 3;) {
    if (threads < 1 || threads > MOST_THREADS || r.bytes < READ_STEP || r.bytes > room) return 2;
    if (!pools[threads]) {
      pools[threads] = bn_pool_create(threads, threads <= sysconf(_SC_NPROCESSORS_ONLN));
      if (!pools[threads] || bn_pool_profile(pools[threads], 1, NULL)) return 1;
      chosen[threads] = bn_fastest_read(pools[threads], data, room);
    }
    r.hint = chosen[threads];
    printf("%zu %d", r.hint.ahead, r.hint.level);
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
