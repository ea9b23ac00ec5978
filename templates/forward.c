/*
 * The forward pass: embedding, layers, head (the steps of attention and head are in files of their own). All threads
 * run the same program and meet at barriers.
 *
 *   h  = x + o_proj(quantise([norm](attention(rope(q), rope(k), v))))       q, k, v = products of quantise(norm(x))
 *   x' = h + down(quantise([norm](act(gate) * up)))                        gate, up = products of quantise(norm(h))
 *
 * Products are divided by row tiles, attention by tokens and heads; the vectors between products by tokens, in a batch.
 * For a single token they take a microsecond or two, about as much as meeting takes: each thread computes them for
 * itself, in a row of its own, and nobody waits. Six barriers a layer remain, ten in a batch. Where zeros are skipped
 * (sparse.c) there are two more; in a batch, two for each eight tokens. Whatever the division, each result
 * is computed in the same order, so the logits do not depend on threads or batches.
 */
#include <math.h>
#include "state.h"

/* Tokens whose vectors a thread computes, [*t0, *t1): its share of a batch, or the only token. */
static void share(const bn_state *s, int thread, long *t0, long *t1) {
  *t0 = 0, *t1 = 1;
  if (s->n > 1) bn_span(s->n, thread, bn_pool_threads(s->pool), t0, t1);
}

/* Row of the batch buffers that a thread keeps token t in. */
static long row_of(const bn_state *s, int thread, long t) {
  return s->n > 1 ? t : thread;
}

/* After vectors were divided by tokens. */
static void meet(bn_state *s) {
  if (s->n > 1) bn_pool_barrier(s->pool);
}

/* A single token: brings a vector that a later step needs close, while the weights stream by. */
static void fetch(const bn_state *s, int layer, int slot) {
  if (s->n > 1 || layer >= BN_LAYERS) return;
  const float *vector = vector_of(s, layer, slot);
  const long length = (long)bn_tensors[tensor_of(layer, slot)].cols;
  for (long i = 0; i < length; i += LANES) __builtin_prefetch(vector + i, 0, 2);
}

/* x -> quantised(norm(x)), after the previous sub-layer's sum; by tokens. */
static void enter(bn_state *s, int thread, int layer, int slot) {
  long t0, t1;
  bn_time(BN_TIME_REST);
  share(s, thread, &t0, &t1);
  for (long t = t0; t < t1; t++) {
    const long row = row_of(s, thread, t);
    if (slot == BN_FFN_NORM)
      bn_add_residual(s, t, row, layer, BN_ATTN_OUTPUT, &s->mixed);
    else if (layer > 0)
      bn_add_residual(s, t, row, layer - 1, BN_FFN_DOWN, &s->inner);
    else
      bn_embed(s, s->tokens[t], s->x + (size_t)row * PADDED(BN_HIDDEN));
    bn_norm_hidden(s->x + (size_t)row * PADDED(BN_HIDDEN), vector_of(s, layer, slot), BN_NORM_EPS,
                   scratch_of(s, thread), s->hidden.q + (size_t)row * (size_t)s->hidden.stride, &s->hidden.inverse[row],
                   &s->hidden.sum[row]);
  }
}

/* Attention's result -> input of o_proj; by tokens. */
static void mix(bn_state *s, int thread, int layer) {
  long t0, t1;
  (void)layer;
  bn_time(BN_TIME_REST);
  share(s, thread, &t0, &t1);
  for (long t = t0; t < t1; t++) {
    const long row = row_of(s, thread, t);
    bn_norm_mixed(s->attended + (size_t)t * PADDED(ATTENDED),
#if BN_SUB_NORMS
                  vector_of(s, layer, BN_ATTN_SUB_NORM), BN_NORM_EPS,
#endif
                  scratch_of(s, thread), s->mixed.q + (size_t)row * (size_t)s->mixed.stride, &s->mixed.inverse[row],
                  &s->mixed.sum[row]);
  }
}

/* act(gate) * up of token t, of groups [i0, i1) of LANES rows. */
static void activate(bn_state *s, int layer, long t, long row, float *gated, long i0, long i1) {
  const float inverse = s->hidden.inverse[row];
  bn_activation(s->y[BN_FFN_GATE] + (size_t)t * (size_t)bn_matrices[BN_FFN_GATE].y_stride,
                s->y[BN_FFN_UP] + (size_t)t * (size_t)bn_matrices[BN_FFN_UP].y_stride,
                inverse * scale_of(s, layer, BN_FFN_GATE), inverse * scale_of(s, layer, BN_FFN_UP), gated, i0, i1);
}

/* gated -> input of down. */
static void quantise_inner(bn_state *s, int layer, long row, const float *gated, float *scratch) {
  (void)layer;
  bn_norm_inner(gated,
#if BN_SUB_NORMS
                vector_of(s, layer, BN_FFN_SUB_NORM), BN_NORM_EPS,
#endif
                scratch, s->inner.q + (size_t)row * (size_t)s->inner.stride, &s->inner.inverse[row],
                &s->inner.sum[row]);
#if BN_SPARSE
  bn_skip_zeros(s, layer, row);
#endif
}

/* gate, up and the activation function -> input of down. One token: each thread goes on with the rows of its own tiles,
 * and after the barrier quantises the whole vector for itself. */
static void expand(bn_state *s, int thread, int layer) {
#if BN_SUB_NORMS
  fetch(s, layer, BN_FFN_SUB_NORM);
#endif
  float *scratch = scratch_of(s, thread);
  long t0, t1;
  if (s->n == 1) {
#if BN_SPARSE
    bn_products(s, thread, layer, BN_FFN_GATE, 1, &s->hidden);
    bn_return_gates(s, thread, layer);
    bn_pool_barrier(s->pool);
    /* Where the gate is closed, zero times whatever an earlier token left. */
    bn_open_rows(s, thread, layer, &t0, &t1);
#else
    bn_products(s, thread, layer, BN_FFN_GATE, 2, &s->hidden); /* and up, which follows */
    const bn_matrix *m = &bn_matrices[BN_FFN_GATE];
    bn_tiles(m, m->tiles, thread, bn_pool_threads(s->pool), &t0, &t1);
    /* The last tile may reach beyond the rows. */
    t0 = t0 * m->tile_rows / LANES, t1 = MIN(GROUPS(t1 * m->tile_rows), GROUPS(BN_INTERMEDIATE));
#endif
    bn_time(BN_TIME_REST);
    if (t0 < t1) activate(s, layer, 0, thread, s->gated, t0, t1);
    bn_pool_barrier(s->pool);
    quantise_inner(s, layer, thread, s->gated, scratch);
    if (s->watched && thread == 0) bn_watch(s, layer, s->inner.q);
    return;
  }
#if BN_SPARSE
  bn_products(s, thread, layer, BN_FFN_GATE, 1, &s->hidden);
  bn_return_gates(s, thread, layer);
  bn_pool_barrier(s->pool);
  if (!bn_open_rows(s, thread, layer, &t0, &t1)) bn_products(s, thread, layer, BN_FFN_UP, 1, &s->hidden);
#else
  bn_products(s, thread, layer, BN_FFN_GATE, 2, &s->hidden);
#endif
  bn_time(BN_TIME_REST);
  bn_pool_barrier(s->pool);
  share(s, thread, &t0, &t1);
  for (long t = t0; t < t1; t++) {
    activate(s, layer, t, t, scratch, 0, GROUPS(BN_INTERMEDIATE));
    quantise_inner(s, layer, t, scratch, scratch + PADDED(BN_INTERMEDIATE));
  }
  bn_pool_barrier(s->pool);
}

/* down */
static void contract(bn_state *s, int thread, int layer) {
#if BN_SPARSE
  if (bn_live_columns(s, thread, layer)) return;
#endif
  bn_products(s, thread, layer, BN_FFN_DOWN, 1, &s->inner);
}

static void evaluate(void *argument, int thread, int threads) {
  bn_state *s = argument;
  (void)threads;
  for (int layer = 0; layer < BN_LAYERS; layer++) {
    enter(s, thread, layer, BN_ATTN_NORM);
    meet(s);
#if BN_SUB_NORMS
    fetch(s, layer, BN_ATTN_SUB_NORM);
#endif
    bn_products(s, thread, layer, BN_ATTN_Q, 3, &s->hidden); /* and k and v, which follow */
    bn_pool_barrier(s->pool);
    bn_rotate(s, thread, layer);
    bn_pool_barrier(s->pool);
    bn_attend(s, thread, layer);
    bn_pool_barrier(s->pool);
    mix(s, thread, layer);
    meet(s);
    fetch(s, layer, BN_FFN_NORM);
    bn_products(s, thread, layer, BN_ATTN_OUTPUT, 1, &s->mixed);
    bn_pool_barrier(s->pool);
    enter(s, thread, layer, BN_FFN_NORM);
    meet(s);
    expand(s, thread, layer);
    fetch(s, layer + 1, BN_ATTN_NORM);
    contract(s, thread, layer);
    bn_pool_barrier(s->pool);
  }
  /* The hidden states stay, the last token's always: bn_largest reads them. */
  bn_leave(s, thread, s->first);
  if (s->want == BN_WANT_NONE || !s->logits) return;
  bn_pool_barrier(s->pool);
  bn_project(s, thread, s->normed, s->n - s->first);
}

/*
 * Tokens of the batch before the first that has numbers that are not finite. What is not finite never becomes a number
 * again (codegen/kernels/norm.ts): wherever it arises, each scale of activations after it is NaN or infinite, the last
 * too.
 */
static int sound_tokens(const bn_state *s) {
  const int sound = atomic_load(&s->sound);
  int t = 0;
  while (t < sound && isfinite(s->inner.inverse[t])) t++;
  return t;
}

int bn_forward(bn_state *s, const int32_t *tokens, int n, int want, float *logits) {
  for (int done = 0; done < n; done += s->n) {
    s->n = n - done < BN_BATCH ? n - done : BN_BATCH;
    s->tokens = tokens + done;
    s->want = want == BN_WANT_LAST && done + s->n < n ? BN_WANT_NONE : want;
    s->logits = logits && want == BN_WANT_ALL ? logits + (size_t)done * BN_VOCABULARY : logits;
    s->first = s->want == BN_WANT_ALL ? 0 : s->n - 1;
    atomic_store(&s->sound, s->n);
    bn_pool_run(s->pool, evaluate, s);
    const int sound = sound_tokens(s);
    if (sound < s->n) {
      s->last_position = -1; /* the state of the token before is gone */
      return done + sound;
    }
    if (s->n == 1) s->watched_tokens += s->watched;
    s->position += s->n;
    s->last = s->normed + (s->want == BN_WANT_ALL ? (size_t)s->n - 1 : 0) * PADDED(BN_HIDDEN);
    s->last_position = s->position;
  }
  return n;
}
