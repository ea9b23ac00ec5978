/* Making and freeing the state of a context: one zeroed mapping for all buffers, the rotary tables, the threads. */
#include <stdlib.h>
#include <sys/mman.h>
#include "decode.h"
#include "state.h"

/* AddressSanitizer knows nothing of buffers inside a mapping unless it is told: what lies between them is poisoned. */
#ifdef __has_feature
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes) ((void)(start), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes) ((void)(start), (void)(bytes))
#endif

/* ---- memory: one zeroed mapping for everything, so that a long context costs only the pages it comes to use */

typedef struct {
  uint8_t *base; /* NULL while sizes are added up */
  size_t used;
} arena;

static void *take(arena *a, size_t bytes) {
  uint8_t *p = a->base ? a->base + a->used : NULL;
  const size_t whole = (bytes + 63) / 64 * 64 + 64;
  if (p) ASAN_POISON_MEMORY_REGION(p + bytes, whole - bytes);
  a->used += whole;
  return p;
}

static void take_quantised(arena *a, quantised *q, size_t rows, int matrix) {
  q->stride = bn_matrices[matrix].x_stride;
  q->q = take(a, rows * (size_t)q->stride);
  q->inverse = take(a, rows * sizeof(float));
  q->sum = take(a, rows * sizeof(int32_t));
}

/* Gives every buffer its place. */
static void lay_out(bn_state *s, arena *a, int threads) {
  const size_t blocks = ((size_t)s->positions + BLOCK - 1) / BLOCK, rows = blocks * BLOCK, element = (size_t)s->kv / 8;
  const size_t batch = threads > BN_BATCH ? (size_t)threads : BN_BATCH;
  s->x = take(a, batch * PADDED(BN_HIDDEN) * sizeof(float));
  s->normed = take(a, (size_t)BN_BATCH * PADDED(BN_HIDDEN) * sizeof(float));
  s->rotated = take(a, (size_t)BN_BATCH * BN_HEADS * Q_STRIDE * sizeof(float));
  s->attended = take(a, (size_t)BN_BATCH * PADDED(ATTENDED) * sizeof(float));
  take_quantised(a, &s->hidden, batch, BN_ATTN_Q);
  take_quantised(a, &s->mixed, batch, BN_ATTN_OUTPUT);
  take_quantised(a, &s->inner, batch, BN_FFN_DOWN);
  for (int m = 0; m < BN_SLOTS; m++)
    if (bn_matrices[m].tiles)
      s->y[m] = take(a, ((size_t)BN_BATCH * (size_t)bn_matrices[m].y_stride + SLACK) * sizeof(int32_t));
  s->look_ups = take(a, BN_LOOK_UP_BYTES);
  s->gated = take(a, PADDED(BN_INTERMEDIATE) * sizeof(float));
  s->rows = take(a, (size_t)threads * SCRATCH * sizeof(float));
  s->tables = take(a, (size_t)threads * BN_SCRATCH_BYTES);
#if BN_SPARSE
  s->down_sums = take(a, (size_t)threads * BN_DOWN_TOKENS * BN_DOWN_SUMS * sizeof(int32_t));
#endif
  s->was_open = take(a, (size_t)BN_LAYERS * BN_INTERMEDIATE);
#if BN_HEAD_BLOCKS
  s->head_rows = take(a, (size_t)threads * HEAD_ROWS * PADDED(BN_HIDDEN) * sizeof(float));
#endif
  float *scores = take(a, SEARCHES * (size_t)BN_VOCABULARY * sizeof(float));
  for (int i = 0; i < SEARCHES; i++) {
    bn_search *q = &s->searches[i];
    q->scores = scores ? scores + (size_t)i * BN_VOCABULARY : NULL;
    q->best = take(a, (size_t)threads * BN_MOST_TOP * sizeof(bn_candidate));
#if BN_SCREENED
    q->codes = take(a, 2 * (s->fast ? BN_FAST_STRIDE : BN_SCREEN_STRIDE));
    q->lower = take(a, BN_SCREEN_TILES * LANES * sizeof(float));
    q->upper = take(a, BN_SCREEN_TILES * LANES * sizeof(float));
    q->peaks = take(a, BN_SCREEN_TILES * 2 * sizeof(float));
    q->rows_passed = take(a, BN_VOCABULARY * sizeof(int32_t));
    q->kept = take(a, (size_t)threads * sizeof(int));
#endif
  }
  const int pairs = SPLIT_TOKENS * BN_KV_HEADS;
  s->part_floats = (rows + BN_ATTENTION_SPAN - 1) / BN_ATTENTION_SPAN * BN_ATTENTION_PART;
  s->parts = take(a, (size_t)MAX(pairs, QUERIES * threads) * s->part_floats * sizeof(float));
  s->cosine = take(a, rows * ANGLES * sizeof(float));
  s->sine = take(a, rows * ANGLES * sizeof(float));
  s->rows_of_cache = rows;
  s->key_bytes = s->kv == 8 ? K8_STRIDE : BN_HEAD_SIZE * element;
  s->value_bytes = V_STRIDE * element;
  s->head_bytes_k = rows * s->key_bytes;
  s->head_bytes_v = rows * s->value_bytes;
  s->keys = take(a, (size_t)BN_LAYERS * BN_KV_HEADS * s->head_bytes_k);
  s->values = take(a, (size_t)BN_LAYERS * BN_KV_HEADS * s->head_bytes_v);
  if (s->kv == 8) {
    const size_t queries = BN_BATCH * BN_HEADS, scales = (size_t)BN_LAYERS * BN_KV_HEADS * rows * sizeof(float);
    s->queries = take(a, queries * V_STRIDE);
    s->query_scales = take(a, queries * sizeof(float));
    s->query_offsets = take(a, queries * sizeof(int32_t));
    s->key_scales = take(a, scales);
    s->value_scales = take(a, scales);
  }
}

/* ---- rotary angles: cosine and sine of the float angle position * inverse frequency, by reduction and Taylor series
 * in double; the C library's functions differ between machines. Frequencies are at most 1 and positions below 2^20, so
 * that the reduction is exact to 1e-10, and no integer is made of what it cannot hold. */

static void sincos_of(double x, float *sine, float *cosine) {
  const double half_pi_high = 0x1.921fb544p+0, half_pi_low = 0x1.0b4611a626331p-34;
  const double turns = (double)(int64_t)(x * 0x1.45f306dc9c883p-1 + 0.5); /* angles are not negative */
  const double r = (x - turns * half_pi_high) - turns * half_pi_low, r2 = r * r;
  double s = 1, c = 1;
  for (int i = 18; i >= 2; i -= 2) {
    s = 1 - s * r2 / (i * (i + 1)); /* sin r / r = 1 - r^2/3! + r^4/5! - ... */
    c = 1 - c * r2 / (i * (i - 1)); /* cos r     = 1 - r^2/2! + r^4/4! - ... */
  }
  s *= r;
  switch ((int64_t)turns & 3) {
  case 0: *sine = (float)s, *cosine = (float)c; break;
  case 1: *sine = (float)c, *cosine = (float)-s; break;
  case 2: *sine = (float)-s, *cosine = (float)-c; break;
  default: *sine = (float)-c, *cosine = (float)s; break;
  }
}

/* -> the name of a tensor whose scale is none that packing writes, or NULL */
static const char *damaged_scale(const bn_model *model) {
  for (int tensor = 0; tensor < BN_TENSORS; tensor++) {
    if (bn_tensors[tensor].kind != BN_TERNARY) continue;
    const float scale = bn_tensor_scale(model, tensor);
    if (!(scale >= 0 && scale <= BN_LARGEST)) return bn_tensors[tensor].name;
  }
  return NULL;
}

bn_state *bn_state_create(bn_model *model, int positions, int threads, int kv, int spin, int pages, double spare,
                          int head) {
  const char *damaged = damaged_scale(model);
  if (damaged) {
    bn_fail("the scale of '%s' in the packed weights is damaged; remove them (bitnet-run --cache clear)", damaged);
    return NULL;
  }
  bn_state *s = calloc(1, sizeof *s);
  if (!s) {
    bn_fail("out of memory");
    return NULL;
  }
  s->positions = positions;
  s->kv = kv;
  s->fast = BN_SCREENED && head == BN_HEAD_FAST;
  arena sizes = {NULL, 0};
  lay_out(s, &sizes, threads);
  s->bytes = sizes.used;
  s->memory = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (s->memory == MAP_FAILED) {
    free(s);
    bn_fail("out of memory: a context of %d positions needs %zu MB; ask for fewer", positions, sizes.used >> 20);
    return NULL;
  }
  arena places = {s->memory, 0};
  lay_out(s, &places, threads);
  for (int p = 0; p < positions; p++)
    for (int i = 0; i < HALF; i++)
      sincos_of((float)p * bn_inverse_frequencies[i], &s->sine[(size_t)p * ANGLES + i],
                &s->cosine[(size_t)p * ANGLES + i]);
  s->pool = bn_pool_create(threads, spin);
  if (!s->pool) {
    bn_state_destroy(s);
    bn_fail("cannot start %d threads", threads);
    return NULL;
  }
  s->arena = bn_arena_acquire(model, s->pool, pages, spare, s->fast);
  if (s->fast && !s->arena) {
    bn_state_destroy(s);
    bn_fail("out of memory: the fast head needs half a byte for each of its weights; use the exact one");
    return NULL;
  }
  s->model = model;
  for (int layer = 0; layer < BN_LAYERS; layer++)
    for (int slot = 0; slot < BN_SLOTS; slot++)
      if (bn_matrices[slot].tiles) s->scales[layer][slot] = bn_tensor_scale(model, tensor_of(layer, slot));
  return s;
}

void bn_state_destroy(bn_state *s) {
  bn_pool_destroy(s->pool);
  ASAN_UNPOISON_MEMORY_REGION(s->memory, s->bytes);
  munmap(s->memory, s->bytes);
  if (s->arena) bn_arena_release(s->model, s->arena);
  if (s->model) bn_model_release(s->model);
  free(s);
}

int bn_state_position(const bn_state *s) {
  return s->position;
}
int bn_state_capacity(const bn_state *s) {
  return s->positions;
}
size_t bn_state_huge_bytes(const bn_state *s) {
  return s->arena ? bn_arena_huge_bytes(s->arena) : bn_model_huge_bytes(s->model);
}
int bn_state_has_hidden(const bn_state *s) {
  return s->position > 0 && s->last_position == s->position;
}
int bn_state_profile(bn_state *s, int on, float *seconds) {
  return bn_pool_profile(s->pool, on, seconds) ? bn_fail("out of memory") : 0;
}
void bn_state_rewind(bn_state *s, int position) {
  s->position = position;
}
