/**
 * Kernels as a few translation units: reading the header of the intrinsics takes clang 0.2 s, longer than most kernels, so that a unit
 * for each CPU compiles in half the time of a file for each kernel. A kernel's file stands alone; its helpers get names of their own here.
 */
import { helpersOf } from './ir/print.ts';
import type { Isa } from './isa/isa.ts';

/**
 * C texts that include the kernels, so many units of about the same length.
 * @param kernels by the path they are included by @param count of units, at least one
 */
export function unitsOf(kernels: ReadonlyMap<string, string>, isa: Isa, count: number): string[] {
  const helpers = Object.keys(helpersOf(isa));
  const units = Array.from({ length: Math.min(count, kernels.size) }, () => ({ size: 0, lines: [] as string[] }));
  [...kernels]
    .sort(([, a], [, b]) => b.length - a.length)
    .forEach(([file, text], i) => {
      const unit = units.reduce((least, other) => (other.size < least.size ? other : least));
      unit.size += text.length;
      unit.lines.push(
        ...helpers.map((name) => `#define ${name} ${name}_${i}`),
        `#include "${file}"`,
        ...helpers.map((name) => `#undef ${name}`),
        '#undef BN_ASSERT',
      );
    });
  return units.map(({ lines }) => `${lines.join('\n')}\n`);
}
