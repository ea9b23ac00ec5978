/*
 * The steps of attention: rotary embedding, key-value cache, softmax. Cache layouts are those of
 * codegen/kernels/attention.ts (32 and 16 bits) and qattention.ts (8 bits).
 */
#include <math.h>
#include <string.h>
#include "state.h"

/* Spans that token t of the batch attends to. */
static long spans_of(const bn_state *s, long t) {
  return (s->position + t) / BN_ATTENTION_SPAN + 1;
}

/* Where a cached head lies: layer and key-value head. */
static size_t head_of(int layer, size_t kv) {
  return (size_t)layer * BN_KV_HEADS + kv;
}

/* A rotated key [BN_HEAD_SIZE] -> position p of a cached head. scratch: codes or halves of one head. */
static void store_key(bn_state *s, size_t head, size_t p, float *key, float *scratch) {
  uint8_t *keys = s->keys + head * s->head_bytes_k;
  const size_t first = p / LANES * LANES * BN_HEAD_SIZE + p % LANES; /* [p / 16][d][p % 16] */
  if (s->kv == 32) {
    for (size_t d = 0; d < BN_HEAD_SIZE; d++) ((float *)(void *)keys)[first + d * LANES] = key[d];
  } else if (s->kv == 16) {
    uint16_t *half = (uint16_t *)scratch;
    bn_narrow(key, half);
    for (size_t d = 0; d < BN_HEAD_SIZE; d++) ((uint16_t *)(void *)keys)[first + d * LANES] = half[d];
  } else {
    int8_t *codes = (int8_t *)scratch;
    bn_quantise_u7(key, codes, &s->key_scales[head * s->rows_of_cache + p]);
    keys += p / LANES * LANES * K8_STRIDE + p % LANES * 4; /* [p / 16][d / 4][p % 16][d % 4] */
    for (size_t d = 0; d < K8_STRIDE; d += 4) memcpy(keys + d * LANES, codes + d, 4);
  }
}

/* The products y of token t's value -> position p of a cached head. */
static void store_value(bn_state *s, size_t head, size_t t, size_t p, const int32_t *y, float scale, float *scratch) {
  uint8_t *values = s->values + head * s->head_bytes_v;
  if (s->kv == 32) {
    bn_scale_f32(y, scale, (float *)(void *)values + p * V_STRIDE);
  } else if (s->kv == 16) {
    bn_scale_f16(y, scale, (uint16_t *)(void *)values + p * V_STRIDE);
  } else {
    int8_t *codes = (int8_t *)(scratch + V_STRIDE);
    int32_t sum;
    bn_scale_f32(y, scale, scratch);
    float *const stored = &s->value_scales[head * s->rows_of_cache + p];
    bn_quantise_i8(scratch, codes, stored, &sum);
    if (!isfinite(*stored)) {
      /* Tokens before this one meet it, times 0: their blocks are read whole. */
      *stored = 0;
      bn_is_unsound(s, (int)t);
    }
    values += p / 4 * 4 * V_STRIDE + p % 4; /* [p / 4][d][p % 4] */
    for (size_t d = 0; d < V_STRIDE; d++) values[4 * d] = (uint8_t)codes[d];
  }
}

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
      const size_t query = t * BN_HEADS + h;
      float *rotated = s->rotated + query * Q_STRIDE;
      bn_rope(s->y[BN_ATTN_Q] + t * (size_t)bn_matrices[BN_ATTN_Q].y_stride + h * BN_HEAD_SIZE, inverse * fq, cosine,
              sine, rotated);
      if (s->kv == 8) {
        int32_t sum;
        bn_quantise_i8(rotated, s->queries + query * V_STRIDE, &s->query_scales[query], &sum);
        s->query_scales[query] *= 1.0f / sqrtf((float)BN_HEAD_SIZE);
        s->query_offsets[query] = -64 * sum; /* the codes of keys are 64 too large */
      }
    } else {
      const size_t kv = h - BN_HEADS, head = head_of(layer, kv);
      bn_rope(s->y[BN_ATTN_K] + t * (size_t)bn_matrices[BN_ATTN_K].y_stride + kv * BN_HEAD_SIZE, inverse * fk, cosine,
              sine, scratch);
      store_key(s, head, p, scratch, scratch + Q_STRIDE);
      store_value(s, head, t, p, s->y[BN_ATTN_V] + t * (size_t)bn_matrices[BN_ATTN_V].y_stride + kv * BN_HEAD_SIZE,
                  inverse * fv, scratch);
    }
  }
}

/* One span of one token and key-value head: its part. */
static void attend_span(bn_state *s, int layer, int thread, size_t t, size_t kv, long span, float *part) {
  const size_t head = head_of(layer, kv), first = (size_t)span * BN_ATTENTION_SPAN, query = t * BN_HEADS + kv * GROUP;
  const long left = s->position + (long)t + 1 - (long)first,
             count = left < BN_ATTENTION_SPAN ? left : BN_ATTENTION_SPAN, whole = count / BLOCK, rest = count % BLOCK,
             blocks = whole + (rest > 0);
  const float *q = s->rotated + query * Q_STRIDE, scale = 1.0f / sqrtf((float)BN_HEAD_SIZE);
  float *scratch = scratch_of(s, thread);
  const void *keys = s->keys + head * s->head_bytes_k + first * s->key_bytes,
             *values = s->values + head * s->head_bytes_v + first * s->value_bytes;
  if (s->kv == 32) {
    bn_attention_f32(q, keys, values, part, scratch, whole, blocks, rest, scale);
  } else if (s->kv == 16) {
    bn_attention_f16(q, keys, values, part, scratch, whole, blocks, rest, scale);
  } else {
    const size_t p = head * s->rows_of_cache + first;
    bn_attention_i8(s->queries + query * V_STRIDE, s->query_scales + query, s->query_offsets + query, keys,
                    s->key_scales + p, values, s->value_scales + p, part, scratch, whole, blocks, rest,
                    (int8_t *)(scratch + BN_ATTENTION_SCRATCH));
  }
}

/* The parts of one token and query head -> its result. */
static void combine(bn_state *s, int thread, size_t t, size_t head, const float *parts) {
  float *o = scratch_of(s, thread);
  const size_t h = head % GROUP;
  bn_combine(parts + h * V_STRIDE, parts + GROUP * V_STRIDE + h, o, spans_of(s, (long)t));
  memcpy(s->attended + t * PADDED(ATTENDED) + head * BN_HEAD_SIZE, o, BN_HEAD_SIZE * sizeof(float));
}

/* Blocks that the tokens at positions before p attend to, in one key-value head: token i to i / BLOCK + 1. */
static long blocks_before(long p) {
  const long whole = p / BLOCK;
  return (whole * BLOCK / 2 + p % BLOCK) * (whole + 1);
}

/* First of a thread's pairs, numbered by key-value head and token, when all threads get equally many blocks. */
static long first_pair(const bn_state *s, int thread, int threads) {
  const long before = blocks_before(s->position), each = blocks_before(s->position + s->n) - before,
             work = each * BN_KV_HEADS * thread / threads;
  long t = 0;
  while (blocks_before(s->position + t) - before < work % each) t++;
  return work / each * s->n + t;
}

/* Many tokens, divided by key-value head and token. Up to QUERIES at a time go through the spans together. */
static void attend_prompt(bn_state *s, int thread, int layer) {
  const int threads = bn_pool_threads(s->pool);
  const long end = first_pair(s, thread + 1, threads);
  float *parts = s->parts + (size_t)thread * QUERIES * s->part_floats;
  for (long u = first_pair(s, thread, threads), count; u < end; u += count) {
    const long kv = u / s->n, t = u % s->n;
    count = MIN(QUERIES, MIN(s->n - t, end - u));
    for (long span = 0; span < spans_of(s, t + count - 1); span++)
      for (long i = 0; i < count; i++)
        if (span < spans_of(s, t + i))
          attend_span(s, layer, thread, (size_t)(t + i), (size_t)kv, span,
                      parts + (size_t)i * s->part_floats + span * BN_ATTENTION_PART);
    for (long i = 0; i < count; i++)
      for (long h = 0; h < GROUP; h++)
        combine(s, thread, (size_t)(t + i), (size_t)(kv * GROUP + h), parts + (size_t)i * s->part_floats);
  }
}

/* Few tokens with several spans, divided by span too, a span's tokens in turn. A second step brings spans together. */
static void attend_few(bn_state *s, int thread, int layer) {
  const int threads = bn_pool_threads(s->pool);
  const long spans = spans_of(s, s->n - 1);
  long u0, u1;
  bn_span(BN_KV_HEADS * spans * s->n, thread, threads, &u0, &u1);
  for (long u = u0; u < u1; u++) {
    const long t = u % s->n, span = u / s->n % spans, kv = u / s->n / spans;
    if (span < spans_of(s, t))
      attend_span(s, layer, thread, (size_t)t, (size_t)kv, span,
                  s->parts + (size_t)(t * BN_KV_HEADS + kv) * s->part_floats + span * BN_ATTENTION_PART);
  }
  bn_pool_barrier(s->pool);
  bn_span((long)s->n * BN_HEADS, thread, threads, &u0, &u1);
  for (long u = u0; u < u1; u++)
    combine(s, thread, (size_t)(u / BN_HEADS), (size_t)(u % BN_HEADS), s->parts + (size_t)(u / GROUP) * s->part_floats);
}

/* Over all positions up to the token's own. All threads take the same way: it follows from position and n alone. */
void bn_attend(bn_state *s, int thread, int layer) {
  bn_time(BN_TIME_ATTENTION);
  if (s->n > SPLIT_TOKENS || spans_of(s, s->n - 1) == 1)
    attend_prompt(s, thread, layer);
  else
    attend_few(s, thread, layer);
}
