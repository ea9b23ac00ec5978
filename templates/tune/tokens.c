/*
 * Times whole tokens through the layers of a library, for the final choice between kernels (codegen/tune/tokens.ts) and
 * for the share of live neurons from which on all are read (thresholds.ts).
 *
 *     tokens WEIGHTS               random weights; they are packed first, if there is no such file
 *     time LEVEL MOST THREADS N POSITION ROUNDS
 *                                  seconds of N tokens at once after POSITION others, a line a round; MOST percent of
 *                                  the neurons may be live where zeros are skipped
 *     live LEVEL THREADS           share of neurons that tokens leave live: of `up` and of `down`, mean
 *
 * Without logits, so that the head takes no part. The level, 0 to LEVELS - 1, says how many gates are open: some
 * elements of all embeddings of a level are the same constant, no product adds to them as those of attention and MLP
 * are tiny, and all gates weigh them with 1.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "decode.h"
#include "internal.h"

enum {
  MOST_THREADS = 1024,
  POSITIONS = 512,
  REPEATED = 3,
  AWAKE = 8,
  CONSTANTS = BN_HIDDEN < 256 ? BN_HIDDEN / 4 : 64
};

/* How far gates are shifted, in standard deviations: 24 to 98 % are open. */
static const double levels[] = {0, -0.7, -0.35, 0.25, 0.5, 0.75, 1, 1.4, 2};
enum { LEVELS = sizeof levels / sizeof *levels, TOKENS = BN_VOCABULARY / LEVELS };

static int32_t tokens[POSITIONS];
int bn_most_live; /* in place of the plan's numbers */

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

/* What tensors are packed from, as half floats: -1, 0 and 1 by chance; ones, for norms; the same as the first, but for
 * the constants, for gates and for embeddings. */
enum { RANDOM, ONES, GATES, EMBEDDING, REGIONS };
typedef struct {
  size_t at[REGIONS + 1]; /* elements */
} regions;

static regions regions_of(void) {
  size_t most = 0, longest = 0;
  for (int i = 0; i < BN_TENSORS; i++) {
    const size_t elements = (size_t)(bn_tensors[i].rows * bn_tensors[i].cols);
    if (elements > most) most = elements;
    if ((size_t)bn_tensors[i].cols > longest) longest = (size_t)bn_tensors[i].cols;
  }
  regions r = {{0}};
  r.at[ONES] = most;
  r.at[GATES] = r.at[ONES] + longest;
  r.at[EMBEDDING] = r.at[GATES] + (size_t)BN_INTERMEDIATE * BN_HIDDEN;
  r.at[REGIONS] = r.at[EMBEDDING] + (size_t)BN_VOCABULARY * BN_HIDDEN;
  return r;
}

/* Elements of an embedding that are constant: two thirds of the others count, and two thirds of their weights. */
static float constant_of(long token) {
  const long level = token / TOKENS;
  return level < LEVELS ? (float)(levels[level] * 2 / 3 * sqrt(BN_HIDDEN - CONSTANTS) / CONSTANTS) : 0;
}

static regions write_source(const char *path) {
  static const uint16_t values[3] = {0xbc00, 0, 0x3c00}, one = 0x3c00;
  const regions r = regions_of();
  uint16_t *all = malloc(r.at[REGIONS] * sizeof *all);
  FILE *f = all ? fopen(path, "wb") : NULL;
  uint32_t bits = 1;
  for (size_t i = 0; all && i < r.at[REGIONS]; i++) {
    const size_t col = (i - r.at[GATES]) % BN_HIDDEN; /* of the last two, which have the same */
    all[i] = values[((bits = bits * 1664525 + 1013904223) >> 8) % 3];
    if (i >= r.at[ONES] && (i < r.at[GATES] || col < CONSTANTS)) all[i] = one;
    if (i >= r.at[EMBEDDING] && col < CONSTANTS)
      all[i] = bn_f32_to_f16(constant_of((long)((i - r.at[EMBEDDING]) / BN_HIDDEN)));
  }
  if (!f || fwrite(all, sizeof *all, r.at[REGIONS], f) != r.at[REGIONS] || fclose(f)) {
    fprintf(stderr, "cannot write '%s'; free some space\n", path);
    exit(1);
  }
  free(all);
  return r;
}

/* What a tensor is packed from, and its scale: so small that the residual stream stays as it is, or about
 * 1 / sqrt(2 k / 3), so that activations keep their size. */
static int region_of(int tensor, double *scale) {
  const int slot = tensor < BN_FIRST_LAYER ? -1 : (tensor - BN_FIRST_LAYER) % BN_SLOTS;
  *scale = 0;
  if (tensor == BN_TOKEN_EMBD) return EMBEDDING;
  if (bn_tensors[tensor].kind == BN_VECTOR) return ONES;
  *scale = slot == BN_ATTN_OUTPUT || slot == BN_FFN_DOWN ? 0x1p-40 : 1 / sqrt(2 * (double)bn_tensors[tensor].cols / 3);
  return slot == BN_FFN_GATE ? GATES : RANDOM;
}

static void pack(const char *path) {
  char source[4096];
  snprintf(source, sizeof source, "%s.source", path);
  const regions r = write_source(source);
  checked(bn_pack_begin(path, (int32_t)sysconf(_SC_NPROCESSORS_ONLN)));
  for (int i = 0; i < BN_TENSORS; i++) {
    const bn_tensor *t = &bn_tensors[i];
    double scale;
    if (t->kind == BN_INT32) continue;
    const size_t first = r.at[region_of(i, &scale)];
    checked(bn_pack_tensor(i, source, (double)(first * 2), (double)(t->rows * t->cols * 2), BN_F16, (int)t->rows,
                           (int)t->cols, scale, 1, 0));
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
    contexts[threads] =
        1 + checked(bn_context(model, POSITIONS, threads, 8, spin, BN_PAGES_AUTO, INFINITY, BN_HEAD_EXACT));
  }
  return contexts[threads] - 1;
}

static void evaluate(int32_t context, int n) {
  checked(bn_eval(context, tokens, n, BN_WANT_NONE, NULL));
}

/* As many positions filled, with whatever tokens. */
static void go_to(int32_t context, int position) {
  if (bn_rewind(context, position) == position) return;
  checked(bn_rewind(context, 0));
  evaluate(context, position);
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

static void choose_level(int level) {
  if (level < 0 || level >= LEVELS) exit(2);
  for (int i = 0; i < POSITIONS; i++) tokens[i] = level * TOKENS + i * 41 % TOKENS;
}

/* Gates that are open and inputs of `down` that are not zero, of all neurons, mean of some tokens. */
static double live_of(int32_t context) {
  float shares[BN_LAYERS * BN_LIVE];
  double sum = 0;
  checked(bn_rewind(context, 0));
  checked(bn_live(context, 1, NULL));
  for (int i = 0; i < AWAKE; i++) checked(bn_eval(context, tokens + i, 1, BN_WANT_NONE, NULL));
  checked(bn_live(context, 0, shares));
  for (int layer = 0; layer < BN_LAYERS; layer++)
    sum += shares[layer * BN_LIVE + BN_LIVE_OPEN] + shares[layer * BN_LIVE + BN_LIVE_INPUTS];
  return sum / (2 * BN_LAYERS);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  if (access(argv[1], F_OK)) pack(argv[1]);
  const int32_t model = checked(bn_open(argv[1]));
  char what[8];
  for (int level, most, threads, n, position, rounds; scanf("%7s %d", what, &level) == 2; fflush(stdout)) {
    choose_level(level);
    if (!strcmp(what, "live")) {
      if (scanf("%d", &threads) != 1) return 2;
      printf("%.6f\n", live_of(context_of(model, threads)));
      continue;
    }
    if (scanf("%d %d %d %d %d", &most, &threads, &n, &position, &rounds) != 5) return 2;
    if (n < 1 || position < 0 || n + position > POSITIONS - REPEATED) return 2;
    const int32_t context = context_of(model, threads);
    go_to(context, position);
    bn_most_live = most;
    for (int round = 0; round < rounds; round++) printf("%.9f\n", seconds_of(context, n, position));
  }
  return 0;
}
