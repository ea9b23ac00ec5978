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

/* What kernels look at beyond a list's end: repetitions. */
BN_SHARED void close_list(uint16_t *list, long count) {
  const uint16_t last = count ? list[count - 1] : 0;
  for (long i = 0; i < BN_LIST_ROOM; i++) list[count + i] = last;
}

/* A thread's scratch: a list, and behind it activations. */
BN_SHARED int8_t *behind(uint16_t *list) {
  return (int8_t *)list + BN_LIST_BYTES;
}

/* Kernels fetch runs ahead of those that they work on; this fetches the first ones. */
BN_SHARED void fetch_runs(const bn_matrix *m, const uint8_t *w, const uint16_t *list, long count) {
  for (long i = 0; i < MIN(count, BN_LIST_STEP); i++)
    for (long byte = 0; byte < m->run; byte += 64)
      __builtin_prefetch(w + (size_t)list[i] * (size_t)m->run + byte, 0, 2);
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

static long open_in(const int32_t *gate, long first, long end) {
  long open = 0;
  for (long i = first; i < end; i++) open += gate[i] > 0;
  return open;
}

/* The groups of rows that begin with open rows [live * thread / threads, ...) of all: contiguous, and every one is
 * somebody's. */
static void share_rows(const int32_t *gate, long live, int thread, int threads, long *first, long *end) {
  const long from = live * thread / threads, to = live * (thread + 1) / threads;
  long group = 0, before = 0;
  for (; group < GROUPS(BN_INTERMEDIATE) && before < from; group++)
    before += open_in(gate, group * LANES, MIN((group + 1) * LANES, BN_INTERMEDIATE));
  *first = group;
  for (; group < GROUPS(BN_INTERMEDIATE) && (before < to || thread == threads - 1); group++)
    before += open_in(gate, group * LANES, MIN((group + 1) * LANES, BN_INTERMEDIATE));
  *end = group;
}

void bn_open_rows(bn_state *s, int thread, int layer, long *first, long *end) {
  const bn_matrix *m = &bn_matrices[BN_FFN_UP];
  const int threads = bn_pool_threads(s->pool);
  const int32_t *gate = s->y[BN_FFN_GATE];
  uint16_t *list = (uint16_t *)(void *)(s->tables + (size_t)thread * BN_SCRATCH_BYTES);
  bn_time(BN_TIME_TERNARY);
  long live = open_in(gate, 0, BN_INTERMEDIATE), count = 0;
  if (rows_read(s, layer, live) > live) {
    bn_span(GROUPS(BN_INTERMEDIATE), thread, threads, first, end);
    for (long r = *first * LANES; r < MIN(*end * LANES, BN_INTERMEDIATE); r++) list[count++] = (uint16_t)r;
  } else {
    share_rows(gate, live, thread, threads, first, end);
    for (long r = *first * LANES; r < MIN(*end * LANES, BN_INTERMEDIATE); r++) {
      list[count] = (uint16_t)r;
      count += gate[r] > 0;
    }
  }
  close_list(list, count);
  const quantised *a = &s->hidden;
  const uint8_t *w = weights_at(s, thread, layer, BN_FFN_UP);
  fetch_runs(m, w, list, count);
  arrange(m, a->q + (long)thread * a->stride, behind(list));
  m->row_dots(w, behind(list), a->sum + thread, (const uint8_t *)list, s->y[BN_FFN_UP], 0, count);
}
#endif

#if BN_SPARSE_DOWN
/* The sums of all threads -> products of groups of rows that are this thread's share. */
static void add_sums(bn_state *s, int thread, int threads, int32_t sum) {
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
  const int threads = bn_pool_threads(s->pool);
  const quantised *a = &s->inner;
  const int8_t *q = a->q + (long)thread * a->stride;
  uint16_t *list = (uint16_t *)(void *)(s->tables + (size_t)thread * BN_SCRATCH_BYTES);
  int8_t *x = behind(list);
  int32_t *sums = s->down_sums + (long)thread * BN_DOWN_SUMS;
  bn_time(BN_TIME_TERNARY);
  long live = 0, count = 0;
  for (long k = 0; k < BN_INTERMEDIATE; k++) live += q[k] != 0;
  const int dense = columns_read(live) > live;
  for (long k = 0; k < BN_INTERMEDIATE; k++) {
    list[count] = (uint16_t)k;
    count += dense | (q[k] != 0);
  }
  close_list(list, count);
  long first, end;
  bn_span((count + BN_LIST_STEP - 1) / BN_LIST_STEP, thread, threads, &first, &end);
  first *= BN_LIST_STEP, end = MIN(end * BN_LIST_STEP, count);
  const uint8_t *w = weights_at(s, thread, layer, BN_FFN_DOWN);
  fetch_runs(m, w, list + first, end - first);
  for (long i = first; i < end; i++) x[i] = q[list[i]];
  memset(x + end, 0, BN_LIST_ROOM);
  memset(sums, 0, BN_DOWN_SUMS * sizeof *sums);
  if (first < end) m->column_sums(w, x, (const uint8_t *)list, sums, first, end);
  bn_pool_barrier(s->pool);
  add_sums(s, thread, threads, a->sum[thread]);
}
#endif
