/*
 * The k largest logits of some hidden states.
 *
 * A screen (codegen/kernels/screen.ts) gives every row r bounds lower_r <= y_r <= upper_r. The head's own kernel
 * computes the logits of the k rows with the largest lower bounds, from the file's rows. T, the smallest of them, is
 * not above the k-th largest logit, as k logits reach it. So a row with upper_r < T is not among the k, and the head
 * computes the others too: same bits, same order. With 8-bit rows, the bounds are certain, and so is the result; with
 * the 4-bit rows of the fast head, both are very likely.
 *
 * Several states are screened block by block of rows, which come from memory once for all of them.
 */
#include "state.h"

/* ---- the k best of a stream: a binary heap with the worst at its root */

static int is_worse(bn_candidate a, bn_candidate b) {
  return a.value < b.value || (a.value == b.value && a.id > b.id);
}

/* Puts c at the root of a heap whose root is free. */
static void sink(bn_candidate *heap, int size, bn_candidate c) {
  int at = 0;
  for (int child; (child = 2 * at + 1) < size; at = child) {
    if (child + 1 < size && is_worse(heap[child + 1], heap[child])) child++;
    if (!is_worse(heap[child], c)) break;
    heap[at] = heap[child];
  }
  heap[at] = c;
}

/* Offers c to the best k. -> how many there are now */
static int keep(bn_candidate *heap, int size, int k, bn_candidate c) {
  if (size == k) {
    if (is_worse(heap[0], c)) sink(heap, size, c);
    return size;
  }
  int at = size;
  for (; at > 0 && is_worse(c, heap[(at - 1) / 2]); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
  heap[at] = c;
  return size + 1;
}

/* ---- steps of the screen: each is run by all threads, for all states */

#if BN_SCREENED
enum {
  /* The 8-bit rows need half the bytes of 16-bit rows, and about 5 rows for each of the k pass; of 4-bit rows 19
   * (docs/measurements.md). */
  MOST_SCREENED = BN_VOCABULARY / 32,
  TILE_BYTES = BN_SCREEN_STARTS / BN_SCREEN_TILES,
  /* Row tiles that stay in the second-level cache while the states pass. */
  BLOCK_TILES = MAX(1, (96 << 10) / TILE_BYTES)
};

/* Bounds of the rows of tiles [t0, t1) for one state, and the thread's k largest lower bounds. */
static void screen_tiles(bn_state *s, bn_search *q, int thread, long t0, long t1) {
  const uint8_t *w = bn_tensor_data(s->model, BN_OUTPUT_SCREEN);
  const uint8_t *lines = s->arena ? bn_arena_screen(s->arena, thread) : w;
  const bn_screened_state *h = &q->bounds;
  if (s->fast)
    bn_screen_fast(lines, (const int8_t *)q->codes, -8 * h->sums[0], -8 * h->sums[1],
                   bn_arena_factors(s->arena, thread), h->step, h->norm, h->residual, q->lower, q->upper, q->peaks, t0,
                   t1);
  else
    bn_screen((const int8_t *)lines, q->codes, (const int32_t *)(const void *)(w + BN_SCREEN_STARTS),
              (const float *)(const void *)(w + BN_SCREEN_FACTORS), h->step, h->norm, h->residual, q->lower, q->upper,
              q->peaks, t0, t1);
  bn_candidate *best = q->best + (size_t)thread * BN_MOST_TOP;
  int size = q->kept[thread];
  for (long tile = t0; tile < t1; tile++) {
    if (size == s->k && !(q->peaks[2 * tile] > best[0].value)) continue;
    for (int32_t r = (int32_t)tile * LANES; r < (int32_t)(tile + 1) * LANES && r < BN_VOCABULARY; r++)
      size = keep(best, size, s->k, (bn_candidate){q->lower[r], r});
  }
  q->kept[thread] = size;
}

/* All states; by row tiles. */
static void screen(bn_state *s, int thread) {
  long t0, t1;
  bn_span(BN_SCREEN_TILES, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (int i = 0; i < s->searching; i++) s->searches[i].kept[thread] = 0;
  const long step = s->searching == 1 ? BN_SCREEN_TILES : BLOCK_TILES;
  for (long tile = t0, end; tile < t1; tile = end) {
    end = tile + step < t1 ? tile + step : t1;
    for (int i = 0; i < s->searching; i++) screen_tiles(s, &s->searches[i], thread, tile, end);
  }
}

/* Lists the k rows with the largest lower bounds; the rows of all threads together are at least k. */
static void join(bn_state *s, bn_search *q) {
  for (int t = 1; t < bn_pool_threads(s->pool); t++)
    for (int i = 0; i < q->kept[t]; i++) q->kept[0] = keep(q->best, q->kept[0], s->k, q->best[t * BN_MOST_TOP + i]);
  for (int i = 0; i < s->k; i++) q->rows_passed[i] = q->best[i].id;
  atomic_store(&q->passed, s->k);
}

/* T, from the logits of these rows; not above their upper bounds, which may fail in the fast head, so that they pass.
 */
static void set_threshold(bn_state *s, bn_search *q) {
  q->threshold = __builtin_inff();
  for (int i = 0; i < s->k; i++) {
    const int32_t r = q->rows_passed[i];
    q->threshold = MIN(q->threshold, MIN(q->scores[r], q->upper[r]));
  }
  atomic_store(&q->passed, 0);
}

/* Lists the rows that pass, in any order; by row tiles. */
static void sift(bn_state *s, bn_search *q, int thread) {
  long t0, t1;
  bn_span(BN_SCREEN_TILES, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long tile = t0; tile < t1; tile++) {
    if (q->peaks[2 * tile + 1] < q->threshold) continue;
    for (int32_t r = (int32_t)tile * LANES; r < (int32_t)(tile + 1) * LANES && r < BN_VOCABULARY; r++)
      if (q->upper[r] >= q->threshold) q->rows_passed[atomic_fetch_add(&q->passed, 1)] = r;
  }
}

/* Logits of the rows in the list; by rows of the list. */
static void rescore(bn_state *s, bn_search *q, int thread) {
  long i0, i1;
  bn_span(atomic_load(&q->passed), thread, bn_pool_threads(s->pool), &i0, &i1);
  for (long i = i0; i < i1; i++) {
    const long r = q->rows_passed[i];
    bn_head_row(bn_head_rows(s, thread, r, r + 1), q->state, q->scores, r, r + 1, r + 1);
    bn_check_logits(s, (int)(q - s->searches), q->scores + r, 1);
  }
}

/* The states are shared out where one thread has to do a step. */
#define EACH_OWN(step)                                                                                                 \
  for (int i = thread; i < s->searching; i += threads) step(s, &s->searches[i])
#define EACH(step)                                                                                                     \
  for (int i = 0; i < s->searching; i++) step(s, &s->searches[i], thread)

static void score_screened(bn_state *s, int thread, int threads) {
  bn_time(BN_TIME_HEAD);
  screen(s, thread);
  bn_pool_barrier(s->pool);
  EACH_OWN(join);
  bn_pool_barrier(s->pool);
  EACH(rescore);
  bn_pool_barrier(s->pool);
  EACH_OWN(set_threshold);
  bn_pool_barrier(s->pool);
  EACH(sift);
  bn_pool_barrier(s->pool);
  EACH(rescore);
}

/* Can all states be screened? */
static int prepare(bn_state *s) {
  int all = s->k <= MOST_SCREENED;
  for (int i = 0; all && i < s->searching; i++) {
    bn_search *q = &s->searches[i];
    all = bn_screen_state(q->state, BN_HIDDEN, s->fast ? 0 : 64, q->codes, s->fast ? BN_FAST_STRIDE : BN_SCREEN_STRIDE,
                          &q->bounds);
  }
  return all;
}
#endif

static void score(void *argument, int thread, int threads) {
  bn_state *s = argument;
  (void)threads;
#if BN_SCREENED
  if (s->screened) {
    score_screened(s, thread, threads);
    return;
  }
#endif
  bn_project(s, thread, s->searches[0].state, s->searching);
}

static int offer(const bn_state *s, bn_search *q, int size, int32_t r) {
  return keep(q->best, size, s->k, (bn_candidate){q->scores[r], r});
}

/* The best of the rows that have a logit, the largest first. */
static void sort_out(const bn_state *s, bn_search *q, int32_t *ids, float *logits) {
  int size = 0;
#if BN_SCREENED
  if (s->screened)
    for (int i = 0; i < atomic_load(&q->passed); i++) size = offer(s, q, size, q->rows_passed[i]);
  else
#endif
    for (int32_t r = 0; r < BN_VOCABULARY; r++) size = offer(s, q, size, r);
  /* The worst comes off the root, until the best is left. */
  while (size > 0) {
    const bn_candidate worst = q->best[0];
    size--;
    sink(q->best, size, q->best[size]);
    ids[size] = worst.id;
    logits[size] = worst.value;
  }
}

int bn_largest(bn_state *s, int count, int k, int32_t *ids, float *logits) {
  const float *state = s->last - (size_t)(count - 1) * PADDED(BN_HIDDEN);
  s->k = k;
  s->logits = s->searches[0].scores; /* those of the other states follow */
  for (int done = 0; done < count; done += s->searching) {
    s->searching = count - done < SEARCHES ? count - done : SEARCHES;
    for (int i = 0; i < s->searching; i++, state += PADDED(BN_HIDDEN)) s->searches[i].state = state;
#if BN_SCREENED
    s->screened = prepare(s);
#endif
    s->first = 0;
    atomic_store(&s->sound, s->searching);
    bn_pool_run(s->pool, score, s);
    const int sound = atomic_load(&s->sound);
    if (sound < s->searching) return done + sound;
    for (int i = 0; i < s->searching; i++, ids += k, logits += k) sort_out(s, &s->searches[i], ids, logits);
  }
  return count;
}
