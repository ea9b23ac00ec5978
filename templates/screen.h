/*
 * Numbers of the head's screen: int8 rows, coded hidden states, and what the bounds of the logits are made of. The
 * layout and the derivation of the bound are in codegen/kernels/screen.ts; the names here are those used there.
 */
#ifndef BN_SCREEN_H
#define BN_SCREEN_H
#include <stdint.h>

/* What the bound needs of a row w = s q + d. */
typedef struct {
  float scale; /* s */
  float error; /* A >= ||d|| + (g(m + 4) + u) ||w|| + 32 u s ||q||; infinite: the row cannot be screened */
  float norm;  /* N >= s ||q|| */
  int32_t sum; /* of q */
} bn_screened_row;

/* Quantises w[k]; q[i] goes to line[64 * (i / 4) + i % 4], the row's place in its tile. */
bn_screened_row bn_screen_row(const float *w, long k, int8_t *line);

/* What the bound needs of a hidden state h = f (127 c1 + c2) + e. */
typedef struct {
  float step;     /* f */
  float norm;     /* H >= ||h|| */
  float residual; /* E >= ||e|| */
} bn_screened_state;

/*
 * Codes h[k]: c1 + 64 goes to codes[i], c2 + 64 to codes[stride + i]. -> 0: a zero, tiny, huge or infinite state that
 * cannot be screened
 */
int bn_screen_state(const float *h, long k, uint8_t *codes, long stride, bn_screened_state *state);

#endif
