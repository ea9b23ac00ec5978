/*
 * What the forward pass works on: the buffers of a batch, the rotary tables and the key-value cache of one context.
 * Private to state.c, which makes it, and to the files of the forward pass.
 */
#ifndef BN_STATE_H
#define BN_STATE_H
#include <stdatomic.h>
#include <string.h>
#include "internal.h"
#include "screen.h"

enum {
  LANES = 16,
  GROUP = BN_HEADS / BN_KV_HEADS, /* query heads that share a key-value head */
  HALF = BN_HEAD_SIZE / 2,
  ANGLES = (HALF + LANES - 1) / LANES * LANES,            /* cosines of one position */
  Q_STRIDE = (HALF + ANGLES + LANES - 1) / LANES * LANES, /* floats of one rotated head */
  V_STRIDE = (BN_HEAD_SIZE + LANES - 1) / LANES * LANES,  /* elements of one value row, codes of one query */
  K8_STRIDE = (BN_HEAD_SIZE + 3) / 4 * 4,                 /* codes of one key */
  ATTENDED = BN_HEADS * BN_HEAD_SIZE,
  SLACK = 64,      /* kernels may read this many elements past a head */
  SEARCHES = 16,   /* hidden states whose largest logits are found at once: most drafts are shorter */
  HEAD_ROWS = 64,  /* rows of the head that stay in the cache while the tokens of a batch pass */
  BLOCK = 32,      /* positions of an attention block */
  QUERIES = 8,     /* tokens of a batch that use a span of keys and values while it is in the cache */
  SPLIT_TOKENS = 8 /* tokens up to which attention is divided by spans too: more are work enough for many threads */
};
#define GROUPS(n) (((n) + LANES - 1) / LANES)
#define PADDED(n) (GROUPS(n) * LANES)
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
enum {
  LONGEST = MAX(PADDED(BN_HIDDEN), MAX(PADDED(ATTENDED), PADDED(BN_INTERMEDIATE))),
  /* floats of one thread: the longest vector twice (activation function and norm), a rotated head, or attention */
  SCRATCH = PADDED(
      MAX(2 * LONGEST + Q_STRIDE + V_STRIDE, MAX(2 * V_STRIDE, BN_ATTENTION_SCRATCH + GROUP * BN_ATTENTION_SPAN / 4)))
};

/* Quantised activations: the input of one or more products. A row is a token of a batch, or a thread's own copy of the
 * only token: [rows] = [max(BN_BATCH, threads)]. */
typedef struct {
  int8_t *q;      /* [rows][x_stride], zero beyond the input's length */
  float *inverse; /* [rows] max|h| / 127 */
  int32_t *sum;   /* [rows] sum of q */
  int stride;
} quantised;

/* A row of the head: its logit, or a bound of it. */
typedef struct {
  float value;
  int32_t id;
} bn_candidate;

/* The search for the largest logits of one hidden state (largest.c). */
typedef struct {
  const float *state; /* [BN_HIDDEN] */
  float *scores;      /* [BN_VOCABULARY] logits, of the rows that passed or of all; the searches' follow each other */
  bn_candidate *best; /* [threads][BN_MOST_TOP] */
  /* with a screen */
  bn_screened_state bounds;
  float threshold;      /* a logit that k rows reach */
  atomic_int passed;    /* rows whose upper bound reaches it */
  int32_t *rows_passed; /* [BN_VOCABULARY] */
  uint8_t *codes;       /* [2][BN_SCREEN_STRIDE], or [2][BN_FAST_STRIDE], of the hidden state */
  float *lower, *upper; /* [BN_SCREEN_TILES * LANES] bounds */
  float *peaks;         /* [BN_SCREEN_TILES][2] largest lower and upper bound of a tile */
  int *kept;            /* [threads] how many of `best` are there */
} bn_search;

struct bn_state {
  bn_model *model;
  bn_pool *pool;
  bn_arena *arena; /* NULL: weights are read from the mapped file */
  int fast;        /* the head is screened by 4-bit rows, which the arena has */
  float scales[BN_LAYERS][BN_SLOTS];
  int positions, position, kv;
  /* the batch being evaluated */
  const int32_t *tokens;
  float *logits;
  int n, want;
  int first;        /* that has logits */
  atomic_int sound; /* tokens before the first that has numbers that are not finite; of a search, states */
  float *x;         /* [rows][PADDED(BN_HIDDEN)] the residual stream */
  float *normed, *rotated, *attended; /* [BN_BATCH][...] */
  float *gated;                       /* [PADDED(BN_INTERMEDIATE)] of the only token */
  int8_t *queries;                    /* [BN_BATCH][BN_HEADS][V_STRIDE], for kv = 8, as the next two */
  float *query_scales;                /* [BN_BATCH][BN_HEADS], with the factor 1 / sqrt(d) */
  int32_t *query_offsets;             /* [BN_BATCH][BN_HEADS] -64 times the sum of the codes */
  quantised hidden, mixed, inner;     /* inputs of q k v gate up; of o; of down */
  int32_t *y[BN_SLOTS];               /* products, by matrix */
  int8_t *look_ups;                   /* [BN_LOOK_UP_BYTES] tables of the only token's input */
  /* buffers of one thread each */
  float *rows;     /* [threads][SCRATCH] */
  uint8_t *tables; /* [threads][BN_SCRATCH_BYTES] */
#if BN_SPARSE
  int32_t *down_sums; /* [threads][BN_DOWN_TOKENS][BN_DOWN_SUMS] */
#endif
  /* What is told of single tokens (live.c). */
  int watched, watched_tokens;
  int64_t live[BN_LAYERS][BN_LIVE]; /* counts */
  uint8_t *was_open;                /* [BN_LAYERS][BN_INTERMEDIATE] for the token before */
#if BN_HEAD_BLOCKS
  float *head_rows; /* [threads][HEAD_ROWS][PADDED(BN_HIDDEN)] decoded */
#endif
  const float *last; /* [BN_HIDDEN] hidden state, in `normed`, of the token before last_position */
  int last_position;
  /* the k largest logits */
  int k, screened, searching; /* searching: states at once */
  bn_search searches[SEARCHES];
  /* tables and cache */
  float *cosine, *sine;             /* [positions][ANGLES] */
  uint8_t *keys, *values;           /* [layer][key-value head][...] of kv bits */
  float *key_scales, *value_scales; /* [layer][key-value head][rows_of_cache], for kv = 8 */
  size_t rows_of_cache;             /* positions, whole blocks */
  size_t key_bytes, value_bytes;    /* of one position */
  size_t head_bytes_k, head_bytes_v;
  /* attention's parts: [pair of token and key-value head, or thread and token][span][BN_ATTENTION_PART] */
  float *parts;
  size_t part_floats; /* of one pair */
  void *memory;       /* everything above */
  size_t bytes;
};

/* A function that some of the files need. */
#define BN_SHARED static inline __attribute__((unused))

BN_SHARED int tensor_of(int layer, int slot) {
  return BN_FIRST_LAYER + layer * BN_SLOTS + slot;
}
BN_SHARED const float *vector_of(const bn_state *s, int layer, int slot) {
  return (const float *)bn_tensor_data(s->model, tensor_of(layer, slot));
}
BN_SHARED float scale_of(const bn_state *s, int layer, int matrix) {
  return s->scales[layer][matrix];
}
BN_SHARED float *scratch_of(const bn_state *s, int thread) {
  return s->rows + (size_t)thread * SCRATCH;
}

/* x += y * scales, the end of a sub-layer, for token t, whose vectors are in row `row` of the batch buffers. */
BN_SHARED void bn_add_residual(bn_state *s, long t, long row, int layer, int matrix, const quantised *a) {
  bn_residual(s->y[matrix] + (size_t)t * (size_t)bn_matrices[matrix].y_stride,
              a->inverse[row] * scale_of(s, layer, matrix), s->x + (size_t)row * PADDED(BN_HIDDEN));
}

/* Would most tokens of the batch be multiplied by tables, if row tiles of the matrix were made (products.c)? */
BN_SHARED int has_tables(const bn_state *s, int matrix, long rows) {
  return bn_matrices[matrix].sums && 2 * s->n > BN_TABLE_TOKENS && rows / bn_pool_threads(s->pool) >= BN_LEAST_ROWS;
}
/* Are so few rows of `up`, or columns of `down`, live that only those are read? The live ones of all tokens together.
 */
BN_SHARED int are_few(const bn_state *s, long live, int matrix, long rows) {
  const long most = s->n == 1                     ? BN_MOST_LIVE
                    : has_tables(s, matrix, rows) ? BN_MOST_LIVE_OF_PROMPT
                                                  : BN_MOST_LIVE_OF_BATCH;
  return BN_SPARSE && live * 100 <= most * BN_INTERMEDIATE * s->n;
}
BN_SHARED int few_rows(const bn_state *s, long open) {
  return are_few(s, open, BN_FFN_UP, BN_INTERMEDIATE);
}
BN_SHARED int few_columns(const bn_state *s, long live) {
  return are_few(s, live, BN_FFN_DOWN, BN_HIDDEN);
}
/* How many are read for one token. */
BN_SHARED long rows_read(const bn_state *s, long open) {
  return few_rows(s, open) ? open : BN_INTERMEDIATE;
}
BN_SHARED long columns_read(const bn_state *s, long live) {
  return few_columns(s, live) ? live : BN_INTERMEDIATE;
}

/* Where a matrix's tile 0 would lie for a thread; the first byte of one in an order of its own. */
BN_SHARED const uint8_t *weights_at(const bn_state *s, int thread, int layer, int matrix) {
  return s->arena ? bn_arena_weights(s->arena, thread, layer, matrix)
                  : bn_tensor_data(s->model, tensor_of(layer, matrix));
}

/* Token t of the batch, or state t of a search, has numbers that are not finite. */
BN_SHARED void bn_is_unsound(bn_state *s, int t) {
  for (int before = atomic_load(&s->sound); t < before;)
    if (atomic_compare_exchange_weak(&s->sound, &before, t)) return;
}

/* Is one of n logits of state t not finite? */
BN_SHARED void bn_check_logits(bn_state *s, int t, const float *logits, long n) {
  uint32_t largest = 0;
  for (long i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, logits + i, sizeof bits);
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  if (largest >= 0x7f800000u) bn_is_unsound(s, s->first + t);
}

/* Row `token` of the embedding as x[PADDED(BN_HIDDEN)]. */
void bn_embed(const bn_state *, int32_t token, float *x);
/* Where row 0 of the head would lie, for kernels that read rows [r0, r1), at most HEAD_ROWS of them; until the thread's
 * next call. */
const void *bn_head_rows(const bn_state *, int thread, long r0, long r1);

/* Steps of the forward pass: each is run by all threads, for the whole batch. */
/* The products of `count` matrices, from `matrix` on, with the same input. All threads meet before the next call: they
 * share tables. */
void bn_products(bn_state *, int thread, int layer, int matrix, int count, const quantised *);
/* After the products of the gate, before threads meet: those of rows that packing has moved go where they belong. */
void bn_return_gates(bn_state *, int thread, int layer);
/* After quantisation: inputs of columns of `down` that are zero are as good as zero, and are not read then. */
void bn_skip_zeros(bn_state *, int layer, long row);
/* Rows of `up` whose gate is open: the products of all tokens, and of the last one groups [*first, *end) of LANES rows,
 * this thread's share. 0: nothing was done, since too many are open. */
int bn_open_rows(bn_state *, int thread, int layer, long *first, long *end);
/* `down` by columns whose input is not zero. 0: nothing was done, since too many are not. */
int bn_live_columns(bn_state *, int thread, int layer);
/* One token: counts what is open and what is not zero, for bn_live. By one thread, after `inner` is quantised. */
void bn_watch(bn_state *, int layer, const int8_t *inner);
void bn_rotate(bn_state *, int thread, int layer);
void bn_attend(bn_state *, int thread, int layer);
void bn_leave(bn_state *, int thread, int first);
void bn_project(bn_state *, int thread, const float *states, int count);

#endif
