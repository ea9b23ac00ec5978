/*
 * The ternary products of a layer: y = W q for one matrix, or for several with the same input, by row tiles. How many
 * tokens there are decides how:
 *
 *   one     a stream of weights, by dot products (codegen/kernels/gemv.ts)
 *   a few   the same kernel for 2, 4 or 8 tokens: weights are unpacked once for all (gemv.ts)
 *   many    tables of sums, for whole vectors of tokens and enough rows (tables.ts); dot products with an unpacked
 * panel of rows otherwise (gemm.ts)
 *
 * All compute the same integers.
 */
#include <string.h>
#include "state.h"

enum {
  MOST_SUM = 32767,       /* of |x| over a span of lines: sums are int16 (codegen/kernels/tables.ts) */
  LEAST_ROWS = 512,       /* that share tables: fewer gain less than the tables cost */
  CACHED_BYTES = 64 << 10 /* of weights that stay in the second-level cache while several kernels read them */
};

/* Tiles of a matrix that a thread computes. */
typedef struct {
  int matrix;
  const uint8_t *w; /* tile 0, be it there or not */
  long first, end;
} part;

static part part_of(const bn_state *s, int thread, int layer, int matrix) {
  part p = {matrix,
            s->arena ? bn_arena_weights(s->arena, thread, layer, matrix)
                     : bn_tensor_data(s->model, tensor_of(layer, matrix)),
            0, 0};
  bn_tiles(&bn_matrices[matrix], thread, bn_pool_threads(s->pool), &p.first, &p.end);
  return p;
}

/* ---- tables */

/* The thread's rows of several matrices with the same input, at most BN_TABLE_ROWS of them at once. */
typedef struct {
  const part *parts;
  int count;
} rows;

/* Tokens of a batch that tables are made for; the last vector may be filled up. */
static long tabled(const bn_state *s, const part *parts, int count) {
  if (!bn_matrices[parts[0].matrix].sums) return 0;
  long all = 0;
  for (int i = 0; i < count; i++) all += (parts[i].end - parts[i].first) * bn_matrices[parts[i].matrix].tile_rows;
  if (all < LEAST_ROWS) return 0;
  const long rest = s->n % BN_TABLE_TOKENS;
  return s->n - rest + (2 * rest > BN_TABLE_TOKENS ? BN_TABLE_TOKENS : 0);
}

/* most[b]: the largest sum of |x| over a block of lines among the tokens. */
static void most_of(const quantised *a, long tokens, const bn_matrix *m, int32_t *most) {
  const long width = BN_TABLE_LINES * m->line_k, blocks = (m->lines + BN_TABLE_LINES - 1) / BN_TABLE_LINES;
  memset(most, 0, (size_t)blocks * sizeof *most);
  for (long t = 0; t < tokens; t++) {
    const int8_t *x = a->q + (size_t)t * (size_t)a->stride;
    for (long b = 0; b < blocks; b++, x += width) {
      int32_t sum = 0;
      for (long i = 0; i < width; i++) sum += x[i] < 0 ? -x[i] : x[i];
      most[b] = MAX(most[b], sum);
    }
  }
}

/* One pass over all lines for at most BN_TABLE_ROWS rows. */
static void sum_rows(bn_state *s, const part *parts, int count, const quantised *a, long tokens, const int32_t *most,
                     uint8_t *scratch) {
  const bn_matrix *shared = &bn_matrices[parts[0].matrix];
  uint8_t *quads = scratch, *others = scratch + shared->others_at, *tables = scratch + shared->tables_at,
          *sums = scratch + shared->sums_at;
  long all = 0;
  for (int i = 0; i < count; i++) {
    const bn_matrix *m = &bn_matrices[parts[i].matrix];
    const long first = parts[i].first * m->tile_rows, own = (parts[i].end - parts[i].first) * m->tile_rows;
    for (long t = 0; t < tokens; t++)
      memset(s->y[parts[i].matrix] + t * m->y_stride + first, 0, (size_t)own * sizeof(int32_t));
    all += own;
  }
  for (long t = 0; t < tokens; t += BN_TABLE_TOKENS)
    memset(sums + (size_t)t / BN_TABLE_TOKENS * BN_TABLE_ROWS * BN_TABLE_ENTRY, 0, (size_t)all * BN_TABLE_ENTRY);
  long span = 0;
  for (long line = 0, next; line < shared->lines; line = next) {
    const int last = line + BN_TABLE_LINES > shared->lines;
    next = last ? shared->lines : line + BN_TABLE_LINES;
    long row = 0;
    for (int i = 0; i < count; i++) {
      const bn_matrix *m = &bn_matrices[parts[i].matrix];
      const uint8_t *w =
          parts[i].w + (size_t)parts[i].first * (size_t)m->tile_bytes + (size_t)line * (size_t)m->line_bytes;
      (last ? m->last_offsets : m->offsets)(w, quads + 8 * row, others + 2 * BN_TABLE_LINES * row,
                                            parts[i].end - parts[i].first);
      row += (parts[i].end - parts[i].first) * m->tile_rows;
    }
    (last ? shared->last_sums : shared->sums)(a->q + line * shared->line_k, quads, others, sums, tables, tokens, all);
    span += most[line / BN_TABLE_LINES];
    if (next < shared->lines && span + most[next / BN_TABLE_LINES] <= MOST_SUM) continue;
    span = 0;
    row = 0;
    for (int i = 0; i < count; i++) {
      const bn_matrix *m = &bn_matrices[parts[i].matrix];
      const long own = (parts[i].end - parts[i].first) * m->tile_rows;
      m->results(sums + row * BN_TABLE_ENTRY, s->y[parts[i].matrix] + parts[i].first * m->tile_rows, tokens, own);
      row += own;
    }
  }
}

/* All rows of the thread, cut into pieces of at most BN_TABLE_ROWS. */
static void by_tables(bn_state *s, int thread, const part *parts, int count, const quantised *a, long tokens) {
  const bn_matrix *shared = &bn_matrices[parts[0].matrix];
  int32_t *most = (int32_t *)(void *)scratch_of(s, thread); /* there is room: it holds a float for every k */
  most_of(a, tokens, shared, most);
  part piece[BN_SLOTS];
  int pieces = 0;
  long room = BN_TABLE_ROWS;
  for (int i = 0; i < count; i++) {
    const long tile_rows = bn_matrices[parts[i].matrix].tile_rows;
    for (part rest = parts[i]; rest.first < rest.end;) {
      part *p = &piece[pieces++];
      *p = rest;
      if (p->end - p->first > room / tile_rows) p->end = p->first + room / tile_rows;
      rest.first = p->end;
      room -= (p->end - p->first) * tile_rows;
      const int full = rest.first < rest.end || room < tile_rows;
      if (!full) continue;
      sum_rows(s, piece, pieces, a, tokens, most, s->tables + (size_t)thread * BN_SCRATCH_BYTES);
      pieces = 0;
      room = BN_TABLE_ROWS;
    }
  }
  if (pieces) sum_rows(s, piece, pieces, a, tokens, most, s->tables + (size_t)thread * BN_SCRATCH_BYTES);
}

/* ---- dot products */

/* Tokens [t0, n), eight and less at once; a block of tiles stays in the cache meanwhile. */
static void by_dots(bn_state *s, const part *p, const quantised *a, long t0) {
  const bn_matrix *m = &bn_matrices[p->matrix];
  const long block = MAX(1, CACHED_BYTES / m->tile_bytes);
  for (long tile = p->first, end; tile < p->end; tile = end) {
    end = tile + block < p->end ? tile + block : p->end;
    for (long t = t0, tokens; t < s->n; t += tokens) {
      bn_gemv *kernel = m->gemv;
      tokens = 1;
      for (int i = 0; i < BN_GEMMS && m->gemm[i].tokens && tokens < s->n - t; i++) {
        kernel = m->gemm[i].kernel;
        tokens = m->gemm[i].tokens;
      }
      kernel(p->w, a->q + (size_t)t * (size_t)a->stride, a->sum + t, s->y[p->matrix] + t * m->y_stride, tile, end);
    }
  }
}

void bn_products(bn_state *s, int thread, int layer, int matrix, int count, const quantised *a) {
  part parts[BN_SLOTS];
  bn_time(BN_TIME_TERNARY);
  for (int i = 0; i < count; i++) parts[i] = part_of(s, thread, layer, matrix + i);
  if (s->n == 1) {
    for (int i = 0; i < count; i++) {
      const part *p = &parts[i];
      if (p->first < p->end)
        bn_matrices[p->matrix].gemv(p->w, a->q + (size_t)thread * (size_t)a->stride, a->sum + thread, s->y[p->matrix],
                                    p->first, p->end);
    }
    return;
  }
  for (int i = 0, end; i < count; i = end) {
    /* Tables serve matrices with the same packing. */
    for (end = i + 1; end < count && bn_matrices[matrix + end].sums == bn_matrices[matrix + i].sums;) end++;
    const long tables = tabled(s, parts + i, end - i);
    if (tables) by_tables(s, thread, parts + i, end - i, a, tables);
    if (tables >= s->n) continue;
    for (const part *p = parts + i; p < parts + end; p++) by_dots(s, p, a, tables);
  }
}
