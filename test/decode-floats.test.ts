/**
 * templates/decode-floats.c: conversions between float types, and rows of an embedding in every encoding. tensors/ holds one
 * 8 x 512 embedding, written by reference encoders, with the values that ggml reads from each.
 */
import { strict as assert } from 'node:assert';
import { describeDecoder, random, results, tensor } from './decode-program.ts';
import { bitsOf, floatOf, halfOf, roundBfloat, roundHalf, stored, toBfloat, toHalf } from './float-types.ts';

describeDecoder('decode-floats.c', (decoder) => {
  describe('embeddings', () => {
    const source = new Float32Array(new Uint8Array(tensor('embed_8x512.f32')).buffer);
    const halves = (file: string, value: (bits: number) => number): Float32Array => {
      const data = tensor(file);
      return Float32Array.from({ length: data.length / 2 }, (_, i) => value(data.readUInt16LE(2 * i)));
    };
    it('f32', async () => {
      assert.deepEqual(await decoder.floats('f32', 8, 512, tensor('embed_8x512.f32')), {
        result: results.ok,
        values: source,
      });
    });
    it('f16', async () => {
      const { values } = await decoder.floats('f16', 8, 512, tensor('embed.f16.bin'));
      assert.deepEqual(values, halves('embed.f16.bin', halfOf));
      assert.deepEqual(values, source.map(roundHalf));
    });
    it('bf16', async () => {
      const { values } = await decoder.floats('bf16', 8, 512, tensor('embed.bf16.bin'));
      assert.deepEqual(
        values,
        halves('embed.bf16.bin', (bits) => floatOf(bits * 0x10000)),
      );
      assert.deepEqual(values, source.map(roundBfloat));
    });
    for (const encoding of ['q8_0', 'q6_k', 'q4_0'] as const) {
      it(encoding, async () => {
        const expected = new Float32Array(new Uint8Array(tensor(`embed.${encoding}.f32`)).buffer);
        const got = await decoder.floats(encoding, 8, 512, tensor(`embed.${encoding}.bin`));
        assert.deepEqual(got, { result: results.ok, values: expected });
      });
    }
  });

  it('finds the largest magnitude, or scale of a block', async () => {
    const half = (bytes: number, at: number, bits: number, blocks = 2) => {
      const data = Buffer.alloc(bytes * blocks, 0x11);
      for (let i = 0; i < blocks; i++) data.writeUInt16LE(i === blocks - 1 ? bits : 0x3c00, i * bytes + at);
      return data;
    };
    for (const [encoding, elements, bytes, at] of [
      ['q4_0', 32, 18, 0],
      ['q8_0', 32, 34, 0],
      ['q6_k', 256, 210, 208],
      ['f16', 1, 2, 0],
    ] as const) {
      const largest = (bits: number) => decoder.largest(encoding, 2 * elements, half(bytes, at, bits));
      assert.equal(await largest(0xc000), 2, encoding);
      assert.equal(await largest(0x0000), 1, encoding);
      assert.equal(await largest(0xfc00), Number.POSITIVE_INFINITY, encoding);
      assert.ok(Number.isNaN(await largest(0x7e01)), encoding);
      assert.match(
        await decoder.why(encoding, 1, 2 * elements, results.value, half(bytes, at, 0x7e01)),
        elements > 1 ? new RegExp(`^the scale of the block at element ${elements} is NaN: `) : /^element 1 is NaN: /,
      );
    }
    for (const type of ['f32', 'bf16'] as const) {
      const of = (values: readonly number[]) => decoder.largest(type, values.length, stored(type, values));
      assert.equal(await of([1, -3, 2]), 3, type);
      assert.equal(await of([0, -0]), 0, type);
      assert.equal(await of([1, Number.NEGATIVE_INFINITY, 1]), Number.POSITIVE_INFINITY, type);
    }
    assert.ok(Number.isNaN(await decoder.largest('f32', 2, stored('f32', [Number.NaN, 1]))));
  });

  describe('conversions', () => {
    it('widen all 65,536 halves and bfloats exactly', async () => {
      const out = await decoder.run('halves');
      const values = new Float32Array(out.buffer.slice(out.byteOffset));
      for (let i = 0; i < 65536; i++) {
        assert.ok(Object.is(values[i], halfOf(i)), `f16 ${i.toString(16)}`);
        assert.ok(Object.is(values[65536 + i], floatOf(i * 0x10000)), `bf16 ${i.toString(16)}`);
      }
    });
    it('narrow to the nearest, halves to even', async () => {
      const next = random(3);
      const inputs = [0, -0, 1, 65504, 65519.99, 65520, 1e9, 2 ** -24, 2 ** -25, 1.5 * 2 ** -25, 2 ** -14, 3e-5, 1e-40];
      for (let i = 0; i < 3000; i++) inputs.push((next() - 0.5) * 2 ** Math.floor(next() * 44 - 27));
      // Half way between neighbours of either type, and a step to each side.
      for (let i = 0; i < 500; i++) {
        const half = Math.floor(next() * 0x7bff);
        const middle = (halfOf(half) + halfOf(half + 1)) / 2;
        inputs.push(middle, floatOf(bitsOf(middle) + 1), -floatOf(bitsOf(middle) - 1));
        inputs.push(floatOf(Math.floor(next() * 0x7f00) * 0x10000 + 0x8000));
      }
      const values = Float32Array.from(inputs);
      const out = await decoder.run('narrow', decoder.save(new Uint8Array(values.buffer)));
      for (const [i, value] of values.entries()) {
        assert.equal(out.readUInt16LE(2 * i), toHalf(value), `f16 of ${value}`);
        assert.equal(out.readUInt16LE(2 * (values.length + i)), toBfloat(value), `bf16 of ${value}`);
      }
    });
    it('keep infinities and NaNs', async () => {
      const values = Float32Array.from([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]);
      const out = await decoder.run('narrow', decoder.save(new Uint8Array(values.buffer)));
      assert.deepEqual([out.readUInt16LE(0), out.readUInt16LE(2)], [0x7c00, 0xfc00]);
      assert.ok(Number.isNaN(halfOf(out.readUInt16LE(4))));
      assert.deepEqual([out.readUInt16LE(6), out.readUInt16LE(8)], [0x7f80, 0xff80]);
      assert.ok(Number.isNaN(floatOf(out.readUInt16LE(10) * 0x10000)));
    });
  });
});
