/*
 * The steps of attention: rotary embedding, key-value cache, softmax. Cache layouts are those of
 * codegen/kernels/attention.ts.
 */
#include <math.h>
#include <string.h>
#include "state.h"

/* Rotates queries and keys, stores keys and values in the cache; by tokens and heads. */
void bn_rotate(bn_state *s, int thread, int layer) {
  float *scratch = scratch_of(s, thread);
  const int heads = BN_HEADS + BN_KV_HEADS;
  const float fq = scale_of(s, layer, BN_ATTN_Q), fk = scale_of(s, layer, BN_ATTN_K),
              fv = scale_of(s, layer, BN_ATTN_V);
  long u0, u1;
  bn_time(BN_TIME_REST);
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
void bn_attend(bn_state *s, int thread, int layer) {
  float *o = scratch_of(s, thread), *scratch = o + (size_t)GROUP * V_STRIDE;
  const float scale = 1.0f / sqrtf((float)BN_HEAD_SIZE);
  long u0, u1;
  bn_time(BN_TIME_ATTENTION);
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
