/*
 * The last steps: final norm, logits, and the k largest logits.
 *
 * The k largest, exactly: a screen (codegen/kernels/screen.ts) gives every row r bounds lower_r <= y_r <= upper_r from
 * int8 rows. T, the k-th largest lower bound, is not above the k-th largest logit, as k logits reach it. So a row with
 * upper_r < T is not among the k, and the head's own kernel computes the others from the file's rows: same bits, same
 * order.
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
  const void *w = bn_tensor_data(s->model, BN_OUTPUT);
  long r0, r1;
  bn_time(BN_TIME_HEAD);
  bn_span((BN_VOCABULARY + HEAD_ROWS - 1) / HEAD_ROWS, thread, bn_pool_threads(s->pool), &r0, &r1);
  for (long r = r0 * HEAD_ROWS; r < r1 * HEAD_ROWS && r < BN_VOCABULARY; r += HEAD_ROWS) {
    const long end = r + HEAD_ROWS < BN_VOCABULARY ? r + HEAD_ROWS : BN_VOCABULARY;
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

/* ---- steps of the screen: each is run by all threads */

#if BN_SCREENED
/* The int8 rows need half the bytes of 16-bit rows, and about 14 rows for each of the k pass (docs/measurements.md). */
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
  bn_screen((const int8_t *)lines, s->codes, starts, factors, s->state.step, s->state.norm, s->state.residual, s->lower,
            s->upper, s->peaks, t0, t1);
  for (long tile = t0; tile < t1; tile++) {
    if (size == s->k && !(s->peaks[2 * tile] > best[0].value)) continue;
    for (int32_t r = (int32_t)tile * LANES; r < (int32_t)(tile + 1) * LANES && r < BN_VOCABULARY; r++)
      size = keep(best, size, s->k, (bn_candidate){s->lower[r], r});
  }
  s->kept[thread] = size;
}

/* T: joins the threads' lower bounds; the rows of all threads together are at least k. */
static void join(bn_state *s) {
  for (int t = 1; t < bn_pool_threads(s->pool); t++)
    for (int i = 0; i < s->kept[t]; i++) s->kept[0] = keep(s->best, s->kept[0], s->k, s->best[t * BN_MOST_TOP + i]);
  s->threshold = s->best[0].value;
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

/* Logits of the rows that passed; by rows of the list. */
static void rescore(bn_state *s, int thread) {
  const void *w = bn_tensor_data(s->model, BN_OUTPUT);
  long i0, i1;
  bn_span(atomic_load(&s->passed), thread, bn_pool_threads(s->pool), &i0, &i1);
  for (long i = i0; i < i1; i++) {
    const long r = s->rows_passed[i];
    bn_head_row(w, s->last, s->scores, r, r + 1, r + 1);
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
    sift(s, thread);
    bn_pool_barrier(s->pool);
    rescore(s, thread);
    return;
  }
#endif
  bn_project(s, thread, s->last, 1);
}

/* Offers row r and its logit; NaN counts as the smallest. */
static int offer(bn_state *s, int size, int32_t r) {
  const float y = s->scores[r];
  return keep(s->best, size, s->k, (bn_candidate){y == y ? y : -__builtin_inff(), r});
}

/* Of the hidden state s->last. */
static void find_largest(bn_state *s, int k, int32_t *ids, float *logits) {
  s->logits = s->scores;
  s->k = k;
#if BN_SCREENED
  s->screened = k <= MOST_SCREENED && bn_screen_state(s->last, BN_HIDDEN, s->codes, BN_SCREEN_STRIDE, &s->state);
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
