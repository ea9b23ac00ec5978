/*
 * The k largest logits against all logits, for given rows and hidden states, for head*.test.ts:
 *
 *     head-main WEIGHTS ROWS ENCODING STATES ROUNDS THREADS K...
 *
 * WEIGHTS is written: rows and screen, packed by the library's own packer; all other tensors are zero. STATES holds
 * float32 [states][BN_HIDDEN]. Each state is given to bn_largest and to the full head; every answer must hold the right
 * rows in the right order with the full head's bits, and the bounds of all rows must hold. Prints for each K: K, states
 * that were screened, mean and largest number of rows that passed, and with ROUNDS > 0 the milliseconds of the full
 * head and of bn_largest, medians of that many rounds in turn over the states.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "state.h"

static float full[BN_VOCABULARY], logits[BN_MOST_TOP];
static int32_t ids[BN_MOST_TOP];

static void fail(const char *what) {
  fprintf(stderr, "head-main: %s\n", what);
  exit(1);
}

static double bytes_of(const char *path) {
  struct stat s;
  if (stat(path, &s)) fail("a file is missing");
  return (double)s.st_size;
}

/* Does row a come before row b? NaN counts as the smallest. */
static int before(int32_t a, int32_t b) {
  const float x = full[a] == full[a] ? full[a] : -__builtin_inff(),
              y = full[b] == full[b] ? full[b] : -__builtin_inff();
  return x > y || (x == y && a < b);
}

static void check(int k) {
  for (int i = 0; i < k; i++) {
    if (ids[i] < 0 || ids[i] >= BN_VOCABULARY) fail("a row that does not exist");
    if (full[ids[i]] == full[ids[i]] && memcmp(&full[ids[i]], &logits[i], sizeof *logits)) fail("another logit");
    if (i && !before(ids[i - 1], ids[i])) fail("another order");
  }
  int better = 0;
  for (int32_t r = 0; r < BN_VOCABULARY; r++) better += before(r, ids[k - 1]);
  if (better != k - 1) fail("other rows");
}

/* The screen's bounds must hold for every row; a row with an infinite element, whose logit may be NaN, has none. */
static void check_bounds(const bn_state *s) {
  for (int32_t r = 0; r < BN_VOCABULARY; r++)
    if (full[r] == full[r] ? !(s->lower[r] <= full[r] && full[r] <= s->upper[r]) : s->upper[r] < __builtin_inff())
      fail("a logit outside its bounds");
}

static void project(void *argument, int thread, int threads) {
  (void)threads;
  const bn_state *s = argument;
  bn_project(argument, thread, s->normed, 1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static double run_full(bn_state *s) {
  const double start = now();
  s->logits = full;
  bn_pool_run(s->pool, project, s);
  return now() - start;
}

static int rising(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double median(double *times, int n) {
  qsort(times, (size_t)n, sizeof *times, rising);
  return times[n / 2];
}

int main(int argc, char **argv) {
  if (argc < 8) fail("too few arguments");
  const char *weights = argv[1], *rows = argv[2];
  const int encoding = atoi(argv[3]), rounds = atoi(argv[5]), threads = atoi(argv[6]);
  remove(weights);
  if (bn_pack_begin(weights, threads)) fail(bn_error());
  for (int t = 0; t < BN_TENSORS; t++)
    if ((t == BN_OUTPUT || bn_tensors[t].kind == BN_INT8) &&
        bn_pack_tensor(t, rows, 0, bytes_of(rows), encoding, BN_VOCABULARY, BN_HIDDEN, 0, 1, 0))
      fail(bn_error());
  if (bn_pack_end(1)) fail(bn_error());
  const int32_t model = bn_open(weights);
  if (model < 0) fail(bn_error());
  bn_state *s = bn_state_create(bn_model_acquire(model), 1, threads, 16, threads <= 2, BN_PAGES_MAPPED);
  if (!s) fail(bn_error());

  const long states = (long)bytes_of(argv[4]) / (long)sizeof(float) / BN_HIDDEN;
  float *h = malloc((size_t)states * BN_HIDDEN * sizeof *h);
  FILE *in = fopen(argv[4], "rb");
  if (!h || !in || fread(h, BN_HIDDEN * sizeof *h, (size_t)states, in) != (size_t)states)
    fail("cannot read the states");
  fclose(in);
  for (int a = 7; a < argc; a++) {
    const int k = atoi(argv[a]);
    long screened = 0, passed = 0, most = 0;
    for (long i = 0; i < states; i++) {
      memcpy(s->normed, h + i * BN_HIDDEN, BN_HIDDEN * sizeof *h);
      s->last = s->normed;
      run_full(s);
      memset(s->scores, 0xff, sizeof full); /* NaN: a row that was not computed is no answer */
      bn_largest(s, 1, k, ids, logits);
      check(k);
      if (!s->screened) continue;
      check_bounds(s);
      screened++;
      passed += s->passed;
      most = s->passed > most ? s->passed : most;
    }
    printf("%d %ld %g %ld", k, screened, screened ? (double)passed / (double)screened : 0, most);
    if (rounds > 0) {
      double *times[2] = {malloc((size_t)rounds * sizeof(double)), malloc((size_t)rounds * sizeof(double))};
      for (int i = 0; i < rounds; i++) {
        memcpy(s->normed, h + i % states * BN_HIDDEN, BN_HIDDEN * sizeof *h);
        times[0][i] = run_full(s);
        const double start = now();
        bn_largest(s, 1, k, ids, logits);
        times[1][i] = now() - start;
      }
      printf(" %.3f %.3f", median(times[0], rounds), median(times[1], rounds));
      free(times[0]), free(times[1]);
    }
    printf("\n");
  }
  bn_state_destroy(s);
  free(h);
  return bn_close(model) ? 1 : 0;
}
