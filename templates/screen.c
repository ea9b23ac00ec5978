/* Quantisation of the head's rows and of hidden states for the screen. Norms are computed in double and rounded up. */
#include "screen.h"
#include <math.h>

/* Largest elements between these keep the screen's float arithmetic, and the head's, clear of overflow and underflow.
 */
static const float least = 0x1p-40f, most = 0x1p40f;

/* The largest |x|; negative if some element is not a number of at most `most`. */
static float peak_of(const float *x, long k) {
  float peak = 0;
  int sound = 1;
  for (long i = 0; i < k; i++) {
    const float a = fabsf(x[i]);
    peak = a > peak ? a : peak;
    sound &= a <= most;
  }
  return sound ? peak : -1;
}

/* x as a float that is not below it: the factor makes up for the errors of x itself and of the conversion, u = 2^-24.
 */
static float up(double x) {
  return (float)(x * (1 + 0x1p-20));
}

bn_screened_row bn_screen_row(const float *w, long k, int8_t *line) {
  const float peak = peak_of(w, k), scale = peak / 127;
  if (peak < least) /* a row of zeros is exact: its logit is 0 */
    return (bn_screened_row){.error = peak == 0 ? 0 : INFINITY};
  double errors = 0, weights = 0, codes = 0;
  int32_t sum = 0;
  for (long i = 0; i < k; i++) {
    const int32_t q = (int32_t)lrint((double)w[i] / (double)scale); /* |w / s| <= 127 (1 + 2^-23) */
    const double d = (double)w[i] - (double)scale * q;              /* the product has 24 + 7 bits: exact */
    errors += d * d;
    weights += (double)w[i] * (double)w[i];
    codes += (double)q * q;
    sum += q;
    line[64 * (i / 4) + i % 4] = (int8_t)q;
  }
  const double u = 0x1p-24, roundings = (double)((k + 15) / 16 + 4) * u, norm = (double)scale * sqrt(codes);
  return (bn_screened_row){
      .scale = scale,
      .error = up(sqrt(errors) + (roundings / (1 - roundings) + u) * sqrt(weights) + 32 * u * norm),
      .norm = up(norm),
      .sum = sum,
  };
}

int bn_screen_state(const float *h, long k, uint8_t *codes, long stride, bn_screened_state *state) {
  const float peak = peak_of(h, k), step = peak / (127 * 63 + 63);
  if (peak < least) return 0;
  const double inverse = 1 / (double)step;
  double squares = 0, errors = 0;
  for (long i = 0; i < k; i++) {
    const int32_t v = (int32_t)lrint((double)h[i] * inverse); /* |h / f| <= 8064 (1 + 2^-22): |v| <= 8064 */
    const double e = (double)h[i] - (double)step * v;         /* 24 + 13 bits: exact */
    /* Balanced digits: v = 127 c1 + c2 with |c2| <= 63; 127 * 64 keeps the dividend positive. */
    const int32_t c1 = (v + 63 + 127 * 64) / 127 - 64, c2 = v - 127 * c1;
    codes[i] = (uint8_t)(c1 + 64);
    codes[stride + i] = (uint8_t)(c2 + 64);
    squares += (double)h[i] * (double)h[i];
    errors += e * e;
  }
  *state = (bn_screened_state){.step = step, .norm = up(sqrt(squares)), .residual = up(sqrt(errors))};
  return 1;
}
