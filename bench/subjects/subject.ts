/** What a subject of measurement is: `npm run bench -- SUBJECT` runs it. One file each; subjects/index.ts registers them. */
import type { HeadMode } from '../../runtime/engine.ts';
import type { ModelShape } from '../../schemas/types.ts';

/** What the command line asks for; a subject takes what concerns it. Absent lists: the subject's own choice. */
export interface Request {
  readonly shape: ModelShape;
  readonly targets?: readonly string[];
  readonly packings?: readonly string[];
  readonly threads?: readonly number[];
  readonly contexts?: readonly number[];
  readonly kv?: readonly string[];
  /** Tokens of a prompt, or of a batch. */
  readonly sizes?: readonly number[];
  readonly heads?: readonly HeadMode[];
  /** Shares of closed gates; a model is made for each, and both paths are measured. */
  readonly sparsities?: readonly number[];
  /** Part of the names of kernels to measure. */
  readonly filter?: string;
  /** Time for measuring, seconds; building, packing and filling caches come on top. */
  readonly seconds?: number;
  readonly quick: boolean;
  /** Compare with other engines, installed in this folder; '' is the default place, absent means no comparison. */
  readonly peers?: string;
  readonly cc?: string;
  readonly signal: AbortSignal;
  /** Shown on a terminal only. */
  readonly onProgress: (what: string, done: number, total: number) => void;
}

/** One line of a result: plain data, printed as JSON. */
export type Row = Readonly<Record<string, unknown>>;

export interface Result {
  readonly rows: readonly Row[];
  /** Rows of other engines, where they were asked for. */
  readonly peers?: readonly Row[];
  /** For people. */
  readonly text: string;
  /** What was left out, and why. */
  readonly notes: readonly string[];
}

export interface Subject {
  /** One line for --help. */
  readonly summary: string;
  readonly measure: (request: Request) => Promise<Result>;
}
