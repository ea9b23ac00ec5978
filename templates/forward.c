/*
 * The forward pass: embedding, layers, head (the steps of attention and head are in files of their own). All threads
 * run the same program and meet at barriers, ten a layer. A step's work is divided by tokens (norms, activation
 * function), by row tiles (products), by heads (rotary embedding) or by token and key-value head (attention). Whatever
 * the division, each result is computed in the same order, so the logits do not depend on threads or batches.
 *
 *   h  = x + o_proj(quantise([norm](attention(rope(q), rope(k), v))))       q, k, v = products of quantise(norm(x))
 *   x' = h + down(quantise([norm](act(gate) * up)))                        gate, up = products of quantise(norm(h))
 */
#include "state.h"

/* Steps: each is run by all threads, for the whole batch */

/* y = W q for one matrix of a layer, by row tiles. */
static void product(bn_state *s, int thread, int layer, int matrix, const quantised *a) {
  const bn_matrix *m = &bn_matrices[matrix];
  const uint8_t *w = bn_tensor_data(s->model, tensor_of(layer, matrix));
  long t0, t1;
  bn_time(BN_TIME_TERNARY);
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

static void embed(bn_state *s, int t) {
  const size_t row = PADDED(BN_HIDDEN) * BN_EMBEDDING_BYTES;
  bn_rows((const void *)(bn_tensor_data(s->model, BN_TOKEN_EMBD) + (size_t)s->tokens[t] * row),
          s->x + (size_t)t * PADDED(BN_HIDDEN));
}

/* x -> quantised(norm(x)), after the previous sub-layer's sum; by tokens. */
static void enter(bn_state *s, int thread, int layer, int slot) {
  long t0, t1;
  bn_time(BN_TIME_REST);
  bn_span(s->n, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long t = t0; t < t1; t++) {
    if (slot == BN_FFN_NORM)
      bn_add_residual(s, (int)t, layer, BN_ATTN_OUTPUT, &s->mixed);
    else if (layer > 0)
      bn_add_residual(s, (int)t, layer - 1, BN_FFN_DOWN, &s->inner);
    else
      embed(s, (int)t);
    bn_norm_hidden(s->x + (size_t)t * PADDED(BN_HIDDEN), vector_of(s, layer, slot), BN_NORM_EPS, scratch_of(s, thread),
                   s->hidden.q + (size_t)t * (size_t)s->hidden.stride, &s->hidden.inverse[t], &s->hidden.sum[t]);
  }
}

/* Attention's result -> input of o_proj; by tokens. */
static void mix(bn_state *s, int thread, int layer) {
  long t0, t1;
  bn_time(BN_TIME_REST);
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
  bn_time(BN_TIME_REST);
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
    bn_rotate(s, thread, layer);
    bn_pool_barrier(s->pool);
    bn_attend(s, thread, layer);
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
  bn_leave(s, thread, first);
  bn_pool_barrier(s->pool);
  bn_project(s, thread, s->n - first);
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
