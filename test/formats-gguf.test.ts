/** The GGUF reader: what metadata and tensor types mean, and files that are wrong in every way that a byte writer can think of. */
import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { readGguf } from '../runtime/formats/gguf.ts';
import { openModel } from '../runtime/formats/open.ts';
import { ModelError } from '../schemas/error.ts';
import { cpuTime } from './cpu-time.ts';
import type { Gguf, GgufTensor, Value } from './formats-bytes.ts';
import { f32, gguf, smallGguf, temporaryFolder, text, u32, u64 } from './formats-bytes.ts';
import { isLong } from './tier.ts';

describe('GGUF', () => {
  const folder = temporaryFolder();
  const save = (content: Buffer, name = 'model.gguf'): string => {
    const file = path.join(folder(), name);
    writeFileSync(file, content);
    return file;
  };
  /** The small model with changed metadata (undefined removes) and tensors. */
  const small = (
    metadata: Record<string, Value | undefined> = {},
    change: (tensors: GgufTensor[]) => GgufTensor[] = (tensors) => tensors,
    { arch = 'bitnet-b1.58', ...rest }: Partial<Gguf> & { arch?: string } = {},
  ): string => {
    const base = smallGguf(arch);
    const merged = Object.entries({ ...base.metadata, ...metadata }).filter(([, value]) => value !== undefined);
    return save(
      gguf({ metadata: Object.fromEntries(merged) as Record<string, Value>, tensors: change(base.tensors), ...rest }),
    );
  };
  const without = (name: string) => (tensors: GgufTensor[]) => tensors.filter((tensor) => tensor.name !== name);
  const changed = (name: string, change: Partial<GgufTensor>) => (tensors: GgufTensor[]) =>
    tensors.map((tensor) => (tensor.name === name ? { ...tensor, ...change } : tensor));
  const plus = (tensor: GgufTensor) => (tensors: GgufTensor[]) => [...tensors, tensor];
  const refuses = (file: string, message: RegExp): void =>
    assert.throws(() => openModel(file), { name: 'ModelError', message });

  it('opens the smallest model', () => {
    const model = openModel(small());
    const { name, ...shape } = model.shape;
    assert.match(name, /^small-model-[0-9a-f]{6}$/);
    assert.deepEqual(shape, {
      hidden: 32,
      layers: 1,
      heads: 2,
      kvHeads: 1,
      headSize: 16,
      intermediate: 64,
      vocabulary: 16,
      context: 64,
      activation: 'relu2',
      subNorms: true,
      tiedEmbedding: true,
      embeddingType: 'f16',
      headType: 'f16',
      // Stored as f32, yet the same number as in a config.json.
      normEps: 1e-6,
      ropeTheta: 5000,
    });
    assert.deepEqual([model.bos, model.eos, model.quantisation], [1, [2, 9], 'I2_S']);
    const { tokenizer } = model;
    assert.ok(tokenizer?.kind === 'gguf');
    const keys = ['model', 'pre', 'merges', 'scores'].map((key) => tokenizer.metadata.get(`tokenizer.ggml.${key}`));
    assert.deepEqual(keys, ['gpt2', undefined, ['t 1', 't 2'], undefined]);
  });

  it('reads version 2, other alignments, and names without a general.name', () => {
    assert.equal(openModel(small({}, undefined, { version: u32(2) })).shape.hidden, 32);
    const wide = openModel(small({ 'general.alignment': 256 }, undefined, { alignment: 256 }));
    assert.equal(wide.tensors.get('blk.0.attn_q')!.offset % 256, 0);
    assert.match(openModel(small({ 'general.name': undefined })).shape.name, /^model-/);
  });

  it('knows the architectures', () => {
    const open = (arch: string, metadata = {}, change?: Parameters<typeof small>[1]) =>
      openModel(small(metadata, change, { arch }));
    assert.equal(open('bitnet-25').shape.activation, 'relu2');
    assert.equal(open('bitnet').shape.activation, 'silu');
    assert.equal(open('bitnet', { 'bitnet.hidden_activation': 'relu2' }).shape.activation, 'relu2');
    const llama = open('llama');
    assert.deepEqual([llama.shape.activation, llama.shape.subNorms], ['silu', false]);
    const heads = (model: typeof llama): unknown =>
      ['attn_q', 'attn_k', 'attn_v', 'attn_output'].map((part) => model.tensors.get(`blk.0.${part}`)!.permutedHeads);
    assert.deepEqual(heads(llama), [2, 1, undefined, undefined]);
    assert.deepEqual(heads(open('bitnet')), [undefined, undefined, undefined, undefined]);
  });

  it('takes an untied head', () => {
    const { shape } = openModel(small({}, plus({ name: 'output.weight', dims: [32, 16], type: 8, bytes: 16 * 34 })));
    assert.deepEqual([shape.tiedEmbedding, shape.embeddingType, shape.headType], [false, 'f16', 'q8_0']);
  });

  it('takes the vocabulary from the embedding if no key tells', () => {
    assert.equal(openModel(small({ 'bitnet-b1.58.vocab_size': undefined })).shape.vocabulary, 16);
  });

  it('takes lists per layer if all layers agree', () => {
    assert.equal(openModel(small({ 'bitnet-b1.58.attention.head_count_kv': [1, 1] })).shape.kvHeads, 1);
    refuses(small({ 'bitnet-b1.58.attention.head_count_kv': [1, 2] }), /differs between layers/);
  });

  it('collects end tokens', () => {
    const eos = (metadata: Record<string, Value | undefined>): unknown => openModel(small(metadata)).eos;
    assert.deepEqual(eos({ 'tokenizer.ggml.eot_token_id': 5 }), [2, 5, 9]);
    assert.deepEqual(eos({ 'tokenizer.ggml.eot_token_id': 9 }), [2, 9]);
    assert.deepEqual(eos({ 'tokenizer.ggml.eos_token_id': undefined }), [9]);
    assert.deepEqual(eos({ 'tokenizer.ggml.eom_token_id': 7 }), [2, 7, 9]);
  });

  it('opens models without a tokenizer, and with one that cannot be used', () => {
    const open = (metadata: Record<string, Value | undefined>) => openModel(small(metadata)).tokenizer;
    assert.equal(open({ 'tokenizer.ggml.model': undefined }), undefined);
    assert.equal(open({ 'tokenizer.ggml.model': 'none' }), undefined);
    assert.equal(open({ 'tokenizer.ggml.tokens': undefined }), undefined);
    assert.equal(open({ 'tokenizer.ggml.model': 'bert' })?.kind, 'gguf');
    assert.equal(open({ 'tokenizer.ggml.token_type': [1, 1] })?.kind, 'gguf');
  });

  it('folds in .scale tensors, whose dimensions may be none', () => {
    const scale = (dims: number[], value = 0.25): GgufTensor => ({
      name: 'blk.0.ffn_up.scale',
      dims,
      type: 0,
      bytes: 4,
      data: f32(value),
    });
    assert.equal(openModel(small({}, plus(scale([1])))).tensors.get('blk.0.ffn_up')?.factor, 0.25);
    const { tensors } = openModel(small({}, plus(scale([]))));
    assert.deepEqual([tensors.get('blk.0.ffn_up')?.factor, tensors.get('blk.0.ffn_gate')?.factor], [0.25, undefined]);
    assert.equal(tensors.size, smallGguf().tensors.length);
    refuses(small({}, plus({ ...scale([2]), bytes: 8 })), /'blk\.0\.ffn_up\.scale' is not a single F32/);
    refuses(small({}, plus(scale([1], Number.NaN))), /is NaN; the file is damaged/);
    refuses(small({}, plus({ ...scale([1]), name: 'blk.0.ffn_norm.scale' })), /does not belong to a ternary matrix/);
  });

  it('accepts RoPE scaling that does not scale', () => {
    const arch = 'bitnet-b1.58.rope.scaling';
    // As the converter for 1bitLLM writes it.
    assert.ok(openModel(small({ [`${arch}.type`]: 'linear', [`${arch}.factor`]: { f32: 1 } })));
    assert.ok(openModel(small({ [`${arch}.type`]: 'none', [`${arch}.factor`]: { f32: 4 } })));
    refuses(
      small({ [`${arch}.type`]: 'linear', [`${arch}.factor`]: { f32: 4 } }),
      /RoPE scaling \(type "linear", factor 4\)/,
    );
    refuses(small({ [`${arch}.factor`]: { f32: 2 } }), /RoPE scaling/);
    refuses(small({ [`${arch}.type`]: 'yarn' }), /RoPE scaling \(type "yarn"/);
    refuses(
      small({}, plus({ name: 'rope_freqs.weight', dims: [8], type: 0, bytes: 32 })),
      /'rope_freqs\.weight' scales RoPE/,
    );
  });

  it('tells float masters from ternary values, and refuses dense llamas', () => {
    const floats = (values: (i: number) => number) => (tensors: GgufTensor[]) =>
      tensors.map((tensor) => {
        if (tensor.type !== 36) return tensor;
        const elements = Number(tensor.dims[0]) * Number(tensor.dims[1]);
        const data = Buffer.concat(Array.from({ length: elements }, (_, i) => f32(values(i))));
        return { ...tensor, type: 0, bytes: data.length, data };
      });
    assert.equal(openModel(small({}, floats(Math.sin))).quantisation, 'f32 masters');
    assert.equal(
      openModel(
        small(
          {},
          floats((i) => (i % 3) - 1),
        ),
      ).quantisation,
      'ternary values in f32',
    );
    assert.equal(
      openModel(
        small(
          {},
          floats((i) => (i % 3) - 1),
          { arch: 'llama' },
        ),
      ).quantisation,
      'ternary values in f32',
    );
    refuses(
      small({}, floats(Math.sin), { arch: 'llama' }),
      /'blk\.0\.attn_q\.weight' is not ternary; this is an ordinary dense/,
    );
  });

  describe('refuses metadata', () => {
    const b = 'bitnet-b1.58.';
    const cases: [Record<string, Value | undefined>, RegExp][] = [
      [
        { 'general.architecture': 'qwen2' },
        /unknown architecture "qwen2"; known are bitnet-b1\.58, bitnet-25, bitnet, llama/,
      ],
      [{ 'general.architecture': 'constructor' }, /unknown architecture "constructor"/],
      [{ 'general.architecture': undefined }, /'general\.architecture' is missing/],
      [{ 'general.architecture': 7 }, /'general\.architecture' is 7, not a string/],
      [{ 'split.count': 3 }, /one part of a split model; join the parts/],
      [{ [`${b}embedding_length`]: undefined }, /'bitnet-b1\.58\.embedding_length' is missing/],
      [{ [`${b}embedding_length`]: 'x' }, /embedding_length' is "x", not a number/],
      [{ [`${b}hidden_activation`]: 'gelu' }, /hidden_activation "gelu" is not supported/],
      [{ [`${b}attention.key_length`]: 8 }, /rope\.dimension_count 16 differs from the head size 8/],
      [{ [`${b}attention.value_length`]: 8 }, /attention\.value_length 8 differs/],
      [{ [`${b}attention.head_count`]: 3 }, /differs from the head size 10\.6/],
      [{ [`${b}block_count`]: 2 }, /tensor 'blk\.1\.attn_norm' is missing/],
      [{ [`${b}vocab_size`]: 17 }, /is 16 x 32, but token_embd must be 17 x 32/],
      [{ 'general.alignment': 24 }, /general\.alignment 24 is not a power of two/],
      [{ 'general.alignment': 0 }, /general\.alignment 0 is not/],
      [{ 'general.alignment': 'x' }, /general\.alignment "x" is not/],
      [{ x: { raw: u32(13) } }, /metadata 'x' has unknown value type 13/],
      [{ x: { raw: Buffer.concat([u32(9), u32(9), u64(1)]) } }, /'x' is an array of arrays/],
      [{ x: { raw: Buffer.concat([u32(9), u32(77), u64(1)]) } }, /'x' has unknown value type 77/],
      [
        { x: { raw: Buffer.concat([u32(9), u32(8), u64(2n ** 63n)]) } },
        /item count of 'x' 9223372036854775808 needs more/,
      ],
      [{ x: { raw: Buffer.concat([u32(9), u32(0), u64(2n ** 40n)]) } }, /item count of 'x' 1099511627776 needs more/],
      [
        { x: { raw: Buffer.concat([u32(8), u64(2n ** 64n - 1n)]) } },
        /string of .*'x' claims 18446744073709551615 bytes/,
      ],
      [{ x: { raw: Buffer.concat([u32(8), u64(1_000_000)]) } }, /string of .*'x' claims 1000000 bytes/],
    ];
    for (const [metadata, message] of cases) {
      const shown = JSON.stringify(metadata, (_, value) => (value === undefined ? 'absent' : value)).slice(0, 70);
      it(shown, () => refuses(small(metadata), message));
    }
  });

  describe('refuses files', () => {
    const cases: [string, Partial<Gguf>, RegExp][] = [
      ['of version 1', { version: u32(1) }, /GGUF version 1 is not supported; versions 2 and 3 are/],
      ['of version 4', { version: u32(4) }, /GGUF version 4 is not supported/],
      ['in big-endian order', { version: Buffer.from([0, 0, 0, 3]) }, /big-endian/],
      [
        'with 2^63 tensors',
        { tensorCount: 2n ** 63n },
        /tensor count 9223372036854775808 needs more than the \d+ bytes/,
      ],
      ['with 2^63 pairs', { pairCount: 2n ** 63n }, /metadata count 9223372036854775808 needs more/],
      ['with more pairs than there are', { pairCount: 19n }, /./],
      ['with more tensors than there are', { tensorCount: 14n }, /./],
    ];
    for (const [what, change, message] of cases) {
      it(what, () => refuses(small({}, undefined, change), message));
    }
    it('with a key twice', () => {
      const pair = Buffer.concat([text('a'), u32(4), u32(1)]);
      const content = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(0), u64(2), pair, pair]);
      refuses(save(content), /metadata key 'a' appears twice/);
    });
  });

  describe('refuses tensors', () => {
    const q = 'blk.0.attn_q.weight';
    const last = 'blk.0.ffn_sub_norm.weight';
    const cases: [string, (tensors: GgufTensor[]) => GgufTensor[], RegExp][] = [
      ['missing', without('blk.0.ffn_norm.weight'), /tensor 'blk\.0\.ffn_norm' is missing/],
      ['missing sub-norms', without('blk.0.attn_sub_norm.weight'), /tensor 'blk\.0\.attn_sub_norm' is missing/],
      [
        'of unknown purpose',
        plus({ name: 'blk.0.attn_q.bias', dims: [32], type: 0, bytes: 128 }),
        /unexpected tensor 'blk\.0\.attn_q\.bias'/,
      ],
      [
        'of an unknown layer name',
        plus({ name: 'blk.0.attn_q_norm.weight', dims: [32], type: 0, bytes: 128 }),
        /unexpected tensor/,
      ],
      ['twice', plus({ name: q, dims: [32, 32], type: 36, bytes: 288 }), /'blk\.0\.attn_q\.weight' appears twice/],
      ['with a zero dimension', changed(q, { dims: [32, 0] }), /has a dimension of size 0/],
      ['with five dimensions', changed(q, { dims: [32, 32, 1, 1, 1] }), /has 5 dimensions/],
      ['with three real dimensions', changed(q, { dims: [32, 16, 2] }), /has shape 32 x 16 x 2; at most two/],
      ['beyond 2^53 elements', changed(q, { dims: [2n ** 40n, 2n ** 40n] }), /more than 2\^53 elements/],
      ['of 2^63 columns', changed(q, { dims: [2n ** 63n] }), /more than 2\^53 elements/],
      [
        'far outside',
        changed(q, { offset: 2n ** 63n }),
        /starts at byte 9223372036854775808 of the data, past the end/,
      ],
      ['unaligned', changed(q, { offset: 1281 }), /starts at byte 1281, not a multiple of the alignment 32/],
      [
        'overlapping',
        changed('blk.0.attn_norm.weight', { offset: 32 }),
        /has 1024 bytes and overlaps tensor 'blk\.0\.attn_norm\.weight', 32 bytes further/,
      ],
      ['at the same place', changed('blk.0.attn_norm.weight', { offset: 0 }), /overlaps/],
      [
        'cut off',
        changed(last, { bytes: 224 }),
        /ffn_sub_norm\.weight' ends at byte \d+, past the end .* truncated, download/,
      ],
      [
        'of the wrong size',
        changed('blk.0.attn_norm.weight', { dims: [16] }),
        /is 1 x 16, but blk\.0\.attn_norm must be 1 x 32/,
      ],
      [
        'of type 36 that is no I2_S',
        changed(q, { bytes: 576 }),
        /of type 36 has room for 576 bytes where I2_S takes 288; it is IQ4_NL_4_4/,
      ],
      ['of I2_S without whole blocks', changed(q, { dims: [32, 3] }), /has 96 elements, but I2_S stores blocks of 128/],
      [
        'of TL1',
        changed(q, { type: 38 }),
        /type 38 \(TL1\), which cannot be decoded: its tile sizes .* use an I2_S, TQ1_0 or TQ2_0 GGUF/,
      ],
      ['of TL2', changed(q, { type: 39 }), /type 39 \(TL2\), which cannot be decoded/],
      ['of MXFP4', changed(q, { type: 39, bytes: 544 }), /type 39 \(MXFP4\), which is not supported/],
      [
        'of another known type',
        changed(q, { type: 12 }),
        /type 12 \(Q4_K\), which is not supported; supported are F32/,
      ],
      ['of an unknown type', changed(q, { type: 999 }), /type 999 \(unknown\), which is not supported/],
      ['of TQ2_0 with short rows', changed(q, { type: 35 }), /has rows of 32, but tq2_0 stores blocks of 256/],
      [
        'in an encoding that does not suit them',
        changed(q, { type: 8, bytes: 1088 }),
        /stored as q8_0; blk\.0\.attn_q may be hf-u8, i2_s/,
      ],
    ];
    for (const [what, change, message] of cases) {
      it(what, () => refuses(small({}, change), message));
    }
  });

  it('refuses a file cut anywhere, without reading past it', () => {
    const { metadata, tensors } = smallGguf();
    const content = gguf({ metadata, tensors });
    const step = isLong ? 1 : 7;
    for (let length = 8; length < content.length; length += length < 2600 ? step : 37) {
      assert.throws(() => openModel(save(content.subarray(0, length))), ModelError, `length ${length}`);
    }
  });

  it('survives every changed byte of the header', () => {
    const { metadata, tensors } = smallGguf();
    const content = gguf({ metadata, tensors });
    for (let at = 4; at < 2600; at += isLong ? 1 : 7) {
      const value = content[at]!;
      for (const bits of [0xff, 1 << (at % 8)]) {
        content[at] = value ^ bits;
        try {
          openModel(save(content));
        } catch (error) {
          assert.ok(error instanceof ModelError, `byte ${at}: ${(error as Error).stack}`);
        }
      }
      content[at] = value;
    }
  });

  it('parses a header of the size of 2B4T quickly', () => {
    const tokens = Array.from({ length: 128_256 }, (_, i) => `Ġtok${i}`);
    const merges = Array.from({ length: 280_147 }, (_, i) => `Ġab${i % 977} cd${i % 4099}`);
    const file = small({
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.token_type': new Array<number>(tokens.length).fill(1),
      'tokenizer.ggml.merges': merges,
    });
    const start = cpuTime();
    const { tokenizer } = readGguf(file);
    const elapsed = cpuTime() - start;
    assert.ok(tokenizer?.kind === 'gguf');
    const read = tokenizer.metadata.get('tokenizer.ggml.merges') as string[];
    assert.deepEqual([tokenizer.tokens[128_255], read[280_146]], [tokens[128_255], merges[280_146]]);
    // Measured: 130 ms.
    assert.ok(elapsed < 1500, `${elapsed.toFixed(0)} ms`);
  });
});
