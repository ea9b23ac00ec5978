/** The registry of subjects: one line each. */
import { batch } from './batch.ts';
import { decode } from './decode.ts';
import { lookup } from './lookup.ts';
import { prefill } from './prefill.ts';
import type { Subject } from './subject.ts';

/** All subjects. */
export const subjects = {
  decode,
  prefill,
  batch,
  lookup,
} as const satisfies Record<string, Subject>;
