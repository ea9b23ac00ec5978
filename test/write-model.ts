/**
 * Random models for the tests, and what the writers of Hugging Face folders (write-huggingface.ts) and GGUF files
 * (write-gguf.ts) have in common. Value ranges follow the published 2B4T checkpoint: see `randomModel`.
 */
import type { ModelShape } from '../schemas/types.ts';
import { nearest } from './encode.ts';
import {
  generator,
  matrixSizes,
  type OracleLayer,
  type OracleMatrix,
  type OracleModel,
  type Projection,
  projections,
} from './oracle.ts';

/** A small shape in the style of 2B4T; every field can be replaced. */
export function smallShape(changes: Partial<ModelShape> = {}): ModelShape {
  const shape = {
    name: 'small',
    hidden: 256,
    layers: 2,
    heads: 4,
    kvHeads: 2,
    headSize: 64,
    intermediate: 512,
    vocabulary: 301,
    context: 128,
    activation: 'relu2',
    subNorms: true,
    tiedEmbedding: true,
    embeddingType: 'bf16',
    headType: 'bf16',
    normEps: 1e-5,
    ropeTheta: 500000,
    ...changes,
  } as const;
  return { ...shape, headType: shape.tiedEmbedding ? shape.embeddingType : shape.headType };
}

/**
 * A random model whose numbers survive every file type, so that one model can be written in many forms:
 * - embedding and head: multiples of 1/64 up to 1 in size, exact in bf16, f16 and f32;
 * - scales m/128 with 128 <= m < 256 (1.5546875 = 199/128), exact in bf16 and f16; models without sub-norms have scales
 *   64 times smaller, like trained Llama-style models, or their residual stream would explode;
 * - norm weights rounded to bf16: input norm 0.015..0.03, sub-norms 0.1..0.7 and 0.2..3.2 with a few dead entries of
 *   1e-32, which float16 cannot hold;
 * - the first up matrix and the last down matrix each have one block of 256 zeros if their rows are whole blocks.
 */
export function randomModel(shape: ModelShape, seed: number): OracleModel {
  const random = generator(seed);
  const norm = (size: number, low: number, high: number, dead = 0): Float64Array =>
    new Float64Array(size).map(() =>
      nearest('bf16', random() < dead ? 1e-32 * (1 + random()) : low + (high - low) * random()),
    );
  const rows = (): Float64Array =>
    new Float64Array(shape.vocabulary * shape.hidden).map(() => Math.round(128 * random() - 64) / 64 + 0);
  const sizes = matrixSizes(shape);
  const matrix = (kind: Projection): OracleMatrix => {
    const [rowCount, cols] = sizes[kind];
    // Real matrices have 35-50 % zeros.
    const zeros = 0.35 + 0.15 * random();
    const trits = new Int8Array(rowCount * cols).map(() => {
      const u = random();
      return u < zeros ? 0 : u < (1 + zeros) / 2 ? -1 : 1;
    });
    const scale = ((128 + Math.floor(128 * random())) / 128) * (shape.subNorms ? 1 : 1 / 64);
    return { trits, rows: rowCount, cols, scale };
  };
  const [attention, feedForward] = shape.subNorms ? [0.015, 1.1] : [0.2, 0.4];
  const layers = Array.from(
    { length: shape.layers },
    (): OracleLayer => ({
      attnNorm: norm(shape.hidden, attention, 2 * attention),
      ...(shape.subNorms ? { attnSubNorm: norm(shape.heads * shape.headSize, 0.1, 0.7) } : {}),
      ffnNorm: norm(shape.hidden, feedForward, feedForward + 0.5),
      ...(shape.subNorms ? { ffnSubNorm: norm(shape.intermediate, 0.2, 3.2, 0.01) } : {}),
      q: matrix('q'),
      k: matrix('k'),
      v: matrix('v'),
      o: matrix('o'),
      gate: matrix('gate'),
      up: matrix('up'),
      down: matrix('down'),
    }),
  );
  for (const zeroed of [layers[0]?.up, layers.at(-1)?.down]) {
    if (!zeroed) continue;
    const { trits, cols } = zeroed;
    if (cols % 256 === 0) trits.fill(0, cols, cols + 256); // the first block of row 1
  }
  const embedding = rows();
  return {
    shape: { ...shape, headType: shape.tiedEmbedding ? shape.embeddingType : shape.headType },
    embedding,
    ...(shape.tiedEmbedding ? {} : { head: rows() }),
    outputNorm: norm(shape.hidden, 0.5, 1),
    layers,
  };
}

/** The same layer with every matrix replaced. */
export function mapMatrices(
  layer: OracleLayer,
  change: (matrix: OracleMatrix, kind: Projection) => OracleMatrix,
): OracleLayer {
  const entries = projections.map((kind) => [kind, change(layer[kind], kind)] as const);
  return { ...layer, ...(Object.fromEntries(entries) as Record<Projection, OracleMatrix>) };
}

/** Nearest power of two: its inverse is exact in every float type. */
export function powerOfTwo(scale: number): number {
  return 2 ** Math.round(Math.log2(scale));
}

export interface TinyVocabulary {
  /** In GPT-2's byte alphabet. */
  readonly tokens: string[];
  /** GGUF token types: 1 normal, 3 control. */
  readonly types: number[];
  readonly merges: string[];
}

const merges = ['Ġ t', 'h e', 'i n', 'Ġt he'];
const bytesAndMerges = 256 + merges.length;

/** Token ids that models write into their configuration. */
export function specialTokens(vocabulary: number): { bos: number; eos: number; endOfTurn: number } {
  const bos = Math.min(bytesAndMerges, vocabulary - 3);
  return { bos, eos: bos + 1, endOfTurn: bos + 2 };
}

/**
 * A byte-level BPE of any size: the 256 bytes in GPT-2's order (printable ones first), four merged tokens, then control
 * tokens: <|begin_of_text|>, <|end_of_text|>, <|eot_id|> and reserved ones.
 */
export function tinyVocabulary(size: number): TinyVocabulary {
  if (size < bytesAndMerges + 3)
    throw new Error(`vocabulary ${size} is below ${bytesAndMerges + 3}: no room for bytes`);
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const tokens = [
    ...bytes.filter(printable).map((byte) => String.fromCodePoint(byte)),
    // GPT-2 gives the n-th unprintable byte the character 256 + n.
    ...bytes.filter((byte) => !printable(byte)).map((_, n) => String.fromCodePoint(256 + n)),
    ...merges.map((merge) => merge.replace(' ', '')),
    '<|begin_of_text|>',
    '<|end_of_text|>',
    '<|eot_id|>',
  ];
  while (tokens.length < size) tokens.push(`<|reserved_special_token_${tokens.length - bytesAndMerges - 3}|>`);
  return { tokens, types: tokens.map((_, id) => (id < bytesAndMerges ? 1 : 3)), merges };
}
