/*
 * Products in an MLP most of whose neurons are zero (squared ReLU). Zeros contribute nothing, so what multiplies them
 * is not read:
 *
 *   up     only rows whose gate is open: where gate <= 0 the neuron is zero, whatever `up` says
 *   down   only columns whose quantised input is not zero
 *
 * Both matrices lie so that a row, or a column, is one run of bytes (codegen/packings/orders.ts). Threads share what is
 * live evenly. For one token, where little is zero everything is read, in one sweep: by its list it would take as long.
 *
 * The tokens of a batch follow each other, each by its own lists. A thread's shares of them are about the same rows, or
 * columns, so most come from its cache. Where little is zero, row tiles are made and multiply all tokens (products.c).
 */
#include <string.h>
#include "state.h"

enum { GROUPED = GROUPS(BN_INTERMEDIATE) * LANES };

/* What one thread reads: entries of its list, from neurons of groups [first, end) of LANES. */
typedef struct {
  uint16_t *list; /* [count], eight by eight not ascending, then room for what kernels look at: the last one again */
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

/* Eight by eight in an order in which hardware prefetchers see no stream, as kernels take the lines of a run
 * (codegen/kernels/sparse-rows.ts). */
BN_SHARED void spread(uint16_t *list, long count) {
  static const uint8_t order[] = {BN_APART};
  enum { EIGHT = sizeof order };
  for (; count >= EIGHT; count -= EIGHT, list += EIGHT) {
    uint16_t ascending[EIGHT];
    memcpy(ascending, list, sizeof ascending);
    for (int i = 0; i < EIGHT; i++) list[i] = ascending[order[i]];
  }
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
  if (live < BN_INTERMEDIATE) spread(part.list, part.count);
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

/* Row of the quantised activations that a thread takes for token t: of a single one it has its own. */
BN_SHARED long row_for(const bn_state *s, int thread, long t) {
  return s->n > 1 ? t : thread;
}

#if BN_SPARSE
/* x in the order of a row's bytes: [lines of 64 bytes][fields][64]. */
static void arrange(const bn_matrix *m, const int8_t *x, int8_t *out) {
  enum { LINE = 64, BYTES = 4 };
  for (long line = 0; line < m->run / LINE; line++)
    for (long f = 0; f < m->fields; f++)
      for (long l = 0; l < LINE / BYTES; l++, out += BYTES)
        memcpy(out, x + (line * (LINE / BYTES) + l) * m->field_k + f * BYTES, BYTES);
}

/* -> how many gates of token t are open */
static long mark_open(const bn_state *s, long t, uint8_t *marks) {
  const int32_t *gate = s->y[BN_FFN_GATE] + t * bn_matrices[BN_FFN_GATE].y_stride;
  for (long r = 0; r < BN_INTERMEDIATE; r++) marks[r] = gate[r] > 0;
  return marked_in_all(marks);
}

/* Marked rows of `up` for token t, this thread's share of them. */
static share some_rows(bn_state *s, int thread, int layer, long t, const uint8_t *marks, long count) {
  const bn_matrix *m = &bn_matrices[BN_FFN_UP];
  const share part = share_of(s, thread, marks, count);
  const quantised *a = &s->hidden;
  const long row = row_for(s, thread, t);
  const uint8_t *w = weights_at(s, thread, layer, BN_FFN_UP);
  fetch_runs(m, w, &part);
  arrange(m, a->q + row * a->stride, part.x);
  m->row_dots(w, part.x, a->sum + row, (const uint8_t *)part.list, s->y[BN_FFN_UP] + t * m->y_stride, 0, part.count);
  return part;
}

int bn_open_rows(bn_state *s, int thread, int layer, long *first, long *end) {
  uint8_t *marks = marks_of(s, thread);
  bn_time(BN_TIME_TERNARY);
  if (s->n > 1) {
    long open = 0;
    for (long t = 0; t < s->n; t++) open += mark_open(s, t, marks);
    if (!few_rows(s, open)) return 0;
  }
  for (long t = 0; t < s->n; t++) {
    const long open = mark_open(s, t, marks), read = s->n > 1 ? open : rows_read(s, open);
    if (read > open) memset(marks, 1, BN_INTERMEDIATE);
    const share part = some_rows(s, thread, layer, t, marks, read);
    *first = part.first, *end = part.end;
  }
  return 1;
}

/* Sums of a thread's share of the columns, of the i-th of some tokens. */
static int32_t *sums_of(const bn_state *s, int thread, long i) {
  return s->down_sums + ((long)thread * BN_DOWN_TOKENS + i) * BN_DOWN_SUMS;
}

/* The sums of all threads -> products of token t of groups of rows that are this thread's share. */
static void add_sums(bn_state *s, int thread, long t, long i) {
  const int threads = bn_pool_threads(s->pool);
  const bn_matrix *m = &bn_matrices[BN_FFN_DOWN];
  int32_t *y = s->y[BN_FFN_DOWN] + t * m->y_stride;
  const int32_t sum = s->inner.sum[row_for(s, thread, t)];
  long first, end;
  bn_span(GROUPS(BN_HIDDEN), thread, threads, &first, &end);
  first *= LANES, end = MIN(end * LANES, BN_HIDDEN);
  for (long r = first, stop; r < end; r = stop) {
    const long field = r / m->run;
    stop = MIN(end, (field + 1) * m->run);
    const int32_t *own = sums_of(s, 0, i);
    for (long j = r; j < stop; j++) y[j] = own[j];
    for (int other = 1; other < threads; other++) {
      own = sums_of(s, other, i);
      for (long j = r; j < stop; j++) y[j] += own[j];
    }
    const int shift = m->shifts[field];
    const uint32_t inverse = (uint32_t)m->inverses[field];
    for (long j = r; j < stop; j++) y[j] = (int32_t)((uint32_t)(y[j] >> shift) * inverse) - sum;
  }
  /* The vector's padding, where another batch may have left something. */
  if (thread == threads - 1)
    for (long j = BN_HIDDEN; j < PADDED(BN_HIDDEN); j++) y[j] = 0;
}

static const int8_t *inputs_of(const bn_state *s, int thread, long t) {
  return s->inner.q + row_for(s, thread, t) * s->inner.stride;
}

/* -> how many inputs of `down` are not zero */
static long mark_live(const int8_t *q, uint8_t *marks) {
  for (long k = 0; k < BN_INTERMEDIATE; k++) marks[k] = q[k] != 0;
  return marked_in_all(marks);
}

/* Marked columns of `down`, this thread's share of them. */
static void some_columns(bn_state *s, int thread, int layer, const int8_t *q, const uint8_t *marks, long count,
                         int32_t *sums) {
  const bn_matrix *m = &bn_matrices[BN_FFN_DOWN];
  const share part = share_of(s, thread, marks, count);
  const uint8_t *w = weights_at(s, thread, layer, BN_FFN_DOWN);
  fetch_runs(m, w, &part);
  for (long i = 0; i < part.count; i++) part.x[i] = q[part.list[i]];
  memset(part.x + part.count, 0, BN_LIST_ROOM);
  memset(sums, 0, BN_DOWN_SUMS * sizeof *sums);
  m->column_sums(w, part.x, (const uint8_t *)part.list, sums, 0, part.count);
}

int bn_live_columns(bn_state *s, int thread, int layer) {
  uint8_t *marks = marks_of(s, thread);
  bn_time(BN_TIME_TERNARY);
  if (s->n > 1) {
    long live = 0;
    for (long t = 0; t < s->n; t++) live += mark_live(inputs_of(s, thread, t), marks);
    if (!few_columns(s, live)) return 0;
  }
  for (long t0 = 0, count; t0 < s->n; t0 += count) {
    count = MIN(BN_DOWN_TOKENS, s->n - t0);
    if (t0) bn_pool_barrier(s->pool); /* the sums before are in use until then */
    for (long i = 0; i < count; i++) {
      const int8_t *q = inputs_of(s, thread, t0 + i);
      const long live = mark_live(q, marks), read = s->n > 1 ? live : columns_read(s, live);
      if (read > live) memset(marks, 1, BN_INTERMEDIATE);
      some_columns(s, thread, layer, q, marks, read, sums_of(s, thread, i));
    }
    bn_pool_barrier(s->pool);
    for (long i = 0; i < count; i++) add_sums(s, thread, t0 + i, i);
  }
  return 1;
}
#endif
