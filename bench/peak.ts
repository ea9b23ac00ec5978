/** The arithmetic roof: dot steps on registers (codegen/tune/peaks.ts), as fast as so many threads can do them, by bench/peak.c. */
import { isaOf } from '../codegen/isa/index.ts';
import { peaksFor } from '../codegen/tune/peaks.ts';
import { type Native, poolFiles, startNative } from './native.ts';
import type { Prepared } from './prepare.ts';
import { type Measured, median } from './rotation.ts';

/** One to warm up, two that are timed. */
const PASSES = 3;

/** The peak of a number of threads, measured in turns. */
export class PeakTimer implements Measured {
  readonly #program: Native;
  readonly #threads: number;
  readonly #multiplyAdds: number;
  readonly #seconds: number[] = [];

  constructor(program: Native, threads: number, multiplyAdds: number) {
    this.#program = program;
    this.#threads = threads;
    this.#multiplyAdds = multiplyAdds;
  }

  async turn(): Promise<void> {
    const [, ...seconds] = await this.#program.numbers(this.#threads, PASSES);
    this.#seconds.push(...seconds);
  }

  /** Thousand million multiply-adds a second, of all threads together. */
  get gmacs(): number {
    return (this.#threads * this.#multiplyAdds) / median(this.#seconds) / 1e9;
  }
}

/** One timer for each target and number of threads. */
export class Peaks {
  readonly #programs = new Map<string, { program: Native; multiplyAdds: number }>();
  readonly #timers = new Map<string, PeakTimer>();

  /** The timer of a target, whose program is started when it is new. @throws CompileError, LibraryError */
  async timer(target: Prepared, threads: number, signal: AbortSignal): Promise<PeakTimer> {
    const { isa } = target.cpu;
    const key = `${isa} ${threads}`;
    const known = this.#timers.get(key);
    if (known) return known;
    let started = this.#programs.get(isa);
    if (!started) {
      const { files, peaks } = peaksFor(isaOf(isa));
      const { multiplyAdds } = peaks.find(({ name }) => name === 'dots')!;
      started = {
        program: await startNative('peak', target, [], new Map([...poolFiles(target), ...files]), signal),
        multiplyAdds,
      };
      this.#programs.set(isa, started);
    }
    const timer = new PeakTimer(started.program, threads, started.multiplyAdds);
    this.#timers.set(key, timer);
    return timer;
  }

  get timers(): PeakTimer[] {
    return [...this.#timers.values()];
  }

  /** Ends the programs. */
  async close(): Promise<void> {
    await Promise.all([...this.#programs.values()].map(({ program }) => program.close()));
  }
}
