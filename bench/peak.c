/*
 * The arithmetic roof: dot steps on registers by so many threads. The loop is in templates/tune/peaks.c.
 *
 *     stdin  THREADS PASSES
 *     stdout seconds of each pass: what a thread takes on average, without waiting for the others
 */
#include <stdio.h>
#include <unistd.h>
#include "internal.h"
#include "peaks.h"

enum { MOST_THREADS = 1024 };

int main(void) {
  static bn_pool *pools[MOST_THREADS + 1];
  int whole = 1;
  bn_peaks_prepare();
  for (int threads, passes; scanf("%d %d", &threads, &passes) == 2;) {
    if (threads < 1 || threads > MOST_THREADS) return 2;
    bn_pool **pool = &pools[threads];
    if (!*pool) *pool = bn_pool_create(threads, threads <= sysconf(_SC_NPROCESSORS_ONLN));
    if (!*pool || bn_pool_profile(*pool, 1, NULL)) {
      fprintf(stderr, "%d threads cannot be started; measure with fewer (--threads)\n", threads);
      return 1;
    }
    for (int pass = 0; pass < passes; pass++) {
      float parts[BN_TIMES];
      bn_pool_run(*pool, bn_peak_dots, &whole);
      bn_pool_profile(*pool, 1, parts);
      printf("%s%.9f", pass ? " " : "", parts[BN_TIME_REST]);
    }
    printf("\n");
    fflush(stdout);
  }
  return 0;
}
