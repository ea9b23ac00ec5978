/*
 * Numbers of the head's screen: rows of 8 and of 4 bits, coded hidden states, and what the bounds of the logits are
 * made of. The layout is in codegen/kernels/screen-rows.ts, the derivation of the bounds in screen.ts; the names here
 * are those used there.
 */
#ifndef BN_SCREEN_H
#define BN_SCREEN_H
#include <stdint.h>

/* What the bound needs of a row w = s q + d. */
typedef struct {
  float scale; /* s */
  float error; /* A; infinite: the row cannot be screened */
  float norm;  /* N */
  int32_t sum; /* of q; of 8-bit rows only */
} bn_screened_row;

/* Quantises w[k]; q[i] goes to line[64 * (i / 4) + i % 4], the row's place in its tile. */
bn_screened_row bn_screen_row(const float *w, long k, int8_t *line);

/*
 * The same row in 4 bits, whose bound is likely, not certain. q[i] is read where bn_screen_row put it; the new q[i] + 8
 * is added to half of out[64 * (i / 8) + i % 4].
 */
bn_screened_row bn_narrow_row(const int8_t *line, bn_screened_row row, long k, uint8_t *out);

/* What the bound needs of a hidden state h = f (127 c1 + c2) + e. */
typedef struct {
  float step;      /* f */
  float norm;      /* H >= ||h|| */
  float residual;  /* E >= ||e|| */
  int32_t sums[2]; /* of c1, of c2 */
} bn_screened_state;

/*
 * Codes h[k]: c1 + shift goes to codes[i], c2 + shift to codes[stride + i]; shift: 64 for 8-bit rows, 0 for 4-bit rows.
 * -> 0: a zero, tiny, huge or infinite state that cannot be screened
 */
int bn_screen_state(const float *h, long k, int shift, uint8_t *codes, long stride, bn_screened_state *state);

#endif
