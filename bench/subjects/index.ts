/** The registry of subjects: one line each. */
import { decode } from './decode.ts';
import { lookup } from './lookup.ts';
import type { Subject } from './subject.ts';

/** All subjects. */
export const subjects = {
  decode,
  lookup,
} as const satisfies Record<string, Subject>;
