/*
 * The ternary products of a layer: y = W q for one matrix, or for several with the same input, by row tiles. How many
 * tokens there are decides how:
 *
 *   one     a stream of weights, by dot products (codegen/kernels/dot-products.ts) or look-ups (look-ups.ts)
 *   a few   dot products for 2, 4 or 8 tokens at once: weights are unpacked once for all
 *   many    tables of sums (codegen/kernels/tables.ts), for whole vectors of tokens and rows enough; dot products of
 *           the tokens that are left over
 *
 * Several tokens read row tiles. Of a matrix in an order of its own, some k at a time are made into such: a panel.
 *
 * All compute the same integers, unless look-ups are asked to round. Kernels take whole vectors of tokens: they also
 * read the rows of the batch buffers that follow its last token, as an earlier batch left them, and write products
 * there that nobody reads.
 */
#include <string.h>
#include "state.h"

enum {
  MOST_AT_ONCE = 8,       /* tokens of a kernel */
  CACHED_BYTES = 64 << 10 /* of weights that stay in the second-level cache while several kernels read them */
};

/* So that no vector of tokens reaches beyond the buffers. */
_Static_assert(BN_BATCH % BN_TABLE_TOKENS == 0 && BN_BATCH % 8 == 0, "a batch is no whole number of vectors");

void bn_tiles(const bn_matrix *m, long tiles, int thread, int threads, long *t0, long *t1) {
  const long group = m->tile_rows < LANES ? LANES / m->tile_rows : 1;
  bn_span((tiles + group - 1) / group, thread, threads, t0, t1);
  *t0 *= group;
  *t1 = MIN(*t1 * group, tiles);
}

/* Tiles of a matrix that a thread computes, contiguous. */
typedef struct {
  int matrix;
  const uint8_t *w; /* tile 0, be it there or not; the first byte of a matrix in an order of its own */
  long first, end;
} part;

/* Parts of one thread: a matrix by columns has one for each field. */
enum { PARTS = BN_SLOTS + BN_FIELDS };

static long rows_of(const part *p) {
  return (p->end - p->first) * bn_matrices[p->matrix].tile_rows;
}

/* Units of 64 bytes of a column that are a thread's. */
static void units_of(const bn_state *s, const bn_matrix *m, int thread, long *first, long *end) {
  bn_span(m->run / 64, thread, bn_pool_threads(s->pool), first, end);
}

/* -> how many parts there are */
static int parts_of(const bn_state *s, int thread, int layer, int matrix, part *parts) {
  const bn_matrix *m = &bn_matrices[matrix];
  const part whole = {matrix, weights_at(s, thread, layer, matrix), 0, 0};
  *parts = whole;
  if (m->order != BN_BY_COLUMNS) {
    bn_tiles(m, bn_tiles_of(s->model, layer, matrix), thread, bn_pool_threads(s->pool), &parts->first, &parts->end);
    return 1;
  }
  long first, end;
  units_of(s, m, thread, &first, &end);
  for (long f = 0; f < m->fields; f++) {
    parts[f] = whole;
    parts[f].first = MIN(m->tiles, (f * m->run + first * 64) / m->tile_rows);
    parts[f].end = MIN(m->tiles, (f * m->run + end * 64) / m->tile_rows);
  }
  return m->fields;
}

/* Product of the part's first row and token 0. */
static int32_t *products_of(const bn_state *s, const part *p) {
  return s->y[p->matrix] + p->first * bn_matrices[p->matrix].tile_rows;
}

/* ---- panels */

static uint8_t *panel_of(const bn_state *s, int thread, const bn_matrix *m) {
  return s->tables + (size_t)thread * BN_SCRATCH_BYTES + m->panel_at;
}

/* Where the panel of a part begins: by columns a panel has all rows of the matrix, else those of several parts. */
static uint8_t *in_panel(const bn_state *s, int thread, const part *p, long row) {
  const bn_matrix *m = &bn_matrices[p->matrix];
  const long tile = m->order == BN_BY_COLUMNS ? p->first : row / m->tile_rows;
  return panel_of(s, thread, m) + tile * m->tile_bytes;
}

/* Makes the panels of parts that need one, from a line on. */
static void make_panels(const bn_state *s, int thread, const part *parts, int count, long line) {
  long row = 0;
  for (const part *p = parts; p < parts + count; row += rows_of(p++)) {
    const bn_matrix *m = &bn_matrices[p->matrix];
    if (m->order == BN_BY_ROWS) {
      /* As an integer: tile 0 may lie before the buffer. */
      const uintptr_t tile0 = (uintptr_t)in_panel(s, thread, p, row) - (uintptr_t)(p->first * m->tile_bytes);
      m->panel(p->w + line / m->panel_lines * 64, (uint8_t *)tile0, p->first, p->end);
    } else if (m->order == BN_BY_COLUMNS && p == parts) {
      long first, end;
      units_of(s, m, thread, &first, &end);
      m->panel(p->w + line * m->line_k * m->run, panel_of(s, thread, m), first, end);
    }
  }
}

/* A line of a part's first tile. */
static const uint8_t *line_of(const bn_state *s, int thread, const part *p, long row, long line) {
  const bn_matrix *m = &bn_matrices[p->matrix];
  if (m->order) return in_panel(s, thread, p, row) + line % m->panel_lines * m->line_bytes;
  return p->w + p->first * m->tile_bytes + line * m->line_bytes;
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

  int panel_lines = 1, has_panels = 0;
  for (const part *p = parts; p < parts + count; p++)
    if (bn_matrices[p->matrix].order) has_panels = 1, panel_lines = bn_matrices[p->matrix].panel_lines;
  int32_t span = 0; /* bounds the sums of |x| since they were last added to the products */
  for (long line = 0; line < shared->lines; line += shared->table_lines) {
    const int last = line + shared->table_lines > shared->lines;
    long row = 0;
    if (has_panels && line % panel_lines == 0) make_panels(s, thread, parts, count, line);
    for (const part *p = parts; p < parts + count; row += rows_of(p++)) {
      const bn_matrix *m = &bn_matrices[p->matrix];
      (last ? m->last_offsets : m->offsets)(line_of(s, thread, p, row, line), quads + 8 * row, others + 4 * row,
                                            p->end - p->first);
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
  part pieces[PARTS]; /* different parts: one that is cut fills the room */
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

/* Tokens [t0, n) of tiles, eight and less at once; a block of tiles stays in the cache meanwhile. */
static void by_dots(const bn_state *s, const part *p, const uint8_t *w, const quantised *a, long k, long t0) {
  const bn_matrix *m = &bn_matrices[p->matrix];
  const long block = MAX(1, CACHED_BYTES / m->tile_bytes);
  for (long tile = p->first, end; tile < p->end; tile = end) {
    end = tile + block < p->end ? tile + block : p->end;
    for (long t = t0, tokens; t < s->n; t += tokens) {
      bn_gemv *kernel = m->gemv;
      tokens = kernel && !m->tabulate; /* tables of one token in a batch would not pay */
      /* The smallest that does the rest, or the largest. */
      for (int i = 0; i < BN_GEMMS && m->gemm[i].tokens && tokens < s->n - t; i++) {
        kernel = m->gemm[i].kernel;
        tokens = m->gemm[i].tokens;
      }
      kernel(w, a->q + t * a->stride + k, a->sum + t, s->y[p->matrix] + t * m->y_stride, tile, end);
    }
  }
}

/* The same from panels, each of which adds its share. */
static void by_panels(const bn_state *s, int thread, const part *parts, int count, const quantised *a, long t0) {
  const bn_matrix *m = &bn_matrices[parts->matrix];
  /* With the tokens that kernels take beyond the last one. */
  const long taken = MIN(BN_BATCH, t0 + (s->n - t0 + MOST_AT_ONCE - 1) / MOST_AT_ONCE * MOST_AT_ONCE);
  for (const part *p = parts; p < parts + count; p++)
    for (long t = t0; t < taken; t++)
      for (long i = 0; i < rows_of(p); i++) products_of(s, p)[t * m->y_stride + i] = t < s->n ? -a->sum[t] : 0;
  const long tiles = m->order == BN_BY_ROWS ? MAX(1, m->panel_rows / m->tile_rows) : m->tiles;
  for (part rest = *parts; rest.first < rest.end; rest.first += tiles) {
    part piece[BN_FIELDS] = {rest};
    if (m->order == BN_BY_COLUMNS)
      memcpy(piece, parts, (size_t)count * sizeof *piece);
    else
      piece->end = MIN(rest.end, rest.first + tiles);
    for (long line = 0; line < m->lines; line += m->panel_lines) {
      make_panels(s, thread, piece, count, line);
      for (const part *p = piece; p < piece + count; p++) {
        const uintptr_t tile0 = (uintptr_t)line_of(s, thread, p, 0, 0) - (uintptr_t)(p->first * m->tile_bytes);
        by_dots(s, p, (const uint8_t *)tile0, a, line * m->line_k, t0);
      }
    }
  }
}

/* ---- one token */

static void one_token(bn_state *s, int thread, int layer, int matrix, int count, const quantised *a) {
  const int8_t *x = a->q + (long)thread * a->stride;
  bn_tabulate *made = NULL;
  for (int i = matrix; i < matrix + count; i++) {
    const bn_matrix *m = &bn_matrices[i];
    part p;
    parts_of(s, thread, layer, i, &p);
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
    if (p.first < p.end) m->gemv(p.w, m->tabulate ? s->look_ups : x, a->sum + thread, s->y[i], p.first, p.end);
  }
}

void bn_products(bn_state *s, int thread, int layer, int matrix, int count, const quantised *a) {
  bn_time(BN_TIME_TERNARY);
  if (s->n == 1) {
    one_token(s, thread, layer, matrix, count, a);
    return;
  }
  part parts[PARTS];
  for (int i = 0, end; i < count; i = end) {
    int used = 0;
    /* Tables serve matrices with the same packing. */
    for (end = i; end < count && bn_matrices[matrix + end].sums == bn_matrices[matrix + i].sums; end++)
      used += parts_of(s, thread, layer, matrix + end, parts + used);
    const long tables = tabled(s, parts, used);
    if (tables) by_tables(s, thread, parts, used, a, tables);
    if (tables >= s->n) continue;
    for (int j = i, at = 0, own; j < end; j++, at += own) {
      const bn_matrix *m = &bn_matrices[matrix + j];
      own = m->order == BN_BY_COLUMNS ? m->fields : 1;
      if (m->order)
        by_panels(s, thread, parts + at, own, a, tables);
      else
        by_dots(s, parts + at, parts[at].w, a, 0, tables);
    }
  }
}
