/*
 * The last steps: final norm, logits, and the k largest logits.
 *
 * The k largest: a screen (codegen/kernels/screen.ts) gives every row r bounds lower_r <= y_r <= upper_r. The head's
 * own kernel computes the logits of the k rows with the largest lower bounds, from the file's rows. T, the smallest of
 * them, is not above the k-th largest logit, as k logits reach it. So a row with upper_r < T is not among the k, and
 * the head computes the others too: same bits, same order. With 8-bit rows, the bounds are certain, and so is the
 * result; with the 4-bit rows of the fast head, both are very likely.
 */
#include "state.h"

/* The last sum and the final norm of the tokens from `first` on; by tokens. */
void bn_leave(bn_state *s, int thread, int first) {
  long t0, t1;
  bn_time(BN_TIME_REST);
  bn_span(s->n - first, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long t = first + t0; t < first + t1; t++) {
    bn_add_residual(s, t, t, BN_LAYERS - 1, BN_FFN_DOWN, &s->inner);
    bn_norm_output(s->x + (size_t)t * PADDED(BN_HIDDEN), (const float *)bn_tensor_data(s->model, BN_OUTPUT_NORM),
                   BN_NORM_EPS, s->normed + (size_t)(t - first) * PADDED(BN_HIDDEN));
  }
}

/* Logits of `count` hidden states; by rows of the head. */
void bn_project(bn_state *s, int thread, const float *states, int count) {
  long r0, r1;
  bn_time(BN_TIME_HEAD);
  bn_span((BN_VOCABULARY + HEAD_ROWS - 1) / HEAD_ROWS, thread, bn_pool_threads(s->pool), &r0, &r1);
  for (long r = r0 * HEAD_ROWS; r < r1 * HEAD_ROWS && r < BN_VOCABULARY; r += HEAD_ROWS) {
    const long end = r + HEAD_ROWS < BN_VOCABULARY ? r + HEAD_ROWS : BN_VOCABULARY;
    const void *w = bn_head_rows(s, thread, r, end);
    int t = 0;
    for (; t + BN_HEAD_TOKENS <= count; t += BN_HEAD_TOKENS)
      bn_head_batch(w, states + (size_t)t * PADDED(BN_HIDDEN), s->logits + (size_t)t * BN_VOCABULARY, r,
                    r + (end - r) / BN_HEAD_BATCH_ROWS * BN_HEAD_BATCH_ROWS, end);
    for (; t < count; t++)
      bn_head_one(w, states + (size_t)t * PADDED(BN_HIDDEN), s->logits + (size_t)t * BN_VOCABULARY, r,
                  r + (end - r) / BN_HEAD_ONE_ROWS * BN_HEAD_ONE_ROWS, end);
  }
}

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

/* The logit of row r; NaN counts as the smallest. */
static float logit_of(const bn_state *s, int32_t r) {
  const float y = s->scores[r];
  return y == y ? y : -__builtin_inff();
}

/* ---- steps of the screen: each is run by all threads */

#if BN_SCREENED
/* The 8-bit rows need half the bytes of 16-bit rows, and about 5 rows for each of the k pass; of 4-bit rows 19
 * (docs/measurements.md). */
enum { MOST_SCREENED = BN_VOCABULARY / 32 };

/* Bounds of the rows, and the thread's k largest lower bounds; by row tiles. */
static void screen(bn_state *s, int thread) {
  const uint8_t *w = bn_tensor_data(s->model, BN_OUTPUT_SCREEN);
  const int32_t *starts = (const int32_t *)(const void *)(w + BN_SCREEN_STARTS);
  const float *factors = (const float *)(const void *)(w + BN_SCREEN_FACTORS);
  bn_candidate *best = s->best + (size_t)thread * BN_MOST_TOP;
  int size = 0;
  long t0, t1;
  bn_time(BN_TIME_HEAD);
  bn_span(BN_SCREEN_TILES, thread, bn_pool_threads(s->pool), &t0, &t1);
  const uint8_t *lines = s->arena ? bn_arena_screen(s->arena, thread) : w;
  const bn_screened_state *h = &s->state;
  if (s->fast)
    bn_screen_fast(lines, (const int8_t *)s->codes, -8 * h->sums[0], -8 * h->sums[1],
                   bn_arena_factors(s->arena, thread), h->step, h->norm, h->residual, s->lower, s->upper, s->peaks, t0,
                   t1);
  else
    bn_screen((const int8_t *)lines, s->codes, starts, factors, h->step, h->norm, h->residual, s->lower, s->upper,
              s->peaks, t0, t1);
  for (long tile = t0; tile < t1; tile++) {
    if (size == s->k && !(s->peaks[2 * tile] > best[0].value)) continue;
    for (int32_t r = (int32_t)tile * LANES; r < (int32_t)(tile + 1) * LANES && r < BN_VOCABULARY; r++)
      size = keep(best, size, s->k, (bn_candidate){s->lower[r], r});
  }
  s->kept[thread] = size;
}

/* Lists the k rows with the largest lower bounds; the rows of all threads together are at least k. */
static void join(bn_state *s) {
  for (int t = 1; t < bn_pool_threads(s->pool); t++)
    for (int i = 0; i < s->kept[t]; i++) s->kept[0] = keep(s->best, s->kept[0], s->k, s->best[t * BN_MOST_TOP + i]);
  for (int i = 0; i < s->k; i++) s->rows_passed[i] = s->best[i].id;
  atomic_store(&s->passed, s->k);
}

/* T, from the logits of these rows; not above their upper bounds, which may fail in the fast head, so that they pass.
 */
static void set_threshold(bn_state *s) {
  s->threshold = __builtin_inff();
  for (int i = 0; i < s->k; i++) {
    const int32_t r = s->rows_passed[i];
    s->threshold = MIN(s->threshold, MIN(logit_of(s, r), s->upper[r]));
  }
  atomic_store(&s->passed, 0);
}

/* Lists the rows that pass, in any order; by row tiles. */
static void sift(bn_state *s, int thread) {
  long t0, t1;
  bn_span(BN_SCREEN_TILES, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long tile = t0; tile < t1; tile++) {
    if (s->peaks[2 * tile + 1] < s->threshold) continue;
    for (int32_t r = (int32_t)tile * LANES; r < (int32_t)(tile + 1) * LANES && r < BN_VOCABULARY; r++)
      if (s->upper[r] >= s->threshold) s->rows_passed[atomic_fetch_add(&s->passed, 1)] = r;
  }
}

/* Logits of the rows in the list; by rows of the list. */
static void rescore(bn_state *s, int thread) {
  long i0, i1;
  bn_span(atomic_load(&s->passed), thread, bn_pool_threads(s->pool), &i0, &i1);
  for (long i = i0; i < i1; i++) {
    const long r = s->rows_passed[i];
    bn_head_row(bn_head_rows(s, thread, r, r + 1), s->last, s->scores, r, r + 1, r + 1);
  }
}
#endif

static void score(void *argument, int thread, int threads) {
  bn_state *s = argument;
  (void)threads;
#if BN_SCREENED
  if (s->screened) {
    screen(s, thread);
    bn_pool_barrier(s->pool);
    if (thread == 0) join(s);
    bn_pool_barrier(s->pool);
    rescore(s, thread);
    bn_pool_barrier(s->pool);
    if (thread == 0) set_threshold(s);
    bn_pool_barrier(s->pool);
    sift(s, thread);
    bn_pool_barrier(s->pool);
    rescore(s, thread);
    return;
  }
#endif
  bn_project(s, thread, s->last, 1);
}

static int offer(bn_state *s, int size, int32_t r) {
  return keep(s->best, size, s->k, (bn_candidate){logit_of(s, r), r});
}

/* Of the hidden state s->last. */
static void find_largest(bn_state *s, int k, int32_t *ids, float *logits) {
  s->logits = s->scores;
  s->k = k;
#if BN_SCREENED
  s->screened = k <= MOST_SCREENED && bn_screen_state(s->last, BN_HIDDEN, s->fast ? 0 : 64, s->codes,
                                                      s->fast ? BN_FAST_STRIDE : BN_SCREEN_STRIDE, &s->state);
#endif
  bn_pool_run(s->pool, score, s);
  int size = 0;
#if BN_SCREENED
  if (s->screened)
    for (int i = 0; i < atomic_load(&s->passed); i++) size = offer(s, size, s->rows_passed[i]);
  else
#endif
    for (int32_t r = 0; r < BN_VOCABULARY; r++) size = offer(s, size, r);
  /* The worst comes off the root, until the best is left. */
  while (size > 0) {
    const bn_candidate worst = s->best[0];
    size--;
    sink(s->best, size, s->best[size]);
    ids[size] = worst.id;
    logits[size] = worst.value;
  }
}

void bn_largest(bn_state *s, int count, int k, int32_t *ids, float *logits) {
  const float *first = s->last - (size_t)(count - 1) * PADDED(BN_HIDDEN);
  for (int t = 0; t < count; t++, ids += k, logits += k) {
    s->last = first + (size_t)t * PADDED(BN_HIDDEN);
    find_largest(s, k, ids, logits);
  }
}
