/** Which keys of a model's description are read, harmless or refused, and which tokens end a text; both formats. */
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { configKeys, ggufKeys, type KnownKeys, quantizationKeys, ropeKeys } from '../runtime/formats/known-keys.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import type { Value } from './formats-bytes.ts';
import {
  gguf,
  safetensors,
  smallConfig,
  smallGguf,
  smallTensors,
  temporaryFolder,
  writeFolder,
} from './formats-bytes.ts';

const root = temporaryFolder();

/** A folder with a changed config.json and further files. */
const folderWith = (config: object, more: Record<string, object> = {}): string =>
  writeFolder(mkdtempSync(path.join(root(), 'model-')), {
    'config.json': { ...smallConfig, ...config },
    'model.safetensors': safetensors(smallTensors()),
    ...more,
  });
const open = (config: object, allowConfig: string[] = []): ModelSource =>
  openModel(folderWith(config), { allowConfig });
const refuses = (config: object, message: RegExp, allowConfig: string[] = []): void =>
  assert.throws(() => open(config, allowConfig), { name: 'ModelError', message });

/** quantization_config with more in it. */
const quantised = (more: object): object => ({
  quantization_config: { ...smallConfig.quantization_config, ...more },
});

describe('docs/models.md', () => {
  it('has all keys but those of bookkeeping', () => {
    const text = readFileSync(path.join(import.meta.dirname, '../docs/models.md'), 'utf8');
    const named = ({ read, harmlessAt }: KnownKeys): string[] => [...read, ...Object.keys(harmlessAt)];
    const keys = [...named(configKeys), ...named(quantizationKeys), ...quantizationKeys.harmless];
    for (const key of keys) assert.ok(text.includes(`\`${key}\``), key);
    for (const key of named(ggufKeys)) {
      const spelt = key.split('.').map((_, i, parts) => (i === 0 ? `A.${key}` : `.${parts.slice(i).join('.')}`));
      assert.ok(
        spelt.some((spelling) => text.includes(`\`${spelling}\``)),
        key,
      );
    }
  });
});

describe('keys of config.json', () => {
  // As published, sizes and ids aside: keys from the files of these models.
  const published: Record<string, object> = {
    'microsoft/bitnet-b1.58-2B-4T': {
      auto_map: { AutoConfig: 'configuration_bitnet.BitNetConfig' },
      model_type: 'bitnet',
      initializer_range: 0.02,
      torch_dtype: 'bfloat16',
      transformers_version: '4.52.0.dev0',
      use_cache: true,
      ...quantised({ quantization_mode: 'offline' }),
    },
    '1bitLLM/bitnet_b1_58-3B': {
      _name_or_path: '1bitLLM/bitnet_b1_58-3B',
      architectures: ['BitnetForCausalLM'],
      attention_bias: false,
      attention_dropout: 0.0,
      input_bits: 8,
      model_type: 'llama',
      pad_token_id: 32000,
      pretraining_tp: 1,
      rope_scaling: null,
      torch_dtype: 'float16',
      transformers_version: '4.39.0',
      use_cache: true,
      weight_bits: 1,
    },
    'HF1BitLLM/Llama3-8B-1.58-100B-tokens': {
      _name_or_path: 'HF1BitLLM/Llama3-8B',
      architectures: ['LlamaForCausalLM'],
      attention_bias: false,
      attention_dropout: 0.0,
      is_bitnet_config: true,
      mlp_bias: false,
      model_type: 'llama',
      pretraining_tp: 1,
      quantization_config: { modules_to_not_convert: null, quant_method: 'bitnet' },
      rope_interleaved: false,
      rope_scaling: null,
      torch_dtype: 'bfloat16',
      transformers_version: '4.44.0.dev0',
      use_cache: true,
    },
    'tiiuae/Falcon3-7B-Instruct-1.58bit': {
      architectures: ['LlamaForCausalLM'],
      attention_bias: false,
      head_dim: 16,
      is_bitnet_config: true,
      mlp_bias: false,
      pretraining_tp: 1,
      quantization_config: { modules_to_not_convert: ['lm_head'], quant_method: 'bitnet' },
      rope_theta: 1000042,
      use_cache: true,
    },
    'saved by transformers 5': {
      dtype: 'bfloat16',
      rope_theta: undefined,
      rope_parameters: { rope_theta: 5000, rope_type: 'default' },
      layer_types: ['full_attention'],
      sliding_window: 4096,
      use_sliding_window: false,
      max_window_layers: 28,
      pruned_heads: {},
      id2label: { 0: 'LABEL_0' },
    },
  };
  for (const [name, config] of Object.entries(published)) {
    it(`of ${name} do no harm`, () => assert.deepEqual(open(config).notes, []));
  }

  for (const [where, { harmlessAt }, wrap] of [
    ['config.json', configKeys, (more: object) => more],
    ['quantization_config', quantizationKeys, quantised],
    ['rope_parameters', ropeKeys, (more: object) => ({ rope_parameters: more })],
  ] as const) {
    for (const [key, values] of Object.entries(harmlessAt)) {
      it(`${where}: ${key} is harmless at ${values.join(', ')} only`, () => {
        const full = where === 'config.json' ? key : `${where}.${key}`;
        for (const value of [...values, null]) assert.deepEqual(open(wrap({ [key]: value })).notes, []);
        const other = typeof values[0] === 'number' ? values[0] + 1 : typeof values[0] === 'boolean' ? !values[0] : 'x';
        refuses(wrap({ [key]: other }), new RegExp(`result: ${full} = .*--allow-config ${full}$`));
      });
    }
  }

  it('that are unknown are refused, all in one message', () =>
    refuses(
      { logit_scale: 0.5, clip_qkv: 8, ...quantised({ group_size: 128 }) },
      /^config\.json: unknown or unsupported, and may change the result: logit_scale = 0\.5, clip_qkv = 8, quantization_config\.group_size = 128; if it does no harm, give --allow-config logit_scale --allow-config clip_qkv --allow-config quantization_config\.group_size$/,
    ));

  it('that are unknown pass if they are allowed, with a note', () => {
    const config = { logit_scale: 0.5, ...quantised({ group_size: 128 }) };
    refuses(config, /result: quantization_config\.group_size = 128;/, ['logit_scale']);
    assert.deepEqual(open(config, ['logit_scale', 'quantization_config.group_size']).notes, [
      'config.json: logit_scale is ignored, as --allow-config says',
      'config.json: quantization_config.group_size is ignored, as --allow-config says',
    ]);
  });

  it('that state nothing pass', () => {
    assert.deepEqual(open({ anything: null, something: [], whatever: {} }).notes, []);
  });

  it('modules that stay dense are refused if they are projections', () => {
    for (const key of ['modules_to_not_convert', 'llm_int8_skip_modules']) {
      for (const harmless of [['lm_head'], ['lm_head', 'model.embed_tokens', 'model.layers.1'], [], 'lm_head']) {
        assert.deepEqual(open(quantised({ [key]: harmless })).notes, []);
      }
      for (const dense of ['model.layers.0.mlp.down_proj', 'down_proj', 'mlp', 'layers.0', 'model']) {
        refuses(
          quantised({ [key]: ['lm_head', dense] }),
          new RegExp(
            `quantization_config\\.${key} names "${dense}", so model\\.layers\\.0\\.\\S+_proj is a dense matrix`,
          ),
        );
      }
      // Patterns of Python are not understood.
      for (const unclear of [['.*head'], [''], [7], { a: 1 }, Array.from({ length: 1001 }, () => 'lm_head')]) {
        refuses(quantised({ [key]: unclear }), new RegExp(`result: quantization_config\\.${key} = `));
        assert.equal(open(quantised({ [key]: unclear }), [`quantization_config.${key}`]).notes.length, 1);
      }
    }
  });

  it('numbers may be texts', () => {
    const { shape, eos } = open({ hidden_size: '32', rms_norm_eps: '1e-5', rope_theta: '5e5', eos_token_id: ['2', 3] });
    assert.deepEqual([shape.hidden, shape.normEps, shape.ropeTheta, eos], [32, 1e-5, 500000, [2, 3]]);
  });

  it('rope_parameters and rope_theta must agree', () => {
    assert.equal(open({ rope_parameters: { rope_theta: '5000' } }).shape.ropeTheta, 5000);
    assert.equal(open({ rope_scaling: { type: 'linear', factor: '1.0' } }).shape.ropeTheta, 5000);
    refuses({ rope_parameters: { rope_theta: 7000 } }, /rope_parameters\.rope_theta is 7000, but rope_theta is 5000/);
    refuses({ rope_scaling: { type: 'linear', factor: 2 } }, /rope_scaling scales RoPE: .*"factor":2/);
    refuses({ rope_scaling: { type: 'linear' } }, /rope_scaling scales RoPE/);
    refuses({ rope_scaling: 'linear' }, /rope_scaling is "linear", not an object/);
    refuses({ rope_parameters: { full_attention: { rope_theta: 1 } } }, /rope_parameters\.full_attention/);
  });

  it('a window is refused where it slides', () => {
    refuses({ sliding_window: 4096 }, /result: sliding_window = 4096/);
    refuses({ sliding_window: 4096, use_sliding_window: true }, /sliding_window = 4096, use_sliding_window = true/);
  });
});

describe('keys of GGUF', () => {
  const open = (metadata: Record<string, Value | undefined>, allowConfig: string[] = []): ModelSource => {
    const base = smallGguf();
    const merged = Object.entries({ ...base.metadata, ...metadata }).filter(([, value]) => value !== undefined);
    const file = path.join(root(), 'model.gguf');
    writeFileSync(file, gguf({ ...base, metadata: Object.fromEntries(merged) as Record<string, Value> }));
    return openModel(file, { allowConfig });
  };
  const refuses = (metadata: Record<string, Value>, message: RegExp): void =>
    assert.throws(() => open(metadata), { name: 'ModelError', message });
  const arch = 'bitnet-b1.58';

  it('that are unknown are refused, or allowed with a note', () => {
    const key = `${arch}.attention.scale`;
    refuses(
      { [key]: { f32: 2 } },
      /^model\.gguf: .* may change the result: bitnet-b1\.58\.attention\.scale; .*--allow-config /,
    );
    assert.deepEqual(open({ [key]: { f32: 2 } }, [key]).notes, [
      'model.gguf: bitnet-b1.58.attention.scale is ignored, as --allow-config says',
    ]);
  });

  it('in other namespaces are harmless only where that is known', () => {
    const harmless = {
      'general.sampling.temp': { f32: 1 },
      'quantize.imatrix.file': 'x',
      'tokenizer.chat_template': 'x',
    };
    assert.deepEqual(open(harmless).notes, []);
    refuses({ 'prism.hadamard.version': 1 }, /result: prism\.hadamard\.version;/);
    // Those of another architecture are read by nobody.
    refuses({ 'llama.rope.freq_base': { f32: 7 } }, /result: llama\.rope\.freq_base = 7;/);
  });

  for (const [key, values] of Object.entries(ggufKeys.harmlessAt)) {
    it(`${key} is harmless at ${values.join(', ')} only`, () => {
      for (const value of values) assert.deepEqual(open({ [`${arch}.${key}`]: value }).notes, []);
      const other = typeof values[0] === 'number' ? 7 : typeof values[0] === 'boolean' ? !values[0] : 'x';
      refuses({ [`${arch}.${key}`]: other }, new RegExp(`result: bitnet-b1\\.58\\.${key} = (7|true|false|"x");`));
    });
  }

  describe('end marks', () => {
    const tokens = Array.from({ length: 16 }, (_, id) => `t${id}`);
    const marks = (spelt: Record<number, string>, types: Record<number, number> | undefined, more = {}): unknown => {
      const { endMarks } = open({
        'tokenizer.ggml.tokens': tokens.map((text, id) => spelt[id] ?? text),
        'tokenizer.ggml.token_type': types && tokens.map((_, id) => types[id] ?? 1),
        ...more,
      });
      return endMarks;
    };

    it('are control and user-defined tokens with a known spelling', () => {
      const spelt = { 5: '<|im_end|>', 6: '<|eot_id|>', 7: '</s>', 8: '<|endoftext|>' };
      assert.deepEqual(marks(spelt, { 5: 3, 6: 4, 8: 1 }), [
        { id: 2, text: 't2' },
        { id: 5, text: '<|im_end|>' },
        { id: 6, text: '<|eot_id|>' },
      ]);
      assert.deepEqual(marks({ 5: '<|im_start|>' }, { 5: 3 }), [{ id: 2, text: 't2' }]);
    });

    it('go by the spelling alone where no types are given', () =>
      assert.deepEqual(marks({ 5: '<end_of_turn>' }, undefined), [
        { id: 2, text: 't2' },
        { id: 5, text: '<end_of_turn>' },
      ]));

    it('ids outside the vocabulary are noted', () => {
      const model = open({ 'tokenizer.ggml.eos_token_id': 16, 'tokenizer.ggml.bos_token_id': 4294967295 });
      assert.deepEqual([model.bos, model.eos], [undefined, [9]]);
      assert.deepEqual(model.notes, [
        'tokenizer.ggml.bos_token_id 4294967295 is no token of the model (0 to 15) and is ignored',
        'tokenizer.ggml.eos_token_id 16 is no token of the model (0 to 15) and is ignored',
      ]);
    });

    it('may be none, which is noted', () => {
      const { eos, notes } = open({ 'tokenizer.ggml.eos_token_id': undefined, 'tokenizer.ggml.tokens': tokens });
      assert.deepEqual(eos, []);
      assert.match(notes[0]!, /^no token ends a text/);
    });
  });
});

describe('end marks of Hugging Face folders', () => {
  const marks = (more: Record<string, object>): unknown => openModel(folderWith({}, more)).endMarks;
  const token = (id: number, content: string, special = true): object => ({ id, content, special });

  it('are special added tokens of tokenizer.json with a known spelling', () => {
    const list = [token(2, '<end>'), token(7, '<|im_end|>'), token(8, '<|eot_id|>', false), token(99, '</s>')];
    assert.deepEqual(marks({ 'tokenizer.json': { added_tokens: list } }), [
      { id: 2, text: '<end>' },
      { id: 7, text: '<|im_end|>' },
    ]);
  });

  it('are found however the file is written', () => {
    const list =
      '[ {"content": "]}\\"[", "id": 3, "special": true}, {"id": 7, "special": true, "content": "<|eom_id|>"} ]';
    const text = `{"note": "\\"added_tokens\\": []", "vocab": {"added_tokens": 5},\n "added_tokens" :\t${list}, "model": {}}`;
    assert.deepEqual(marks({ 'tokenizer.json': Buffer.from(text) }), [{ id: 2 }, { id: 7, text: '<|eom_id|>' }]);
  });

  it('of a damaged tokenizer are noted to be unknown, as --tokens needs no tokenizer', () => {
    const damaged: readonly (readonly [file: string, text: string, reason: RegExp])[] = [
      [
        'tokenizer.json',
        '{"added_tokens": [{"id": 3',
        /tokenizer\.json: the list added_tokens has no end; the file is trunc/,
      ],
      ['tokenizer.json', '{"added_tokens": [{id: 3}]}', /tokenizer\.json: added_tokens is not valid JSON/],
      ['tokenizer_config.json', '{', /tokenizer_config\.json is not valid JSON/],
    ];
    for (const [file, text, reason] of damaged) {
      const { endMarks, notes } = openModel(folderWith({}, { [file]: Buffer.from(text) }));
      assert.deepEqual([endMarks, notes.length], [[{ id: 2 }], 1]);
      assert.match(notes[0]!, /^what ends a text is not known from the tokenizer: /);
      assert.match(notes[0]!, reason);
    }
  });

  it('are tokens of tokenizer_config.json, too, and its eos_token by spelling', () => {
    const decoder = { 3: { content: '</s>', special: true }, 4: { content: '<stop>', special: false } };
    const both = [{ id: 2 }, { id: 4, text: '<stop>' }, { id: 3, text: '</s>' }];
    for (const eos_token of ['<stop>', { content: '<stop>' }]) {
      assert.deepEqual(marks({ 'tokenizer_config.json': { eos_token, added_tokens_decoder: decoder } }), both);
    }
    const tokenizer = { added_tokens: [token(4, '<stop>', false)] };
    assert.deepEqual(marks({ 'tokenizer_config.json': { eos_token: '<stop>' }, 'tokenizer.json': tokenizer }), [
      { id: 2 },
      { id: 4, text: '<stop>' },
    ]);
    assert.deepEqual(marks({ 'tokenizer_config.json': { eos_token: 'elsewhere' } }), [{ id: 2 }]);
  });

  it('ids outside the vocabulary are noted', () => {
    const model = openModel(folderWith({ bos_token_id: -1 }, { 'generation_config.json': { eos_token_id: [2, 16] } }));
    assert.deepEqual([model.bos, model.eos], [undefined, [2]]);
    assert.deepEqual(model.notes, [
      'config.json: bos_token_id -1 is no token of the model (0 to 15) and is ignored',
      'generation_config.json: eos_token_id 16 is no token of the model (0 to 15) and is ignored',
    ]);
  });
});
