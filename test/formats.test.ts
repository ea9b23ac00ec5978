/**
 * Opening models: the demo model, the fixtures in every format, and what openModel says about everything that is no model.
 * Details of each format are in formats-safetensors, formats-huggingface and formats-gguf.
 */
import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { gguf } from '@huggingface/gguf';
import { checkModel, roles, ternaryNames } from '../runtime/formats/check.ts';
import { readFloats, withModelFile } from '../runtime/formats/file.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource, SourceTensor } from '../runtime/formats/source.ts';
import { encodings } from '../runtime/formats/source.ts';
import { ModelError } from '../schemas/error.ts';
import { fixture } from './fixtures.ts';
import { temporaryFolder } from './formats-bytes.ts';

const demo = path.join(import.meta.dirname, '../models/demo');

/** Asserts that opening fails with one line that matches. */
function refuses(file: string, message: RegExp): void {
  assert.throws(
    () => openModel(file),
    (error: unknown) => {
      assert.ok(error instanceof ModelError, String(error));
      assert.match(error.message, message);
      assert.ok(!error.message.includes('\n'));
      return true;
    },
  );
}

describe('openModel', () => {
  const folder = temporaryFolder();

  it('opens the demo model', () => {
    const model = openModel(demo);
    const { name, ...shape } = model.shape;
    assert.match(name, /^demo-[0-9a-f]{6}$/);
    assert.deepEqual(shape, {
      hidden: 256,
      layers: 6,
      heads: 4,
      kvHeads: 2,
      headSize: 64,
      intermediate: 768,
      vocabulary: 4096,
      context: 256,
      activation: 'relu2',
      subNorms: true,
      tiedEmbedding: true,
      embeddingType: 'bf16',
      headType: 'bf16',
      normEps: 1e-5,
      ropeTheta: 10000,
    });
    assert.equal(model.quantisation, 'packed ternary (weight_scale multiplies)');
    assert.deepEqual([model.bos, ...model.eos], [4091, 4092, 4095]);
    assert.equal(model.tokenizer?.kind, 'huggingface');
    assert.equal(model.tensors.size, roles(model.shape).length);
    assert.deepEqual(
      model.files.map((file) => path.basename(file.path)),
      ['config.json', 'model.safetensors'],
    );
  });

  it('names a model the same for every spelling of its path', () => {
    const names = [demo, `${demo}/`, path.join(demo, '..', 'demo'), path.relative(process.cwd(), demo)];
    assert.equal(new Set(names.map((name) => openModel(name).shape.name)).size, 1);
  });

  it('says what to do about paths that are no model', () => {
    const file = (name: string, content: string): string => {
      const target = path.join(folder(), name);
      writeFileSync(target, content);
      return target;
    };
    refuses(path.join(folder(), 'absent'), /there is no model '.*absent'; give a Hugging Face model folder/);
    refuses(path.join(demo, 'model.safetensors'), /give the folder that holds it/);
    refuses(path.join(demo, 'config.json'), /give the folder that holds it/);
    refuses(file('x.bin', 'hello world'), /is not a GGUF file/);
    refuses(file('empty.gguf', ''), /is not a GGUF file/);
    refuses(file('lfs.gguf', 'version https://git-lfs.github.com/spec/v1\n'), /Git LFS pointer/);
  });

  describe('checks', () => {
    const broken = (change: Partial<ModelSource['shape']>, where: Partial<ModelSource> = {}): ModelSource => {
      const model = openModel(demo);
      return { ...model, ...where, shape: { ...model.shape, ...change } };
    };
    const cases: [string, ModelSource, RegExp][] = [
      ['heads that kv heads do not divide', broken({ kvHeads: 3 }), /4 heads cannot be shared by 3/],
      ['odd head sizes', broken({ headSize: 63 }), /head size 63 is odd/],
      ['absurd sizes', broken({ hidden: 1e9 }), /hidden = 1000000000 is not an integer from 1 to/],
      ['fractions', broken({ headSize: 21.5 }), /headSize = 21\.5 is not an integer/],
      ['no layers', broken({ layers: 0 }), /layers = 0/],
      ['bad epsilon', broken({ normEps: 0 }), /epsilon 0/],
      ['bad theta', broken({ ropeTheta: Number.NaN }), /theta NaN/],
      ['wrong sizes', broken({ intermediate: 1024 }), /is 768 x 256, but blk\.0\.ffn_gate must be 1024 x 256/],
      [
        'missing tensors',
        broken({ layers: 7 }),
        /tensor 'blk\.6\.attn_norm' is missing \(7 layers, with sub-norms, tied head\)/,
      ],
    ];
    for (const [what, source, message] of cases) {
      it(`refuse ${what}`, () => assert.throws(() => checkModel(source), { name: 'ModelError', message }));
    }
    for (const [role, encoding, message] of [
      ['blk.0.attn_q', 'q8_0', /stored as q8_0; blk\.0\.attn_q may be hf-u8, i2_s/],
      ['token_embd', 'i2_s', /stored as i2_s; token_embd may be f32/],
      ['output_norm', 'q8_0', /output_norm may be f32, f16, bf16/],
    ] as const) {
      it(`refuse ${role} as ${encoding}`, () => {
        const model = openModel(demo);
        const tensor: SourceTensor = { ...model.tensors.get(role)!, encoding };
        const source = { ...model, tensors: new Map([...model.tensors, [role, tensor]]) };
        assert.throws(() => checkModel(source), { name: 'ModelError', message });
      });
    }
  });
});

describe('fixtures', () => {
  interface Expected {
    quantisation: string;
    activation?: string;
    subNorms?: boolean;
    tied?: boolean;
    embedding?: string;
    theta?: number;
    permuted?: boolean;
  }
  const llama = { activation: 'silu', subNorms: false, tied: false };
  const b158 = { activation: 'silu', theta: 10000 };
  const files: Record<string, Expected> = {
    '2b4t/hf-packed': { quantisation: 'packed ternary (weight_scale multiplies)', embedding: 'bf16' },
    '2b4t/hf-master': { quantisation: 'bf16 masters', embedding: 'bf16' },
    '2b4t/tiny-2b4t-i2_s.gguf': { quantisation: 'I2_S' },
    '2b4t/tiny-2b4t-tq1_0.gguf': { quantisation: 'TQ1_0' },
    '2b4t/tiny-2b4t-tq2_0.gguf': { quantisation: 'TQ2_0' },
    '2b4t/tiny-2b4t-f16.gguf': { quantisation: 'ternary values in f16' },
    '2b4t/tiny-2b4t-i2_s-embd-bf16.gguf': { quantisation: 'I2_S', embedding: 'bf16' },
    '2b4t/tiny-2b4t-i2_s-embd-q8_0.gguf': { quantisation: 'I2_S, Q8_0 embedding', embedding: 'q8_0' },
    '2b4t/tiny-2b4t-i2_s-embd-q6_k.gguf': { quantisation: 'I2_S, Q6_K embedding', embedding: 'q6_k' },
    '2b4t/tiny-2b4t-i2_s-embd-q4_0.gguf': { quantisation: 'I2_S, Q4_0 embedding', embedding: 'q4_0' },
    'llama158/hf-packed': { quantisation: 'packed ternary (weight_scale divides)', embedding: 'bf16', ...llama },
    'llama158/tiny-llama158-i2_s.gguf': { quantisation: 'I2_S', permuted: true, ...llama },
    'b158/hf-master': { quantisation: 'bf16 masters', embedding: 'bf16', ...b158 },
    'b158/tiny-b158-tq2_0.gguf': { quantisation: 'TQ2_0', ...b158 },
  };
  for (const [file, expected] of Object.entries(files)) {
    it(`opens ${file}`, function () {
      const model = openModel(fixture(this, `tiny/${file}`));
      const embedding = expected.embedding ?? 'f16';
      assert.equal(model.quantisation, expected.quantisation);
      const { name, ...shape } = model.shape;
      assert.match(name, /^[a-z0-9-]+-[0-9a-f]{6}$/);
      assert.deepEqual(shape, {
        hidden: 256,
        layers: 4,
        heads: 4,
        kvHeads: 2,
        headSize: 64,
        intermediate: 768,
        vocabulary: 4096,
        context: 512,
        activation: expected.activation ?? 'relu2',
        subNorms: expected.subNorms ?? true,
        tiedEmbedding: expected.tied ?? true,
        embeddingType: embedding,
        headType: embedding,
        normEps: 1e-5,
        ropeTheta: expected.theta ?? 500000,
      });
      assert.deepEqual([model.bos, ...model.eos], [3840, 3841, 3849]);
      const heads = ['attn_q', 'attn_k', 'attn_v'].map((part) => model.tensors.get(`blk.3.${part}`)?.permutedHeads);
      assert.deepEqual(heads, expected.permuted ? [4, 2, undefined] : [undefined, undefined, undefined]);
    });
  }

  for (const [packed, i2s] of [
    ['2b4t/hf-packed', '2b4t/tiny-2b4t-i2_s.gguf'],
    ['llama158/hf-packed', 'llama158/tiny-llama158-i2_s.gguf'],
  ] as const) {
    it(`finds the same scales and sizes in ${packed} and its I2_S conversion`, function () {
      const [a, b] = [packed, i2s].map((name) => openModel(fixture(this, `tiny/${name}`)));
      for (const name of ternaryNames) {
        const [u8, gguf] = [a!.tensors.get(`blk.3.${name}`)!, b!.tensors.get(`blk.3.${name}`)!];
        assert.deepEqual([u8.rows, u8.cols, u8.bytes + 32], [gguf.rows, gguf.cols, gguf.bytes]);
        const tail = withModelFile(gguf.file, (file) => readFloats(file, gguf.offset + gguf.bytes - 32, 1, 'f32')[0]!);
        // Stored as bfloat16 and inverted on one side: 2^-8 apart at most.
        assert.ok(Math.abs(u8.scale! / tail - 1) < 2 ** -8, `${name}: ${u8.scale} and ${tail}`);
      }
    });
  }

  /** Lists of numbers are typed arrays here. */
  const plain = (value: unknown): unknown => (ArrayBuffer.isView(value) ? [...(value as Int32Array)] : value);

  it('agrees with @huggingface/gguf', async function () {
    for (const name of ['2b4t/tiny-2b4t-i2_s', '2b4t/tiny-2b4t-tq1_0', 'llama158/tiny-llama158-i2_s']) {
      const file = fixture(this, `tiny/${name}.gguf`);
      const model = openModel(file);
      const { tensorInfos, tensorDataOffset, ...rest } = await gguf(file, { allowLocalFile: true });
      const metadata = rest.metadata as Record<string, unknown>;
      const byName = new Map([...model.tensors.values()].map((tensor) => [tensor.name, tensor]));
      assert.equal(byName.size, tensorInfos.length);
      for (const info of tensorInfos) {
        const tensor = byName.get(info.name)!;
        assert.deepEqual(
          [tensor.cols, tensor.rows, encodings[tensor.encoding], tensor.offset],
          [Number(info.shape[0]), Number(info.shape[1] ?? 1), info.dtype, Number(tensorDataOffset + info.offset)],
        );
      }
      const { tokenizer } = model;
      assert.ok(tokenizer?.kind === 'gguf');
      assert.deepEqual(tokenizer.tokens, metadata['tokenizer.ggml.tokens']);
      for (const key of ['merges', 'token_type', 'pre'].map((name) => `tokenizer.ggml.${name}`))
        assert.deepEqual(plain(tokenizer.metadata.get(key)), metadata[key]);
    }
  });
});
