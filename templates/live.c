/* What is zero in the MLP: for single tokens, counted where somebody asks for it (bn_live), and for all (bn_dead). */
#include <string.h>
#include "state.h"

void bn_watch(bn_state *s, int layer, const int8_t *inner) {
  const int32_t *gate = s->y[BN_FFN_GATE];
  uint8_t *before = s->was_open + (size_t)layer * BN_INTERMEDIATE;
  int64_t open = 0, again = 0, inputs = 0;
  for (long i = 0; i < BN_INTERMEDIATE; i++) {
    const uint8_t now = gate[i] > 0;
    open += now;
    again += now & before[i];
    inputs += inner[i] != 0;
    before[i] = now;
  }
  int64_t *live = s->live[layer];
  live[BN_LIVE_OPEN] += open;
  live[BN_LIVE_AGAIN] += again;
  live[BN_LIVE_INPUTS] += inputs;
  live[BN_LIVE_ROWS] += rows_read(s, layer, open);
  live[BN_LIVE_COLUMNS] += columns_read(s, inputs);
}

int bn_state_live(bn_state *s, int on, float *shares) {
  const int tokens = s->watched_tokens;
  for (long i = 0; shares && i < BN_LAYERS * BN_LIVE; i++)
    shares[i] = tokens ? (float)s->live[i / BN_LIVE][i % BN_LIVE] / ((float)tokens * BN_INTERMEDIATE) : 0;
  memset(s->live, 0, sizeof s->live);
  s->watched_tokens = 0;
  if (!s->watched) memset(s->was_open, 0, (size_t)BN_LAYERS * BN_INTERMEDIATE);
  s->watched = on != 0;
  return tokens;
}

#if BN_SPARSE_UP && BN_SPARSE_DOWN
/* A byte of weights that are all zero. */
static uint8_t zero_of(const bn_packing *p) {
  unsigned sum = 0;
  for (int k = 0; k < p->line_k; k++) sum += p->place[2 * k] == 0 ? p->place[2 * k + 1] : 0u;
  return (uint8_t)sum;
}

static int all_are(const uint8_t *bytes, long count, uint8_t value) {
  long same = 0;
  for (long i = 0; i < count; i++) same += bytes[i] == value;
  return same == count;
}

/* Runs of a matrix that are zero. */
static long zero_runs(const bn_state *s, int layer, int slot) {
  const bn_matrix *m = &bn_matrices[slot];
  const uint8_t *w = bn_tensor_data(s->model, tensor_of(layer, slot));
  const uint8_t zero = zero_of(&bn_packings[bn_tensors[tensor_of(layer, slot)].type]);
  long dead = 0;
  for (long i = 0; i < BN_INTERMEDIATE; i++) dead += all_are(w + i * m->run, m->run, zero);
  return dead;
}

/* Rows of the gate, which is in row tiles, that are zero: four bytes in each line. */
static long zero_gates(const bn_state *s, int layer) {
  const bn_matrix *m = &bn_matrices[BN_FFN_GATE];
  const uint8_t *w = bn_tensor_data(s->model, tensor_of(layer, BN_FFN_GATE));
  const uint8_t zero = zero_of(&bn_packings[bn_tensors[tensor_of(layer, BN_FFN_GATE)].type]);
  long dead = 0;
  for (long r = 0; r < BN_INTERMEDIATE; r++) {
    const uint8_t *row = w + r / m->tile_rows * m->tile_bytes + r % m->tile_rows * 4;
    long line = 0;
    while (line < m->lines && all_are(row + line * m->line_bytes, 4, zero)) line++;
    dead += line == m->lines;
  }
  return dead;
}

int bn_state_dead(const bn_state *s, float *counts) {
  for (int layer = 0; layer < BN_LAYERS; layer++, counts += BN_DEAD) {
    long norm = 0;
#if BN_SUB_NORMS
    const float *weights = vector_of(s, layer, BN_FFN_SUB_NORM);
    for (long i = 0; i < BN_INTERMEDIATE; i++) norm += weights[i] == 0;
#endif
    counts[BN_DEAD_GATE] = (float)zero_gates(s, layer);
    counts[BN_DEAD_UP] = (float)zero_runs(s, layer, BN_FFN_UP);
    counts[BN_DEAD_NORM] = (float)norm;
    counts[BN_DEAD_DOWN] = (float)zero_runs(s, layer, BN_FFN_DOWN);
  }
  return 1;
}
#else
int bn_state_dead(const bn_state *s, float *counts) {
  (void)s, (void)counts;
  return 0;
}
#endif
