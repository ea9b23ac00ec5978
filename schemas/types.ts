/**
 * The documents that travel between the folders, as TypeScript types. Each has a JSON schema beside this file; the tests
 * hold the two against each other.
 */

/** A float type in which weights are stored. */
export type FloatType = 'f32' | 'f16' | 'bf16';

/** Blocks of small whole numbers along a row, each with a scale, as GGUF files have them. */
export type BlockType = 'q4_0' | 'q8_0' | 'q6_k';

/** A type in which embedding or head rows are stored. */
export type RowType = FloatType | BlockType;

/** Everything that the generated code depends on, apart from the CPU. Sizes count elements. */
export interface ModelShape {
  /** Lower-case slug; names folders and files. */
  readonly name: string;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly intermediate: number;
  readonly vocabulary: number;
  /** Positions the model was trained for. */
  readonly context: number;
  /** `relu2`: max(0, gate)^2 * up; `silu`: gate / (1 + e^-gate) * up. */
  readonly activation: 'relu2' | 'silu';
  /** RMSNorm before o_proj and before down_proj, as in BitNet; false for Llama-style models. */
  readonly subNorms: boolean;
  /** The head uses the embedding's rows. */
  readonly tiedEmbedding: boolean;
  readonly embeddingType: RowType;
  /** Equal to `embeddingType` when tied. */
  readonly headType: RowType;
  readonly normEps: number;
  readonly ropeTheta: number;
}

/**
 * Which CPU it is: on x86 what CPUID says (Intel SDM and AMD APM, volume 2 and 3, CPUID leaves 0 and 1); on ARM implementer,
 * architecture, part and revision (MIDR_EL1). A brand string does not tell: in a virtual machine one such string is three generations.
 */
export interface CpuId {
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
}

/** How kernels that stream weights from memory fetch them ahead. */
export interface Prefetch {
  /** `nta`: past the second-level cache; `l2`: into it; `none`: the hardware's prefetchers alone. */
  readonly hint: 'nta' | 'l2' | 'none';
  /** Bytes ahead; absent: as each packing was measured with (packings/packing.ts). */
  readonly ahead?: number;
}

/** A CPU as the generator sees it. */
export interface CpuProfile {
  readonly name: string;
  /** Absent: any CPU with these features. */
  readonly id?: CpuId;
  /** Key of codegen/isa's registry. */
  readonly isa: string;
  /** Features in the spelling of /proc/cpuinfo; kernels may ask for them. */
  readonly features: readonly string[];
  readonly prefetch: Prefetch;
  /** Bytes per core (l1, l2) and per socket (l3). */
  readonly cache: { readonly l1: number; readonly l2: number; readonly l3: number };
}

/** What serves a ternary matrix, by name. */
export interface MatrixKernels {
  readonly packing: string;
  /** For one token, and where it takes tables, what makes them. */
  readonly gemv: string;
  readonly tabulate?: string;
  /** Makes row tiles of a matrix in an order of its own. */
  readonly panel?: string;
  /** For several tokens, and the steps of products by tables. */
  readonly gemm: readonly string[];
  readonly tables?: readonly string[];
  /** The reason for the choice, for people. */
  readonly why: string;
}
