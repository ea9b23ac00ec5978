/**
 * templates/decode.c: ternary digits and scale from every encoding of a matrix. tensors/ holds one 256 x 512 matrix (scale
 * 1.5546875), written by reference encoders; the other cases are built here.
 */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { withModelFile } from '../runtime/formats/file.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { Encoding } from '../runtime/formats/source.ts';
import { encodings } from '../runtime/formats/source.ts';
import { decoderSources, describeDecoder, random, results, tensor, warnings } from './decode-program.ts';
import { fixture, skip } from './fixtures.ts';
import { type FloatName, floatTypes, stored } from './float-types.ts';
import { some } from './tier.ts';

const manifest = JSON.parse(tensor('manifest.json').toString());
const [rows, cols, scale] = [manifest.matrix.rows_out, manifest.matrix.cols_in, manifest.matrix.scale];
const matrix = new Int8Array(tensor('matrix_256x512.i8'));

/** The nearest integer, halves to even. */
function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

describeDecoder('decode.c', (decoder) => {
  describe('the same matrix', () => {
    const files: [Encoding, string, number][] = [
      ['hf-u8', 'hf_packed.u8', 1],
      ['i2_s', 'i2_s.bin', scale],
      ['tq1_0', 'tq1_0.bin', scale],
      ['tq2_0', 'tq2_0.bin', scale],
    ];
    for (const [encoding, file, expected] of files) {
      it(`from ${encoding}`, async () => {
        const got = await decoder.trits(encoding, rows, cols, tensor(file));
        assert.deepEqual([got.result, got.scale, got.masters], [results.ok, expected, 0]);
        assert.deepEqual(got.digits, matrix);
      });
    }
    for (const type of Object.keys(floatTypes) as FloatName[]) {
      it(`from ${type} that is already ternary`, async () => {
        const got = await decoder.trits(
          type,
          rows,
          cols,
          stored(
            type,
            Array.from(matrix, (t) => t * scale),
          ),
        );
        assert.deepEqual([got.result, got.scale, got.masters], [results.ok, scale, 0]);
        assert.deepEqual(got.digits, matrix);
      });
      it(`from ${type} masters`, async () => {
        const next = random(7);
        // Around each digit, so that most round back to it, with some dead weights; the rule is then applied anew.
        const raw = Array.from(matrix, (t) => (next() < 0.01 ? 1e-34 : (t + (next() - 0.5) * 1.2) * scale));
        const values = raw.map(floatTypes[type].round);
        const mean = values.reduce((sum, v) => sum + Math.abs(v), 0) / values.length;
        const inverse = Math.fround(1 / Math.fround(mean));
        const digits = values.map((v) => Math.max(-1, Math.min(1, roundEven(Math.fround(v * inverse)))));
        const got = await decoder.trits(type, rows, cols, stored(type, values));
        assert.deepEqual([got.result, got.masters], [results.ok, 1]);
        assert.equal(got.scale, floatTypes[type].round(Math.fround(mean)));
        assert.deepEqual(got.digits, new Int8Array(digits));
      });
    }
  });

  it('the same matrices from every format of one model', async function () {
    this.timeout(60_000);
    const formats = [
      'hf-packed',
      'hf-master',
      ...['i2_s', 'tq1_0', 'tq2_0', 'f16'].map((name) => `tiny-2b4t-${name}.gguf`),
    ];
    const models = formats.map((name) => openModel(fixture(this, `tiny/2b4t/${name}`)));
    for (const name of ['blk.0.attn_q', 'blk.1.attn_k', 'blk.2.ffn_gate', 'blk.3.ffn_down']) {
      const all = [];
      for (const { tensors } of models) {
        const { file, offset, bytes, encoding, rows, cols, scale } = tensors.get(name)!;
        const data = withModelFile(file, (opened) => opened.read(offset, bytes));
        const got = await decoder.trits(encoding, rows, cols, data);
        assert.equal(got.result, results.ok);
        all.push({ digits: got.digits, scale: scale ?? got.scale, masters: got.masters });
      }
      for (const [i, { digits, scale, masters }] of all.entries()) {
        assert.deepEqual(digits, all[0]!.digits, `${name} in ${formats[i]}`);
        assert.deepEqual(
          [scale, masters],
          [all[0]!.scale, formats[i] === 'hf-master' ? 1 : 0],
          `${name} in ${formats[i]}`,
        );
      }
    }
  });

  describe('rounding and special matrices', () => {
    it('rounds halves to even: 0.5 becomes 0, 1.5 becomes 1 (clamped 2)', async () => {
      // Mean magnitude is exactly 2, so 1 and 3 are the halves.
      const got = await decoder.trits(
        'f32',
        1,
        8,
        stored('f32', [1, -1, 3, -3, Math.fround(1 + 2 ** -22), 0, 4, 3 - 2 ** -22]),
      );
      assert.equal(got.scale, 2);
      assert.deepEqual([...got.digits], [0, 0, 1, -1, 1, 0, 1, 1]);
    });
    it('clamps tiny scales at 1e-5, so that dead matrices become zero', async () => {
      const got = await decoder.trits('f32', 1, 4, stored('f32', [1e-34, -2e-34, 1e-20, 4e-6]));
      assert.deepEqual([got.masters, got.scale, ...got.digits], [1, Math.fround(1e-5), 0, 0, 0, 0]);
    });
    it('lets ternary values differ in the last place', async () => {
      for (const [type, step] of [
        ['f32', 2 ** -22],
        ['f16', 2 ** -10],
        ['bf16', 2 ** -7],
      ] as const) {
        const got = await decoder.trits(type, 1, 4, stored(type, [1, -1 - step, 0, 1]));
        assert.deepEqual([got.masters, got.scale, ...got.digits], [0, 1 + step, 1, -1, 0, 1], type);
        const more = await decoder.trits(type, 1, 4, stored(type, [1, -1 - 2 * step, 0, 1]));
        assert.equal(more.masters, 1, type);
      }
    });
    for (const type of Object.keys(floatTypes) as FloatName[]) {
      it(`all zero in ${type}`, async () => {
        const got = await decoder.trits(type, 3, 5, stored(type, new Array(15).fill(0)));
        assert.deepEqual([got.result, got.scale, got.masters], [results.ok, 0, 0]);
        assert.deepEqual(got.digits, new Int8Array(15));
      });
    }
    it('refuses NaN, infinity and what is too large, and says where', async () => {
      for (const [bad, text] of [
        [Number.NaN, 'NaN'],
        [Number.POSITIVE_INFINITY, 'infinity'],
        [Number.NEGATIVE_INFINITY, '-infinity'],
        [-(2 ** 21), '-2.09715e\\+06'],
      ] as const)
        for (const type of ['f32', 'bf16'] as const) {
          const data = stored(type, [1, 0, 2, 1, 1, bad, 0, bad]);
          // stored() rounds; NaN of bf16 needs its bits.
          if (type === 'bf16' && Number.isNaN(bad)) data.writeUInt16LE(0x7fc0, 10);
          assert.equal((await decoder.trits(type, 2, 4, data)).result, results.value, `${type} ${bad}`);
          assert.match(
            await decoder.why(type, 2, 4, results.value, data),
            new RegExp(
              `^row 1, column 1 is ${text}: weights are finite and at most 2\\^20 in size; the file is damaged`,
            ),
          );
        }
      assert.equal((await decoder.trits('f32', 1, 4, stored('f32', [1, 2 ** 20, 0, 2]))).result, results.ok);
      const vector = stored('f32', [1, Number.NaN]);
      assert.match(await decoder.why('f32', 1, 2, results.value, vector), /^element 1 is NaN: /);
    });
  });

  describe('blocks', () => {
    it('takes a TQ block of scale 0 as zeros, whatever its digits', async () => {
      for (const [encoding, bytes] of [
        ['tq2_0', 66],
        ['tq1_0', 54],
      ] as const) {
        const data = Buffer.concat([tensor(`${encoding}.bin`).subarray(0, bytes), Buffer.alloc(bytes)]);
        const got = await decoder.trits(encoding, 1, 512, data);
        assert.deepEqual([got.result, got.scale], [results.ok, scale]);
        assert.deepEqual(
          got.digits,
          Int8Array.from({ length: 512 }, (_, i) => (i < 256 ? matrix[i]! : 0)),
        );
        const zero = await decoder.trits(encoding, 2, 256, Buffer.alloc(2 * bytes));
        assert.deepEqual([zero.result, zero.scale], [results.ok, 0]);
      }
    });
    it('refuses TQ blocks with different, negative or infinite scales', async () => {
      const data = tensor('tq2_0.bin');
      for (const [half, result, value] of [
        [0x3000, results.scales, '0.125, another than before; it was quantised from a dense model'],
        [0xbe38, results.value, '-1.55469: weights are finite'],
        [0x7c00, results.value, 'infinity: '],
        [0x7e00, results.value, 'NaN: '],
      ] as const) {
        data.writeUInt16LE(half, 3 * 66 + 64);
        assert.equal((await decoder.trits('tq2_0', rows, cols, data)).result, result);
        const why = await decoder.why('tq2_0', rows, cols, result, data);
        assert.ok(why.startsWith(`the scale of the block at row 1, column 256 is ${value}`), why);
      }
    });
    it('reads I2_S rows that straddle blocks', async () => {
      // 256 x 512 seen as 2048 x 64 and so on: the flattened matrix is the same.
      const data = tensor('i2_s.bin');
      for (const cols of [64, 32, 8, 1]) {
        const rows = matrix.length / cols;
        assert.deepEqual((await decoder.trits('i2_s', rows, cols, data)).digits, matrix, `cols ${cols}`);
      }
      const odd = Buffer.concat([data.subarray(0, 96), data.subarray(-32)]);
      assert.deepEqual((await decoder.trits('i2_s', 2, 192, odd)).digits, matrix.subarray(0, 384));
      assert.deepEqual((await decoder.trits('i2_s', 128, 3, odd)).digits, matrix.subarray(0, 384));
    });
    /** Refused, for a code at this place. */
    const wrongCode = async (encoding: Encoding, rows: number, cols: number, data: Buffer, place: string) => {
      assert.equal((await decoder.trits(encoding, rows, cols, data)).result, results.code, place);
      const why = await decoder.why(encoding, rows, cols, results.code, data);
      assert.ok(why.startsWith(`${place}, which is no ternary digit; the file is damaged or`), why);
    };
    it('refuses the code 3, and says where', async () => {
      for (const [cols, row, column] of [
        [128, 1, 65],
        [64, 3, 1],
        [8, 24, 1],
      ] as const) {
        const i2s = Buffer.alloc(96, 0x55);
        i2s.writeFloatLE(1, 64);
        i2s[32 + 1] = 0x5d; // element 128 + 64 + 1
        await wrongCode('i2_s', 256 / cols, cols, i2s, `row ${row}, column ${column} has the code 3`);
      }
      await wrongCode('hf-u8', 4, 2, Buffer.from([0, 0xc0]), 'row 3, column 1 has the code 3');
      const tq2 = Buffer.alloc(2 * 66, 0x55);
      tq2[66 + 33] = 0x75; // bits 4 and 5: element 128 + 2 * 32 + 1
      await wrongCode('tq2_0', 2, 256, tq2, 'row 1, column 193 has the code 3');
    });
    it('refuses bytes of TQ1_0 that no digits make, and no others', async () => {
      const made = (digits: number) =>
        new Set(Array.from({ length: 3 ** digits }, (_, value) => Math.ceil((value * 3 ** (5 - digits) * 256) / 243)));
      const block = (place: number, byte: number) => {
        const data = Buffer.alloc(54, 0x80);
        data.fill(0x7f, 48, 52); // 1 1 1 1 0
        data[place] = byte;
        data.writeUInt16LE(0x3c00, 52);
        return data;
      };
      assert.ok(made(4).has(0x7f) && made(5).has(0x80));
      for (const [place, element, digits] of [
        [0, 0, 5],
        [31, 31, 5],
        [33, 161, 5],
        [50, 242, 4],
      ] as const) {
        const valid = made(digits);
        const rows = [...valid].map((byte) => block(place, byte));
        assert.equal((await decoder.trits('tq1_0', rows.length, 256, Buffer.concat(rows))).result, results.ok);
        const invalid = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => !valid.has(byte));
        assert.equal(invalid.length, 256 - 3 ** digits);
        for (const byte of some([invalid[0]!, invalid.at(-1)!, ...invalid.slice(1, -1)], 2))
          await wrongCode('tq1_0', 1, 256, block(place, byte), `element ${element} is in the byte ${byte}`);
      }
    });
    it('unpacks U8 whose rows are no multiple of four', async () => {
      // 5 rows in 2 packed rows: row r shares its byte with r + 2 and r + 4.
      const got = await decoder.trits('hf-u8', 5, 1, Buffer.from([0b100001 /* 1, 0, 2 */, 0b000110 /* 2, 1 */]));
      assert.deepEqual([...got.digits], [0, 1, -1, 0, 1]);
    });
  });

  describe('sizes', () => {
    it('refuses data that do not fit rows and columns', async () => {
      const cases: [Encoding, number, number, number][] = [
        ['f32', 2, 3, 23],
        ['bf16', 2, 3, 13],
        ['tq2_0', 1, 128, 33],
        ['tq1_0', 2, 256, 54],
        ['i2_s', 1, 64, 48],
        ['i2_s', 1, 128, 32],
        ['hf-u8', 8, 4, 7],
        ['f16', 0, 4, 0],
        ['f16', -1, 4, 0],
        ['f32', 134217727, 134217727, 64],
      ];
      for (const [encoding, rows, cols, bytes] of cases) {
        const got = await decoder.trits(encoding, rows, cols, Buffer.alloc(bytes));
        assert.equal(got.result, results.size, `${encoding} ${rows} x ${cols} in ${bytes}`);
      }
    });
    it('refuses encodings that are not for the purpose', async () => {
      assert.equal((await decoder.trits('q8_0', 1, 32, Buffer.alloc(34))).result, results.encoding);
      assert.equal((await decoder.floats('tq2_0', 1, 256, Buffer.alloc(66))).result, results.encoding);
      assert.equal((await decoder.floats('i2_s', 1, 128, Buffer.alloc(64))).result, results.encoding);
    });
  });
});

describe('the decoder', () => {
  it('has the encodings of source.ts', () => {
    const header = readFileSync(path.join(import.meta.dirname, '../templates/decode.h'), 'utf8');
    const list = /enum \{\s+BN_F32 = 0[^}]*\}/.exec(header)![0];
    const found = [...list.matchAll(/BN_(\w+) = (\d+)/g)].map(([, name, id]) => [name!.toLowerCase(), Number(id)]);
    assert.deepEqual(
      Object.fromEntries(found),
      Object.fromEntries(Object.entries(encodings).map(([name, id]) => [name.replace('-', '_'), id])),
    );
  });

  it('compiles without warnings with clang', async function () {
    for (const clang of ['clang', 'clang-19']) {
      const found = await execa(clang, ['--version'], { reject: false });
      if (found.failed) continue;
      await execa(clang, [...warnings, '-O2', '-fsyntax-only', ...decoderSources]);
      return;
    }
    skip(this, 'no clang');
  });
});
