/**
 * Endless random bytes at the speed of a copy: one random block, written over and over. Its length in units is a prime above the
 * sizes of rows and vocabularies, so that no two rows of a matrix begin at the same place of the block, and rows differ.
 */

/** A 32-bit xorshift (Marsaglia 2003): small, and the same everywhere. */
export function randomWords(count: number, seed: number): Uint32Array {
  const words = new Uint32Array(count);
  let x = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < count; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return words;
}

/** The largest prime below 2^22: more units than any vocabulary has rows. */
export const LARGE_PRIME = 4194301;

/** A block of bytes that is repeated; reading goes on where it stopped. */
export class RandomStream {
  readonly #block: Uint8Array;
  #at = 0;

  constructor(block: Uint8Array) {
    this.#block = block;
  }

  /** Views of the block that together are the next `bytes` bytes. */
  *take(bytes: number): Generator<Uint8Array> {
    for (let left = bytes; left > 0; ) {
      const piece = this.#block.subarray(this.#at, this.#at + left);
      left -= piece.length;
      this.#at = (this.#at + piece.length) % this.#block.length;
      yield piece;
    }
  }
}

/** Numbers of a normal distribution with this standard deviation (Box and Muller 1958). */
export function normals(count: number, deviation: number, seed: number): Float32Array {
  const words = randomWords(count + 1, seed);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log((words[i]! + 1) / 2 ** 32));
    const angle = (2 * Math.PI * words[i + 1]!) / 2 ** 32;
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Bytes of four ternary codes each, `code << 2 i`: 81 of 256 values, all alike. */
export function ternaryBytes(count: number, seed: number): Uint8Array {
  const values = Uint8Array.from({ length: 81 }, (_, v) =>
    [1, 3, 9, 27].reduce((byte, power, i) => byte | ((Math.floor(v / power) % 3) << (2 * i)), 0),
  );
  return Uint8Array.from(randomWords(count, seed), (word) => values[word % 81]!);
}
