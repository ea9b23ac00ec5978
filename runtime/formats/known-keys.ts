/**
 * Which keys of a model's description are known, and what becomes of the others. A key that nobody here has heard of may
 * change what the model computes, and a model that is run without it writes fluent nonsense; so such a key is refused by name,
 * and `--allow-config KEY` is the way to say that it does no harm. docs/models.md has these tables for users.
 *
 * Sources: transformers' configuration_utils.py, configuration_llama.py, configuration_bitnet.py and BitNetQuantConfig; the
 * config.json of 1bitLLM, BitNet 2B4T, Falcon3, Falcon-E and Llama3-8B-1.58; gguf-py's constants.py.
 */
import { ModelError } from '../../schemas/error.ts';
import { isRecord, listed, numberOf, shown } from './json.ts';

type Scalar = string | number | boolean;

/** What is known of the keys of one object. */
export interface KnownKeys {
  /** The reader looks at them, and refuses values that it cannot follow. */
  readonly read: readonly string[];
  /** They say nothing about the result. */
  readonly harmless: readonly string[];
  /** They change nothing at these values. */
  readonly harmlessAt: Readonly<Record<string, readonly Scalar[]>>;
}

/** config.json. */
export const configKeys: KnownKeys = {
  read: [
    ...['architectures', '_name_or_path', 'quantization_config', 'rope_scaling', 'rope_parameters', 'rope_theta'],
    ...['hidden_size', 'num_hidden_layers', 'num_attention_heads', 'num_key_value_heads', 'head_dim'],
    ...['intermediate_size', 'vocab_size', 'max_position_embeddings', 'hidden_act', 'rms_norm_eps'],
    ...['tie_word_embeddings', 'bos_token_id', 'eos_token_id'],
  ],
  harmless: [
    // Bookkeeping.
    ...['model_type', 'torch_dtype', 'dtype', 'transformers_version', 'auto_map', 'name_or_path', '_commit_hash'],
    ...['attn_implementation', '_attn_implementation', '_attn_implementation_autoset', 'is_bitnet_config'],
    ...['unsloth_version', 'unsloth_fixed', 'transformers.js_config', 'tokenizer_class', 'pad_token_id'],
    ...['unk_token_id', 'sep_token_id', 'keys_to_ignore_at_inference', 'problem_type', 'task_specific_params'],
    ...['finetuning_task', 'num_labels', 'id2label', 'label2id', 'output_attentions', 'output_hidden_states'],
    ...['output_scores', 'return_dict', 'use_return_dict', 'return_dict_in_generate', 'torchscript'],
    ...['tf_legacy_loss', 'use_bfloat16'],
    // Training.
    ...['initializer_range', 'attention_dropout', 'hidden_dropout', 'resid_pdrop', 'embd_pdrop', 'attn_pdrop'],
    ...['gradient_checkpointing', 'use_cache', 'chunk_size_feed_forward', 'max_window_layers'],
    // Sampling, which old versions of transformers kept here.
    ...['max_length', 'min_length', 'do_sample', 'early_stopping', 'num_beams', 'num_beam_groups', 'temperature'],
    ...['diversity_penalty', 'top_k', 'top_p', 'typical_p', 'repetition_penalty', 'length_penalty', 'bad_words_ids'],
    ...['no_repeat_ngram_size', 'encoder_no_repeat_ngram_size', 'num_return_sequences', 'remove_invalid_values'],
    ...['forced_bos_token_id', 'forced_eos_token_id', 'exponential_decay_length_penalty', 'suppress_tokens'],
    ...['begin_suppress_tokens', 'prefix', 'decoder_start_token_id', 'is_decoder'],
  ],
  harmlessAt: {
    attention_bias: [false],
    mlp_bias: [false],
    pretraining_tp: [1],
    input_bits: [8],
    weight_bits: [1],
    rope_interleaved: [false],
    partial_rotary_factor: [1],
    use_sliding_window: [false],
    layer_types: ['full_attention'],
    add_cross_attention: [false],
    is_encoder_decoder: [false],
    tie_encoder_decoder: [false],
  },
};

/** quantization_config of config.json. */
export const quantizationKeys: KnownKeys = {
  read: ['quant_method', 'linear_class', 'modules_to_not_convert', 'llm_int8_skip_modules'],
  harmless: [
    // The weights themselves tell whether they are packed, and the norms' epsilon matters only with use_rms_norm.
    ...['quantization_mode', 'rms_norm_eps'],
  ],
  harmlessAt: { use_rms_norm: [false], bits: [2] },
};

/** rope_scaling and rope_parameters of config.json, once their type is known to scale nothing. */
export const ropeKeys: KnownKeys = {
  read: ['rope_type', 'type', 'rope_theta', 'factor'],
  harmless: [
    ...['original_max_position_embeddings', 'low_freq_factor', 'high_freq_factor', 'beta_fast', 'beta_slow'],
    ...['short_factor', 'long_factor', 'mscale', 'mscale_all_dim', 'finetuned'],
  ],
  harmlessAt: { partial_rotary_factor: [1], attention_factor: [1] },
};

/** Keys of a GGUF file below its architecture: `llama.context_length` is `context_length`. */
export const ggufKeys: KnownKeys = {
  read: [
    ...['vocab_size', 'context_length', 'embedding_length', 'block_count', 'feed_forward_length', 'hidden_activation'],
    ...['attention.head_count', 'attention.head_count_kv', 'attention.key_length', 'attention.value_length'],
    ...['attention.layer_norm_rms_epsilon', 'rope.dimension_count', 'rope.freq_base', 'rope.scale_linear'],
    ...['rope.scaling.type', 'rope.scaling.factor'],
  ],
  harmless: [
    // Without scaling, which is refused on its own, they mean nothing.
    ...['rope.scaling.original_context_length', 'rope.scaling.finetuned', 'rope.scaling.yarn_log_multiplier'],
    ...['rope.scaling.yarn_ext_factor', 'rope.scaling.yarn_beta_fast', 'rope.scaling.yarn_beta_slow'],
  ],
  harmlessAt: {
    'rope.scaling.attn_factor': [1],
    'attention.causal': [true],
    'attention.sliding_window': [0],
    'attention.clamp_kqv': [0],
    'attention.max_alibi_bias': [0],
    attn_logit_softcapping: [0],
    final_logit_softcapping: [0],
    expert_count: [0],
    expert_used_count: [0],
    leading_dense_block_count: [0],
    nextn_predict_layers: [0],
    pooling_type: [0],
    use_parallel_residual: [false],
    tensor_data_layout: ['Meta AI original pth'],
  },
};

/** Namespaces of GGUF in which nothing changes what a model computes; `tokenizer.` is the tokenizer's affair. */
export const harmlessNamespaces = ['general.', 'tokenizer.', 'quantize.', 'split.', 'mradermacher.'] as const;

/** Is this value one of those, or does it state nothing: null, an empty list or object? */
function isHarmless(value: unknown, values: readonly Scalar[]): boolean {
  if (value === null) return true;
  if (Array.isArray(value)) return value.every((item) => isHarmless(item, values));
  if (isRecord(value)) return Object.keys(value).length === 0;
  return values.some((known) => known === value || (typeof known === 'number' && known === numberOf(value)));
}

/**
 * The keys that may change the result though nobody reads them.
 * @param entries keys with their values; undefined: not known
 * @param prefix stands before the keys in messages and in --allow-config
 */
export function unknownKeys(
  entries: Iterable<readonly [string, unknown]>,
  known: KnownKeys,
  prefix = '',
): { key: string; value: unknown }[] {
  const unread: { key: string; value: unknown }[] = [];
  for (const [key, value] of entries) {
    if (known.read.includes(key) || known.harmless.includes(key)) continue;
    const values = Object.hasOwn(known.harmlessAt, key) ? known.harmlessAt[key]! : [];
    if (!isHarmless(value, values)) unread.push({ key: prefix + key, value });
  }
  return unread;
}

/**
 * Refuses unknown keys, except those that the user allowed.
 * @returns a note for each that was allowed
 * @throws ModelError naming the keys, their values and how to allow them
 */
export function refuseUnknown(
  where: string,
  unknown: readonly { key: string; value?: unknown }[],
  allowed: readonly string[],
): string[] {
  const refused = unknown.filter(({ key }) => !allowed.includes(key));
  if (refused.length) {
    const plain = (key: string): string => (/^[\w.-]{1,200}$/.test(key) ? key : shown(key));
    const facts = refused.map(({ key, value }) => plain(key) + (value === undefined ? '' : ` = ${shown(value)}`));
    throw new ModelError(
      `${where}: unknown or unsupported, and may change the result: ${listed(facts)}; if it does no harm, give ` +
        listed(refused.map(({ key }) => `--allow-config ${plain(key)}`)).replaceAll(', ', ' '),
    );
  }
  return unknown.map(({ key }) => `${where}: ${key} is ignored, as --allow-config says`);
}
