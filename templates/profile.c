/*
 * Where the time goes, by operation. Each thread of a pool has a stopwatch that always counts for one operation:
 * bn_time() at the start of a step, and the pool at its barriers, say for which. So the seconds of a thread add up to
 * those of the jobs it took part in, whatever the steps are. Off, bn_time() is one look at a thread's own pointer.
 */
#include <time.h>
#include "internal.h"

static _Thread_local bn_stopwatch *watch;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void count(bn_stopwatch *w, double time, int operation) {
  w->seconds[w->operation] += time - w->since;
  w->since = time;
  w->operation = operation;
}

int bn_time(int operation) {
  if (!watch) return operation;
  const int before = watch->operation;
  count(watch, now(), operation);
  return before;
}

void bn_watch_with(bn_stopwatch *own) {
  watch = own;
}

void bn_watches_start(bn_stopwatch *watches, int threads) {
  const double time = now();
  for (int t = 0; t < threads; t++) {
    watches[t].since = time;
    watches[t].operation = BN_TIME_WAIT;
  }
}

void bn_watches_stop(bn_stopwatch *watches, int threads) {
  const double time = now();
  for (int t = 0; t < threads; t++) count(&watches[t], time, BN_TIME_WAIT);
}

void bn_watches_read(bn_stopwatch *watches, int threads, float *seconds) {
  for (int operation = 0; operation < BN_TIMES; operation++) {
    double sum = 0;
    for (int t = 0; t < threads; t++) {
      sum += watches[t].seconds[operation];
      watches[t].seconds[operation] = 0;
    }
    seconds[operation] = (float)(sum / threads);
  }
}
