/**
 * What the rotation gives its turns to: an engine at work, and a plain read. A turn is several tokens or passes in a row, since
 * threads that have just slept are slow: the first one of a turn only warms up.
 */
import type { Engine } from '../runtime/engine.ts';
import { createSampler } from '../runtime/sampler.ts';
import type { Profiled } from './profile.ts';
import type { Reader, ReadPass } from './read.ts';
import { type Measured, median } from './rotation.ts';

/** One to warm up, three that are timed, one that is timed by operation (the clock itself costs a little). */
export const TOKENS = 5;
/** One to warm up, two that are timed. */
const PASSES = 3;

/** Has an engine do something several times in a row, each turn from the same position. */
export class RunTimer implements Measured {
  readonly ms: number[] = [];
  readonly profiled: Profiled[] = [];
  readonly #engine: Engine;
  readonly #runs: number;
  readonly #run: (i: number) => unknown;
  readonly #position: number;

  /**
   * @param runs of a turn: of several, the first only warms up; the last is timed by operation, and as a whole if there is no other
   * @param run does the i-th, and may return a promise
   */
  constructor(engine: Engine, runs: number, run: (i: number) => unknown) {
    this.#engine = engine;
    this.#run = run;
    this.#runs = runs;
    this.#position = engine.position;
  }

  async turn(): Promise<void> {
    for (let i = 0; i < this.#runs; i++) {
      const last = i === this.#runs - 1;
      if (last) this.#engine.profile(true);
      const started = performance.now();
      await this.#run(i);
      const ms = performance.now() - started;
      if (last) this.profiled.push({ ms, profile: this.#engine.profile(false) });
      if (last ? this.#runs <= 2 : i > 0) this.ms.push(ms);
    }
    this.#engine.rewind(this.#position);
  }
}

/** Greedy decoding, as generation does it, from the engine's position. */
export function tokenTimer(engine: Engine): RunTimer {
  const sampler = createSampler({ temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, seed: 0 });
  let token = 0;
  return new RunTimer(engine, TOKENS, (i) => {
    token = engine.draw(sampler, [], i === 0 ? 0 : token);
  });
}

/** Reads as many bytes by as many threads. */
export class ReadTimer implements Measured {
  readonly #reader: Reader;
  readonly #threads: number;
  readonly #bytes: number;
  readonly #passes: ReadPass[] = [];
  /** How the reader prefetches, as in kernel names. */
  prefetch = '';

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
    const { passes, prefetch } = await this.#reader.read(this.#threads, this.#bytes, PASSES);
    this.#passes.push(...passes.slice(1));
    this.prefetch = prefetch;
  }
}
