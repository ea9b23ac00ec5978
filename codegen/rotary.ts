/**
 * Inverse frequencies of the rotary embedding, theta^(-2 i / d), as float32 computes them: exponent, power and reciprocal are
 * each rounded to float32 (Hugging Face, modeling_rope_utils). The power uses logarithm and exponential series of our own in
 * float64: Math.pow may differ between engines, and the same model must give the same text everywhere.
 */

/** ln x for x > 0: x = m 2^e with m in [sqrt 1/2, sqrt 2), ln m = 2 artanh((m - 1) / (m + 1)). */
function ln(x: number): number {
  let m = x;
  let e = 0;
  while (m >= Math.SQRT2) {
    m /= 2;
    e++;
  }
  while (m < Math.SQRT1_2) {
    m *= 2;
    e--;
  }
  const u = (m - 1) / (m + 1);
  let sum = 0;
  for (let i = 39; i >= 1; i -= 2) sum = sum * u * u + 1 / i;
  return 2 * u * sum + e * Math.LN2;
}

/** e^x by halving to |x| < 2^-10 and squaring back would lose bits; so 2^n times a Taylor series on |r| <= ln 2 / 2. */
function exp(x: number): number {
  const n = Math.round(x / Math.LN2);
  const r = x - n * Math.LN2;
  let sum = 1;
  for (let i = 20; i >= 1; i--) sum = 1 + (sum * r) / i;
  return sum * 2 ** n;
}

/** [d / 2] float32 values. */
export function inverseFrequencies(theta: number, d: number): Float32Array {
  return Float32Array.from({ length: d / 2 }, (_, i) => {
    const exponent = Math.fround((2 * i) / d);
    const power = Math.fround(exp(exponent * ln(theta)));
    return Math.fround(1 / power);
  });
}
