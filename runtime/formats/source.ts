/**
 * What a model on disk looks like to the rest of the program, whatever its format: the shape, where each tensor lies and how
 * it is encoded, and where the tokenizer comes from. Readers (huggingface.ts, gguf.ts) produce it; weights.ts packs from it.
 */
import type { ModelShape } from '../../schemas/types.ts';
import type { EndMark } from './end-marks.ts';

/** Encodings that templates/decode.c understands; the number is the GGML type id, `hf-u8` is our own 1000. */
export const encodings = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q8_0: 8,
  q6_k: 14,
  bf16: 30,
  tq1_0: 34,
  tq2_0: 35,
  i2_s: 36,
  'hf-u8': 1000,
} as const;
/** How the elements of a tensor are stored. */
export type Encoding = keyof typeof encodings;

/** One tensor inside a file: a row-major [rows, cols] matrix (vectors: rows = 1), logical sizes, not storage sizes. */
export interface SourceTensor {
  /** Name in the file, for messages. */
  readonly name: string;
  readonly file: string;
  /** Byte range in the file, already checked against the file's size. */
  readonly offset: number;
  readonly bytes: number;
  readonly encoding: Encoding;
  readonly rows: number;
  readonly cols: number;
  /** Ternary matrices: w = scale * t. Absent: the data itself tells (I2_S tail, TQ block scales, float statistics). */
  readonly scale?: number;
  /** Extra factor after the product (GGUF `blk.N.*.scale`). */
  readonly factor?: number;
  /** Rows of each of this many heads lie in the interleaved order of Llama GGUFs (2i+j) and must become (j*hd/2+i). */
  readonly permutedHeads?: number;
}

/** Where the tokenizer's data lies. It is read and checked when the tokenizer is loaded, so that --tokens can do without. */
export type TokenizerSource =
  | {
      readonly kind: 'huggingface';
      /** Paths of tokenizer.json and tokenizer_config.json. */
      readonly tokenizer: string;
      readonly config?: string;
      /** config.json's, for a tokenizer that adds a BOS and does not name it. */
      readonly bos?: number;
    }
  | { readonly kind: 'tiktoken'; readonly ranks: string; readonly config?: string }
  | {
      readonly kind: 'gguf';
      /** tokenizer.ggml.tokens */
      readonly tokens: readonly string[];
      /** The file's metadata; the keys of a tokenizer begin with "tokenizer.ggml.". */
      readonly metadata: ReadonlyMap<string, unknown>;
    };

/** A model on disk. Tensor names are GGUF's without `.weight`: token_embd, output_norm, output, blk.N.attn_q, ... */
export interface ModelSource {
  /** Folder or file the user named. */
  readonly path: string;
  readonly format: 'huggingface' | 'gguf';
  readonly shape: ModelShape;
  /** One line for people: "packed ternary (weight_scale multiplies)", "I2_S", "bf16 masters". */
  readonly quantisation: string;
  /** Every file that the weights depend on. */
  readonly files: readonly { readonly path: string; readonly size: number; readonly mtimeMs: number }[];
  readonly tensors: ReadonlyMap<string, SourceTensor>;
  /** Absent: the model can only be run with --tokens. */
  readonly tokenizer?: TokenizerSource;
  /** Why the tokenizer is absent, and what to do. */
  readonly noTokenizer?: string;
  readonly bos?: number;
  /** Tokens that end a text, a turn or a message; all of them end generation. */
  readonly eos: readonly number[];
  /** The same with their spellings, for people. */
  readonly endMarks: readonly EndMark[];
  /** What the user should know: ids that are ignored, keys that were allowed. */
  readonly notes: readonly string[];
}
