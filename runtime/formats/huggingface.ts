/**
 * Reader for Hugging Face folders: config.json plus model.safetensors, whole or sharded, to a ModelSource. open.ts calls it
 * and checks the result; weights.ts packs from it.
 *
 * BitLinear matrices come packed or as floats (transformers, integrations/bitnet.py):
 *   packed  U8 [outputs / 4, inputs]; byte [r][c] holds rows r, r + outputs/4, ... two bits each, with `<name>_scale`
 *           of one element; linear_class "autobitlinear" multiplies by it, "bitlinear" (or none) divides.
 *   floats  master weights, made ternary when loaded, or values that are ternary already; the data tell which.
 * Norms of 1bitLLM's first models go by older names. The head is never packed.
 */
import path from 'node:path';
import { ModelError } from '../../schemas/error.ts';
import type { FloatType } from '../../schemas/types.ts';
import { readAddedTokens } from './added-tokens.ts';
import { isFloat, looksTernary, named, tableType } from './check.ts';
import { readMarks } from './end-marks.ts';
import { isPresent, readFloats, stampOf, withModelFile } from './file.ts';
import type { HuggingfaceConfig } from './huggingface-config.ts';
import { findTokenizer, readConfig } from './huggingface-config.ts';
import { shown } from './json.ts';
import type { Encoding, ModelSource, SourceTensor, TokenizerSource } from './source.ts';
import { type Located, missing, readWeights } from './weight-files.ts';

/** Names outside the layers. */
const outerNames: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd',
  'model.norm.weight': 'output_norm',
  'lm_head.weight': 'output',
};

/** Names below `model.layers.N.`. */
const layerNames: Readonly<Record<string, string>> = {
  'input_layernorm.weight': 'attn_norm',
  'self_attn.q_proj.weight': 'attn_q',
  'self_attn.k_proj.weight': 'attn_k',
  'self_attn.v_proj.weight': 'attn_v',
  'self_attn.o_proj.weight': 'attn_output',
  'self_attn.attn_sub_norm.weight': 'attn_sub_norm',
  'self_attn.inner_attn_ln.weight': 'attn_sub_norm',
  'post_attention_layernorm.weight': 'ffn_norm',
  'mlp.gate_proj.weight': 'ffn_gate',
  'mlp.up_proj.weight': 'ffn_up',
  'mlp.down_proj.weight': 'ffn_down',
  'mlp.ffn_sub_norm.weight': 'ffn_sub_norm',
  'mlp.ffn_layernorm.weight': 'ffn_sub_norm',
};

const floatTypes: Readonly<Record<string, FloatType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/**
 * Reads a model folder; of the data it reads the scales and one small sample only.
 * @param folder holds config.json and the weights
 * @param allowConfig keys of config.json that may be ignored though they are unknown
 * @returns a source that open.ts has yet to check for completeness
 * @throws ModelError when a file is missing, damaged, or describes something that is not supported
 */
export function readHuggingface(folder: string, allowConfig: readonly string[]): ModelSource {
  if (!isPresent(path.join(folder, 'config.json'))) throw missing(folder, 'config.json');
  const config = readConfig(folder, allowConfig);
  const { files, entries } = readWeights(folder);
  const tensors = nameTensors(entries, config);

  const head = tensors.get('output');
  if (config.tied === false && !head) {
    throw new ModelError(
      "config.json: tie_word_embeddings is false, but the weights have no 'lm_head.weight'; download all weight files",
    );
  }
  const tiedEmbedding = config.tied ?? !head;
  if (tiedEmbedding) tensors.delete('output');

  const embedding = tensors.get('token_embd');
  const embeddingType = embedding ? tableType(embedding.encoding) : 'f32';
  const shape = named(baseName(folder, config), {
    ...config.sizes,
    activation: config.activation,
    subNorms: tensors.has('blk.0.attn_sub_norm') || tensors.has('blk.0.ffn_sub_norm'),
    tiedEmbedding,
    embeddingType,
    headType: tiedEmbedding || !head ? embeddingType : tableType(head.encoding),
    normEps: config.normEps,
    ropeTheta: config.ropeTheta,
  });

  const { tokenizer, noTokenizer } = findTokenizer(folder);
  const added = readAddedTokens(folder, tokenizer);
  const ends = added.eos ? [...config.eos, added.eos] : config.eos;
  const marks = readMarks(config.bos, ends, added.special, (id) => added.texts.get(id), shape.vocabulary);
  return {
    path: folder,
    format: 'huggingface',
    shape,
    quantisation: describe(tensors, config),
    files: [path.join(folder, 'config.json'), ...files].map(stampOf),
    tensors,
    ...(tokenizer ? { tokenizer: withBos(tokenizer, marks.bos) } : {}),
    ...(noTokenizer ? { noTokenizer } : {}),
    ...marks,
    notes: [...config.notes, ...added.notes, ...marks.notes],
  };
}

/** config.json's start token, for tokenizers that do not say which. */
const withBos = (tokenizer: TokenizerSource, bos: number | undefined): TokenizerSource =>
  tokenizer.kind === 'huggingface' && bos !== undefined ? { ...tokenizer, bos } : tokenizer;

/** Files' names to ours; refuses what would change the result if it were ignored. */
function nameTensors(entries: ReadonlyMap<string, Located>, config: HuggingfaceConfig): Map<string, SourceTensor> {
  const tensors = new Map<string, SourceTensor>();
  for (const entry of entries.values()) {
    const where = path.basename(entry.file);
    const name = ourName(entry.name, config.sizes.layers);
    if (name === 'ignore') continue;
    if (name === 'scale') {
      // Read together with its matrix; on its own it means that something is missing.
      const matrix = entry.name.replace(/_scale$/, '');
      if (entries.get(matrix)?.dtype === 'U8') continue;
      throw new ModelError(`${where}: tensor '${entry.name}' has no packed matrix '${matrix}' beside it`);
    }
    if (name === undefined) {
      throw new ModelError(
        `${where}: unexpected tensor '${entry.name}' in a model of ${config.sizes.layers} layers; ` +
          'the model computes something that is not supported here',
      );
    }
    const previous = tensors.get(name);
    if (previous) throw new ModelError(`${where}: both '${previous.name}' and '${entry.name}' are present`);
    const scale = entry.dtype === 'U8' ? readScale(entries, entry, config.linear) : undefined;
    tensors.set(name, { ...storage(entry), ...(scale === undefined ? {} : { scale }) });
  }
  return tensors;
}

function ourName(name: string, layers: number): string | undefined {
  if (Object.hasOwn(outerNames, name)) return outerNames[name];
  const match = /^model\.layers\.(\d+)\.(.+)$/.exec(name);
  if (!match || Number(match[1]) >= layers) return undefined;
  const suffix = match[2]!;
  // Constant tables that old Llama checkpoints saved by mistake.
  if (suffix === 'self_attn.rotary_emb.inv_freq') return 'ignore';
  if (suffix.endsWith('_proj.weight_scale')) return 'scale';
  return Object.hasOwn(layerNames, suffix) ? `blk.${Number(match[1])}.${layerNames[suffix]}` : undefined;
}

/** Place, encoding and logical size of a tensor. */
function storage(entry: Located): SourceTensor {
  const { name, file, offset, bytes, dtype, shape } = entry;
  const fail = (message: string): never => {
    throw new ModelError(`${path.basename(file)}: tensor '${name}' ${message}`);
  };
  if (shape.length !== 1 && shape.length !== 2) fail(`has shape ${shown(shape)}, not one or two dimensions`);
  const packed = dtype === 'U8';
  const encoding: Encoding | undefined = packed ? 'hf-u8' : floatTypes[dtype];
  if (!encoding) return fail(`has dtype ${dtype}; supported are U8 (packed ternary), BF16, F16 and F32`);
  const [rows, cols] = (shape.length === 1 ? [1, shape[0]] : shape) as [number, number];
  return { name, file, offset, bytes, encoding, rows: packed ? rows * 4 : rows, cols };
}

/** Reads `<matrix>_scale`. @returns scale with w = scale * t, representable as f32 */
function readScale(
  entries: ReadonlyMap<string, Located>,
  matrix: Located,
  linear: HuggingfaceConfig['linear'],
): number {
  const entry = entries.get(`${matrix.name}_scale`);
  const type = entry && floatTypes[entry.dtype];
  const where = path.basename(matrix.file);
  if (!linear) {
    throw new ModelError(
      `${where}: tensor '${matrix.name}' is packed, but config.json has no quantization_config, so it cannot be known ` +
        'whether its scale multiplies or divides; take the config.json that belongs to these weights (with "quant_method": ' +
        '"bitnet", and "linear_class": "autobitlinear" multiplies, "bitlinear" divides)',
    );
  }
  if (!entry || !type || entry.shape.reduce((a, b) => a * b, 1) !== 1) {
    throw new ModelError(
      `${where}: packed tensor '${matrix.name}' needs '${matrix.name}_scale' with one float; ` +
        'the model was quantised in another way or is incomplete',
    );
  }
  const stored = withModelFile(entry.file, (file) => readFloats(file, entry.offset, 1, type)[0]!);
  if (!(stored > 0 && Number.isFinite(stored))) {
    throw new ModelError(`${where}: '${entry.name}' is ${stored}, not a positive number; the file is damaged`);
  }
  return linear === 'autobitlinear' ? stored : Math.fround(1 / stored);
}

/** One line for people. @throws ModelError when the weights are those of an ordinary, dense model */
function describe(tensors: ReadonlyMap<string, SourceTensor>, config: HuggingfaceConfig): string {
  const sample = tensors.get('blk.0.attn_q');
  if (!sample) return 'unknown';
  if (!isFloat(sample.encoding)) {
    return `packed ternary (weight_scale ${config.linear === 'autobitlinear' ? 'multiplies' : 'divides'})`;
  }
  if (looksTernary(sample)) return `ternary values in ${sample.encoding}`;
  if (!config.linear && !config.masters) {
    throw new ModelError(
      `${path.basename(sample.file)}: tensor '${sample.name}' is not ternary and config.json has no quantization_config ` +
        'with quant_method "bitnet"; this is an ordinary dense model, take a BitNet b1.58 checkpoint',
    );
  }
  return `${sample.encoding} masters`;
}

/** The name people know: the repository in a Hugging Face cache path, else the folder, else what config.json says. */
function baseName(folder: string, config: HuggingfaceConfig): string {
  const parts = path.resolve(folder).split(path.sep);
  if (parts.at(-2) === 'snapshots') {
    const repository = parts.at(-3)?.split('--').at(-1);
    if (repository) return repository;
  }
  return parts.at(-1) || config.name || '';
}
