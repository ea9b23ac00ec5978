/*
 * Neurons of the MLP that weights of zero alone make zero, found when a model has been packed, where zeros are skipped
 * (sparse.c):
 *
 *   row of the gate or of `up`   such a neuron never counts. Its row of the gate is dropped: the last rows that live
 *                                take the places of the dropped ones, so that tiles at the end are empty and not read.
 *                                Nor are its row of `up` and its column of `down`, as its gate is never open
 *   weight of the norm           its input of `down` is zero, and the column not read
 *   column of `down`             not read either; but, as the one before, it takes part in the norm
 */
#include <string.h>
#include "state.h"

#if BN_SPARSE
_Static_assert(sizeof(bn_neurons) == 4 * BN_NEURON_NUMBERS, "the layout has other records (codegen/layout.ts)");

/* The packed bytes of a layer's matrix. */
typedef struct {
  const bn_matrix *m;
  uint8_t *w;
  uint8_t zero; /* a byte of weights that are all zero */
} packed;

static packed packed_of(uint8_t *file, int layer, int slot) {
  const bn_tensor *t = &bn_tensors[tensor_of(layer, slot)];
  const bn_packing *p = &bn_packings[t->type];
  unsigned zero = 0;
  for (int k = 0; k < p->line_k; k++) zero += p->place[2 * k] == 0 ? p->place[2 * k + 1] : 0u;
  return (packed){&bn_matrices[slot], file + t->offset, (uint8_t)zero};
}

static int all_are(const uint8_t *bytes, long count, uint8_t value) {
  long i = 0;
  while (i < count && bytes[i] == value) i++;
  return i == count;
}

/* Is a row or column, which is one run, zero? */
static int is_zero_run(const packed *p, long i) {
  return all_are(p->w + i * p->m->run, p->m->run, p->zero);
}

/* A row of row tiles: four bytes in each line. */
enum { ROW_BYTES = 4 };
static uint8_t *in_line(const packed *p, long row, long line) {
  const bn_matrix *m = p->m;
  return p->w + row / m->tile_rows * m->tile_bytes + line * m->line_bytes + row % m->tile_rows * ROW_BYTES;
}

static int is_zero_row(const packed *p, long row) {
  long line = 0;
  while (line < p->m->lines && all_are(in_line(p, row, line), ROW_BYTES, p->zero)) line++;
  return line == p->m->lines;
}

static void move_row(const packed *p, long from, long to) {
  for (long line = 0; line < p->m->lines; line++) memcpy(in_line(p, to, line), in_line(p, from, line), ROW_BYTES);
}

static void clear_row(const packed *p, long row) {
  for (long line = 0; line < p->m->lines; line++) memset(in_line(p, row, line), p->zero, ROW_BYTES);
}

/* lives: [BN_INTERMEDIATE] */
static void drop_rows(const packed *gate, const uint8_t *lives, bn_neurons *n) {
  long live = 0, hole = 0;
  for (long i = 0; i < BN_INTERMEDIATE; i++) live += lives[i];
  const long rows = gate->m->tile_rows, tiles = (live + rows - 1) / rows, end = MIN(tiles * rows, BN_INTERMEDIATE);
  n->tiles = (int32_t)tiles;
  n->counts[BN_DEAD_DROPPED] = (int32_t)(BN_INTERMEDIATE - end);
  for (long i = end; i < BN_INTERMEDIATE; i++) {
    n->from[i] = -1;
    if (!lives[i]) continue;
    while (lives[hole]) hole++;
    move_row(gate, i, hole);
    n->from[i] = (int32_t)hole++;
  }
  for (; hole < end; hole++)
    if (!lives[hole]) clear_row(gate, hole);
}

static void find(uint8_t *file, int layer) {
  const packed gate = packed_of(file, layer, BN_FFN_GATE), up = packed_of(file, layer, BN_FFN_UP),
               down = packed_of(file, layer, BN_FFN_DOWN);
  bn_neurons *n = (bn_neurons *)(void *)(file + bn_tensors[BN_DEAD_NEURONS].offset) + layer;
  uint8_t lives[BN_INTERMEDIATE];
  memset(n, 0, sizeof *n);
#if BN_SUB_NORMS
  const float *norm = (const float *)(void *)(file + bn_tensors[tensor_of(layer, BN_FFN_SUB_NORM)].offset);
  for (long i = 0; i < BN_INTERMEDIATE; i++) n->counts[BN_DEAD_NORM] += norm[i] == 0;
#endif
  for (long i = 0; i < BN_INTERMEDIATE; i++) {
    const int no_gate = is_zero_row(&gate, i), no_up = is_zero_run(&up, i), no_down = is_zero_run(&down, i);
    n->counts[BN_DEAD_GATE] += no_gate;
    n->counts[BN_DEAD_UP] += no_up;
    n->counts[BN_DEAD_DOWN] += no_down;
    lives[i] = !no_gate && !no_up;
    if (lives[i] && no_down) n->zero[n->zeros++] = (int32_t)i;
  }
  drop_rows(&gate, lives, n);
}

void bn_drop_dead(void *file, int thread, int threads) {
  long first, end;
  bn_span(BN_LAYERS, thread, threads, &first, &end);
  for (long layer = first; layer < end; layer++) find(file, (int)layer);
}

/* A thread puts back what lies in its own tiles. */
void bn_return_gates(bn_state *s, int thread, int layer) {
  const bn_neurons *n = bn_neurons_of(s->model, layer);
  const bn_matrix *m = &bn_matrices[BN_FFN_GATE];
  int32_t *y = s->y[BN_FFN_GATE];
  const long stride = m->y_stride;
  long first, end;
  bn_tiles(m, n->tiles, thread, bn_pool_threads(s->pool), &first, &end);
  first *= m->tile_rows, end *= m->tile_rows;
  for (long i = (long)n->tiles * m->tile_rows; i < BN_INTERMEDIATE; i++) {
    const long from = n->from[i];
    if (from < 0 && thread == 0)
      for (long t = 0; t < s->n; t++) y[t * stride + i] = 0;
    if (from >= first && from < end)
      for (long t = 0; t < s->n; t++) y[t * stride + i] = y[t * stride + from], y[t * stride + from] = 0;
  }
}

void bn_skip_zeros(bn_state *s, int layer, long row) {
  const bn_neurons *n = bn_neurons_of(s->model, layer);
  int8_t *q = s->inner.q + row * s->inner.stride;
  for (long i = 0; i < n->zeros; i++) {
    s->inner.sum[row] -= q[n->zero[i]];
    q[n->zero[i]] = 0;
  }
}

const bn_neurons *bn_neurons_of(const bn_model *model, int layer) {
  return (const bn_neurons *)(const void *)bn_tensor_data(model, BN_DEAD_NEURONS) + layer;
}

static int are_all_below(const int32_t *numbers, long count, long first, long end) {
  int inside = 1;
  for (long i = 0; i < count; i++) inside &= numbers[i] >= first && numbers[i] < end;
  return inside;
}

int bn_neurons_are_sane(const uint8_t *file) {
  const bn_matrix *m = &bn_matrices[BN_FFN_GATE];
  const bn_neurons *n = (const bn_neurons *)(const void *)(file + bn_tensors[BN_DEAD_NEURONS].offset);
  for (const bn_neurons *end = n + BN_LAYERS; n < end; n++) {
    const long rows = (long)n->tiles * m->tile_rows;
    if (n->tiles < 0 || n->tiles > m->tiles || n->zeros < 0 || n->zeros > BN_INTERMEDIATE) return 0;
    if (!are_all_below(n->zero, n->zeros, 0, BN_INTERMEDIATE)) return 0;
    if (rows < BN_INTERMEDIATE && !are_all_below(n->from + rows, BN_INTERMEDIATE - rows, -1, rows)) return 0;
  }
  return 1;
}

int bn_state_dead(const bn_state *s, float *counts) {
  for (int layer = 0; layer < BN_LAYERS; layer++)
    for (int i = 0; i < BN_DEAD; i++) *counts++ = (float)bn_neurons_of(s->model, layer)->counts[i];
  return 1;
}

long bn_tiles_of(const bn_model *model, int layer, int slot) {
  return slot == BN_FFN_GATE ? bn_neurons_of(model, layer)->tiles : bn_matrices[slot].tiles;
}
#else
int bn_state_dead(const bn_state *s, float *counts) {
  (void)s, (void)counts;
  return 0;
}

long bn_tiles_of(const bn_model *model, int layer, int slot) {
  (void)model, (void)layer;
  return bn_matrices[slot].tiles;
}
#endif
