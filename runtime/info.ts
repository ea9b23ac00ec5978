/** What `bitnet-run --info` tells. */
import type { MatrixKernels, ModelShape, Prefetch } from '../schemas/types.ts';
import type { EndMark } from './formats/end-marks.ts';
import { DEFAULT_KV } from './memory.ts';

/** What a model is and how it would run on a target; sizes in bytes. */
export interface ModelInfo {
  readonly model: string;
  readonly format: string;
  readonly quantisation: string;
  /** Tokens that end a text. */
  readonly endMarks: readonly EndMark[];
  readonly shape: ModelShape;
  readonly parameters: { readonly ternary: number; readonly float: number };
  readonly packedBytes: number;
  /** Embedding and head, in the types of the model's file. */
  readonly rowBytes: number;
  /** The int8 rows that screen the head; 0: it has none. */
  readonly screenBytes: number;
  /** The 4-bit rows that a context with the fast head makes in memory; 0: there is no screen. */
  readonly fastBytes: number;
  readonly cacheBytesPerPosition: number;
  readonly target: string;
  /** How kernels that stream weights fetch them ahead. */
  readonly prefetch: Prefetch;
  readonly matrices: Readonly<Record<string, MatrixKernels>>;
  /** Names of the float kernels. */
  readonly kernels: Readonly<Record<string, string>>;
}

/** A line for each part. */
export function formatInfo(info: ModelInfo): string {
  const s = info.shape;
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  const lines: [string, string][] = [
    ['model', info.model],
    ['format', `${info.format}, ${info.quantisation}`],
    [
      'size',
      `hidden ${s.hidden}, ${s.layers} layers, ${s.heads} heads / ${s.kvHeads} key-value heads of ${s.headSize}, intermediate ${s.intermediate}`,
    ],
    ['vocabulary', `${s.vocabulary}, ${s.embeddingType}, ${s.tiedEmbedding ? 'tied' : `separate head, ${s.headType}`}`],
    ['activation', `${s.activation}, ${s.subNorms ? 'with' : 'without'} sub-norms`],
    ['context', String(s.context)],
    [
      'ends at',
      info.endMarks.map(({ id, text }) => (text === undefined ? `${id}` : `${id} ${text}`)).join(', ') || 'no token',
    ],
    [
      'parameters',
      `${(info.parameters.ternary / 1e6).toFixed(1)} M ternary, ${(info.parameters.float / 1e6).toFixed(1)} M float`,
    ],
    [
      'packed',
      `${megabytes(info.packedBytes)}, mapped into memory; ${megabytes(info.rowBytes)} of them ${s.tiedEmbedding ? 'embedding' : 'embedding and head'}`,
    ],
    [
      'head',
      info.screenBytes
        ? `exact: screened by int8 rows, ${megabytes(info.screenBytes)} of the packed weights (--head fast: by 4-bit rows made in memory, ${megabytes(info.fastBytes)}, without certainty; --head full: all logits)`
        : 'full: too small, or too wide, to gain from a screen',
    ],
    [
      'key-value cache',
      `${megabytes(info.cacheBytesPerPosition * Math.min(4096, s.context))} at ${Math.min(4096, s.context)} positions (${DEFAULT_KV})`,
    ],
    ['target', info.target],
    [
      'prefetch',
      `${info.prefetch.hint}, ${info.prefetch.ahead ? `${info.prefetch.ahead} bytes ahead` : "at each packing's own distance"}`,
    ],
    ...Object.entries(info.matrices).map(([slot, m]): [string, string] => [
      slot,
      [
        m.gemv,
        ...(m.panel ? [m.panel] : []),
        ...(m.tabulate ? [m.tabulate] : []),
        ...m.gemm,
        ...(m.tables ?? []),
        m.why,
      ].join(`\n${' '.repeat(18)}`),
    ]),
    ...Object.entries(info.kernels).map(([role, name]): [string, string] => [role, name]),
  ];
  return lines.map(([key, value]) => `${key.padEnd(17)} ${value}\n`).join('');
}
