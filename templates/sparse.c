/*
 * Products of one token in an MLP most of whose neurons are zero (squared ReLU). Zeros contribute nothing, so what
 * multiplies them is not read:
 *
 *   up     only rows whose gate is open: where gate <= 0 the neuron is zero, whatever `up` says
 *   down   only columns whose quantised input is not zero
 *
 * Both matrices lie so that a row, or a column, is one run of bytes (codegen/packings/orders.ts). Threads share what is
 * live evenly. Where little is zero everything is read, in one sweep: leaps through memory are slower.
 */
#include <string.h>
#include "state.h"

enum { GROUPED = GROUPS(BN_INTERMEDIATE) * LANES };

/* What one thread reads: entries of its list, from neurons of groups [first, end) of LANES. */
typedef struct {
  uint16_t *list; /* [count], then room for what kernels look at beyond its end: repetitions of the last */
  int8_t *x;      /* activations, behind the list */
  long count, first, end;
} share;

/* Marks of neurons, 1 or 0: behind a thread's list and activations. */
BN_SHARED uint8_t *marks_of(const bn_state *s, int thread) {
  return s->tables + (size_t)thread * BN_SCRATCH_BYTES + BN_MARKS_AT;
}

/* How many of eight marks are 1. */
BN_SHARED long marked(const uint8_t *marks) {
  uint64_t word;
  memcpy(&word, marks, sizeof word);
  return (long)(word * 0x0101010101010101u >> 56);
}

BN_SHARED long marked_in_all(uint8_t *marks) {
  memset(marks + BN_INTERMEDIATE, 0, GROUPED - BN_INTERMEDIATE);
  long live = 0;
  for (long i = 0; i < GROUPED; i += 8) live += marked(marks + i);
  return live;
}

/* A thread's share of what is marked: contiguous groups, every one somebody's, with about as many marks for each
 * thread. */
BN_SHARED share share_of(const bn_state *s, int thread, const uint8_t *marks, long live) {
  const long threads = bn_pool_threads(s->pool), from = live * thread / threads, to = live * (thread + 1) / threads;
  uint8_t *own = s->tables + (size_t)thread * BN_SCRATCH_BYTES;
  share part = {(uint16_t *)(void *)own, (int8_t *)own + BN_LIST_BYTES, 0, 0, 0};
  long before = 0, i = 0;
  for (; i < GROUPED && before < from; i += LANES) before += marked(marks + i) + marked(marks + i + 8);
  part.first = i / LANES;
  for (; i < GROUPED && (before < to || thread == threads - 1); i += LANES) {
    before += marked(marks + i) + marked(marks + i + 8);
    for (long j = i; j < i + LANES; j++) {
      part.list[part.count] = (uint16_t)j;
      part.count += marks[j];
    }
  }
  part.end = i / LANES;
  const uint16_t last = part.count ? part.list[part.count - 1] : 0;
  for (long j = 0; j < BN_LIST_ROOM; j++) part.list[part.count + j] = last;
  return part;
}

/* Kernels fetch runs ahead of those that they work on; this fetches the first ones. */
BN_SHARED void fetch_runs(const bn_matrix *m, const uint8_t *w, const share *part) {
  for (long i = 0; i < MIN(part->count, BN_LIST_STEP); i++)
    for (long byte = 0; byte < m->run; byte += 64)
      __builtin_prefetch(w + (size_t)part->list[i] * (size_t)m->run + byte, 0, 2);
}

#if BN_SPARSE_UP
/* x in the order of a row's bytes: [lines of 64 bytes][fields][64]. */
static void arrange(const bn_matrix *m, const int8_t *x, int8_t *out) {
  enum { LINE = 64, BYTES = 4 };
  for (long line = 0; line < m->run / LINE; line++)
    for (long f = 0; f < m->fields; f++)
      for (long l = 0; l < LINE / BYTES; l++, out += BYTES)
        memcpy(out, x + (line * (LINE / BYTES) + l) * m->field_k + f * BYTES, BYTES);
}

void bn_open_rows(bn_state *s, int thread, int layer, long *first, long *end) {
  const bn_matrix *m = &bn_matrices[BN_FFN_UP];
  const int32_t *gate = s->y[BN_FFN_GATE];
  uint8_t *marks = marks_of(s, thread);
  bn_time(BN_TIME_TERNARY);
  for (long r = 0; r < BN_INTERMEDIATE; r++) marks[r] = gate[r] > 0;
  const long open = marked_in_all(marks), read = rows_read(s, layer, open);
  if (read > open) memset(marks, 1, BN_INTERMEDIATE);
  const share part = share_of(s, thread, marks, read);
  const quantised *a = &s->hidden;
  const uint8_t *w = weights_at(s, thread, layer, BN_FFN_UP);
  fetch_runs(m, w, &part);
  arrange(m, a->q + (long)thread * a->stride, part.x);
  m->row_dots(w, part.x, a->sum + thread, (const uint8_t *)part.list, s->y[BN_FFN_UP], 0, part.count);
  *first = part.first;
  *end = part.end;
}
#endif

#if BN_SPARSE_DOWN
/* The sums of all threads -> products of groups of rows that are this thread's share. */
static void add_sums(bn_state *s, int thread, int32_t sum) {
  const int threads = bn_pool_threads(s->pool);
  const bn_matrix *m = &bn_matrices[BN_FFN_DOWN];
  int32_t *y = s->y[BN_FFN_DOWN];
  long first, end;
  bn_span(GROUPS(BN_HIDDEN), thread, threads, &first, &end);
  first *= LANES, end = MIN(end * LANES, BN_HIDDEN);
  for (long r = first, stop; r < end; r = stop) {
    const long field = r / m->run;
    stop = MIN(end, (field + 1) * m->run);
    for (long i = r; i < stop; i++) y[i] = s->down_sums[i];
    for (int t = 1; t < threads; t++)
      for (long i = r; i < stop; i++) y[i] += s->down_sums[(long)t * BN_DOWN_SUMS + i];
    const int shift = m->shifts[field];
    const uint32_t inverse = (uint32_t)m->inverses[field];
    for (long i = r; i < stop; i++) y[i] = (int32_t)((uint32_t)(y[i] >> shift) * inverse) - sum;
  }
}

void bn_live_columns(bn_state *s, int thread, int layer) {
  const bn_matrix *m = &bn_matrices[BN_FFN_DOWN];
  const quantised *a = &s->inner;
  const int8_t *q = a->q + (long)thread * a->stride;
  uint8_t *marks = marks_of(s, thread);
  int32_t *sums = s->down_sums + (long)thread * BN_DOWN_SUMS;
  bn_time(BN_TIME_TERNARY);
  for (long k = 0; k < BN_INTERMEDIATE; k++) marks[k] = q[k] != 0;
  const long live = marked_in_all(marks), read = columns_read(live);
  if (read > live) memset(marks, 1, BN_INTERMEDIATE);
  const share part = share_of(s, thread, marks, read);
  const uint8_t *w = weights_at(s, thread, layer, BN_FFN_DOWN);
  fetch_runs(m, w, &part);
  for (long i = 0; i < part.count; i++) part.x[i] = q[part.list[i]];
  memset(part.x + part.count, 0, BN_LIST_ROOM);
  memset(sums, 0, BN_DOWN_SUMS * sizeof *sums);
  m->column_sums(w, part.x, (const uint8_t *)part.list, sums, 0, part.count);
  bn_pool_barrier(s->pool);
  add_sums(s, thread, a->sum[thread]);
}
#endif
