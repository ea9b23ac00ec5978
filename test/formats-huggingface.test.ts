/** Hugging Face folders: configuration fields, shards, packed and float weights, tokenizer files, and what is refused. */
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { openModel } from '../runtime/formats/open.ts';
import type { Entry } from './formats-bytes.ts';
import {
  bf16,
  safetensors,
  smallConfig,
  smallFloats,
  smallTensors,
  temporaryFolder,
  writeFolder,
} from './formats-bytes.ts';

describe('Hugging Face folders', () => {
  const root = temporaryFolder();
  const folder = (files: Record<string, object | Buffer | string>): string =>
    writeFolder(mkdtempSync(path.join(root(), 'model-')), files);
  /** A small model with changed configuration, tensors and further files. */
  const model = (config: object = {}, tensors: Record<string, Entry> = smallTensors(), more: object = {}): string =>
    folder({ 'config.json': { ...smallConfig, ...config }, 'model.safetensors': safetensors(tensors), ...more });
  const refuses = (file: string, message: RegExp): void =>
    assert.throws(() => openModel(file), { name: 'ModelError', message });

  it('opens the smallest model', () => {
    const { shape, bos, eos, tokenizer } = openModel(model());
    assert.deepEqual([shape.headSize, shape.normEps, shape.ropeTheta], [16, 1e-6, 5000]);
    assert.deepEqual([bos, eos, tokenizer], [1, [2], undefined]);
  });

  it('names models after their folder, or their repository in the Hugging Face cache', () => {
    const named = (...parts: string[]): string => {
      const target = path.join(root(), ...parts);
      mkdirSync(target, { recursive: true });
      writeFolder(target, { 'config.json': smallConfig, 'model.safetensors': safetensors(smallTensors()) });
      return openModel(target).shape.name;
    };
    const first = named('Some.Model_v2');
    assert.match(first, /^some-model-v2-[0-9a-f]{6}$/);
    assert.equal(named('models--org--Some.Model_v2', 'snapshots', '0123abcd'), first);
    assert.match(named('---'), /^model-[0-9a-f]{6}$/);
  });

  it('gives different shapes different names', () => {
    const names = [{}, { rope_theta: 6000 }, { hidden_act: 'silu' }].map((config) => {
      const target = model(config);
      return openModel(target).shape.name.slice(-6);
    });
    assert.equal(new Set(names).size, 3);
  });

  it('gives defaults to missing fields', () => {
    const { shape } = openModel(
      model({ rms_norm_eps: undefined, rope_theta: null, max_position_embeddings: undefined, hidden_act: undefined }),
    );
    assert.deepEqual([shape.normEps, shape.ropeTheta, shape.context, shape.activation], [1e-5, 10000, 2048, 'relu2']);
    assert.equal(
      openModel(model({ architectures: ['BitnetForCausalLM'], hidden_act: undefined })).shape.activation,
      'silu',
    );
    const { shape: newer } = openModel(
      model({ rope_theta: undefined, rope_parameters: { rope_type: 'default', rope_theta: 7000 } }),
    );
    assert.equal(newer.ropeTheta, 7000);
  });

  it('takes head_dim where it differs from hidden / heads', () => {
    const tensors = smallTensors();
    const layer = 'model.layers.0.self_attn.';
    for (const [name, shape] of [
      ['q', [4, 32]],
      ['k', [2, 32]],
      ['v', [2, 32]],
      ['o', [8, 16]],
    ] as const) {
      tensors[`${layer}${name}_proj.weight`] = { dtype: 'U8', shape: [...shape] };
    }
    tensors[`${layer}attn_sub_norm.weight`] = { dtype: 'BF16', shape: [16] };
    assert.equal(openModel(model({ head_dim: 8 }, tensors)).shape.headSize, 8);
  });

  it('multiplies by the scale for autobitlinear and divides otherwise', () => {
    const tensors = smallTensors();
    tensors['model.layers.0.mlp.up_proj.weight_scale'] = {
      dtype: 'F32',
      shape: [],
      data: Buffer.from([0, 0, 128, 64]),
    };
    const scales = (config: object): unknown[] => {
      const { tensors: found, quantisation } = openModel(model(config, tensors));
      return [found.get('blk.0.attn_q')?.scale, found.get('blk.0.ffn_up')?.scale, quantisation];
    };
    assert.deepEqual(scales({}), [0.5, 4, 'packed ternary (weight_scale multiplies)']);
    const divides = [2, 0.25, 'packed ternary (weight_scale divides)'];
    assert.deepEqual(scales({ quantization_config: { quant_method: 'bitnet', linear_class: 'bitlinear' } }), divides);
    assert.deepEqual(scales({ quantization_config: { quant_method: 'bitnet' } }), divides);
    refuses(
      model({ quantization_config: undefined }, tensors),
      /q_proj\.weight' is packed, but config\.json has no quantization_config, so .* multiplies or divides/,
    );
  });

  it('tells masters from ternary values, and refuses dense models', () => {
    const masters = smallFloats('BF16', (i) => Math.sin(i));
    const ternary = smallFloats('BF16', (i) => ((i % 3) - 1) * 0.75);
    assert.equal(openModel(model({}, masters)).quantisation, 'bf16 masters');
    assert.equal(openModel(model({}, ternary)).quantisation, 'ternary values in bf16');
    assert.equal(openModel(model({}, masters)).tensors.get('blk.0.attn_q')?.scale, undefined);
    const llama = { architectures: ['LlamaForCausalLM'], quantization_config: undefined };
    assert.equal(openModel(model(llama, ternary)).quantisation, 'ternary values in bf16');
    refuses(model(llama, masters), /q_proj\.weight' is not ternary .* ordinary dense model/);
    // A number that is none says nothing about the others: packing tells where it is.
    const key = 'model.layers.0.self_attn.k_proj.weight';
    const infinite = smallFloats('BF16', (i) => (i === 7 ? Number.POSITIVE_INFINITY : Math.sin(i)));
    assert.ok(openModel(model({}, { ...masters, [key]: infinite[key]! })));
    // One matrix that was left dense among packed or ternary ones.
    const up = 'model.layers.0.mlp.up_proj.weight';
    const { [`${up}_scale`]: _, ...packed } = smallTensors();
    for (const tensors of [packed, ternary]) {
      refuses(
        model({}, { ...tensors, [up]: masters[up]! }),
        /up_proj\.weight' is not ternary, though other matrices of the model are; dense projections are not supported/,
      );
      assert.ok(openModel(model({}, { ...tensors, [up]: ternary[up]! })));
    }
  });

  it('knows the older names of sub-norms, and models without', () => {
    const tensors = smallTensors();
    for (const [now, old] of [
      ['self_attn.attn_sub_norm', 'self_attn.inner_attn_ln'],
      ['mlp.ffn_sub_norm', 'mlp.ffn_layernorm'],
    ]) {
      tensors[`model.layers.0.${old}.weight`] = tensors[`model.layers.0.${now}.weight`]!;
      delete tensors[`model.layers.0.${now}.weight`];
    }
    assert.equal(openModel(model({}, tensors)).shape.subNorms, true);
    delete tensors['model.layers.0.mlp.ffn_layernorm.weight'];
    refuses(model({}, tensors), /tensor 'blk\.0\.ffn_sub_norm' is missing/);
    delete tensors['model.layers.0.self_attn.inner_attn_ln.weight'];
    assert.equal(openModel(model({}, tensors)).shape.subNorms, false);
  });

  it('decides between tied and untied heads', () => {
    const untied = { ...smallTensors(), 'lm_head.weight': { dtype: 'F16', shape: [16, 32] } };
    const head = (config: object, tensors: Record<string, Entry>): unknown[] => {
      const { shape, tensors: found } = openModel(model(config, tensors));
      return [shape.tiedEmbedding, shape.embeddingType, shape.headType, found.has('output')];
    };
    assert.deepEqual(head({ tie_word_embeddings: false }, untied), [false, 'bf16', 'f16', true]);
    assert.deepEqual(head({ tie_word_embeddings: true }, untied), [true, 'bf16', 'bf16', false]);
    assert.deepEqual(head({ tie_word_embeddings: undefined }, untied), [false, 'bf16', 'f16', true]);
    assert.deepEqual(head({ tie_word_embeddings: undefined }, smallTensors()), [true, 'bf16', 'bf16', false]);
    refuses(
      model({ tie_word_embeddings: false }),
      /tie_word_embeddings is false, but the weights have no 'lm_head\.weight'/,
    );
  });

  it('collects end tokens from all files', () => {
    const added = { id: 9, content: '<|eot_id|>', special: true };
    const tokenizer = { added_tokens: [{ id: 8, content: 'x' }, added], model: {} };
    const eos = (config: object, more: object): unknown => openModel(model(config, smallTensors(), more)).eos;
    assert.deepEqual(eos({ eos_token_id: [2, 3] }, {}), [2, 3]);
    assert.deepEqual(eos({ eos_token_id: null }, { 'generation_config.json': { eos_token_id: 5 } }), [5]);
    assert.deepEqual(
      eos({}, { 'generation_config.json': { eos_token_id: [2, 4] }, 'tokenizer.json': tokenizer }),
      [2, 4, 9],
    );
    // A token beyond the embedding is never produced.
    assert.deepEqual(eos({}, { 'tokenizer.json': { added_tokens: [{ ...added, id: 99 }] } }), [2]);
    // The text may occur elsewhere, such as in the chat template.
    assert.deepEqual(eos({}, { 'tokenizer.json': { template: ['<|eot_id|>'], added_tokens: [added] } }), [2, 9]);
  });

  it('finds the tokenizer and its settings', () => {
    const ranks = 'IQ== 0\nIg== 1\nIw== 2\n';
    const json = { added_tokens: [] };
    const open = (more: object, config = {}): ReturnType<typeof openModel> =>
      openModel(model(config, smallTensors(), more));
    const both = open({ 'tokenizer.json': json, 'tokenizer.model': ranks, 'tokenizer_config.json': {} });
    assert.equal(both.tokenizer?.kind, 'huggingface');
    assert.ok(both.tokenizer?.kind === 'huggingface' && both.tokenizer.config?.endsWith('tokenizer_config.json'));
    const tiktoken = open({ 'tokenizer.model': ranks });
    assert.equal(tiktoken.tokenizer?.kind, 'tiktoken');
    // Three ranks; the end of text is the second special, the end of a turn the tenth.
    assert.deepEqual(tiktoken.eos, [2, 4, 12]);
    const sentencePiece = open({ 'tokenizer.model': Buffer.from([10, 14, 10, 5]) });
    assert.equal(sentencePiece.tokenizer, undefined);
    assert.match(sentencePiece.noTokenizer!, /SentencePiece model, which is not read; download tokenizer\.json/);
    assert.match(open({}).noTokenizer!, /no tokenizer\.json; download it/);
    const damaged = { 'tokenizer.json': '{', 'tokenizer_config.json': '{' };
    const { tokenizer } = open(damaged, { bos_token_id: 3 });
    assert.ok(tokenizer?.kind === 'huggingface' && tokenizer.bos === 3, 'found, not read');
  });

  describe('shards', () => {
    const shards = (index: (map: Record<string, string>) => void = () => {}, drop?: string): string => {
      const entries = Object.entries(smallTensors());
      const parts = [entries.slice(0, 7), entries.slice(7)];
      const names = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
      const map: Record<string, string> = {};
      const files: Record<string, object> = { 'config.json': smallConfig };
      for (const [i, part] of parts.entries()) {
        for (const [name] of part) map[name] = names[i]!;
        if (names[i] !== drop) files[names[i]!] = safetensors(Object.fromEntries(part));
      }
      index(map);
      return folder({ ...files, 'model.safetensors.index.json': { weight_map: map } });
    };
    it('are joined', () => {
      const { tensors, files } = openModel(shards());
      assert.equal(tensors.get('blk.0.attn_q')?.scale, 0.5);
      assert.deepEqual(
        files.map((file) => path.basename(file.path)),
        [
          'config.json',
          'model.safetensors.index.json',
          'model-00001-of-00002.safetensors',
          'model-00002-of-00002.safetensors',
        ],
      );
    });
    it('must all be there', () => {
      refuses(
        shards(undefined, 'model-00002-of-00002.safetensors'),
        /of the 2 shards that .*index\.json lists, these are missing: model-00002-of-00002\.safetensors; download them/,
      );
    });
    it('must hold what the index says', () => {
      refuses(
        shards((map) => {
          map['model.norm.weight'] = 'model-00002-of-00002.safetensors';
        }),
        /tensor "model\.norm\.weight" is missing, but the index says/,
      );
    });
    it('must lie in the folder', () => {
      for (const bad of ['../model.safetensors', '/etc/passwd', '..', '.', '', 'a\\b', 'a\0b', 'a\nb']) {
        refuses(
          shards((map) => {
            map['model.norm.weight'] = bad;
          }),
          /not a plain file name/,
        );
      }
    });
    it('need a weight map', () => {
      refuses(
        folder({ 'config.json': smallConfig, 'model.safetensors.index.json': {} }),
        /'weight_map' is missing, not an object/,
      );
    });
  });

  describe('refuse', () => {
    const configs: [object, RegExp][] = [
      [
        { architectures: ['Qwen3ForCausalLM'] },
        /unknown architecture "Qwen3ForCausalLM"; known are BitNetForCausalLM, BitnetFor.*LlamaFor/,
      ],
      [{ architectures: ['constructor'] }, /unknown architecture "constructor"/],
      [{ architectures: undefined }, /unknown architecture null/],
      [
        { rope_scaling: { rope_type: 'llama3', factor: 8 } },
        /rope_scaling scales RoPE: .*; type "llama3" is not supported/,
      ],
      [{ rope_parameters: { rope_type: 'yarn' } }, /rope_parameters scales RoPE: .*yarn.* is not supported/],
      [{ hidden_act: 'gelu' }, /hidden_act "gelu" is not supported; known are relu2 and silu/],
      [{ hidden_size: '32 or so' }, /field 'hidden_size' is "32 or so", not a number/],
      [{ hidden_size: undefined }, /field 'hidden_size' is missing, not a number/],
      [{ num_attention_heads: 0 }, /heads = 0 is not/],
      [{ num_attention_heads: 3 }, /headSize = 10\.6/],
      [{ eos_token_id: 'x' }, /'eos_token_id' is "x", not token ids/],
      [{ quantization_config: { quant_method: 'bitsandbytes' } }, /quant_method is "bitsandbytes"/],
      [{ quantization_config: { quant_method: 'bitnet', linear_class: 'x' } }, /linear_class "x" is unknown/],
      [{ intermediate_size: 128 }, /is 64 x 32, but blk\.0\.ffn_gate must be 128 x 32/],
      [{ num_hidden_layers: 2 }, /tensor 'blk\.1\.attn_norm' is missing/],
    ];
    for (const [config, message] of configs) {
      it(JSON.stringify(config), () => refuses(model(config), message));
    }

    const q = 'model.layers.0.self_attn.q_proj';
    const tensors: [string, Record<string, Entry | undefined>, RegExp][] = [
      ['biases', { [`${q}.bias`]: { dtype: 'BF16', shape: [32] } }, /unexpected tensor '.*q_proj\.bias'/],
      ['norms inside BitLinear', { [`${q}.norm.weight`]: { dtype: 'BF16', shape: [32] } }, /unexpected tensor/],
      [
        'layers above the count',
        { 'model.layers.1.mlp.up_proj.weight': { dtype: 'U8', shape: [1, 1] } },
        /in a model of 1 layers/,
      ],
      ['packed matrices without a scale', { [`${q}.weight_scale`]: undefined }, /needs '.*q_proj\.weight_scale'/],
      ['scales with several values', { [`${q}.weight_scale`]: { dtype: 'BF16', shape: [2] } }, /with one float/],
      ['a scale of zero', { [`${q}.weight_scale`]: { dtype: 'BF16', shape: [1] } }, /is 0, not a positive number/],
      [
        'a scale that is no number',
        { [`${q}.weight_scale`]: { dtype: 'BF16', shape: [1], data: bf16(Number.NaN) } },
        /is NaN/,
      ],
      ['a scale without its matrix', { [`${q}.weight`]: undefined }, /has no packed matrix '.*q_proj\.weight'/],
      ['a missing tensor', { 'model.norm.weight': undefined }, /tensor 'output_norm' is missing/],
      ['integer norms', { 'model.norm.weight': { dtype: 'I32', shape: [32] } }, /has dtype I32/],
      ['three dimensions', { 'model.norm.weight': { dtype: 'BF16', shape: [1, 1, 32] } }, /not one or two dimensions/],
      [
        'both names of a norm',
        { 'model.layers.0.mlp.ffn_layernorm.weight': { dtype: 'BF16', shape: [64] } },
        /both '.*' and '.*' are present/,
      ],
    ];
    for (const [what, changes, message] of tensors) {
      it(what, () => {
        const entries = Object.entries({ ...smallTensors(), ...changes }).filter(([, entry]) => entry);
        refuses(model({}, Object.fromEntries(entries) as Record<string, Entry>), message);
      });
    }

    it('folders without the files', () => {
      refuses(folder({}), /no config\.json; a model folder holds/);
      refuses(folder({ 'x.gguf': 'x' }), /no config\.json; to use the GGUF file, name it: .*x\.gguf/);
      refuses(folder({ 'config.json': 'nonsense' }), /config\.json is not valid JSON/);
      refuses(folder({ 'config.json': '[]' }), /config\.json is not a JSON object/);
      refuses(folder({ 'config.json': smallConfig }), /no model\.safetensors; a model folder holds/);
      refuses(folder({ 'config.json': smallConfig, 'x.gguf': 'x' }), /to use the GGUF file, name it: .*x\.gguf/);
      refuses(folder({ 'config.json': smallConfig, 'pytorch_model.bin': 'x' }), /PyTorch files are not read/);
      refuses(
        folder({ 'config.json': smallConfig, 'model-00001-of-00002.safetensors': 'x' }),
        /no model\.safetensors; model\.safetensors\.index\.json, which says what lies in model-00001-of-00002\.safetensors, is missing, too; download it/,
      );
    });

    it('links that lead nowhere, naming where', () => {
      for (const name of ['config.json', 'model.safetensors', 'tokenizer.json', 'generation_config.json']) {
        const target = model();
        rmSync(path.join(target, name), { force: true });
        symlinkSync('../../blobs/0123', path.join(target, name));
        refuses(target, new RegExp(`${name}: a link to '\\.\\./\\.\\./blobs/0123', which does not exist; download`));
      }
      const link = path.join(root(), 'link');
      symlinkSync('absent', link);
      refuses(link, /link: a link to 'absent', which does not exist/);
      const loop = path.join(root(), 'loop');
      symlinkSync(loop, loop);
      refuses(loop, /loop: a link that leads back to itself/);
    });

    it('pipes, without waiting for a writer', () => {
      const pipe = path.join(root(), 'pipe.gguf');
      execFileSync('mkfifo', [pipe]);
      refuses(pipe, /pipe\.gguf: not a regular file/);
    });
  });
});
