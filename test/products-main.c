/*
 * The ternary products of a layer against their definition, for products.test.ts:
 *
 *     products-main WEIGHTS KINDS THREADS...        (3: weights are read from the mapped file; 3c: from a copy)
 *
 * WEIGHTS is written: known trits, packed by the library's own packer; all other tensors are zero. Inputs of several
 * kinds, the first KINDS of those below, are put where the forward pass keeps them, and bn_products is called as the
 * forward pass calls it, for several numbers of tokens. Prints how many products were compared; with the first
 * difference it ends, exit code 2.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "state.h"

enum {
  TOKENS = 7,     /* different tokens: no width of a vector or a kernel divides it, or the batch by it */
  FULL_SPAN = 258 /* elements of 127: their sum is 32,766 */
};

enum {
  RANDOM,
  HIGH,
  LOW,
  ALTERNATING,
  FULL_FIRST,
  OVER_FIRST,
  FULL_WITHIN,
  OVER_WITHIN,
  FULL_LAST,
  OVER_LAST,
  OVER_ONE
};
static const char *const kinds[] = {
    "random",        "all 127",       "all -127",     "alternating",  "32,767 first",        "32,768 first",
    "32,767 within", "32,768 within", "32,767 last ", "32,768 last ", "32,768 in one token",
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* Matrices by what they read, and the calls of the forward pass. */
static const struct {
  int first, count;
} calls[] = {{BN_ATTN_Q, 3}, {BN_ATTN_OUTPUT, 1}, {BN_FFN_GATE, 2}, {BN_FFN_DOWN, 1}};
enum { CALLS = sizeof calls / sizeof *calls };

static int8_t *trits[BN_LAYERS][BN_SLOTS];     /* [rows][cols] */
static int32_t *products[BN_LAYERS][BN_SLOTS]; /* [TOKENS][rows] of the present inputs */
static int8_t *inputs[BN_SLOTS];               /* [TOKENS][cols], of the first matrix of each call */

static void fail(const char *what) {
  fprintf(stderr, "products-main: %s\n", what);
  exit(1);
}

static void *allocate(size_t bytes) {
  void *p = malloc(bytes);
  if (!p) fail("out of memory");
  return p;
}

/* xorshift (Marsaglia, 2003) */
static uint32_t random_bits(void) {
  static uint32_t x = 2463534242u;
  x ^= x << 13, x ^= x >> 17, x ^= x << 5;
  return x >> 8;
}

static long rows_of(int matrix) {
  return (long)bn_tensors[tensor_of(0, matrix)].rows;
}
static long cols_of(int matrix) {
  return (long)bn_tensors[tensor_of(0, matrix)].cols;
}
static const quantised *input_of(const bn_state *s, int matrix) {
  return matrix == BN_ATTN_OUTPUT ? &s->mixed : matrix == BN_FFN_DOWN ? &s->inner : &s->hidden;
}

/* Rows with the largest sums among random ones. */
static int8_t trit_of(long row, long k) {
  switch (row % 8) {
  case 0: return 1;
  case 1: return -1;
  case 2: return k & 1 ? 1 : -1;
  default: return (int8_t)((int)(random_bits() % 3) - 1);
  }
}

static void write_weights(const char *weights) {
  char source[4096];
  snprintf(source, sizeof source, "%s.source", weights);
  remove(weights);
  if (bn_pack_begin(weights, 1)) fail(bn_error());
  for (int layer = 0; layer < BN_LAYERS; layer++)
    for (int m = 0; m < BN_SLOTS; m++) {
      if (!bn_matrices[m].tiles) continue;
      const long rows = rows_of(m), cols = cols_of(m);
      int8_t *t = trits[layer][m] = allocate((size_t)(rows * cols));
      float *floats = allocate((size_t)(rows * cols) * sizeof *floats);
      for (long i = 0; i < rows * cols; i++) floats[i] = t[i] = trit_of(i / cols, i % cols);
      FILE *f = fopen(source, "wb");
      if (!f || fwrite(floats, sizeof *floats, (size_t)(rows * cols), f) != (size_t)(rows * cols) || fclose(f))
        fail("cannot write the trits");
      free(floats);
      if (bn_pack_tensor(tensor_of(layer, m), source, 0, (double)(rows * cols) * sizeof *floats, 0, (int)rows,
                         (int)cols, 1, 1, 0))
        fail(bn_error());
      products[layer][m] = allocate(TOKENS * (size_t)rows * sizeof(int32_t));
    }
  if (bn_pack_end(1)) fail(bn_error());
  remove(source);
}

/* |x| sums to 32,766 + more from `start` on, and to nothing elsewhere. */
static int full(long i, long start, int more) {
  return i < start || i > start + FULL_SPAN ? 0 : i < start + FULL_SPAN ? 127 : more;
}

static int8_t element_of(int kind, int token, long i, long k) {
  const int sign = token & 1 ? -1 : 1;
  const long last = MAX(0, k - FULL_SPAN - 1);
  switch (kind) {
  case RANDOM: return (int8_t)((int)(random_bits() % 255) - 127);
  case HIGH: return 127;
  case LOW: return -127;
  case ALTERNATING: return (i + token) & 1 ? -127 : 127;
  case FULL_FIRST: return (int8_t)(sign * full(i, 0, 1));
  case OVER_FIRST: return (int8_t)(sign * full(i, 0, 2));
  case FULL_WITHIN: return (int8_t)(sign * full(i, last / 2, 1));
  case OVER_WITHIN: return (int8_t)(sign * full(i, last / 2, 2));
  case FULL_LAST: return (int8_t)(sign * full(i, last, 1));
  case OVER_LAST: return (int8_t)(sign * full(i, last, 2));
  default: return (int8_t)(token == 5 ? full(i, last, 2) : 0);
  }
}

/* Makes the inputs of a kind, and their products by definition. */
static void make(int kind) {
  for (int c = 0; c < CALLS; c++) {
    const int first = calls[c].first;
    const long k = cols_of(first);
    for (int t = 0; t < TOKENS && first != BN_FFN_GATE; t++)
      for (long i = 0; i < k; i++) inputs[first][t * k + i] = element_of(kind, t, i, k);
    if (first == BN_FFN_GATE) memcpy(inputs[first], inputs[BN_ATTN_Q], TOKENS * (size_t)k); /* read the same vector */
    for (int m = first; m < first + calls[c].count; m++)
      for (int layer = 0; layer < BN_LAYERS; layer++)
        for (int t = 0; t < TOKENS; t++)
          for (long r = 0; r < rows_of(m); r++) {
            const int8_t *w = trits[layer][m] + r * k, *x = inputs[first] + t * k;
            int32_t sum = 0;
            for (long i = 0; i < k; i++) sum += w[i] * x[i];
            products[layer][m][t * rows_of(m) + r] = sum;
          }
  }
}

/* The only token is each thread's own copy, in the row of its number; they differ here, but for the tables that all
 * threads make together. */
static long token_of(const bn_state *s, long row) {
  return BN_LOOK_UP_BYTES && s->n == 1 ? 0 : row % TOKENS;
}

/* Token r % TOKENS in row r of the state's inputs, also in rows that are not computed: as an earlier batch leaves them.
 */
static void give(bn_state *s, int threads) {
  for (int c = 0; c < CALLS; c++) {
    const quantised *a = input_of(s, calls[c].first);
    const long k = cols_of(calls[c].first);
    for (long r = 0; r < MAX(BN_BATCH, threads); r++) {
      const int8_t *x = inputs[calls[c].first] + token_of(s, r) * k;
      memcpy(a->q + r * a->stride, x, (size_t)k);
      a->sum[r] = 0;
      for (long i = 0; i < k; i++) a->sum[r] += x[i];
    }
  }
}

/* Results and scratch hold rubbish: what is read before it is written, or never written, is found. */
enum { RUBBISH = 0x5a5a5a5a };
static void spoil(bn_state *s, int threads) {
  for (int m = 0; m < BN_SLOTS; m++)
    if (bn_matrices[m].tiles)
      memset(s->y[m], RUBBISH & 255, (size_t)BN_BATCH * (size_t)bn_matrices[m].y_stride * sizeof(int32_t));
  memset(s->rows, RUBBISH & 255, (size_t)threads * SCRATCH * sizeof *s->rows);
  memset(s->tables, RUBBISH & 255, (size_t)threads * BN_SCRATCH_BYTES);
}

/* One token of a matrix that is not in row tiles: sparse.c multiplies it, with other inputs (sparse.test.ts). */
static int is_by_others(const bn_state *s, int matrix) {
  return s->n == 1 && bn_matrices[matrix].order;
}

typedef struct {
  bn_state *state;
  int layer;
} job;

static void multiply(void *argument, int thread, int threads) {
  const job *j = argument;
  (void)threads;
  for (int c = 0; c < CALLS; c++) {
    int count = 0;
    while (count < calls[c].count && !is_by_others(j->state, calls[c].first + count)) count++;
    bn_products(j->state, thread, j->layer, calls[c].first, count, input_of(j->state, calls[c].first));
    bn_pool_barrier(j->state->pool);
  }
}

/* Compares all products. -> how many */
static long compare(const bn_state *s, int layer, int kind, int threads) {
  long compared = 0;
  for (int m = 0; m < BN_SLOTS; m++) {
    const bn_matrix *matrix = &bn_matrices[m];
    if (!matrix->tiles || is_by_others(s, m)) continue;
    const long rows = rows_of(m), whole = MAX(BN_TABLE_TOKENS, 8);
    for (int thread = 0; thread < threads; thread++) {
      long t0, t1;
      bn_tiles(matrix, matrix->tiles, thread, threads, &t0, &t1);
      for (long r = t0 * matrix->tile_rows; r < t1 * matrix->tile_rows && r < rows; r++)
        for (long t = 0; t < s->n; t++) {
          const long token = token_of(s, s->n > 1 ? t : thread);
          const int32_t y = s->y[m][t * matrix->y_stride + r], expected = products[layer][m][token * rows + r];
          compared++;
          if (y == expected) continue;
          fprintf(stderr, "%s: %d tokens, %d threads, matrix %d, token %ld, row %ld: %d instead of %d\n", kinds[kind],
                  s->n, threads, m, t, r, y, expected);
          exit(2);
        }
    }
    /* Kernels may go on to the end of a vector of tokens, and no further. */
    for (long i = (s->n > 1 ? (s->n + whole - 1) / whole * whole : 1) * matrix->y_stride;
         i < (long)BN_BATCH * matrix->y_stride; i++)
      if (s->y[m][i] != RUBBISH) fail("a result of a token that is not there");
  }
  return compared;
}

int main(int argc, char **argv) {
  enum { T = BN_TABLE_TOKENS };
  const int all[] = {1,         2,
                     3,         4,
                     5,         6,
                     7,         8,
                     9,         10,
                     11,        12,
                     13,        14,
                     15,        16,
                     17,        T - 1,
                     T,         T + 1,
                     T + T / 2, T + T / 2 + 1,
                     2 * T + 3, BN_BATCH - 1,
                     BN_BATCH};
  const int few[] = {1, 2, 7, T + 1, T + T / 2 + 1, BN_BATCH};
  const int lengths = sizeof all / sizeof *all, some = sizeof few / sizeof *few;
  if (argc < 4) fail("too few arguments");
  write_weights(argv[1]);
  for (int c = 0; c < CALLS; c++) inputs[calls[c].first] = allocate(TOKENS * (size_t)cols_of(calls[c].first));
  const int32_t model = bn_open(argv[1]);
  if (model < 0) fail(bn_error());
  long compared = 0;
  for (int kind = 0; kind < KINDS && kind < atoi(argv[2]); kind++) {
    make(kind);
    for (int a = 3; a < argc; a++) {
      const int threads = atoi(argv[a]), copied = strchr(argv[a], 'c') != NULL;
      bn_state *s =
          bn_state_create(bn_model_acquire(model), 1, threads, 16, 0, copied ? BN_PAGES_HUGE : BN_PAGES_MAPPED, 0, 0);
      if (!s) fail(bn_error());
      if (copied && !s->arena) fail("no memory for a copy of the weights");
      for (int i = 0; i < (kind == RANDOM ? lengths : some); i++) {
        job j = {s, i % BN_LAYERS};
        s->n = kind == RANDOM ? all[i] : few[i];
        if (s->n < 1 || s->n > BN_BATCH) continue;
        give(s, threads);
        spoil(s, threads);
        bn_pool_run(s->pool, multiply, &j);
        compared += compare(s, j.layer, kind, threads);
      }
      bn_state_destroy(s);
    }
  }
  printf("%ld\n", compared);
  for (int m = 0; m < BN_SLOTS; m++) {
    for (int layer = 0; layer < BN_LAYERS; layer++) free(trits[layer][m]), free(products[layer][m]);
    free(inputs[m]);
  }
  return bn_close(model) ? 1 : 0;
}
