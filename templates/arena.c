/*
 * Weights for decoding, copied out of the mapped file: each thread's row tiles of every matrix and of the head's
 * screen, in the order in which it reads them, so that a token is one sequential stream a thread (matrices of which it
 * reads what is live lie behind, whole); in huge pages, since the hardware's prefetchers stop at the end of a page and
 * a walk of the page table costs more than a line. Where the file itself is mapped in huge pages, a copy gains nothing.
 * Measured in docs/measurements.md. For the fast head, 4-bit rows are made of the screen and take its place; they are
 * all there is where the weights themselves are not copied.
 *
 * Contexts of a model with the same number of threads, and the same wishes, share one copy.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"
#include "screen.h"

enum { WORTH = 64 << 20 };

/* Pointers of one thread: matrices, the screen, and the factors of 4-bit rows. */
enum { SCREEN = BN_LAYERS * BN_SLOTS, FACTORS, POINTERS };

struct bn_arena {
  bn_arena *next; /* of the same model, for another number of threads */
  int threads, users;
  int copied, fast; /* has the weights; has 4-bit rows */
  uint8_t *memory;  /* [threads] parts, one after the other, then whole matrices */
  size_t bytes, whole_at;
  const uint8_t **weights; /* [threads][POINTERS] where tile 0 of a matrix, or of the screen, would lie */
};

/* Guards the arenas of all models. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Copies tiles [t0, t1) of `tile` bytes each of a tensor, or with to = NULL counts them. -> bytes */
static size_t copy_tiles(const bn_model *model, int tensor, size_t tile, long t0, long t1, uint8_t *to,
                         const uint8_t **weights) {
  if (t0 >= t1) return 0;
  const size_t first = (size_t)t0 * tile, bytes = (size_t)(t1 - t0) * tile;
  if (to) {
    bn_tensor_read(model, tensor, first, bytes, to);
    /* As an integer: the address of tile 0 may lie before the arena. */
    *weights = (const uint8_t *)((uintptr_t)to - first);
  }
  return bytes;
}

#if BN_SCREENED
/* Makes 4-bit rows of tiles [t0, t1) of the screen, their factors behind them, or with to = NULL counts them. -> bytes,
 * with those of an 8-bit tile to work on */
static size_t narrow_tiles(const bn_model *model, long t0, long t1, uint8_t *to, const uint8_t **weights) {
  enum { TILE = BN_SCREEN_STARTS / BN_SCREEN_TILES, ROWS = 16, FLOATS = 3 * ROWS };
  const size_t tiles = (size_t)(t1 - t0), lines = tiles * BN_FAST_TILE, all = lines + tiles * FLOATS * sizeof(float);
  if (!to) return all + TILE;
  const float *f8 = (const float *)(const void *)(bn_tensor_data(model, BN_OUTPUT_SCREEN) + BN_SCREEN_FACTORS);
  float *f4 = (float *)(void *)(to + lines);
  for (long tile = t0; tile < t1; tile++, f4 += FLOATS) {
    const float *f = f8 + tile * FLOATS;
    bn_tensor_read(model, BN_OUTPUT_SCREEN, (size_t)tile * TILE, TILE, to + all);
    for (long r = 0; r < ROWS; r++) {
      const bn_screened_row row =
          bn_narrow_row((const int8_t *)to + all + 4 * r, (bn_screened_row){f[r], f[ROWS + r], f[2 * ROWS + r], 0},
                        BN_HIDDEN, to + (tile - t0) * BN_FAST_TILE + 4 * r);
      f4[r] = row.scale, f4[ROWS + r] = row.error, f4[2 * ROWS + r] = row.norm;
    }
  }
  weights[SCREEN] = (const uint8_t *)((uintptr_t)to - (size_t)t0 * BN_FAST_TILE);
  weights[FACTORS] = (const uint8_t *)((uintptr_t)(to + lines) - (size_t)t0 * FLOATS * sizeof(float));
  return all + TILE;
}
#endif

/* One thread's part of the copy; with to = NULL only its size. Matrices that are not copied stay in the mapped file. */
static size_t copy_part(const bn_model *model, const bn_arena *a, uint8_t *to, int thread) {
  const uint8_t **weights = a->weights + (size_t)thread * POINTERS;
  size_t used = 0;
  for (int layer = 0; layer < BN_LAYERS; layer++)
    for (int slot = 0; slot < BN_SLOTS; slot++) {
      const bn_matrix *m = &bn_matrices[slot];
      if (!m->tiles || (a->copied && m->order)) continue;
      const int tensor = BN_FIRST_LAYER + layer * BN_SLOTS + slot;
      const uint8_t **at = weights + layer * BN_SLOTS + slot;
      long t0, t1;
      bn_tiles(m, bn_tiles_of(model, layer, slot), thread, a->threads, &t0, &t1);
      if (a->copied)
        used += copy_tiles(model, tensor, (size_t)bn_tensors[tensor].bytes / (size_t)m->tiles, t0, t1,
                           to ? to + used : NULL, at);
      else if (to)
        *at = bn_tensor_data(model, tensor);
    }
#if BN_SCREENED
  long t0, t1;
  bn_span(BN_SCREEN_TILES, thread, a->threads, &t0, &t1);
  uint8_t *rows = to ? to + used : NULL;
  used += a->fast
              ? narrow_tiles(model, t0, t1, rows, weights)
              : copy_tiles(model, BN_OUTPUT_SCREEN, BN_SCREEN_STARTS / BN_SCREEN_TILES, t0, t1, rows, weights + SCREEN);
#endif
  return (used + 63) / 64 * 64;
}

/* Matrices in an order of their own: which rows or columns a thread reads differs from token to token. One thread's
 * share of copying them; with to = NULL only their size. */
static size_t copy_whole(const bn_model *model, const bn_arena *a, uint8_t *to, int thread) {
  enum { LINE = 64 };
  size_t used = 0;
  for (int layer = 0; a->copied && layer < BN_LAYERS; layer++)
    for (int slot = 0; slot < BN_SLOTS; slot++) {
      if (!bn_matrices[slot].order) continue;
      const int tensor = BN_FIRST_LAYER + layer * BN_SLOTS + slot;
      if (to) {
        long first, end;
        bn_span((long)(bn_tensors[tensor].bytes / LINE), thread, a->threads, &first, &end);
        bn_tensor_read(model, tensor, (size_t)first * LINE, (size_t)(end - first) * LINE,
                       to + used + (size_t)first * LINE);
        a->weights[(size_t)thread * POINTERS + (size_t)(layer * BN_SLOTS + slot)] = to + used;
      }
      used += (size_t)bn_tensors[tensor].bytes;
    }
  return used;
}

typedef struct {
  const bn_model *model;
  bn_arena *arena;
} copying;

static void copy(void *argument, int thread, int threads) {
  const copying *c = argument;
  (void)threads;
  size_t before = 0;
  for (int t = 0; t < thread; t++) before += copy_part(c->model, c->arena, NULL, t);
  copy_part(c->model, c->arena, c->arena->memory + before, thread);
  copy_whole(c->model, c->arena, c->arena->memory + c->arena->whole_at, thread);
}

/* Is the model large and mapped in ordinary pages, can the system give huge ones to those who ask, and is there twice
 * the room that a copy needs? */
static int is_worth_it(const bn_model *model, double spare) {
  if (bn_file_bytes < WORTH || bn_model_is_huge(model) || spare / 2 <= (double)bn_file_bytes) return 0;
  char line[256] = "";
  FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
  if (f && !fgets(line, sizeof line, f)) line[0] = 0;
  if (f) fclose(f);
  return strstr(line, "[always]") || strstr(line, "[madvise]");
}

static bn_arena *create(const bn_model *model, bn_pool *pool, int copied, int fast) {
  const int threads = bn_pool_threads(pool);
  bn_arena *a = calloc(1, sizeof *a);
  if (!a) return NULL;
  *a = (bn_arena){.threads = threads, .copied = copied, .fast = fast};
  a->weights = calloc((size_t)threads * POINTERS, sizeof *a->weights);
  for (int t = 0; a->weights && t < threads; t++) a->whole_at += copy_part(model, a, NULL, t);
  a->bytes = a->whole_at + copy_whole(model, a, NULL, 0);
  a->memory = a->weights ? bn_map_huge(a->bytes) : NULL;
  if (!a->memory) {
    free(a->weights);
    free(a);
    return NULL;
  }
  copying c = {model, a};
  bn_pool_run(pool, copy, &c);
  return a;
}

bn_arena *bn_arena_acquire(bn_model *model, bn_pool *pool, int pages, double spare, int fast) {
  const int copied = pages == BN_PAGES_HUGE || (pages == BN_PAGES_AUTO && is_worth_it(model, spare));
  if (!copied && !fast) return NULL;
  pthread_mutex_lock(&lock);
  bn_arena **first = bn_model_arenas(model), *a = *first;
  while (a && (a->threads != bn_pool_threads(pool) || a->copied != copied || a->fast != fast)) a = a->next;
  if (!a && (a = create(model, pool, copied, fast))) {
    a->next = *first;
    *first = a;
  }
  if (a) a->users++;
  pthread_mutex_unlock(&lock);
  return a;
}

void bn_arena_release(bn_model *model, bn_arena *a) {
  if (!a) return;
  pthread_mutex_lock(&lock);
  if (--a->users == 0) {
    bn_arena **link = bn_model_arenas(model);
    while (*link != a) link = &(*link)->next;
    *link = a->next;
    bn_unmap_huge(a->memory, a->bytes);
    free(a->weights);
    free(a);
  }
  pthread_mutex_unlock(&lock);
}

const uint8_t *bn_arena_weights(const bn_arena *a, int thread, int layer, int slot) {
  return a->weights[(size_t)thread * POINTERS + (size_t)(layer * BN_SLOTS + slot)];
}

const uint8_t *bn_arena_screen(const bn_arena *a, int thread) {
  return a->weights[(size_t)thread * POINTERS + SCREEN];
}

const float *bn_arena_factors(const bn_arena *a, int thread) {
  return (const float *)(const void *)a->weights[(size_t)thread * POINTERS + FACTORS];
}

size_t bn_arena_huge_bytes(const bn_arena *a) {
  return bn_huge_bytes(a->memory, a->bytes);
}
