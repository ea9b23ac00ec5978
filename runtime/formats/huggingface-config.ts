/**
 * The JSON files beside Hugging Face weights: config.json (shape, activation, quantisation), generation_config.json (eos) and
 * the tokenizer's files. huggingface.ts joins them with the weights.
 *
 * Fields as in transformers' configuration_bitnet.py and configuration_llama.py, versions 4 and 5: version 5 writes
 * rope_parameters in place of rope_theta and rope_scaling. Missing fields get the defaults of these classes only where a
 * different value would be an odd model: num_key_value_heads = num_attention_heads, head_dim = hidden / heads, rms_norm_eps
 * 1e-5, rope_theta 10000, max_position_embeddings 2048. Sizes have no default. known-keys.ts says what becomes of other fields.
 */
import path from 'node:path';
import { ModelError } from '../../schemas/error.ts';
import type { ModelShape } from '../../schemas/types.ts';
import type { NamedToken } from './end-marks.ts';
import { isPresent, withModelFile } from './file.ts';
import { isRecord, type Json, numberOf, readJson, shown } from './json.ts';
import { configKeys, quantizationKeys, refuseUnknown, ropeKeys, unknownKeys } from './known-keys.ts';
import type { TokenizerSource } from './source.ts';

/** hidden_act where config.json does not say; the families differ (1bitLLM and Llama: SiLU, 2B4T: squared ReLU). */
const architectures: Readonly<Record<string, { readonly activation: ModelShape['activation'] }>> = {
  BitNetForCausalLM: { activation: 'relu2' },
  BitnetForCausalLM: { activation: 'silu' },
  LlamaForCausalLM: { activation: 'silu' },
};

/** BitLinear matrices of a layer, below `model.layers.N.`. */
const projections = [
  ...['q', 'k', 'v', 'o'].map((name) => `self_attn.${name}_proj`),
  ...['gate', 'up', 'down'].map((name) => `mlp.${name}_proj`),
];

/** What config.json tells; the rest of the shape comes from the tensors. */
export interface HuggingfaceConfig {
  readonly sizes: Pick<
    ModelShape,
    'hidden' | 'layers' | 'heads' | 'kvHeads' | 'headSize' | 'intermediate' | 'vocabulary' | 'context'
  >;
  readonly activation: ModelShape['activation'];
  readonly normEps: number;
  readonly ropeTheta: number;
  /** Undefined when the file does not say. */
  readonly tied?: boolean;
  /** The architecture is BitNet whatever quantization_config says, so float matrices are master weights. */
  readonly masters: boolean;
  /**
   * quantization_config says BitNet, and what packed weights are: t * weight_scale (autobitlinear) or t / weight_scale
   * (bitlinear). Absent without a quantization_config.
   */
  readonly linear?: 'autobitlinear' | 'bitlinear';
  readonly name?: string;
  readonly bos?: NamedToken;
  readonly eos: readonly NamedToken[];
  readonly notes: readonly string[];
}

type Fail = (message: string) => never;

/**
 * Reads config.json and generation_config.json of a folder.
 * @param allowed keys that may be ignored though they are unknown
 * @throws ModelError naming the field and its value
 */
export function readConfig(folder: string, allowed: readonly string[]): HuggingfaceConfig {
  const config = readJson(path.join(folder, 'config.json'));
  const fail: Fail = (message) => {
    throw new ModelError(`config.json: ${message}`);
  };
  const number = (key: string, fallback?: number): number =>
    numberOf(config[key] ?? fallback) ?? fail(`field '${key}' is ${shown(config[key])}, not a number`);

  const known = Object.keys(architectures).join(', ');
  const architecture = Array.isArray(config.architectures) ? config.architectures[0] : undefined;
  if (typeof architecture !== 'string' || !Object.hasOwn(architectures, architecture)) {
    return fail(`unknown architecture ${shown(architecture ?? null)}; known are ${known}`);
  }
  const activation = config.hidden_act ?? architectures[architecture]!.activation;
  if (activation !== 'relu2' && activation !== 'silu') {
    return fail(`hidden_act ${shown(activation)} is not supported; known are relu2 and silu`);
  }
  const tied = config.tie_word_embeddings ?? undefined;
  if (tied !== undefined && typeof tied !== 'boolean') {
    return fail(`tie_word_embeddings is ${shown(tied)}, not true or false`);
  }
  const hidden = number('hidden_size');
  const heads = number('num_attention_heads');
  const layers = number('num_hidden_layers');
  const rope = readRope(config, fail);
  const quantisation = readQuantisation(config, layers, fail);
  // Only where it slides.
  const unread = unknownKeys(Object.entries(config), configKeys).filter(
    ({ key }) => key !== 'sliding_window' || config.use_sliding_window !== false,
  );
  const notes = refuseUnknown('config.json', [...unread, ...rope.unknown, ...quantisation.unknown], allowed);

  const name = typeof config._name_or_path === 'string' ? config._name_or_path.split('/').at(-1) : undefined;
  const bos = tokenIds(config, 'config.json', 'bos_token_id')[0];
  const generation = path.join(folder, 'generation_config.json');
  return {
    sizes: {
      hidden,
      layers,
      heads,
      kvHeads: number('num_key_value_heads', heads),
      headSize: number('head_dim', hidden / heads),
      intermediate: number('intermediate_size'),
      vocabulary: number('vocab_size'),
      context: number('max_position_embeddings', 2048),
    },
    activation,
    normEps: number('rms_norm_eps', 1e-5),
    ropeTheta: rope.theta ?? number('rope_theta', 10000),
    masters: architecture !== 'LlamaForCausalLM',
    ...(quantisation.linear ? { linear: quantisation.linear } : {}),
    eos: [
      ...tokenIds(config, 'config.json', 'eos_token_id'),
      ...(isPresent(generation) ? tokenIds(readJson(generation), 'generation_config.json', 'eos_token_id') : []),
    ],
    notes,
    ...(tied === undefined ? {} : { tied }),
    ...(name ? { name } : {}),
    ...(bos === undefined ? {} : { bos }),
  };
}

type Unknown = ReturnType<typeof unknownKeys>;

/** quantization_config: absent for plain float checkpoints. */
function readQuantisation(
  config: Json,
  layers: number,
  fail: Fail,
): { linear?: NonNullable<HuggingfaceConfig['linear']>; unknown: Unknown } {
  const value = config.quantization_config ?? undefined;
  if (value === undefined) return { unknown: [] };
  if (!isRecord(value)) return fail(`quantization_config is ${shown(value)}, not an object`);
  if (value.quant_method !== 'bitnet') {
    fail(`quantization_config.quant_method is ${shown(value.quant_method)}; only "bitnet" weights are ternary`);
  }
  // Some writers give the name of the class: AutoBitLinear.
  const given = value.linear_class ?? 'bitlinear';
  const linear = typeof given === 'string' ? given.toLowerCase() : given;
  if (linear !== 'bitlinear' && linear !== 'autobitlinear') {
    return fail(`quantization_config.linear_class ${shown(given)} is unknown; known are bitlinear and autobitlinear`);
  }
  const unknown = unknownKeys(Object.entries(value), quantizationKeys, 'quantization_config.');
  for (const key of ['modules_to_not_convert', 'llm_int8_skip_modules']) {
    if (!areElsewhere(value[key] ?? [], key, layers, fail)) {
      unknown.push({ key: `quantization_config.${key}`, value: value[key] });
    }
  }
  return { linear, unknown };
}

/**
 * Whether all modules of a list that shall stay as they are lie outside the layers (`lm_head`). transformers takes an entry as
 * a part of a module's name or as a pattern.
 * @returns false for a list with entries that are no plain names
 * @throws ModelError when an entry names projections: they would be dense
 */
function areElsewhere(modules: unknown, key: string, layers: number, fail: Fail): boolean {
  const list = Array.isArray(modules) ? modules : [modules];
  if (list.length > 1000 || !list.every((entry) => typeof entry === 'string' && /^[\w.-]+$/.test(entry))) return false;
  const names = Array.from({ length: Math.min(1024, Math.max(0, layers)) || 0 }, (_, layer) =>
    projections.map((name) => `model.layers.${layer}.${name}`),
  ).flat();
  const text = names.join('\n');
  for (const entry of list as string[]) {
    if (!text.includes(entry)) continue;
    const dense = names.find((name) => name.includes(entry));
    fail(
      `quantization_config.${key} names ${shown(entry)}, so ${dense} is a dense matrix; ` +
        'all projections must be ternary, take a checkpoint in which they are',
    );
  }
  return true;
}

/**
 * RoPE's theta, and a refusal of scaled RoPE. rope_scaling (version 4) and rope_parameters (version 5) say how the frequencies
 * are scaled; without a type, or with the type "default" or a linear factor of 1, they are not.
 */
function readRope(config: Json, fail: Fail): { theta?: number; unknown: Unknown } {
  const unknown: Unknown = [];
  let theta: number | undefined;
  for (const key of ['rope_scaling', 'rope_parameters']) {
    const value = config[key] ?? undefined;
    if (value === undefined) continue;
    if (!isRecord(value)) return fail(`${key} is ${shown(value)}, not an object`);
    const type = value.rope_type ?? value.type ?? 'default';
    if (type !== 'default' && !(type === 'linear' && numberOf(value.factor) === 1)) {
      fail(`${key} scales RoPE: ${shown(value)}; type ${shown(type)} is not supported, only unscaled RoPE is`);
    }
    unknown.push(...unknownKeys(Object.entries(value), ropeKeys, `${key}.`));
    if (value.rope_theta === undefined || value.rope_theta === null) continue;
    theta = numberOf(value.rope_theta) ?? fail(`${key}.rope_theta is ${shown(value.rope_theta)}, not a number`);
    const other = numberOf(config.rope_theta);
    if (other !== undefined && other !== theta) {
      fail(`${key}.rope_theta is ${theta}, but rope_theta is ${other}; remove the one that is wrong`);
    }
  }
  return { unknown, ...(theta === undefined ? {} : { theta }) };
}

/** A token id, a list of them, or nothing. */
function tokenIds(json: Json, file: string, key: string): NamedToken[] {
  const value = json[key] ?? [];
  const ids = (Array.isArray(value) ? value : [value]).map(numberOf);
  if (ids.length > 1000 || !ids.every((id) => Number.isInteger(id))) {
    throw new ModelError(`${file}: field '${key}' is ${shown(value)}, not token ids`);
  }
  return ids.map((id) => ({ from: `${file}: ${key}`, id: id! }));
}

/** What the tokenizer's files tell. */
export interface HuggingfaceTokenizer {
  readonly tokenizer?: TokenizerSource;
  /** Why there is no tokenizer, and what to do. */
  readonly noTokenizer?: string;
}

/** Finds the tokenizer: tokenizer.json, else a tiktoken tokenizer.model, else none. */
export function findTokenizer(folder: string): HuggingfaceTokenizer {
  const inFolder = (name: string): string | undefined => {
    const file = path.join(folder, name);
    return isPresent(file) ? file : undefined;
  };
  const tokenizer = inFolder('tokenizer.json');
  const config = inFolder('tokenizer_config.json');
  const ranks = inFolder('tokenizer.model');

  if (tokenizer) return { tokenizer: { kind: 'huggingface', tokenizer, ...(config ? { config } : {}) } };
  if (ranks && isTiktoken(ranks)) return { tokenizer: { kind: 'tiktoken', ranks, ...(config ? { config } : {}) } };
  const noTokenizer = ranks
    ? 'tokenizer.model is a SentencePiece model, which is not read; download tokenizer.json, or make it: ' +
      "transformers' AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    : 'the folder holds no tokenizer.json; download it';
  return { noTokenizer };
}

/** tokenizer.model is "base64 rank" lines in Llama 3's repositories, but a SentencePiece protobuf in 1bitLLM's. */
function isTiktoken(file: string): boolean {
  const start = withModelFile(file, (opened) => opened.read(0, Math.min(64, opened.size)));
  return /^[A-Za-z0-9+/]+=* \d+\r?\n/.test(start.toString('latin1'));
}
