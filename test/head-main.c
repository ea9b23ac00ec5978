/*
 * The k largest logits against all logits, for given rows and hidden states, for head*.test.ts:
 *
 *     head-main WEIGHTS ROWS ENCODING STATES ROUNDS THREADS HEAD K...
 *
 * WEIGHTS is written: rows and screen, packed by the library's own packer; all other tensors are zero. STATES holds
 * float32 [states][BN_HIDDEN]. Each state is given to bn_largest and to the full head; every answer must hold rows in
 * the right order with the full head's bits. With HEAD = 0 they must be the right rows, and the bounds of all rows must
 * hold; with HEAD = 1, the fast head, it is counted when they are not. Prints for each K: K, states that were screened,
 * mean and largest number of rows that passed, states with wrong rows, logits outside their bounds, and with ROUNDS > 0
 * the milliseconds of the full head and of bn_largest, medians of that many rounds in turn over the states.
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

/* Does row a come before row b? */
static int before(int32_t a, int32_t b) {
  return full[a] > full[b] || (full[a] == full[b] && a < b);
}

/* -> are the rows those of the k largest logits? */
static int check(int k) {
  for (int i = 0; i < k; i++) {
    if (ids[i] < 0 || ids[i] >= BN_VOCABULARY) fail("a row that does not exist");
    if (memcmp(&full[ids[i]], &logits[i], sizeof *logits)) fail("another logit");
    if (i && !before(ids[i - 1], ids[i])) fail("another order");
  }
  int better = 0;
  for (int32_t r = 0; r < BN_VOCABULARY; r++) better += before(r, ids[k - 1]);
  return better == k - 1;
}

/* Logits outside the screen's bounds. */
static long outside(const bn_state *s) {
  long count = 0;
  for (int32_t r = 0; r < BN_VOCABULARY; r++)
    count += !(s->searches[0].lower[r] <= full[r] && full[r] <= s->searches[0].upper[r]);
  return count;
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
  if (argc < 9) fail("too few arguments");
  const char *weights = argv[1], *rows = argv[2];
  const int encoding = atoi(argv[3]), rounds = atoi(argv[5]), threads = atoi(argv[6]), head = atoi(argv[7]);
  remove(weights);
  if (bn_pack_begin(weights, threads)) fail(bn_error());
  for (int t = 0; t < BN_TENSORS; t++)
    if ((t == BN_OUTPUT || bn_tensors[t].kind == BN_INT8) &&
        bn_pack_tensor(t, rows, 0, bytes_of(rows), encoding, BN_VOCABULARY, BN_HIDDEN, 0, 1, 0))
      fail(bn_error());
  if (bn_pack_end(1)) fail(bn_error());
  const int32_t model = bn_open(weights);
  if (model < 0) fail(bn_error());
  bn_state *s = bn_state_create(bn_model_acquire(model), 1, threads, 16, threads <= 2, BN_PAGES_MAPPED, 0, head);
  if (!s) fail(bn_error());

  const long states = (long)bytes_of(argv[4]) / (long)sizeof(float) / BN_HIDDEN;
  float *h = malloc((size_t)states * BN_HIDDEN * sizeof *h);
  FILE *in = fopen(argv[4], "rb");
  if (!h || !in || fread(h, BN_HIDDEN * sizeof *h, (size_t)states, in) != (size_t)states)
    fail("cannot read the states");
  fclose(in);
  enum { MOST_KS = 8 };
  struct {
    long screened, passed, most, wrong, outside;
  } found[MOST_KS] = {0};
  const int ks = argc - 8;
  if (ks > MOST_KS) fail("too many K");
  for (long i = 0; i < states; i++) {
    memcpy(s->normed, h + i * BN_HIDDEN, BN_HIDDEN * sizeof *h);
    s->last = s->normed;
    run_full(s);
    for (int a = 0; a < ks; a++) {
      const int k = atoi(argv[8 + a]);
      memset(s->searches[0].scores, 0xff, sizeof full); /* NaN: a row that was not computed is no answer */
      if (bn_largest(s, 1, k, ids, logits) < 1) fail("a logit that is not finite");
      found[a].wrong += !check(k);
      if (!s->screened) continue;
      found[a].outside += outside(s);
      found[a].screened++;
      found[a].passed += s->searches[0].passed;
      found[a].most = MAX(found[a].most, s->searches[0].passed);
    }
    if (head == BN_HEAD_EXACT)
      for (int a = 0; a < ks; a++)
        if (found[a].wrong || found[a].outside) fail(found[a].wrong ? "other rows" : "a logit outside its bounds");
  }
  for (int a = 0; a < ks; a++) {
    const int k = atoi(argv[8 + a]);
    const double passed = found[a].screened ? (double)found[a].passed / (double)found[a].screened : 0;
    printf("%d %ld %g %ld %ld %ld", k, found[a].screened, passed, found[a].most, found[a].wrong, found[a].outside);
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
