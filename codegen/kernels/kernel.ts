/**
 * What a kernel family must supply. One file per algorithm; kernels/index.ts registers them. The same recorded algorithm serves
 * every ISA that has its words; the registry drives code generation, tests and benchmarks alike.
 */
import type { CpuProfile } from '../../schemas/types.ts';
import type { Recorder } from '../ir/record.ts';
import type { Arguments } from '../ir/simulate.ts';
import type { VectorWord } from '../ir/words.ts';
import type { Isa } from '../isa/isa.ts';
import type { KernelSpec } from '../name.ts';
import type { Packing } from '../packings/packing.ts';

/**
 * What a family for decoding tells the plan: all compute the same function of the same bytes, unless it is said not to be exact; called as
 * `bn_gemv` in templates/internal.h.
 */
export interface Product {
  /** Specs for a matrix [n, k] in this packing, the preferred one first. */
  readonly candidates: (cpu: CpuProfile, packing: Packing, n: number, k: number) => readonly KernelSpec[];
  /** false: results are not those of the definition, so it is only taken where it is asked for. */
  readonly exact?: false;
  /** Where its kernels take tables in place of activations: the kernel that makes them, `bn_tabulate`. */
  readonly tabulate?: (spec: KernelSpec) => KernelSpec;
}

/** What kernels for several tokens depend on of a CPU. */
export type Target = Pick<CpuProfile, 'isa' | 'prefetch'>;

/** A target for tests. */
export const sampleTarget = (isa: Isa): Target => ({ isa: isa.name, prefetch: { hint: 'nta' } });

export interface KernelFamily {
  /** File name of the algorithm, for the banner. */
  readonly source: string;
  /** Present in families for ternary products. */
  readonly product?: Product;
  /**
   * Present in families for batches: specs for a matrix [n, k] in this packing, for several numbers of tokens, its tile's first, of
   * each the preferred one first; called as `bn_gemv` too.
   */
  readonly batch?: (cpu: Target, packing: Packing, n: number, k: number) => readonly KernelSpec[];
  /** Present in the family of sums by tables: specs for matrices with k columns in this packing, the preferred one first. */
  readonly tables?: (cpu: CpuProfile, packing: Packing, k: number) => readonly KernelSpec[];
  /** What it computes, with shapes: the banner's first line. */
  readonly formula: string;
  /** Words that the ISA must have, beyond those of the packing. */
  readonly needs: readonly VectorWord[];
  /** Records the algorithm. Everything it depends on is in `spec`. */
  readonly record: (b: Recorder, spec: KernelSpec, isa: Isa) => void;
  /** Computes the outputs among `args` in place, by the definition; for floats in the order that defines the result. */
  readonly reference: (spec: KernelSpec, args: Arguments) => void;
  /** Specs that the tests build on this ISA: sizes below, at and above the tile. */
  readonly samples: (isa: Isa) => readonly KernelSpec[];
  /** Arguments for a test run; `extreme` asks for the data that overflow would show on. Scratch buffers are filled by the test. */
  readonly example: (spec: KernelSpec, random: Random, extreme: boolean) => Arguments;
}

/** Source of test data. */
export interface Random {
  /** Uniform integer in [low, high]. */
  readonly integer: (low: number, high: number) => number;
  /** Roughly normal, standard deviation 1. */
  readonly normal: () => number;
}

/** Lanes of the fixed float order: 16, whatever the ISA; a group is 16 / lanes vectors. */
export const LANES = 16;
/** Vectors in a group of 16 lanes. */
export const groupOf = (isa: Isa): number => LANES / isa.lanes;
/** n rounded up to a multiple of m. */
export const roundUp = (n: number, m: number): number => Math.ceil(n / m) * m;
/** 0, 1, ..., n - 1. */
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/**
 * Dot steps (four k each) that a partial sum can take before it must be flushed: a step adds at most products * codes * 127 in
 * magnitude (|x| <= 127). Codes of ternary weights are at most 2 * scale.
 * maddubs: 32,767 / (2 * 2 * 127) = 64 steps; dpbusd, sdot: (2^31 - 1) / (4 * 2 * 127) = 2,113,665 steps, and 22,017 for codes up
 * to 192 (k up to 440,340 with t5): more than any k.
 */
export const stepsBeforeFlush = (isa: Isa, scale = 1): number =>
  Math.floor(isa.dot.limit / (isa.dot.products * 2 * scale * 127));
