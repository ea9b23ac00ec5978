/** Random numbers that are the same on every machine: the sampler draws with them. */

/**
 * Numbers in [0, 1) with 53 random bits: xoshiro128** (Blackman and Vigna, 2018, prng.di.unimi.it), two 32-bit outputs each.
 * The state is filled by splitmix32 from both halves of the seed, so that near seeds give unlike sequences.
 */
export function xoshiro128(seed: number): () => number {
  const low = seed >>> 0;
  let split = (low ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b)) | 0;
  const fill = (): number => {
    split = (split + 0x9e3779b9) | 0;
    let z = split;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return z ^ (z >>> 15);
  };
  const next = xoshiroWords([fill(), fill(), fill(), fill()]);
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

/** The generator itself: 32-bit words from a state that is not all zero. */
export function xoshiroWords(state: readonly [number, number, number, number]): () => number {
  let [a, b, c, d] = state;
  const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by));
  return () => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotate(d, 11);
    return result;
  };
}
