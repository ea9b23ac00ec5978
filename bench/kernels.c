/*
 * Times kernels one by one on one thread, on data that stay in the caches: what their arithmetic and their loads allow.
 * calls.h is generated (codegen/ir/calls.ts).
 *
 *     kernels FILE         arguments of a call of each kernel, as codegen/ir/calls.ts encodes them; prints their number
 *     stdin  KERNEL        a number
 *     stdout seconds of a call, on average over a few milliseconds
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calls.h"

enum { MOST = 16, COUNT = sizeof kernels / sizeof *kernels };
static const double ENOUGH = 2e-3; /* seconds of a measurement */

static slot arguments[COUNT][MOST];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void get(void *to, size_t bytes, FILE *in) {
  if (fread(to, 1, bytes, in) == bytes) return;
  fprintf(stderr, "the file of arguments ends early\n");
  exit(1);
}

/* A buffer on a cache line of its own. */
static void *contents(size_t bytes, FILE *in) {
  void *at = aligned_alloc(64, (bytes + 128) / 64 * 64);
  if (!at) exit(1);
  get(at, bytes, in);
  return at;
}

static double seconds_of(const kernel *k, const slot *slots) {
  for (long calls = 1;; calls *= 4) {
    const double start = now();
    for (long i = 0; i < calls; i++) k->call(slots);
    const double seconds = now() - start;
    if (seconds >= ENOUGH) return seconds / (double)calls;
  }
}

int main(int argc, char **argv) {
  FILE *in = argc == 2 ? fopen(argv[1], "rb") : NULL;
  if (!in) return 2;
  for (int i = 0; i < COUNT; i++)
    for (size_t j = 0; j < strlen(kernels[i].kinds); j++) {
      slot *s = &arguments[i][j];
      get(s, 8, in);
      if (kernels[i].kinds[j] == 'p') s->at = contents((size_t)s->number, in);
    }
  fclose(in);
  printf("%d\n", COUNT);
  fflush(stdout);
  for (int i; scanf("%d", &i) == 1;) {
    if (i < 0 || i >= COUNT) return 2;
    printf("%.12f\n", seconds_of(&kernels[i], arguments[i]));
    fflush(stdout);
  }
  return 0;
}
