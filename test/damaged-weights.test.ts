/**
 * Weights that cannot be what training left: refused when they are packed, with file, tensor, place and value, and nothing is
 * left behind. Every encoding's own damage is in decode.test.ts; here is what packing refuses, and what looks like damage but
 * is none.
 */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { openModel } from '../runtime/formats/open.ts';
import { type Encoding, encodings, type SourceTensor } from '../runtime/formats/source.ts';
import type { Library } from '../runtime/library.ts';
import { openWeights, weightsRoot } from '../runtime/weights.ts';
import { ModelError } from '../schemas/error.ts';
import { fixture } from './fixtures.ts';
import { type FloatName, stored } from './float-types.ts';
import { type Built, bestTarget, buildFor, libraryFor, refuses, smallestShape, useCache } from './machine.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel } from './write-model.ts';

describe('damaged weights', () => {
  const cache = useCache();
  let folder = '';
  let built: Built;
  let library: Library;
  let whole: Buffer;

  before(async () => {
    built = await buildFor(smallestShape, bestTarget);
    library = await libraryFor(built);
    folder = path.join(cache(), 'model');
    writeHuggingFace(folder, randomModel(smallestShape, 1), { weights: 'packed' });
    whole = readFileSync(path.join(folder, 'model.safetensors'));
  });

  /** Packs the model with one tensor's bytes changed. */
  const packChanged = async (name: string, change: (bytes: Buffer, tensor: SourceTensor) => void): Promise<void> => {
    const file = path.join(folder, 'model.safetensors');
    const data = Buffer.from(whole);
    const tensor = openModel(folder).tensors.get(name)!;
    change(data.subarray(tensor.offset, tensor.offset + tensor.bytes), tensor);
    writeFileSync(file, data);
    rmSync(weightsRoot(), { recursive: true, force: true });
    try {
      const { model } = await openWeights(openModel(folder), built.manifest.layout, library, 2);
      library.close(model);
    } finally {
      writeFileSync(file, whole);
    }
  };

  /** Refused with the file, the file's name of the tensor and this reason; nothing stays in the cache. */
  const isRefused = async (
    name: string,
    change: (bytes: Buffer, tensor: SourceTensor) => void,
    own: string,
    why: string,
  ): Promise<void> => {
    const file = path.join(folder, 'model.safetensors');
    await assert.rejects(packChanged(name, change), (error) => {
      assert.ok(error instanceof ModelError, String(error));
      const start = `${file}: tensor '${own}' cannot be packed: ${why}`;
      assert.equal(error.message.slice(0, start.length), start);
      assert.match(error.message, /damaged|download it again/);
      return true;
    });
    assert.deepEqual(existsSync(weightsRoot()) ? readdirSync(weightsRoot()) : [], []);
  };

  const bfloats = { NaN: 0x7fc1, 'negative NaN': 0xffc0, infinity: 0x7f80, '-infinity': 0xff80, '2.09715e+06': 0x4a00 };
  for (const [value, bits] of Object.entries(bfloats)) {
    const shown = value.includes('NaN') ? 'NaN' : value;
    it(`${value} in a norm`, async () => {
      const damage = (b: Buffer) => b.writeUInt16LE(bits, 2 * 17);
      await isRefused('output_norm', damage, 'model.norm.weight', `element 17 is ${shown}: weights are finite`);
      const own = 'model.layers.1.mlp.ffn_sub_norm.weight';
      await isRefused('blk.1.ffn_sub_norm', damage, own, `element 17 is ${shown}: `);
    });
    it(`${value} in a row of the embedding`, () =>
      isRefused(
        'token_embd',
        (b, t) => b.writeUInt16LE(bits, 2 * (76 * t.cols + 35)),
        'model.embed_tokens.weight',
        `row 76, column 35 is ${shown}: `,
      ));
  }

  it('the fourth code in a matrix', () =>
    isRefused(
      'blk.1.ffn_down',
      (bytes) => bytes.fill(0xff, bytes.length - 1),
      'model.layers.1.mlp.down_proj.weight',
      'row 8, column 43 has the code 3, which is no ternary digit',
    ));

  for (const [name, own] of [
    ['blk.0.attn_norm', 'model.layers.0.input_layernorm.weight'],
    ['token_embd', 'model.embed_tokens.weight'],
    ['blk.1.attn_q', 'model.layers.1.self_attn.q_proj.weight'],
  ] as const)
    it(`nothing but zeros: ${name}`, () =>
      isRefused(name, (bytes) => bytes.fill(0), own, 'nothing in it is other than zero'));

  it('zeros that are no damage', async () => {
    await packChanged('blk.0.attn_norm', (bytes) => bytes.fill(0, 2));
    await packChanged('blk.0.ffn_sub_norm', (bytes) => bytes.fill(0, 0, 20));
    await packChanged('token_embd', (bytes, { cols }) => bytes.fill(0, 2 * cols));
    await packChanged('blk.0.attn_v', (bytes) => bytes.fill(0, 1));
    // Four codes for 0 in a byte: pruned.
    await packChanged('blk.1.ffn_up', (bytes) => bytes.fill(0x55));
    await packChanged('blk.0.attn_k', (bytes) => bytes.fill(0xaa));
  });

  it('a norm with a NaN, as it was found', async function () {
    const source = openModel(fixture(this, 'field/nan-in-norm'));
    const { layout } = (await buildFor(source.shape, bestTarget)).manifest;
    const own = await libraryFor(await buildFor(source.shape, bestTarget));
    await assert.rejects(openWeights(source, layout, own, 1), (error) => {
      assert.ok(error instanceof ModelError);
      assert.match(error.message, /nan-in-norm\/model\.safetensors: tensor 'model\.\S+norm\S*' .*: element \d+ is NaN/);
      return true;
    });
  });

  describe('matrices in other encodings', () => {
    const { hidden } = smallestShape;
    const rows = 160;
    const i2s = (scale: number, fill = 0x58) => {
      const data = Buffer.alloc((rows * hidden) / 4 + 32, fill);
      data.writeFloatLE(scale, data.length - 32);
      return data;
    };
    const floats = (type: FloatName, value: (i: number) => number) =>
      stored(
        type,
        Array.from({ length: rows * hidden }, (_, i) => value(i)),
      );
    /** Packs blk.0.attn_q alone. */
    const pack = (encoding: Encoding, data: Buffer, scale = 0, factor = 1) => {
      const file = path.join(cache(), 'matrix');
      writeFileSync(file, data);
      const index = built.manifest.layout.tensors.findIndex(({ name }) => name === 'blk.0.attn_q');
      library.packBegin(path.join(cache(), 'packing.bnw'), 2);
      try {
        library.packTensor(index, file, 0, data.length, encodings[encoding], rows, hidden, scale, factor, 0);
      } finally {
        library.packEnd(false);
      }
    };
    const isScale = (shown: string) =>
      new RegExp(
        `^tensor 'blk\\.0\\.attn_q' cannot be packed: its scale is ${shown}, not between 2\\^-40 and 2\\^20; `,
      );

    it('scales of I2_S', () => {
      for (const [scale, shown] of [
        [Number.NaN, '-?nan'],
        [Number.POSITIVE_INFINITY, 'inf'],
        [-1.5, '-1\\.5'],
        [0, '0'],
        [1e30, '1e\\+30'],
        [1e-30, '1e-30'],
      ] as const)
        refuses(() => pack('i2_s', i2s(scale)), isScale(shown));
      pack('i2_s', i2s(1.5));
    });

    it('scales of their own', () => {
      refuses(() => pack('i2_s', i2s(1), 1e30), isScale('1e\\+30'));
      refuses(() => pack('i2_s', i2s(1), 1, 1e9), isScale('1e\\+09'));
      refuses(() => pack('i2_s', i2s(1), Number.POSITIVE_INFINITY), isScale('inf'));
      refuses(() => pack('i2_s', i2s(1), Number.NaN), /scale = NaN; it must be /);
    });

    it('codes of I2_S', () => {
      const data = i2s(1);
      data[3 * 32 + 5]! |= 0x0c; // element 3 * 128 + 64 + 5
      refuses(() => pack('i2_s', data), /: row 12, column 21 has the code 3, which is no ternary digit/);
      refuses(() => pack('i2_s', i2s(1, 0)), /: nothing in it is other than zero/);
      pack('i2_s', i2s(1, 0x55));
    });

    for (const type of ['f32', 'f16', 'bf16'] as const)
      it(`masters in ${type}`, () => {
        refuses(
          () =>
            pack(
              type,
              floats(type, (i) => (i === 777 ? Number.POSITIVE_INFINITY : Math.sin(i))),
            ),
          /: row 21, column 21 is infinity: weights are finite/,
        );
        refuses(
          () =>
            pack(
              type,
              floats(type, () => 0),
            ),
          /: nothing in it is other than zero/,
        );
        pack(type, floats(type, Math.sin));
        // So small that training itself makes zeros of them.
        pack(
          type,
          floats(type, (i) => 1e-6 * Math.sin(i)),
        );
      });
  });
});
