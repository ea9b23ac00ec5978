/*
 * What the forward pass works on: the buffers of a batch, the rotary tables and the key-value cache of one context.
 * Private to state.c, which makes it, and to the files of the forward pass.
 */
#ifndef BN_STATE_H
#define BN_STATE_H
#include "internal.h"

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
  HEAD_ROWS = 64,  /* rows of the head that stay in the cache while the tokens of a batch pass */
  BLOCK = 32,      /* positions of an attention block */
  SPLIT_TOKENS = 8 /* tokens up to which attention is divided by spans too: more are work enough for many threads */
};
#define PADDED(n) (((n) + LANES - 1) / LANES * LANES)
#define MAX(a, b) ((a) > (b) ? (a) : (b))
enum {
  LONGEST = MAX(PADDED(BN_HIDDEN), MAX(PADDED(ATTENDED), PADDED(BN_INTERMEDIATE))),
  /* floats of one thread: the longest vector twice (activation function and norm), a rotated head, or attention */
  SCRATCH = PADDED(MAX(2 * LONGEST + Q_STRIDE + V_STRIDE, MAX(2 * V_STRIDE, BN_ATTENTION_SCRATCH + GROUP * BLOCK / 4)))
};

/* Quantised activations of a batch: the input of one or more products. */
typedef struct {
  int8_t *q;      /* [BN_BATCH][x_stride], zero beyond the input's length */
  float *inverse; /* [BN_BATCH] max|h| / 127 */
  int32_t *sum;   /* [BN_BATCH] sum of q */
  int stride;
} quantised;

struct bn_state {
  bn_model *model;
  bn_pool *pool;
  int positions, position, kv;
  /* the batch being evaluated */
  const int32_t *tokens;
  float *logits;
  int n, want;
  /* buffers [BN_BATCH][...] */
  float *x, *normed, *rotated, *attended;
  int8_t *queries;                /* [BN_BATCH][BN_HEADS][V_STRIDE], for kv = 8, as the next two */
  float *query_scales;            /* [BN_BATCH][BN_HEADS], with the factor 1 / sqrt(d) */
  int32_t *query_offsets;         /* [BN_BATCH][BN_HEADS] -64 times the sum of the codes */
  quantised hidden, mixed, inner; /* inputs of q k v gate up; of o; of down */
  int32_t *y[BN_SLOTS];           /* products, by matrix */
  /* buffers of one thread each */
  float *rows;     /* [threads][SCRATCH] */
  uint8_t *panels; /* [threads][BN_PANEL_BYTES] */
  /* tables and cache */
  float *cosine, *sine;             /* [positions][ANGLES] */
  uint8_t *keys, *values;           /* [layer][key-value head][...] of kv bits */
  float *key_scales, *value_scales; /* [layer][key-value head][rows_of_cache], for kv = 8 */
  size_t rows_of_cache;             /* positions, whole blocks */
  size_t key_bytes, value_bytes;    /* of one position */
  size_t head_bytes_k, head_bytes_v;
  /* attention's parts: [pair of token and key-value head, or thread][span][BN_ATTENTION_PART] */
  float *parts;
  size_t part_floats; /* of one pair */
  void *memory;       /* everything above */
  size_t bytes;
};

static inline int tensor_of(int layer, int slot) {
  return BN_FIRST_LAYER + layer * BN_SLOTS + slot;
}
static inline const float *vector_of(const bn_state *s, int layer, int slot) {
  return (const float *)bn_tensor_data(s->model, tensor_of(layer, slot));
}
static inline float scale_of(const bn_state *s, int layer, int matrix) {
  return bn_tensor_scale(s->model, tensor_of(layer, matrix));
}
static inline float *scratch_of(const bn_state *s, int thread) {
  return s->rows + (size_t)thread * SCRATCH;
}

/* x += y * scales, the end of a sub-layer, for one token. */
static inline void bn_add_residual(bn_state *s, int t, int layer, int matrix, const quantised *a) {
  bn_residual(s->y[matrix] + (size_t)t * (size_t)bn_matrices[matrix].y_stride,
              a->inverse[t] * scale_of(s, layer, matrix), s->x + (size_t)t * PADDED(BN_HIDDEN));
}

/* Steps of the forward pass: each is run by all threads, for the whole batch. */
void bn_rotate(bn_state *, int thread, int layer);
void bn_attend(bn_state *, int thread, int layer);
void bn_leave(bn_state *, int thread, int first);
void bn_project(bn_state *, int thread, int count);

#endif
