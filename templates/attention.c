/*
 * The steps of attention: rotary embedding, key-value cache, softmax. Cache layouts are those of
 * codegen/kernels/attention.ts.
 */
#include <math.h>
#include <string.h>
#include "state.h"

/* Spans that token t of the batch attends to. */
static long spans_of(const bn_state *s, long t) {
  return (s->position + t) / BN_ATTENTION_SPAN + 1;
}

/* Rotates queries and keys, stores keys and values in the cache; by tokens and heads. */
void bn_rotate(bn_state *s, int thread, int layer) {
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

/* One span of one token and key-value head: its part. */
static void attend_span(bn_state *s, int layer, int thread, size_t t, size_t kv, long span, float *part) {
  const size_t cache = (size_t)layer * BN_KV_HEADS + kv, first = (size_t)span * BN_ATTENTION_SPAN;
  const long left = s->position + (long)t + 1 - (long)first,
             count = left < BN_ATTENTION_SPAN ? left : BN_ATTENTION_SPAN, whole = count / BLOCK, rest = count % BLOCK,
             blocks = whole + (rest > 0);
  const float *q = s->rotated + (t * BN_HEADS + kv * GROUP) * Q_STRIDE, scale = 1.0f / sqrtf((float)BN_HEAD_SIZE);
  const void *keys = s->keys + cache * s->head_bytes_k + first * s->key_bytes,
             *values = s->values + cache * s->head_bytes_v + first * s->value_bytes;
  if (s->kv == 32)
    bn_attention_f32(q, keys, values, part, scratch_of(s, thread), whole, blocks, rest, scale);
  else
    bn_attention_f16(q, keys, values, part, scratch_of(s, thread), whole, blocks, rest, scale);
}

/* The parts of one token and query head -> its result. */
static void combine(bn_state *s, int thread, size_t t, size_t head, const float *parts) {
  float *o = scratch_of(s, thread);
  const size_t h = head % GROUP;
  bn_combine(parts + h * V_STRIDE, parts + GROUP * V_STRIDE + h, o, spans_of(s, (long)t));
  memcpy(s->attended + t * PADDED(ATTENDED) + head * BN_HEAD_SIZE, o, BN_HEAD_SIZE * sizeof(float));
}

/*
 * Attention over all positions up to the token's own. Many tokens are divided by token and key-value head. Few tokens
 * with several spans are divided by spans too, and a second step brings the spans together; all threads take the same
 * way, as it follows from position and n alone.
 */
void bn_attend(bn_state *s, int thread, int layer) {
  const int threads = bn_pool_threads(s->pool);
  const long spans = spans_of(s, s->n - 1);
  long u0, u1;
  if (spans == 1 || s->n > SPLIT_TOKENS) {
    float *parts = s->parts + (size_t)thread * s->part_floats;
    bn_span((long)s->n * BN_KV_HEADS, thread, threads, &u0, &u1);
    for (long u = u0; u < u1; u++) {
      const size_t t = (size_t)(u / BN_KV_HEADS), kv = (size_t)(u % BN_KV_HEADS);
      for (long span = 0; span < spans_of(s, (long)t); span++)
        attend_span(s, layer, thread, t, kv, span, parts + span * BN_ATTENTION_PART);
      for (size_t h = 0; h < GROUP; h++) combine(s, thread, t, kv * GROUP + h, parts);
    }
    return;
  }
  bn_span(s->n * BN_KV_HEADS * spans, thread, threads, &u0, &u1);
  for (long u = u0; u < u1; u++) {
    const size_t pair = (size_t)(u / spans), t = pair / BN_KV_HEADS, kv = pair % BN_KV_HEADS;
    const long span = u % spans;
    if (span < spans_of(s, (long)t))
      attend_span(s, layer, thread, t, kv, span, s->parts + pair * s->part_floats + span * BN_ATTENTION_PART);
  }
  bn_pool_barrier(s->pool);
  bn_span((long)s->n * BN_HEADS, thread, threads, &u0, &u1);
  for (long u = u0; u < u1; u++)
    combine(s, thread, (size_t)(u / BN_HEADS), (size_t)(u % BN_HEADS), s->parts + (size_t)(u / GROUP) * s->part_floats);
}
