/** A running mean that follows changes: over all samples while they are few, then an exponential one over about the last `span`. */
export class Mean {
  value: number;
  samples: number;
  readonly #span: number;

  /** @param value to begin with, which counts as so many samples */
  constructor(span: number, value = 0, samples = 0) {
    this.#span = span;
    this.value = value;
    this.samples = samples;
  }

  add(sample: number): void {
    if (this.samples < this.#span) this.samples++;
    this.value += (sample - this.value) / this.samples;
  }
}
