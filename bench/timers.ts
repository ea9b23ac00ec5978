/**
 * What the rotation gives its turns to: decoding with one engine, and a plain read. A turn is several tokens or passes in a row,
 * since threads that have just slept are slow: the first one of a turn only warms up.
 */
import type { Engine } from '../runtime/engine.ts';
import type { Profile } from '../runtime/library.ts';
import { createSampler } from '../runtime/sampler.ts';
import type { Reader, ReadPass } from './read.ts';
import { type Measured, median } from './rotation.ts';

/** One to warm up, three that are timed, one that is timed by operation (the clock itself costs a little). */
export const TOKENS = 5;
/** One to warm up, two that are timed. */
const PASSES = 3;

/** A profiled token: its milliseconds as the caller sees them, and its seconds by operation. */
export interface ProfiledToken {
  readonly ms: number;
  readonly profile: Profile;
}

/** Decodes greedily, as generation does, from the same position over and over. */
export class TokenTimer implements Measured {
  readonly ms: number[] = [];
  readonly profiled: ProfiledToken[] = [];
  readonly #engine: Engine;
  readonly #position: number;
  readonly #first: number;
  readonly #sampler = createSampler({ temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, seed: 0 });

  /** @param position where decoding begins, up to which the cache is to be filled @param first the token to begin with */
  constructor(engine: Engine, position: number, first: number) {
    this.#engine = engine;
    this.#position = position;
    this.#first = first;
  }

  async turn(): Promise<void> {
    let token = this.#first;
    for (let i = 0; i < TOKENS; i++) {
      const last = i === TOKENS - 1;
      if (last) this.#engine.profile(true);
      const started = performance.now();
      token = this.#engine.draw(this.#sampler, [], token);
      const ms = performance.now() - started;
      if (last) this.profiled.push({ ms, profile: this.#engine.profile(false) });
      else if (i > 0) this.ms.push(ms);
    }
    this.#engine.rewind(this.#position);
  }
}

/** Reads as many bytes by as many threads. */
export class ReadTimer implements Measured {
  readonly #reader: Reader;
  readonly #threads: number;
  readonly #bytes: number;
  readonly #passes: ReadPass[] = [];
  /** Bytes ahead that the reader prefetches. */
  distance = 0;

  constructor(reader: Reader, threads: number, bytes: number) {
    this.#reader = reader;
    this.#threads = threads;
    this.#bytes = bytes;
  }

  get ms(): number {
    return 1000 * median(this.#passes.map((pass) => pass.seconds));
  }

  /** Without waiting, as a profile counts. */
  get workMs(): number {
    return 1000 * median(this.#passes.map((pass) => pass.work));
  }

  async turn(): Promise<void> {
    const { passes, distance } = await this.#reader.read(this.#threads, this.#bytes, PASSES);
    this.#passes.push(...passes.slice(1));
    this.distance = distance;
  }
}
