/** The registry of subjects: one line each. */
import { batch } from './batch.ts';
import { decode } from './decode.ts';
import { kernels } from './kernels.ts';
import { lookup } from './lookup.ts';
import { prefill } from './prefill.ts';
import type { Subject } from './subject.ts';

/** All subjects. */
export const subjects = {
  decode,
  prefill,
  batch,
  lookup,
  kernels,
} as const satisfies Record<string, Subject>;
