/**
 * Reader for GGUF files: header and metadata to a ModelSource. open.ts calls it and checks the result; weights.ts packs from
 * it. Container and tensor types are in gguf-header.ts and gguf-types.ts; here is what a model's metadata mean.
 *
 * Architectures (keys and tensors as in llama.cpp and in the converters of microsoft/BitNet):
 *   bitnet-b1.58, bitnet-25   BitNet 2B4T: squared ReLU though no key says so, sub-norms, rotate-half RoPE
 *   bitnet                    1bitLLM: SiLU unless <arch>.hidden_activation says otherwise, sub-norms, rotate-half RoPE
 *   llama                     Llama 3, Falcon: SiLU, no sub-norms; rows of q and k were permuted for interleaved RoPE
 */
import path from 'node:path';
import { ModelError } from '../../schemas/error.ts';
import type { ModelShape } from '../../schemas/types.ts';
import { isFloat, looksTernary, named, tableType, ternaryNames } from './check.ts';
import type { NamedToken, SpecialToken } from './end-marks.ts';
import { readMarks } from './end-marks.ts';
import type { ModelFile } from './file.ts';
import { readFloats, withModelFile } from './file.ts';
import type { GgufHeader, MetadataValue, NumberList } from './gguf-header.ts';
import { readGgufHeader } from './gguf-header.ts';
import type { PlacedTensor } from './gguf-types.ts';
import { placeTensors } from './gguf-types.ts';
import { shown } from './json.ts';
import { ggufKeys, harmlessNamespaces, refuseUnknown, unknownKeys } from './known-keys.ts';
import type { ModelSource, SourceTensor, TokenizerSource } from './source.ts';

interface Architecture {
  readonly activation: ModelShape['activation'];
  readonly subNorms: boolean;
  /** Rows of q and k lie in interleaved order. */
  readonly permuted: boolean;
  /** Float matrices are masters even if not yet ternary. */
  readonly masters: boolean;
}

const bitnet2b: Architecture = { activation: 'relu2', subNorms: true, permuted: false, masters: true };
const architectures: Readonly<Record<string, Architecture>> = {
  'bitnet-b1.58': bitnet2b,
  'bitnet-25': bitnet2b,
  bitnet: { ...bitnet2b, activation: 'silu' },
  llama: { activation: 'silu', subNorms: false, permuted: true, masters: false },
};

const outerNames = ['token_embd', 'output_norm', 'output'];
const layerNames: readonly string[] = [...ternaryNames, 'attn_norm', 'attn_sub_norm', 'ffn_norm', 'ffn_sub_norm'];

/** Typed access to metadata, with errors that name key and value. */
interface Metadata {
  has(key: string): boolean;
  number(key: string, fallback?: number): number;
  /** A number that some models give per layer; all layers must agree. */
  uniform(key: string, fallback?: number): number;
  text(key: string): string | undefined;
  texts(key: string): readonly string[] | undefined;
  numbers(key: string): NumberList | undefined;
}

/**
 * Reads a GGUF file; of the data it reads one small sample and the `.scale` scalars only.
 * @param allowConfig keys of the metadata that may be ignored though they are unknown
 * @returns a source that open.ts has yet to check for completeness
 * @throws ModelError when the file is damaged or describes something that is not supported
 */
export function readGguf(file: string, allowConfig: readonly string[] = []): ModelSource {
  return withModelFile(file, (opened) => model(opened, readGgufHeader(opened, isRead), allowConfig));
}

function model(file: ModelFile, header: GgufHeader, allowConfig: readonly string[]): ModelSource {
  const fail = (message: string): never => {
    throw new ModelError(`${file.name}: ${message}`);
  };
  const metadata = accessor(header.metadata, fail);
  const arch = metadata.text('general.architecture') ?? fail("metadata 'general.architecture' is missing");
  const architecture = Object.hasOwn(architectures, arch) ? architectures[arch]! : undefined;
  if (!architecture) {
    return fail(`unknown architecture ${shown(arch)}; known are ${Object.keys(architectures).join(', ')}`);
  }
  if (metadata.number('split.count', 1) > 1) {
    fail('is one part of a split model; join the parts with llama-gguf-split --merge');
  }
  refuseRopeScaling(metadata, header, arch, fail);
  const notes = refuseUnknown(file.name, unknownIn(header, arch), allowConfig);

  const heads = metadata.uniform(`${arch}.attention.head_count`);
  const kvHeads = metadata.uniform(`${arch}.attention.head_count_kv`, heads);
  const permuted = architecture.permuted ? { heads, kvHeads } : undefined;
  const tensors = nameTensors(file, placeTensors(file, header), permuted, fail);
  const shape = readShape(metadata, arch, architecture, { heads, kvHeads }, tensors, file, fail);
  const tokenizer = findTokenizer(header);
  const marks = readTokens(metadata, shape.vocabulary);
  return {
    path: file.path,
    format: 'gguf',
    shape,
    quantisation: describe(tensors, architecture, fail),
    files: [{ path: file.path, size: file.size, mtimeMs: file.mtimeMs }],
    tensors,
    ...(tokenizer ? { tokenizer } : {}),
    ...marks,
    notes: [...notes, ...marks.notes],
  };
}

type Fail = (message: string) => never;

const generalKeys = ['general.architecture', 'general.name', 'split.count'];
const archKeys = [...ggufKeys.read, ...Object.keys(ggufKeys.harmlessAt)];

/** Whether the value of a key is looked at; the architecture, with which its keys begin, may come after them. */
const isRead = (key: string): boolean =>
  generalKeys.includes(key) || key.startsWith('tokenizer.') || archKeys.some((name) => key.endsWith(`.${name}`));

/** Keys that may change the result though nobody reads them. */
function unknownIn({ metadata, skipped }: GgufHeader, arch: string): { key: string; value?: unknown }[] {
  const own = `${arch}.`;
  const isHarmless = (key: string): boolean => harmlessNamespaces.some((space) => key.startsWith(space));
  const keys = [...metadata.keys(), ...skipped];
  const entries = keys
    .filter((key) => key.startsWith(own))
    .map((key) => [key.slice(own.length), metadata.get(key)] as const);
  const others = keys.filter((key) => !key.startsWith(own) && !isHarmless(key));
  return [...unknownKeys(entries, ggufKeys, own), ...others.map((key) => ({ key, value: metadata.get(key) }))];
}

/** Numbers of the model. Defaults as in llama.cpp: rope theta 10000, context 2048; epsilon 1e-5 as in Hugging Face. */
function readShape(
  metadata: Metadata,
  arch: string,
  architecture: Architecture,
  { heads, kvHeads }: { heads: number; kvHeads: number },
  tensors: ReadonlyMap<string, SourceTensor>,
  file: ModelFile,
  fail: Fail,
): ModelShape {
  const hidden = metadata.number(`${arch}.embedding_length`);
  const layers = metadata.number(`${arch}.block_count`);
  const headSize = metadata.number(`${arch}.attention.key_length`, hidden / heads);
  for (const key of ['attention.value_length', 'rope.dimension_count']) {
    const size = metadata.number(`${arch}.${key}`, headSize);
    if (size !== headSize)
      fail(`${arch}.${key} ${size} differs from the head size ${headSize}, which is not supported`);
  }
  const activation = metadata.text(`${arch}.hidden_activation`) ?? architecture.activation;
  if (activation !== 'relu2' && activation !== 'silu') {
    return fail(`${arch}.hidden_activation ${shown(activation)} is not supported; known are relu2 and silu`);
  }
  const embedding = tensors.get('token_embd');
  const head = tensors.get('output');
  const embeddingType = embedding ? tableType(embedding.encoding) : 'f32';
  const base = metadata.text('general.name') || path.basename(file.name, '.gguf');
  return named(base, {
    hidden,
    layers,
    heads,
    kvHeads,
    headSize,
    intermediate: metadata.uniform(`${arch}.feed_forward_length`),
    vocabulary: metadata.number(`${arch}.vocab_size`, embedding?.rows),
    context: metadata.number(`${arch}.context_length`, 2048),
    activation,
    subNorms: architecture.subNorms,
    tiedEmbedding: !head,
    embeddingType,
    headType: head ? tableType(head.encoding) : embeddingType,
    normEps: metadata.number(`${arch}.attention.layer_norm_rms_epsilon`, 1e-5),
    ropeTheta: metadata.number(`${arch}.rope.freq_base`, 10000),
  });
}

/** llama.cpp's converter writes "linear, factor 1" for arch bitnet, which is no scaling at all. */
function refuseRopeScaling(metadata: Metadata, header: GgufHeader, arch: string, fail: Fail): void {
  const type = metadata.text(`${arch}.rope.scaling.type`) ?? 'linear';
  const factor = metadata.number(`${arch}.rope.scaling.factor`, metadata.number(`${arch}.rope.scale_linear`, 1));
  if (type !== 'none' && (type !== 'linear' || (factor !== 1 && factor !== 0))) {
    fail(`RoPE scaling (type ${shown(type)}, factor ${factor}) is not supported; only unscaled RoPE is`);
  }
  if (header.tensors.some((tensor) => tensor.name === 'rope_freqs.weight')) {
    fail("tensor 'rope_freqs.weight' scales RoPE, which is not supported; only unscaled RoPE is");
  }
}

/** Our names for the tensors, the factors in `.scale` tensors folded in; refuses tensors it does not know. */
function nameTensors(
  file: ModelFile,
  placed: ReadonlyMap<string, PlacedTensor>,
  permuted: { heads: number; kvHeads: number } | undefined,
  fail: Fail,
): Map<string, SourceTensor> {
  const tensors = new Map<string, SourceTensor>();
  for (const [name, tensor] of placed) {
    const match = /^(?:blk\.(?:0|[1-9]\d*)\.)?([a-z_]+)\.(weight|scale)$/.exec(name);
    const inLayer = name.startsWith('blk.');
    const part = match?.[1] ?? '';
    if (!match || !(inLayer ? layerNames : outerNames).includes(part)) {
      return fail(`unexpected tensor '${name}'; the model computes something that is not supported here`);
    }
    if (match[2] === 'scale') {
      const isMatrix = (ternaryNames as readonly string[]).includes(part);
      if (isMatrix && placed.has(name.replace(/scale$/, 'weight'))) continue;
      fail(`tensor '${name}' does not belong to a ternary matrix; the model is incomplete or not supported`);
    }
    const ours = name.replace(/\.weight$/, '');
    const factor = readFactor(file, placed.get(`${ours}.scale`), fail);
    const order = part === 'attn_q' ? permuted?.heads : part === 'attn_k' ? permuted?.kvHeads : undefined;
    tensors.set(ours, {
      ...tensor,
      ...(factor === undefined ? {} : { factor }),
      ...(order === undefined ? {} : { permutedHeads: order }),
    });
  }
  return tensors;
}

/** The value of a `.scale` tensor: one f32, multiplied onto the product. */
function readFactor(file: ModelFile, scale: PlacedTensor | undefined, fail: Fail): number | undefined {
  if (!scale) return undefined;
  if (scale.encoding !== 'f32' || scale.rows * scale.cols !== 1) fail(`tensor '${scale.name}' is not a single F32`);
  const factor = readFloats(file, scale.offset, 1, 'f32')[0]!;
  if (!Number.isFinite(factor) || factor <= 0) fail(`tensor '${scale.name}' is ${factor}; the file is damaged`);
  return factor;
}

/** What is wrong with a tokenizer is told when it is loaded. */
function findTokenizer({ metadata }: GgufHeader): TokenizerSource | undefined {
  const model = metadata.get('tokenizer.ggml.model');
  const tokens = metadata.get('tokenizer.ggml.tokens');
  if (model === undefined || model === 'none' || model === 'no_vocab') return undefined;
  if (!Array.isArray(tokens) || typeof tokens[0] !== 'string') return undefined;
  return { kind: 'gguf', tokens: tokens as readonly string[], metadata };
}

/** The start token, and what ends a text; tokens of type 3 (control) and 4 (user-defined) are special, or all without types. */
function readTokens(metadata: Metadata, vocabulary: number): ReturnType<typeof readMarks> {
  const named = (key: string): NamedToken[] => {
    const full = `tokenizer.ggml.${key}`;
    return metadata.has(full) ? [{ from: full, id: metadata.number(full) }] : [];
  };
  const tokens = metadata.texts('tokenizer.ggml.tokens') ?? [];
  const types = metadata.numbers('tokenizer.ggml.token_type');
  const isSpecial = (id: number): boolean => types === undefined || types[id] === 3 || types[id] === 4;
  function* special(): Generator<SpecialToken> {
    for (const [id, text] of tokens.entries()) if (isSpecial(id)) yield { id, text };
  }
  const ends = ['eos_token_id', 'eot_token_id', 'eom_token_id'].flatMap(named);
  return readMarks(named('bos_token_id')[0], ends, special(), (id) => tokens[id], vocabulary);
}

/** One line for people. @throws ModelError when a llama file holds an ordinary, dense model */
function describe(tensors: ReadonlyMap<string, SourceTensor>, architecture: Architecture, fail: Fail): string {
  const sample = tensors.get('blk.0.attn_q');
  if (!sample) return 'unknown';
  const embedding = tensors.get('token_embd');
  const suffix = embedding && !isFloat(embedding.encoding) ? `, ${embedding.encoding.toUpperCase()} embedding` : '';
  if (!isFloat(sample.encoding)) return sample.encoding.toUpperCase() + suffix;
  if (looksTernary(sample)) return `ternary values in ${sample.encoding}${suffix}`;
  if (architecture.masters) return `${sample.encoding} masters${suffix}`;
  return fail(
    `tensor '${sample.name}' is not ternary; this is an ordinary dense model, take a conversion of a BitNet b1.58 model`,
  );
}

function accessor(values: ReadonlyMap<string, MetadataValue>, fail: Fail): Metadata {
  const typed = <T>(key: string, kind: string, is: (value: MetadataValue) => boolean): T | undefined => {
    const value = values.get(key);
    if (value === undefined || is(value)) return value as T | undefined;
    return fail(`metadata '${key}' is ${typeof value === 'object' ? 'a list' : shown(value)}, not ${kind}`);
  };
  const isNumbers = (value: MetadataValue | undefined): value is NumberList => ArrayBuffer.isView(value);
  const number = (key: string, fallback?: number): number =>
    typed<number>(key, 'a number', (value) => typeof value === 'number') ??
    fallback ??
    fail(`metadata '${key}' is missing; the file is not a complete model`);
  return {
    has: (key) => values.has(key),
    number,
    uniform: (key, fallback) => {
      const list = values.get(key);
      if (!isNumbers(list)) return number(key, fallback);
      const [first] = list;
      if (first !== undefined && list.every((item) => item === first)) return first;
      return fail(`metadata '${key}' differs between layers, which is not supported`);
    },
    text: (key) => typed(key, 'a string', (value) => typeof value === 'string'),
    texts: (key) => typed(key, 'a list of strings', Array.isArray),
    numbers: (key) => typed(key, 'a list of numbers', isNumbers),
  };
}
