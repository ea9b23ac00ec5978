/**
 * What an instruction set must tell the generator. One file per instruction set; isa/index.ts registers them. A word that is
 * not spelled rules out the kernels that need it, and nothing else in the project knows the name of an instruction.
 */
import type { Machine, VectorWord } from '../ir/words.ts';

/** An instruction set. */
export interface Isa extends Machine {
  /** Registry key, target name on the command line and last token of kernel names. */
  readonly name: string;
  /** Processor family: decides the compiler's target, and whether this host can load the library. */
  readonly family: 'x64' | 'arm64' | 'any';
  /** Features in the spelling of /proc/cpuinfo that a CPU must have. */
  readonly requires: readonly string[];
  /** Further features that kernels may ask for. */
  readonly optional: readonly string[];
  /** Compiler flags for code of this ISA; `features` are those of the CPU profile. */
  readonly flags: (features: readonly string[]) => readonly string[];
  /** Vector registers, for `check`. */
  readonly registers: number;
  /** C types of the vector values. */
  readonly types: Readonly<Record<'bytes' | 'shorts' | 'dots' | 'ints' | 'floats', string>> & {
    readonly table64?: string;
    readonly table32?: string;
    readonly table16?: string;
  };
  /** Include lines. */
  readonly include: string;
  /** C functions for words that need more than an expression, by name; a kernel gets those it calls. Callees come first. */
  readonly helpers: Readonly<Record<string, string>>;
  /** C statement for a spinning thread. */
  readonly pause: string;
  /** Words that need one of the optional features. */
  readonly gated?: { readonly [W in VectorWord]?: string };
  readonly words: { readonly [W in VectorWord]?: (...args: string[]) => string };
}
