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

/* The part of A that roundings have: of the head itself, and of the kernel. weights: ||w||, norm: s ||q||. */
static double roundings(long k, double weights, double norm) {
  const double u = 0x1p-24, g = (double)((k + 15) / 16 + 4) * u;
  return (g / (1 - g) + u) * weights + 32 * u * norm;
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
  const double norm = (double)scale * sqrt(codes);
  return (bn_screened_row){
      .scale = scale,
      .error = up(sqrt(errors) + roundings(k, sqrt(weights), norm)),
      .norm = up(norm),
      .sum = sum,
  };
}

/* A 4-bit code for an 8-bit one: the nearest of -7 to 7 steps of 14.5, as 127 / 8.73 = 14.5. */
static int32_t narrow(int32_t q) {
  const int32_t c = (2 * q + 9 * 29 + 14) / 29 - 9; /* q / 14.5 + 1 / 2, downwards; 9 keeps the dividend positive */
  return c < -7 ? -7 : c > 7 ? 7 : c;
}

bn_screened_row bn_narrow_row(const int8_t *line, bn_screened_row row, long k, uint8_t *out) {
  int64_t squares = 0, product = 0, codes = 0; /* q . q, q . c, c . c; at most 2^17 * 127^2 < 2^31 */
  for (long i = 0; i < k; i++) {
    const int32_t q = line[64 * (i / 4) + i % 4], c = narrow(q);
    squares += q * q;
    product += q * c;
    codes += c * c;
    out[64 * (i / 8) + i % 4] |= (uint8_t)((c + 8) << (i / 4 % 2 * 4));
  }
  if (!squares) return row; /* zero, or not to be screened */
  /* d is orthogonal to q: ||d||^2 = ||step c||^2 - ||q||^2, in steps of the 8-bit row. */
  const double step = (double)squares / (double)product;
  const double d2 = step * step * (double)codes - (double)squares, scale = (double)row.scale;
  double largest = 0;
  for (long i = 0; i < k; i++) {
    const int32_t q = line[64 * (i / 4) + i % 4];
    const double d = fabs(q - step * narrow(q));
    largest = d > largest ? d : largest;
  }
  const double errors = sqrt(scale * scale * (d2 > 0 ? d2 : 0) + (double)row.error * (double)row.error);
  const double sigmas = 6 / sqrt((double)k), norm = scale * step * sqrt((double)codes);
  const double likely = sigmas * errors, single = scale * (largest + 0.5); /* the 8-bit row is half a step off */
  return (bn_screened_row){
      .scale = (float)(scale * step),
      .error = up((likely > single ? likely : single) + roundings(k, (double)row.norm + (double)row.error, norm)),
      .norm = up(sigmas * norm),
  };
}

int bn_screen_state(const float *h, long k, int shift, uint8_t *codes, long stride, bn_screened_state *state) {
  const float peak = peak_of(h, k), step = peak / (127 * 63 + 63);
  if (peak < least) return 0;
  const double inverse = 1 / (double)step;
  double squares = 0, errors = 0;
  int32_t sums[2] = {0, 0};
  for (long i = 0; i < k; i++) {
    const int32_t v = (int32_t)lrint((double)h[i] * inverse); /* |h / f| <= 8064 (1 + 2^-22): |v| <= 8064 */
    const double e = (double)h[i] - (double)step * v;         /* 24 + 13 bits: exact */
    /* Balanced digits: v = 127 c1 + c2 with |c2| <= 63; 127 * 64 keeps the dividend positive. */
    const int32_t c1 = (v + 63 + 127 * 64) / 127 - 64, c2 = v - 127 * c1;
    codes[i] = (uint8_t)(c1 + shift);
    codes[stride + i] = (uint8_t)(c2 + shift);
    sums[0] += c1, sums[1] += c2;
    squares += (double)h[i] * (double)h[i];
    errors += e * e;
  }
  *state = (bn_screened_state){step, up(sqrt(squares)), up(sqrt(errors)), {sums[0], sums[1]}};
  return 1;
}
