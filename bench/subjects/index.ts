/** The registry of subjects: one line each. */
import { decode } from './decode.ts';
import type { Subject } from './subject.ts';

/** All subjects. */
export const subjects = {
  decode,
} as const satisfies Record<string, Subject>;
