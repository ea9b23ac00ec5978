/** The registry of kernel families: one line each; the key is the `op` of kernel names. */

import type { Isa } from '../isa/isa.ts';
import { attention } from './attention.ts';
import { combine } from './combine.ts';
import { gemm, gemv } from './dot-products.ts';
import { narrow, relu2, residual, rows, scale, silu } from './elementwise.ts';
import { head } from './head.ts';
import type { KernelFamily } from './kernel.ts';
import { roundedTables, tabulate } from './look-up-tables.ts';
import { lookup } from './look-ups.ts';
import { mmla } from './matrix-products.ts';
import { norm } from './norm.ts';
import { panel } from './panels.ts';
import { qattention } from './qattention.ts';
import { quantise } from './quantise.ts';
import { rope } from './rope.ts';
import { roundedLookup } from './rounded-look-ups.ts';
import { screen } from './screen.ts';
import { columnSums } from './sparse-columns.ts';
import { rowDots } from './sparse-rows.ts';
import { tableOffsets } from './table-offsets.ts';
import { tableResults } from './table-results.ts';
import { tableSums } from './table-sums.ts';

/** All kernel families. */
export const kernels = {
  gemv,
  mmla,
  gemm,
  lookup,
  tabulate,
  roundlookup: roundedLookup,
  roundtables: roundedTables,
  offsets: tableOffsets,
  sums: tableSums,
  results: tableResults,
  panel,
  rowdots: rowDots,
  colsums: columnSums,
  norm,
  rope,
  quantise,
  attention,
  qattention,
  combine,
  relu2,
  silu,
  residual,
  scale,
  narrow,
  rows,
  head,
  screen,
} as const satisfies Record<string, KernelFamily>;

/** The families whose words an ISA has, by op. */
export const kernelsFor = (isa: Isa): [string, KernelFamily][] =>
  Object.entries<KernelFamily>(kernels).filter(([, family]) => family.needs.every((word) => isa.words[word]));
