/**
 * The JSON files beside Hugging Face weights: config.json (shape, activation, quantisation), generation_config.json (eos) and
 * the tokenizer's files. huggingface.ts joins them with the weights.
 *
 * Fields as in transformers' configuration_bitnet.py and configuration_llama.py. Missing fields get the defaults of these
 * classes only where a different value would be an odd model: num_key_value_heads = num_attention_heads, head_dim = hidden /
 * heads, rms_norm_eps 1e-5, rope_theta 10000, max_position_embeddings 2048. Sizes have no default.
 */
import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import path from 'node:path';
import { ModelError } from '../../schemas/error.ts';
import type { ModelShape } from '../../schemas/types.ts';
import type { TokenizerSource } from './source.ts';

type Json = Record<string, unknown>;

/** hidden_act where config.json does not say; the families differ (1bitLLM and Llama: SiLU, 2B4T: squared ReLU). */
const architectures: Readonly<Record<string, { readonly activation: ModelShape['activation'] }>> = {
  BitNetForCausalLM: { activation: 'relu2' },
  BitnetForCausalLM: { activation: 'silu' },
  LlamaForCausalLM: { activation: 'silu' },
};

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
  /** quantization_config says BitNet. */
  readonly bitnet: boolean;
  /** The architecture is BitNet whatever quantization_config says, so float matrices are master weights. */
  readonly masters: boolean;
  /** Packed weights: w = t * weight_scale (autobitlinear) or t / weight_scale (bitlinear). */
  readonly scaleMultiplies: boolean;
  readonly name?: string;
  readonly bos?: number;
  readonly eos: readonly number[];
}

/** Parses a JSON object file. @throws ModelError when it is missing or is no JSON object */
export function readJson(file: string): Json {
  const name = path.basename(file);
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new ModelError(`${file}: no such file; a model folder holds config.json and model.safetensors`);
    }
    throw new ModelError(`${name}: cannot be read as JSON (${(error as Error).message})`, { cause: error });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new ModelError(`${name}: not a JSON object`);
  return json as Json;
}

/** Reads config.json and generation_config.json of a folder. @throws ModelError naming the field and its value */
export function readConfig(folder: string): HuggingfaceConfig {
  const config = readJson(path.join(folder, 'config.json'));
  const fail = (message: string): never => {
    throw new ModelError(`config.json: ${message}`);
  };
  const number = (key: string, fallback?: number): number => {
    const value = config[key] ?? fallback;
    return typeof value === 'number' ? value : fail(`field '${key}' is ${JSON.stringify(value)}, not a number`);
  };

  const known = Object.keys(architectures).join(', ');
  const architecture = Array.isArray(config.architectures) ? config.architectures[0] : undefined;
  if (typeof architecture !== 'string' || !Object.hasOwn(architectures, architecture)) {
    return fail(`unknown architecture ${JSON.stringify(architecture ?? null)}; known are ${known}`);
  }

  const activation = config.hidden_act ?? architectures[architecture]!.activation;
  if (activation !== 'relu2' && activation !== 'silu') {
    return fail(`hidden_act ${JSON.stringify(activation)} is not supported; known are relu2 and silu`);
  }
  for (const key of ['attention_bias', 'mlp_bias']) {
    if (config[key]) fail(`${key} is ${JSON.stringify(config[key])}; models with biases are not supported`);
  }
  if ((config.input_bits ?? 8) !== 8) {
    fail(`input_bits is ${JSON.stringify(config.input_bits)}; only 8-bit activations are supported`);
  }
  if ((config.partial_rotary_factor ?? 1) !== 1) fail('partial_rotary_factor is not 1; partial RoPE is not supported');
  const hidden = number('hidden_size');
  const heads = number('num_attention_heads');
  const { name, tied } = {
    name: typeof config._name_or_path === 'string' ? config._name_or_path.split('/').at(-1) : undefined,
    tied: typeof config.tie_word_embeddings === 'boolean' ? config.tie_word_embeddings : undefined,
  };
  const bos = tokenIds(config, 'bos_token_id', fail)[0];
  const generation = path.join(folder, 'generation_config.json');
  const eos = [
    ...tokenIds(config, 'eos_token_id', fail),
    ...(existsSync(generation) ? tokenIds(readJson(generation), 'eos_token_id', fail) : []),
  ];
  return {
    sizes: {
      hidden,
      layers: number('num_hidden_layers'),
      heads,
      kvHeads: number('num_key_value_heads', heads),
      headSize: number('head_dim', hidden / heads),
      intermediate: number('intermediate_size'),
      vocabulary: number('vocab_size'),
      context: number('max_position_embeddings', 2048),
    },
    activation,
    normEps: number('rms_norm_eps', 1e-5),
    ropeTheta: ropeTheta(config, fail) ?? number('rope_theta', 10000),
    masters: architecture !== 'LlamaForCausalLM',
    ...quantisation(config, fail),
    eos: [...new Set(eos)],
    ...(tied === undefined ? {} : { tied }),
    ...(name ? { name } : {}),
    ...(bos === undefined ? {} : { bos }),
  };
}

type Fail = (message: string) => never;

/** quantization_config: absent for plain float checkpoints. */
function quantisation(config: Json, fail: Fail): { bitnet: boolean; scaleMultiplies: boolean } {
  const value = config.quantization_config;
  if (value === undefined || value === null) return { bitnet: false, scaleMultiplies: false };
  const { quant_method: method, linear_class: linear = 'bitlinear', use_rms_norm: norms } = value as Json;
  if (method !== 'bitnet') {
    fail(`quantization_config.quant_method is ${JSON.stringify(method)}; only "bitnet" weights are ternary`);
  }
  if (linear !== 'bitlinear' && linear !== 'autobitlinear') {
    fail(
      `quantization_config.linear_class ${JSON.stringify(linear)} is unknown; known are bitlinear and autobitlinear`,
    );
  }
  if (norms) fail('quantization_config.use_rms_norm is set; norms inside BitLinear are not supported');
  return { bitnet: true, scaleMultiplies: linear === 'autobitlinear' };
}

/**
 * Refuses scaled RoPE. transformers 5 writes rope_parameters { rope_type, rope_theta } in place of rope_theta and
 * rope_scaling; the type "default" means no scaling.
 * @returns theta from rope_parameters, if there
 */
function ropeTheta(config: Json, fail: Fail): number | undefined {
  for (const key of ['rope_scaling', 'rope_parameters']) {
    const value = config[key] as Json | null | undefined;
    if (value === undefined || value === null) continue;
    const type = value.rope_type ?? value.type;
    if (type !== 'default') fail(`${key} ${JSON.stringify(value)} is not supported; only unscaled RoPE is`);
    if (typeof value.rope_theta === 'number') return value.rope_theta;
  }
  return undefined;
}

/** A token id, a list of them, or nothing. */
function tokenIds(json: Json, key: string, fail: Fail): number[] {
  const value = json[key];
  if (value === undefined || value === null) return [];
  const ids = Array.isArray(value) ? value : [value];
  return ids.every((id) => Number.isInteger(id))
    ? ids
    : fail(`field '${key}' is ${JSON.stringify(value)}, not token ids`);
}

/** What the tokenizer's files tell. */
export interface HuggingfaceTokenizer {
  readonly tokenizer?: TokenizerSource;
  /** Id of `<|eot_id|>`, which ends turns though neither config file may name it. */
  readonly endOfTurn?: number;
}

/** Finds the tokenizer: tokenizer.json, else a tiktoken tokenizer.model, else none. @param bos config.json's */
export function findTokenizer(folder: string, bos: number | undefined): HuggingfaceTokenizer {
  const inFolder = (name: string): string | undefined => {
    const file = path.join(folder, name);
    return existsSync(file) ? file : undefined;
  };
  const tokenizer = inFolder('tokenizer.json');
  const config = inFolder('tokenizer_config.json');
  const ranks = inFolder('tokenizer.model');

  if (tokenizer) {
    const endOfTurn = addedToken(tokenizer, '<|eot_id|>');
    return {
      tokenizer: {
        kind: 'huggingface',
        tokenizer,
        ...(config ? { config } : {}),
        ...(bos === undefined ? {} : { bos }),
      },
      ...(endOfTurn === undefined ? {} : { endOfTurn }),
    };
  }
  if (ranks && isTiktoken(ranks)) {
    // Llama 3's specials follow the ranks and are not in the file: <|eot_id|> is the tenth of them.
    const count = readFileSync(ranks, 'latin1').trimEnd().split('\n').length;
    return { tokenizer: { kind: 'tiktoken', ranks, ...(config ? { config } : {}) }, endOfTurn: count + 9 };
  }
  return {};
}

/**
 * Id of an added token in tokenizer.json. Its entries are flat objects, so one can be cut out of the text without parsing
 * the other 9 MB (Llama 3), which would take longer than everything else in opening a model.
 */
function addedToken(file: string, content: string): number | undefined {
  const quoted = JSON.stringify(content);
  try {
    const json = readFileSync(file, 'utf8');
    const at = json.indexOf(quoted);
    if (at < 0) return undefined;
    const before = json.lastIndexOf('{', at);
    const after = json.indexOf('}', at);
    const entry: unknown = JSON.parse(json.slice(before, after + 1));
    const { id, content: found } = entry as { id?: unknown; content?: unknown };
    return found === content && Number.isInteger(id) ? (id as number) : undefined;
  } catch {
    return undefined;
  }
}

/** tokenizer.model is "base64 rank" lines in Llama 3's repositories, but a SentencePiece protobuf in 1bitLLM's. */
function isTiktoken(file: string): boolean {
  const start = Buffer.alloc(64);
  const fd = openSync(file, 'r');
  try {
    const length = readSync(fd, start, 0, start.length, 0);
    return /^[A-Za-z0-9+/]+=* \d+\r?\n/.test(start.toString('latin1', 0, length));
  } finally {
    closeSync(fd);
  }
}
