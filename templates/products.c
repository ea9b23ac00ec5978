/*
 * The ternary products of a layer: y = W q for one matrix, or for several with the same input, by row tiles. How many
 * tokens there are decides how:
 *
 *   one     a stream of weights, by dot products (codegen/kernels/dot-products.ts) or look-ups (look-ups.ts)
 *   a few   dot products for 2, 4 or 8 tokens at once: weights are unpacked once for all
 *   many    tables of sums (codegen/kernels/tables.ts), for whole vectors of tokens and rows enough; dot products of
 *           the tokens that are left over
 *
 * All compute the same integers. Kernels take whole vectors of tokens: they also read the rows of the batch buffers
 * that follow its last token, as an earlier batch left them, and write products there that nobody reads.
 */
#include <string.h>
#include "state.h"

enum {
  CACHED_BYTES = 64 << 10 /* of weights that stay in the second-level cache while several kernels read them */
};

/* So that no vector of tokens reaches beyond the buffers. */
_Static_assert(BN_BATCH % BN_TABLE_TOKENS == 0 && BN_BATCH % 8 == 0, "a batch is no whole number of vectors");

void bn_tiles(const bn_matrix *m, int thread, int threads, long *t0, long *t1) {
  const long group = m->tile_rows < LANES ? LANES / m->tile_rows : 1;
  bn_span((m->tiles + group - 1) / group, thread, threads, t0, t1);
  *t0 *= group;
  *t1 = *t1 * group < m->tiles ? *t1 * group : m->tiles;
}

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

static long rows_of(const part *p) {
  return (p->end - p->first) * bn_matrices[p->matrix].tile_rows;
}

/* Product of the part's first row and token 0. */
static int32_t *products_of(const bn_state *s, const part *p) {
  return s->y[p->matrix] + p->first * bn_matrices[p->matrix].tile_rows;
}

/* ---- tables: of several matrices with the same input and packing */

/* Tokens of a batch that tables are made for; the last vector may be filled up. */
static long tabled(const bn_state *s, const part *parts, int count) {
  long rows = 0;
  for (int i = 0; i < count; i++) rows += rows_of(&parts[i]);
  if (!bn_matrices[parts[0].matrix].sums || rows < BN_LEAST_ROWS) return 0;
  const long rest = s->n % BN_TABLE_TOKENS;
  return s->n - rest + (2 * rest > BN_TABLE_TOKENS ? BN_TABLE_TOKENS : 0);
}

static int32_t sum_of_magnitudes(const int8_t *x, long k) {
  int32_t sum = 0;
  for (long i = 0; i < k; i++) sum += x[i] < 0 ? -x[i] : x[i];
  return sum;
}

/* most[b]: the largest sum of |x| over a block of lines among the tokens. The last block may reach into the padding,
 * but not beyond it. */
static void most_of(const quantised *a, long tokens, const bn_matrix *m, int32_t *most) {
  /* A block has 32 k, or more by a multiple of 8: with constants the compiler takes one step for each piece. */
  enum { PIECE = 32, REST = 8 };
  const long k = m->table_lines * m->line_k, blocks = (m->lines + m->table_lines - 1) / m->table_lines;
  memset(most, 0, (size_t)blocks * sizeof *most);
  for (long t = 0; t < tokens; t++) {
    const int8_t *x = a->q + t * a->stride;
    for (long b = 0; b < blocks; b++, x += k) {
      const long end = MIN(k, a->stride - b * k);
      int32_t sum = sum_of_magnitudes(x, PIECE);
      for (long i = PIECE; i < end; i += REST) sum += sum_of_magnitudes(x + i, REST);
      most[b] = MAX(most[b], sum);
    }
  }
}

/* One pass over all lines for at most table_rows rows. */
static void sum_rows(bn_state *s, int thread, const part *parts, int count, const quantised *a, long tokens,
                     const int32_t *most) {
  const bn_matrix *shared = &bn_matrices[parts[0].matrix];
  uint8_t *quads = s->tables + (size_t)thread * BN_SCRATCH_BYTES, *others = quads + shared->others_at,
          *tables = quads + shared->tables_at, *sums = quads + shared->sums_at;
  long rows = 0;
  for (const part *p = parts; p < parts + count; p++) {
    for (long t = 0; t < tokens; t++)
      memset(products_of(s, p) + t * bn_matrices[p->matrix].y_stride, 0, (size_t)rows_of(p) * sizeof(int32_t));
    rows += rows_of(p);
  }
  for (long vector = 0; vector < tokens / BN_TABLE_TOKENS; vector++)
    memset(sums + vector * shared->table_rows * BN_TABLE_ENTRY, 0, (size_t)rows * BN_TABLE_ENTRY);

  int32_t span = 0; /* bounds the sums of |x| since they were last added to the products */
  for (long line = 0; line < shared->lines; line += shared->table_lines) {
    const int last = line + shared->table_lines > shared->lines;
    long row = 0;
    for (const part *p = parts; p < parts + count; row += rows_of(p++)) {
      const bn_matrix *m = &bn_matrices[p->matrix];
      (last ? m->last_offsets : m->offsets)(p->w + p->first * m->tile_bytes + line * m->line_bytes, quads + 8 * row,
                                            others + 4 * row, p->end - p->first);
    }
    (last ? shared->last_sums : shared->sums)(a->q + line * shared->line_k, quads, others, sums, tables, tokens, rows);
    const int32_t *block = most + line / shared->table_lines;
    span += block[0];
    if (line + shared->table_lines < shared->lines && span + block[1] <= BN_MOST_SUM) continue;
    span = 0;
    row = 0;
    for (const part *p = parts; p < parts + count; row += rows_of(p++))
      bn_matrices[p->matrix].results(sums + row * BN_TABLE_ENTRY, products_of(s, p), tokens, rows_of(p));
  }
}

/* All rows of the thread, cut into pieces of at most table_rows. */
static void by_tables(bn_state *s, int thread, const part *parts, int count, const quantised *a, long tokens) {
  const bn_matrix *shared = &bn_matrices[parts[0].matrix];
  int32_t most[LONGEST / LANES]; /* a block has more than LANES k */
  most_of(a, tokens, shared, most);
  part pieces[BN_SLOTS]; /* of different matrices: one that is cut fills the room */
  int used = 0;
  long room = shared->table_rows;
  for (const part *p = parts; p < parts + count; p++)
    for (part rest = *p; rest.first < rest.end;) {
      const long tiles = room / shared->tile_rows;
      part *piece = &pieces[used++];
      *piece = rest;
      if (piece->end - piece->first > tiles) piece->end = piece->first + tiles;
      rest.first = piece->end;
      room -= rows_of(piece);
      if (room >= shared->tile_rows) continue;
      sum_rows(s, thread, pieces, used, a, tokens, most);
      used = 0;
      room = shared->table_rows;
    }
  if (used) sum_rows(s, thread, pieces, used, a, tokens, most);
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
      tokens = m->tabulate ? 0 : 1; /* tables of one token in a batch would not pay */
      /* The smallest that does the rest, or the largest. */
      for (int i = 0; i < BN_GEMMS && m->gemm[i].tokens && tokens < s->n - t; i++) {
        kernel = m->gemm[i].kernel;
        tokens = m->gemm[i].tokens;
      }
      kernel(p->w, a->q + t * a->stride, a->sum + t, s->y[p->matrix] + t * m->y_stride, tile, end);
    }
  }
}

/* ---- one token */

static void one_token(bn_state *s, int thread, const part *parts, int count, const quantised *a) {
  const int8_t *x = a->q + (long)thread * a->stride;
  bn_tabulate *made = NULL;
  for (const part *p = parts; p < parts + count; p++) {
    const bn_matrix *m = &bn_matrices[p->matrix];
    if (m->tabulate && m->tabulate != made) {
      /* All threads make the tables, each for some lines, for all matrices with this input. */
      long l0, l1;
      if (made) bn_pool_barrier(s->pool); /* the old ones are in use until then */
      bn_time(BN_TIME_TABLES);
      bn_span(m->lines, thread, bn_pool_threads(s->pool), &l0, &l1);
      (made = m->tabulate)(x, s->look_ups, l0, l1);
      bn_pool_barrier(s->pool);
      bn_time(BN_TIME_TERNARY);
    }
    if (p->first < p->end)
      m->gemv(p->w, m->tabulate ? s->look_ups : x, a->sum + thread, s->y[p->matrix], p->first, p->end);
  }
}

void bn_products(bn_state *s, int thread, int layer, int matrix, int count, const quantised *a) {
  part parts[BN_SLOTS];
  bn_time(BN_TIME_TERNARY);
  for (int i = 0; i < count; i++) parts[i] = part_of(s, thread, layer, matrix + i);
  if (s->n == 1) {
    one_token(s, thread, parts, count, a);
    return;
  }
  for (int i = 0, end; i < count; i = end) {
    /* Tables serve matrices with the same packing. */
    for (end = i + 1; end < count && bn_matrices[matrix + end].sums == bn_matrices[matrix + i].sums;) end++;
    const long tables = tabled(s, parts + i, end - i);
    if (tables) by_tables(s, thread, parts + i, end - i, a, tables);
    for (const part *p = parts + i; p < parts + end; p++) by_dots(s, p, a, tables);
  }
}
