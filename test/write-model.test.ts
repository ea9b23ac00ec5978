/** The tests' own encoders and writers: against fixtures, against decoders, and read back as a whole. */
import { strict as assert } from 'node:assert';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gguf } from '@huggingface/gguf';
import {
  bfloatBits,
  encodeFloats,
  encodeQ6K,
  encodeQ40,
  encodeQ80,
  halfBits,
  nearest,
  packHuggingFace,
  packI2S,
  packTq1,
  packTq2,
} from './encode.ts';
import { fixture } from './fixtures.ts';
import { generator, type OracleModel, projections } from './oracle.ts';
import { asTernary, bfloatValue, decodeValues, halfValue, unpackHuggingFace } from './oracle-decode.ts';
import { readGguf, readHuggingFace, readSafetensors } from './oracle-reader.ts';
import { type GgufOptions, permuteRows, writeGguf } from './write-gguf.ts';
import { type HuggingFaceOptions, writeHuggingFace } from './write-huggingface.ts';
import { randomModel, smallShape, specialTokens, tinyVocabulary } from './write-model.ts';

/** Equal in every number. Folders do not hold the model's name, and GGUF holds normEps as float32. */
function assertSame(actual: OracleModel, expected: OracleModel): void {
  const comparable = ({ shape }: OracleModel) => ({ ...shape, name: '', normEps: Math.fround(shape.normEps) });
  assert.deepEqual(comparable(actual), comparable(expected));
  const { shape: _a, layers: actualLayers, ...actualRest } = actual;
  const { shape: _e, layers: expectedLayers, ...expectedRest } = expected;
  assert.deepEqual(actualRest, expectedRest);
  assert.equal(actualLayers.length, expectedLayers.length);
  actualLayers.forEach((layer, l) => {
    for (const key of Object.keys(expectedLayers[l]!) as (keyof typeof layer)[]) {
      assert.deepEqual(layer[key], expectedLayers[l]![key], `layer ${l}: ${key}`);
    }
  });
}

describe('test encoders', () => {
  const matrix = (context: Mocha.Context): Int8Array =>
    new Int8Array(readFileSync(fixture(context, 'tensors/matrix_256x512.i8')));
  const rows = (context: Mocha.Context): Float64Array =>
    decodeValues('f32', readFileSync(fixture(context, 'tensors/embed_8x512.f32')), 8 * 512);

  for (const [file, pack] of [
    ['hf_packed.u8', (trits: Int8Array) => packHuggingFace(trits, 256, 512)],
    ['i2_s.bin', (trits: Int8Array) => packI2S(trits, 1.5546875)],
    ['tq1_0.bin', (trits: Int8Array) => packTq1(trits, 1.5546875)],
    ['tq2_0.bin', (trits: Int8Array) => packTq2(trits, 1.5546875)],
  ] as const) {
    it(`${file} is identical to the fixture`, function () {
      const bytes = readFileSync(fixture(this, `tensors/${file}`));
      assert.ok(bytes.equals(pack(matrix(this))));
    });
  }

  for (const [type, encode] of [
    ['f16', (values: Float64Array) => encodeFloats('f16', values)],
    ['bf16', (values: Float64Array) => encodeFloats('bf16', values)],
    ['q8_0', encodeQ80],
    ['q4_0', encodeQ40],
  ] as const) {
    it(`embed.${type}.bin is identical to the fixture`, function () {
      const encoded = encode(rows(this));
      assert.ok(readFileSync(fixture(this, `tensors/embed.${type}.bin`)).equals(encoded.bytes));
      assert.deepEqual(encoded.values, decodeValues(type, encoded.bytes, 8 * 512));
    });
  }

  it('decoders agree with the fixtures in block formats', function () {
    for (const type of ['q4_0', 'q8_0', 'q6_k'] as const) {
      const actual = decodeValues(type, readFileSync(fixture(this, `tensors/embed.${type}.bin`)), 8 * 512);
      const expected = decodeValues('f32', readFileSync(fixture(this, `tensors/embed.${type}.f32`)), 8 * 512);
      assert.deepEqual(actual, expected, type);
    }
  });

  it('block formats hold what they say and come close to the original', () => {
    const random = generator(3);
    const values = Float64Array.from({ length: 1024 }, (_, i) => (i < 256 ? 0 : 2 * random() - 1));
    for (const [type, encode, error] of [
      ['q8_0', encodeQ80, 0.005],
      ['q6_k', encodeQ6K, 0.04],
      ['q4_0', encodeQ40, 0.13],
    ] as const) {
      const encoded = encode(values);
      assert.deepEqual(encoded.values, decodeValues(type, encoded.bytes, values.length), type);
      const worst = encoded.values.reduce((max, x, i) => Math.max(max, Math.abs(x - values[i]!)), 0);
      assert.ok(worst < error, `${type} is ${worst} off`);
    }
  });

  it('16-bit floats: every value returns, neighbours round to nearest even', () => {
    for (const [toBits, toValue, infinity] of [
      [halfBits, halfValue, 0x7c00],
      [bfloatBits, bfloatValue, 0x7f80],
    ] as const) {
      for (let bits = 0; bits < infinity; bits++) {
        const value = toValue(bits);
        assert.equal(toBits(value), bits);
        assert.equal(toBits(-value), bits | 0x8000);
        if (bits + 1 === infinity) continue;
        const middle = (value + toValue(bits + 1)) / 2;
        assert.equal(toBits(middle), bits + (bits & 1));
        assert.equal(toBits(middle * (1 + 2 ** -50)), bits + 1);
      }
      assert.equal(toBits(1e300), infinity);
    }
    assert.equal(nearest('f16', 0.1), 0.0999755859375);
    assert.equal(nearest('bf16', 0.1), 0.10009765625);
  });

  it('ternary packings round trip', () => {
    const random = generator(4);
    const trits = Int8Array.from({ length: 12 * 256 }, (_, i) => (i >> 8 === 5 ? 0 : Math.floor(3 * random()) - 1));
    const scale = 1.5546875;
    assert.deepEqual(unpackHuggingFace(packHuggingFace(trits, 12, 256), 12, 256), trits);
    for (const [type, pack] of [
      ['i2_s', packI2S],
      ['tq1_0', packTq1],
      ['tq2_0', packTq2],
    ] as const) {
      assert.deepEqual(asTernary(decodeValues(type, pack(trits, scale), trits.length)), { trits, scale }, type);
    }
    assert.throws(() => packI2S(new Int8Array(100), 1), /100 elements/);
    assert.throws(() => packTq1(new Int8Array(128), 1), /128 elements/);
    assert.throws(() => packHuggingFace(new Int8Array(6), 3, 2), /3 rows/);
  });

  it('permuteRows is the inverse of Llama converters: row 2i + j comes from row j * headSize/2 + i', () => {
    assert.deepEqual(
      [...permuteRows(Int8Array.of(0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15), 1, 6)],
      [0, 3, 1, 4, 2, 5, 10, 13, 11, 14, 12, 15],
    );
  });
});

describe('test writers', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-writers-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const bitnet = smallShape();
  const b158 = smallShape({
    hidden: 160,
    heads: 5,
    kvHeads: 5,
    headSize: 32,
    intermediate: 320,
    activation: 'silu',
    ropeTheta: 1e4,
  });
  const llama = smallShape({
    hidden: 192,
    heads: 3,
    kvHeads: 1,
    headSize: 128,
    intermediate: 384,
    activation: 'silu',
    subNorms: false,
    tiedEmbedding: false,
    normEps: 1e-6,
  });
  const odd = smallShape({ hidden: 320, heads: 4, kvHeads: 2, headSize: 100, intermediate: 640, vocabulary: 283 });
  const shapes = { bitnet, b158, llama, odd };

  const huggingFace: [keyof typeof shapes, HuggingFaceOptions][] = [
    ['bitnet', { weights: 'packed' }],
    ['bitnet', { weights: 'packed', embedding: 'f16', shards: 3 }],
    ['bitnet', { weights: 'packed', names: 'old', embedding: 'f32' }],
    ['bitnet', { weights: 'masters-bf16' }],
    ['bitnet', { weights: 'ternary-bf16', shards: 2 }],
    ['b158', { weights: 'masters-f32' }],
    ['b158', { weights: 'masters-f16', names: 'new' }],
    ['b158', { weights: 'ternary-f32' }],
    ['llama', { weights: 'packed-divide' }],
    ['llama', { weights: 'packed-divide', explicitLinearClass: true, norms: 'f32' }],
    ['llama', { weights: 'masters-bf16', shards: 5 }],
    ['llama', { weights: 'ternary-f16' }],
    ['odd', { weights: 'packed' }],
    ['odd', { weights: 'masters-f32', embedding: 'bf16' }],
  ];
  for (const [i, [name, options]] of huggingFace.entries()) {
    it(`Hugging Face ${name} ${JSON.stringify(options)}`, () => {
      const model = randomModel(shapes[name], 10 + i);
      const target = path.join(folder, `hf-${i}`);
      const held = writeHuggingFace(target, model, options);
      assertSame(readHuggingFace(target), held);
      held.layers.forEach((layer, l) => {
        for (const kind of projections) assert.equal(layer[kind].trits, model.layers[l]![kind].trits);
      });
      assert.deepEqual(held.embedding, model.embedding);
      // Only masters and divided scales change a random model, and float16 flushes dead norm weights.
      if (/^packed$|^ternary/.test(options.weights) && options.weights !== 'ternary-f16') {
        const { embedding = 'bf16' } = options;
        assertSame(held, { ...model, shape: { ...model.shape, embeddingType: embedding, headType: embedding } });
      }
      assert.equal(existsSync(path.join(target, 'model.safetensors.index.json')), (options.shards ?? 1) > 1);
    });
  }

  it('Hugging Face names and configurations of the three families', () => {
    const written = (name: keyof typeof shapes, options: HuggingFaceOptions) => {
      const target = path.join(folder, `family-${name}`);
      writeHuggingFace(target, randomModel(shapes[name], 1), options);
      const config = JSON.parse(readFileSync(path.join(target, 'config.json'), 'utf8'));
      return { config, tensors: readSafetensors(path.join(target, 'model.safetensors')) };
    };
    const first = written('bitnet', { weights: 'packed' });
    assert.deepEqual(first.config.architectures, ['BitNetForCausalLM']);
    assert.equal(first.config.quantization_config.linear_class, 'autobitlinear');
    assert.equal(first.tensors.size, 2 + 2 * (7 + 7 + 4));
    assert.deepEqual(first.tensors.get('model.layers.0.self_attn.k_proj.weight')?.shape, [32, 256]);
    assert.ok(first.tensors.has('model.layers.1.mlp.ffn_sub_norm.weight'));
    const second = written('b158', { weights: 'masters-f32' });
    assert.deepEqual(second.config.architectures, ['BitnetForCausalLM']);
    assert.equal(second.config.quantization_config, undefined);
    assert.ok(second.tensors.has('model.layers.1.self_attn.inner_attn_ln.weight'));
    const third = written('llama', { weights: 'packed-divide' });
    assert.deepEqual(third.config.architectures, ['LlamaForCausalLM']);
    assert.equal(third.config.head_dim, 128);
    assert.equal(third.config.quantization_config.linear_class, undefined);
    assert.ok(third.tensors.has('lm_head.weight'));
  });

  const ggufs: [keyof typeof shapes, GgufOptions][] = [
    ['bitnet', { arch: 'bitnet-b1.58', weights: 'i2_s' }],
    ['bitnet', { arch: 'bitnet-b1.58', weights: 'tq1_0', embedding: 'q6_k', pre: null }],
    ['bitnet', { arch: 'bitnet-b1.58', weights: 'tq2_0', embedding: 'q8_0', alignment: 64 }],
    ['bitnet', { arch: 'bitnet-25', weights: 'bf16', embedding: 'q4_0' }],
    ['bitnet', { arch: 'bitnet', weights: 'f32', scaleTensors: true }],
    ['b158', { arch: 'bitnet', weights: 'i2_s', embedding: 'bf16', scaleTensors: true }],
    ['b158', { arch: 'bitnet', weights: 'tq2_0', embedding: 'f32' }],
    ['llama', { arch: 'llama', weights: 'i2_s', head: 'q8_0' }],
    ['llama', { arch: 'llama', weights: 'f16', embedding: 'f32', alignment: 4096 }],
    ['odd', { arch: 'bitnet-b1.58', weights: 'i2_s', tokenizer: false }],
  ];
  for (const [i, [name, options]] of ggufs.entries()) {
    it(`GGUF ${name} ${JSON.stringify(options)}`, async () => {
      const model = randomModel(shapes[name], 30 + i);
      const file = path.join(folder, `${i}.gguf`);
      const held = writeGguf(file, model, options);
      assertSame(await readGguf(file), held);
      assert.deepEqual(held.layers, model.layers);
      if (!/^q/.test(options.embedding ?? 'f16')) assert.deepEqual(held.embedding, model.embedding);

      const parsed = await gguf(file, { allowLocalFile: true });
      const metadata = parsed.metadata as unknown as Record<string, unknown>;
      const { arch, alignment = 32 } = options;
      assert.equal(metadata.version, 3);
      assert.equal(metadata['general.architecture'], arch);
      assert.equal(metadata['general.alignment'], alignment === 32 ? undefined : alignment);
      assert.equal(metadata[`${arch}.attention.head_count_kv`], model.shape.kvHeads);
      assert.equal(metadata[`${arch}.rope.dimension_count`], model.shape.headSize);
      assert.equal(Number(parsed.tensorDataOffset) % alignment, 0);
      for (const { name: tensor, offset } of parsed.tensorInfos) assert.equal(Number(offset) % alignment, 0, tensor);
      const expectedPre = options.tokenizer === false || options.pre === null ? undefined : 'llama-bpe';
      assert.equal(metadata['tokenizer.ggml.pre'], expectedPre);
      if (options.tokenizer === false) return;
      const tokens = metadata['tokenizer.ggml.tokens'] as string[];
      assert.equal(tokens.length, model.shape.vocabulary);
      assert.equal(tokens[Number(metadata['tokenizer.ggml.bos_token_id'])], '<|begin_of_text|>');
      assert.equal(tokens[Number(metadata['tokenizer.ggml.eos_token_id'])], '<|end_of_text|>');
    });
  }

  it('GGUF refuses what the format cannot say', () => {
    const model = randomModel(llama, 1);
    const file = path.join(folder, 'refused.gguf');
    assert.throws(() => writeGguf(file, model, { arch: 'bitnet', weights: 'f16' }), /arch bitnet and subNorms false/);
    const silu = randomModel(b158, 1);
    assert.throws(() => writeGguf(file, silu, { arch: 'bitnet-b1.58', weights: 'f16' }), /does not mean activation/);
    const options = { arch: 'bitnet', weights: 'f16', embedding: 'q6_k' } as const;
    assert.throws(() => writeGguf(file, silu, options), /hidden 160 is not whole q6_k blocks/);
  });

  it('the tiny vocabulary has 256 bytes, merges that exist, and control tokens', () => {
    const { tokens, types, merges } = tinyVocabulary(301);
    assert.equal(new Set(tokens).size, 301);
    assert.equal(tokens.slice(0, 256).join('').length, 256);
    for (const merge of merges) {
      const [left, right] = merge.split(' ');
      assert.ok([left, right, `${left}${right}`].every((token) => tokens.includes(token!)));
    }
    const { bos, endOfTurn } = specialTokens(301);
    assert.deepEqual([types[bos - 1], types[bos], types[300]], [1, 3, 3]);
    assert.equal(tokens[endOfTurn], '<|eot_id|>');
    assert.throws(() => tinyVocabulary(200), /vocabulary 200/);
  });
});
