/*
 * The forward pass: embedding, layers, head. All threads run the same program and meet at barriers, ten a layer. A
 * step's work is divided by tokens (norms, activation function), by row tiles (products), by heads (rotary embedding)
 * or by token and key-value head (attention). Whatever the division, each result is computed in the same order, so the
 * logits do not depend on threads or batches.
 *
 *   h  = x + o_proj(quantise([norm](attention(rope(q), rope(k), v))))       q, k, v = products of quantise(norm(x))
 *   x' = h + down(quantise([norm](act(gate) * up)))                        gate, up = products of quantise(norm(h))
 */
#include <math.h>
#include <string.h>
#include "state.h"

/* Steps: each is run by all threads, for the whole batch */

static int tensor_of(int layer, int slot) {
  return BN_FIRST_LAYER + layer * BN_SLOTS + slot;
}
static const float *vector_of(const bn_state *s, int layer, int slot) {
  return (const float *)bn_tensor_data(s->model, tensor_of(layer, slot));
}
static float scale_of(const bn_state *s, int layer, int matrix) {
  return bn_tensor_scale(s->model, tensor_of(layer, matrix));
}
static float *scratch_of(const bn_state *s, int thread) {
  return s->rows + (size_t)thread * SCRATCH;
}

/* y = W q for one matrix of a layer, by row tiles. */
static void product(bn_state *s, int thread, int layer, int matrix, const quantised *a) {
  const bn_matrix *m = &bn_matrices[matrix];
  const uint8_t *w = bn_tensor_data(s->model, tensor_of(layer, matrix));
  long t0, t1;
  bn_span(m->tiles, thread, bn_pool_threads(s->pool), &t0, &t1);
  if (t0 == t1) return;
  if (s->n == 1) {
    m->gemv(w, a->q, a->sum[0], s->y[matrix], t0, t1);
  } else {
    const long tokens = (s->n + m->tokens - 1) / m->tokens * m->tokens,
               whole = t0 + (t1 - t0) / m->panel_tiles * m->panel_tiles;
    m->gemm(w, a->q, a->sum, s->y[matrix], s->panels + (size_t)thread * BN_PANEL_BYTES, tokens, t0, whole, t1);
  }
}

/* x += y * scales, the end of a sub-layer, for one token. */
static void add_residual(bn_state *s, int t, int layer, int matrix, const quantised *a) {
  bn_residual(s->y[matrix] + (size_t)t * (size_t)bn_matrices[matrix].y_stride,
              a->inverse[t] * scale_of(s, layer, matrix), s->x + (size_t)t * PADDED(BN_HIDDEN));
}

static void embed(bn_state *s, int t) {
  const size_t row = PADDED(BN_HIDDEN) * BN_EMBEDDING_BYTES;
  bn_rows((const void *)(bn_tensor_data(s->model, BN_TOKEN_EMBD) + (size_t)s->tokens[t] * row),
          s->x + (size_t)t * PADDED(BN_HIDDEN));
}

/* x -> quantised(norm(x)), after the previous sub-layer's sum; by tokens. */
static void enter(bn_state *s, int thread, int layer, int slot) {
  long t0, t1;
  bn_span(s->n, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long t = t0; t < t1; t++) {
    if (slot == BN_FFN_NORM)
      add_residual(s, (int)t, layer, BN_ATTN_OUTPUT, &s->mixed);
    else if (layer > 0)
      add_residual(s, (int)t, layer - 1, BN_FFN_DOWN, &s->inner);
    else
      embed(s, (int)t);
    bn_norm_hidden(s->x + (size_t)t * PADDED(BN_HIDDEN), vector_of(s, layer, slot), BN_NORM_EPS, scratch_of(s, thread),
                   s->hidden.q + (size_t)t * (size_t)s->hidden.stride, &s->hidden.inverse[t], &s->hidden.sum[t]);
  }
}

/* Rotates queries and keys, stores keys and values in the cache; by tokens and heads. */
static void rotate(bn_state *s, int thread, int layer) {
  float *scratch = scratch_of(s, thread);
  const int heads = BN_HEADS + BN_KV_HEADS;
  const float fq = scale_of(s, layer, BN_ATTN_Q), fk = scale_of(s, layer, BN_ATTN_K),
              fv = scale_of(s, layer, BN_ATTN_V);
  long u0, u1;
  bn_span((long)s->n * heads, thread, bn_pool_threads(s->pool), &u0, &u1);
  for (long u = u0; u < u1; u++) {
    const size_t t = (size_t)(u / heads), h = (size_t)(u % heads), p = (size_t)s->position + t;
    const float *cosine = s->cosine + p * ANGLES, *sine = s->sine + p * ANGLES, inverse = s->hidden.inverse[t];
    if (h < BN_HEADS) {
      bn_rope(s->y[BN_ATTN_Q] + t * (size_t)bn_matrices[BN_ATTN_Q].y_stride + h * BN_HEAD_SIZE, inverse * fq, cosine,
              sine, s->rotated + (t * BN_HEADS + h) * Q_STRIDE);
      continue;
    }
    const size_t kv = h - BN_HEADS, cache = (size_t)layer * BN_KV_HEADS + kv;
    const int32_t *k = s->y[BN_ATTN_K] + t * (size_t)bn_matrices[BN_ATTN_K].y_stride + kv * BN_HEAD_SIZE;
    const int32_t *v = s->y[BN_ATTN_V] + t * (size_t)bn_matrices[BN_ATTN_V].y_stride + kv * BN_HEAD_SIZE;
    uint8_t *keys = s->keys + cache * s->head_bytes_k, *values = s->values + cache * s->head_bytes_v;
    const size_t first = p / LANES * LANES * BN_HEAD_SIZE + p % LANES; /* [p / 16][d][p % 16] */
    bn_rope(k, inverse * fk, cosine, sine, scratch);
    if (s->kv == 32) {
      for (size_t d = 0; d < BN_HEAD_SIZE; d++) ((float *)(void *)keys)[first + d * LANES] = scratch[d];
      bn_scale_f32(v, inverse * fv, (float *)(void *)values + p * V_STRIDE);
    } else {
      uint16_t *half = (uint16_t *)(scratch + Q_STRIDE);
      bn_narrow(scratch, half);
      for (size_t d = 0; d < BN_HEAD_SIZE; d++) ((uint16_t *)(void *)keys)[first + d * LANES] = half[d];
      bn_scale_f16(v, inverse * fv, (uint16_t *)(void *)values + p * V_STRIDE);
    }
  }
}

/* Attention over all positions up to the token's own; by tokens and key-value heads. */
static void attend(bn_state *s, int thread, int layer) {
  float *o = scratch_of(s, thread), *scratch = o + (size_t)GROUP * V_STRIDE;
  const float scale = 1.0f / sqrtf((float)BN_HEAD_SIZE);
  long u0, u1;
  bn_span((long)s->n * BN_KV_HEADS, thread, bn_pool_threads(s->pool), &u0, &u1);
  for (long u = u0; u < u1; u++) {
    const size_t t = (size_t)(u / BN_KV_HEADS), kv = (size_t)(u % BN_KV_HEADS),
                 cache = (size_t)layer * BN_KV_HEADS + kv;
    const long count = s->position + (long)t + 1, blocks = count / BLOCK, rest = count % BLOCK;
    const float *q = s->rotated + (t * BN_HEADS + kv * GROUP) * Q_STRIDE;
    const void *keys = s->keys + cache * s->head_bytes_k, *values = s->values + cache * s->head_bytes_v;
    if (s->kv == 32)
      bn_attention_f32(q, keys, values, o, scratch, blocks, rest > 0, rest, scale);
    else
      bn_attention_f16(q, keys, values, o, scratch, blocks, rest > 0, rest, scale);
    for (size_t h = 0; h < GROUP; h++)
      memcpy(s->attended + t * PADDED(ATTENDED) + (kv * GROUP + h) * BN_HEAD_SIZE, o + h * V_STRIDE,
             BN_HEAD_SIZE * sizeof(float));
  }
}

/* Attention's result -> input of o_proj; by tokens. */
static void mix(bn_state *s, int thread, int layer) {
  long t0, t1;
  bn_span(s->n, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long t = t0; t < t1; t++)
    bn_norm_mixed(s->attended + (size_t)t * PADDED(ATTENDED),
#if BN_SUB_NORMS
                  vector_of(s, layer, BN_ATTN_SUB_NORM), BN_NORM_EPS,
#endif
                  scratch_of(s, thread), s->mixed.q + (size_t)t * (size_t)s->mixed.stride, &s->mixed.inverse[t],
                  &s->mixed.sum[t]);
}

/* act(gate) * up -> input of down; by tokens. */
static void activate(bn_state *s, int thread, int layer) {
  const float fg = scale_of(s, layer, BN_FFN_GATE), fu = scale_of(s, layer, BN_FFN_UP);
  float *gated = scratch_of(s, thread), *scratch = gated + PADDED(BN_INTERMEDIATE);
  long t0, t1;
  bn_span(s->n, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long t = t0; t < t1; t++) {
    bn_activation(s->y[BN_FFN_GATE] + (size_t)t * (size_t)bn_matrices[BN_FFN_GATE].y_stride,
                  s->y[BN_FFN_UP] + (size_t)t * (size_t)bn_matrices[BN_FFN_UP].y_stride, s->hidden.inverse[t] * fg,
                  s->hidden.inverse[t] * fu, gated);
    bn_norm_inner(gated,
#if BN_SUB_NORMS
                  vector_of(s, layer, BN_FFN_SUB_NORM), BN_NORM_EPS,
#endif
                  scratch, s->inner.q + (size_t)t * (size_t)s->inner.stride, &s->inner.inverse[t], &s->inner.sum[t]);
  }
}

/* The last sum and the final norm of the tokens whose logits are wanted; by tokens. */
static void leave(bn_state *s, int thread, int first) {
  long t0, t1;
  bn_span(s->n - first, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long t = first + t0; t < first + t1; t++) {
    add_residual(s, (int)t, BN_LAYERS - 1, BN_FFN_DOWN, &s->inner);
    bn_norm_output(s->x + (size_t)t * PADDED(BN_HIDDEN), (const float *)bn_tensor_data(s->model, BN_OUTPUT_NORM),
                   BN_NORM_EPS, s->normed + (size_t)(t - first) * PADDED(BN_HIDDEN));
  }
}

/* Logits of `count` hidden states; by rows of the head. */
static void project(bn_state *s, int thread, int count) {
  const void *w = bn_tensor_data(s->model, BN_OUTPUT);
  long r0, r1;
  bn_span((BN_VOCABULARY + HEAD_ROWS - 1) / HEAD_ROWS, thread, bn_pool_threads(s->pool), &r0, &r1);
  for (long r = r0 * HEAD_ROWS; r < r1 * HEAD_ROWS && r < BN_VOCABULARY; r += HEAD_ROWS) {
    const long end = r + HEAD_ROWS < BN_VOCABULARY ? r + HEAD_ROWS : BN_VOCABULARY;
    int t = 0;
    for (; t + BN_HEAD_TOKENS <= count; t += BN_HEAD_TOKENS)
      bn_head_batch(w, s->normed + (size_t)t * PADDED(BN_HIDDEN), s->logits + (size_t)t * BN_VOCABULARY, r,
                    r + (end - r) / BN_HEAD_BATCH_ROWS * BN_HEAD_BATCH_ROWS, end);
    for (; t < count; t++)
      bn_head_one(w, s->normed + (size_t)t * PADDED(BN_HIDDEN), s->logits + (size_t)t * BN_VOCABULARY, r,
                  r + (end - r) / BN_HEAD_ONE_ROWS * BN_HEAD_ONE_ROWS, end);
  }
}

static void evaluate(void *argument, int thread, int threads) {
  bn_state *s = argument;
  (void)threads;
  for (int layer = 0; layer < BN_LAYERS; layer++) {
    enter(s, thread, layer, BN_ATTN_NORM);
    bn_pool_barrier(s->pool);
    product(s, thread, layer, BN_ATTN_Q, &s->hidden);
    product(s, thread, layer, BN_ATTN_K, &s->hidden);
    product(s, thread, layer, BN_ATTN_V, &s->hidden);
    bn_pool_barrier(s->pool);
    rotate(s, thread, layer);
    bn_pool_barrier(s->pool);
    attend(s, thread, layer);
    bn_pool_barrier(s->pool);
    mix(s, thread, layer);
    bn_pool_barrier(s->pool);
    product(s, thread, layer, BN_ATTN_OUTPUT, &s->mixed);
    bn_pool_barrier(s->pool);
    enter(s, thread, layer, BN_FFN_NORM);
    bn_pool_barrier(s->pool);
    product(s, thread, layer, BN_FFN_GATE, &s->hidden);
    product(s, thread, layer, BN_FFN_UP, &s->hidden);
    bn_pool_barrier(s->pool);
    activate(s, thread, layer);
    bn_pool_barrier(s->pool);
    product(s, thread, layer, BN_FFN_DOWN, &s->inner);
    bn_pool_barrier(s->pool);
  }
  if (s->want == BN_WANT_NONE) return;
  const int first = s->want == BN_WANT_ALL ? 0 : s->n - 1;
  leave(s, thread, first);
  bn_pool_barrier(s->pool);
  project(s, thread, s->n - first);
}

void bn_forward(bn_state *s, const int32_t *tokens, int n, int want, float *logits) {
  for (int done = 0; done < n; done += s->n) {
    s->n = n - done < BN_BATCH ? n - done : BN_BATCH;
    s->tokens = tokens + done;
    s->want = want == BN_WANT_LAST && done + s->n < n ? BN_WANT_NONE : want;
    s->logits = want == BN_WANT_ALL ? logits + (size_t)done * BN_VOCABULARY : logits;
    bn_pool_run(s->pool, evaluate, s);
    s->position += s->n;
  }
}
