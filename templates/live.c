/* What single tokens leave of the MLP, counted where somebody asks for it (bn_live). */
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
  live[BN_LIVE_ROWS] += rows_read(s, open);
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
