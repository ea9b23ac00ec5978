/**
 * What every readable model must satisfy, whatever its file format: a sane shape, exactly the tensors that the shape needs,
 * each with the right size and an encoding that templates/decode.c can decode. The readers (huggingface.ts, gguf.ts) use the
 * small helpers; open.ts runs the checks on what they return, so that everything behind it may rely on them.
 */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { ModelError } from '../../schemas/error.ts';
import type { FloatType, ModelShape, RowType } from '../../schemas/types.ts';
import { readFloats, withModelFile } from './file.ts';
import type { Encoding, ModelSource, SourceTensor } from './source.ts';

/** `ternary`: a BitLinear matrix; `table`: embedding or head; `norm`: RMSNorm weights, one row. */
export type RoleKind = 'ternary' | 'table' | 'norm';

/** A tensor that a shape calls for. */
export interface Role {
  /** Key in ModelSource.tensors. */
  readonly name: string;
  readonly kind: RoleKind;
  readonly rows: number;
  readonly cols: number;
}

const tableTypes: readonly Encoding[] = ['f32', 'f16', 'bf16', 'q8_0', 'q6_k', 'q4_0'] satisfies RowType[];

const permitted: Record<RoleKind, readonly Encoding[]> = {
  ternary: ['hf-u8', 'i2_s', 'tq1_0', 'tq2_0', 'f32', 'f16', 'bf16'],
  table: tableTypes,
  norm: ['f32', 'f16', 'bf16'],
};

/** The seven ternary matrices of a layer, in the order in which a token meets them. */
export const ternaryNames = ['attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_gate', 'ffn_up', 'ffn_down'] as const;

/** Every tensor of a model with this shape; matrices are [outputs, inputs], `y = W x`. */
export function roles(shape: ModelShape): Role[] {
  const { hidden, intermediate, vocabulary } = shape;
  const attention = shape.heads * shape.headSize;
  const keys = shape.kvHeads * shape.headSize;
  const norm = (name: string, cols: number): Role => ({ name, kind: 'norm', rows: 1, cols });
  const ternary = (name: string, rows: number, cols: number): Role => ({ name, kind: 'ternary', rows, cols });

  const all: Role[] = [
    { name: 'token_embd', kind: 'table', rows: vocabulary, cols: hidden },
    norm('output_norm', hidden),
  ];
  if (!shape.tiedEmbedding) all.push({ name: 'output', kind: 'table', rows: vocabulary, cols: hidden });
  for (let i = 0; i < shape.layers; i++) {
    const block = `blk.${i}.`;
    all.push(
      norm(`${block}attn_norm`, hidden),
      ternary(`${block}attn_q`, attention, hidden),
      ternary(`${block}attn_k`, keys, hidden),
      ternary(`${block}attn_v`, keys, hidden),
      // One RMS over all heads together, hence the size.
      ...(shape.subNorms ? [norm(`${block}attn_sub_norm`, attention)] : []),
      ternary(`${block}attn_output`, hidden, attention),
      norm(`${block}ffn_norm`, hidden),
      ternary(`${block}ffn_gate`, intermediate, hidden),
      ternary(`${block}ffn_up`, intermediate, hidden),
      ...(shape.subNorms ? [norm(`${block}ffn_sub_norm`, intermediate)] : []),
      ternary(`${block}ffn_down`, hidden, intermediate),
    );
  }
  return all;
}

/**
 * Upper bounds far above any published model (largest: 40 layers, hidden 4096, intermediate 23040, vocabulary 262144). They
 * keep products of two sizes below 2^53 and catch damaged metadata before anything is allocated.
 */
const bounds = {
  hidden: 65_536,
  layers: 1024,
  heads: 1024,
  kvHeads: 1024,
  headSize: 1024,
  intermediate: 1_048_576,
  vocabulary: 4_194_304,
  context: 16_777_216,
} as const satisfies Partial<Record<keyof ModelShape, number>>;

/**
 * Checks the numbers of a shape.
 * @param where file the numbers come from, for messages
 * @throws ModelError naming the first number that cannot be right
 */
export function checkShape(shape: ModelShape, where: string): void {
  const fail = (message: string): never => {
    throw new ModelError(`${where}: ${message}`);
  };
  for (const [key, most] of Object.entries(bounds)) {
    const value = shape[key as keyof typeof bounds];
    if (!Number.isInteger(value) || value < 1 || value > most) {
      fail(`${key} = ${value} is not an integer from 1 to ${most}; the file is damaged or not a BitNet model`);
    }
  }
  if (shape.heads % shape.kvHeads !== 0) {
    fail(`${shape.heads} heads cannot be shared by ${shape.kvHeads} key/value heads; heads must be a multiple of them`);
  }
  if (shape.headSize % 2 !== 0) {
    fail(`head size ${shape.headSize} is odd, but rotary embedding turns pairs; an even size is needed`);
  }
  if (!(shape.normEps > 0 && shape.normEps < 1)) fail(`RMSNorm epsilon ${shape.normEps} is not between 0 and 1`);
  if (!(shape.ropeTheta >= 1 && shape.ropeTheta < 1e12))
    fail(`RoPE theta ${shape.ropeTheta} is not between 1 and 1e12`);
}

/**
 * Checks that the model is complete and consistent.
 * @throws ModelError naming the first tensor that is missing, has the wrong size or an unsupported encoding
 */
export function checkModel(source: ModelSource): void {
  const { shape, tensors } = source;
  const where = path.basename(path.resolve(source.path));
  checkShape(shape, where);

  for (const role of roles(shape)) {
    const tensor = tensors.get(role.name);
    if (!tensor) {
      throw new ModelError(
        `${where}: tensor '${role.name}' is missing (${shape.layers} layers, ${shape.subNorms ? 'with' : 'without'} ` +
          `sub-norms, ${shape.tiedEmbedding ? 'tied' : 'untied'} head); the model is incomplete, download it again`,
      );
    }
    const fail = (message: string): never => {
      throw new ModelError(`${path.basename(tensor.file)}: tensor '${tensor.name}' ${message}`);
    };
    if (tensor.rows !== role.rows || tensor.cols !== role.cols) {
      fail(
        `is ${tensor.rows} x ${tensor.cols}, but ${role.name} must be ${role.rows} x ${role.cols} ` +
          'for the sizes the model states; weights and configuration do not belong together',
      );
    }
    if (!permitted[role.kind].includes(tensor.encoding)) {
      fail(`is stored as ${tensor.encoding}; ${role.name} may be ${permitted[role.kind].join(', ')}`);
    }
  }
  refuseDense(source);
}

/**
 * Float matrices are either all master weights, or all ternary already. Among packed or ternary matrices, one with other values
 * was left dense (modules_to_not_convert of transformers), and would be made ternary in silence.
 */
function refuseDense({ shape, tensors }: ModelSource): void {
  const matrices = roles(shape)
    .filter(({ kind }) => kind === 'ternary')
    .map(({ name }) => tensors.get(name)!);
  const kinds = matrices.map((tensor) => (isFloat(tensor.encoding) ? kindOf(tensor) : 'ternary'));
  const dense = matrices[kinds.indexOf('dense')];
  if (!dense || !kinds.includes('ternary')) return;
  throw new ModelError(
    `${path.basename(dense.file)}: tensor '${dense.name}' is not ternary, though other matrices of the model are; dense ` +
      'projections are not supported, take a checkpoint in which all are ternary',
  );
}

/** The type of embedding or head rows, which are packed as they are; f32 for encodings that checkModel will refuse. */
export function tableType(encoding: Encoding): RowType {
  return tableTypes.includes(encoding) ? (encoding as RowType) : 'f32';
}

/**
 * Gives a shape its name for folders and files: letters, digits and single dashes of `base`, then six digits that stand for
 * everything else in the shape. The name is the same for every spelling of a path and every format, and two models whose
 * generated code differs never share one, though both may lie in a folder called "model".
 */
export function named(base: string, shape: Omit<ModelShape, 'name'>): ModelShape {
  const slug = base
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 60);
  const facts = Object.entries(shape).sort(([a], [b]) => (a < b ? -1 : 1));
  const digits = createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 6);
  return { name: `${slug || 'model'}-${digits}`, ...shape };
}

/**
 * What a float matrix looks like from its first 4096 values: ternary if all non-zero magnitudes are within 1 %, else dense;
 * damaged if one is no number or infinite.
 * Cheap enough for opening; the exact decision over all values is bn_decode_scale's.
 * @param tensor stored as f32, f16 or bf16
 */
function kindOf(tensor: SourceTensor): 'ternary' | 'dense' | 'zero' | 'damaged' {
  const type = tensor.encoding as FloatType;
  const count = Math.min(4096, tensor.rows * tensor.cols);
  const values = withModelFile(tensor.file, (file) => readFloats(file, tensor.offset, count, type));
  let least = Number.POSITIVE_INFINITY;
  let most = 0;
  for (const value of values) {
    const size = Math.abs(value);
    // Packing says where it is.
    if (!Number.isFinite(size)) return 'damaged';
    if (size === 0) continue;
    if (size < least) least = size;
    if (size > most) most = size;
  }
  if (most === 0) return 'zero';
  return most - least <= 0.01 * most ? 'ternary' : 'dense';
}

/** Whether a float matrix may be ternary already. */
export const looksTernary = (tensor: SourceTensor): boolean => kindOf(tensor) !== 'dense';

/** Whether a tensor holds plain floats. */
export function isFloat(encoding: Encoding): encoding is FloatType {
  return encoding === 'f32' || encoding === 'f16' || encoding === 'bf16';
}
