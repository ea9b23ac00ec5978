/**
 * templates/decode.c against tensors in every encoding. tensors/ holds one ternary 256 x 512 matrix (scale 1.5546875) and one
 * 8 x 512 embedding, written by reference encoders; the other cases are built here. decode-main.c is the driver; everything
 * runs twice, optimised and with the address and undefined-behaviour sanitizers.
 */
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { withModelFile } from '../runtime/formats/file.ts';
import { openModel } from '../runtime/formats/open.ts';
import type { Encoding } from '../runtime/formats/source.ts';
import { encodings } from '../runtime/formats/source.ts';
import { fixture, skip } from './fixtures.ts';

const here = import.meta.dirname;
const tensor = (name: string): string => path.join(here, 'tensors', name);
const manifest = JSON.parse(readFileSync(tensor('manifest.json'), 'utf8'));
const [rows, cols, scale] = [manifest.matrix.rows_out, manifest.matrix.cols_in, manifest.matrix.scale];
const matrix = new Int8Array(readFileSync(tensor('matrix_256x512.i8')));

const [ok, badEncoding, badSize, badValue, badCode, badScales] = [0, 1, 2, 4, 5, 6];
const warnings = ['-std=c11', '-Wall', '-Wextra', '-Wconversion', '-Werror'];

/** f32 -> bits of a shorter type, half to even, by searching the neighbours: slow, and independent of decode.c. */
const word = new DataView(new ArrayBuffer(4));
function bitsOf(value: number): number {
  word.setFloat32(0, value);
  return word.getUint32(0);
}
function floatOf(bits: number): number {
  word.setUint32(0, bits);
  return word.getFloat32(0);
}
function halfOf(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? (1024 + mantissa) * 2 ** (exponent - 25) : mantissa * 2 ** -24);
}

const types = {
  f32: { bytes: 4, write: (b: Buffer, i: number, v: number) => b.writeFloatLE(v, 4 * i), round: Math.fround },
  f16: { bytes: 2, write: (b: Buffer, i: number, v: number) => b.writeUInt16LE(toHalf(v), 2 * i), round: roundHalf },
  bf16: {
    bytes: 2,
    write: (b: Buffer, i: number, v: number) => b.writeUInt16LE(toBfloat(v), 2 * i),
    round: roundBfloat,
  },
} as const;
type FloatName = keyof typeof types;

function toHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  // Magnitudes of halves grow with their bits; find the last one that is not above.
  let [low, high] = [0, 0x7c00];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (halfOf(middle) <= size) low = middle;
    else high = middle;
  }
  // 65536 stands for infinity when rounding.
  const up = high === 0x7c00 ? 65536 : halfOf(high);
  const distance = size - halfOf(low) - (up - size);
  return sign | (distance > 0 || (distance === 0 && low & 1) ? high : low);
}
function roundHalf(value: number): number {
  return halfOf(toHalf(value));
}
function toBfloat(value: number): number {
  const bits = bitsOf(value);
  const low = bits & 0xffff;
  const high = bits >>> 16;
  return low > 0x8000 || (low === 0x8000 && high & 1) ? high + 1 : high;
}
function roundBfloat(value: number): number {
  return floatOf(toBfloat(value) * 0x10000);
}

/** A generator of numbers in [0, 1) that is the same on every run. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

for (const sanitize of [false, true]) {
  describe(`decode.c${sanitize ? ' with sanitizers' : ''}`, () => {
    let folder: string;
    let program: string;

    before(async function () {
      folder = mkdtempSync(path.join(tmpdir(), 'decode-'));
      program = path.join(folder, 'decode');
      const flags = sanitize ? ['-O1', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover'] : ['-O2'];
      const files = [path.join(here, '../templates/decode.c'), path.join(here, 'decode-main.c')];
      const built = await execa('cc', [...warnings, ...flags, ...files, '-o', program], { reject: false });
      if (built.failed && sanitize && /cannot find|unsupported/.test(built.stderr)) {
        skip(this as unknown as Mocha.Context, 'the C compiler has no sanitizers');
      }
      assert.equal(built.exitCode, 0, `cc: ${built.code ?? ''} ${built.stderr}`);
    });
    after(() => rmSync(folder, { recursive: true, force: true }));

    async function run(...args: (string | number)[]): Promise<Buffer> {
      const { stdout } = await execa(program, args.map(String), { encoding: 'buffer', stripFinalNewline: false });
      return Buffer.from(stdout);
    }
    function save(data: Uint8Array): string {
      const file = path.join(folder, 'input');
      writeFileSync(file, data);
      return file;
    }
    async function trits(encoding: Encoding, rows: number, cols: number, data: Uint8Array) {
      const out = await run('trits', encodings[encoding], rows, cols, save(data));
      const digits = new Int8Array(out.subarray(12));
      return { result: out.readInt32LE(0), scale: out.readFloatLE(4), masters: out.readInt32LE(8), digits };
    }
    async function floats(encoding: Encoding, rows: number, cols: number, data: Uint8Array) {
      const out = await run('floats', encodings[encoding], rows, cols, save(data));
      return { result: out.readInt32LE(0), values: new Float32Array(out.buffer.slice(out.byteOffset + 4)) };
    }
    function stored(type: FloatName, values: ArrayLike<number>): Buffer {
      const data = Buffer.alloc(values.length * types[type].bytes);
      for (let i = 0; i < values.length; i++) types[type].write(data, i, values[i]!);
      return data;
    }

    describe('the same matrix', () => {
      const files: [Encoding, string, number][] = [
        ['hf-u8', 'hf_packed.u8', 1],
        ['i2_s', 'i2_s.bin', scale],
        ['tq1_0', 'tq1_0.bin', scale],
        ['tq2_0', 'tq2_0.bin', scale],
      ];
      for (const [encoding, file, expected] of files) {
        it(`from ${encoding}`, async () => {
          const got = await trits(encoding, rows, cols, readFileSync(tensor(file)));
          assert.deepEqual([got.result, got.scale, got.masters], [ok, expected, 0]);
          assert.deepEqual(got.digits, matrix);
        });
      }
      for (const type of Object.keys(types) as FloatName[]) {
        it(`from ${type} that is already ternary`, async () => {
          const got = await trits(
            type,
            rows,
            cols,
            stored(
              type,
              Array.from(matrix, (t) => t * scale),
            ),
          );
          assert.deepEqual([got.result, got.scale, got.masters], [ok, scale, 0]);
          assert.deepEqual(got.digits, matrix);
        });
        it(`from ${type} masters`, async () => {
          const next = random(7);
          // Around each digit, so that most round back to it, with some dead weights; the rule is then applied anew.
          const raw = Array.from(matrix, (t) => (next() < 0.01 ? 1e-34 : (t + (next() - 0.5) * 1.2) * scale));
          const values = raw.map(types[type].round);
          const mean = values.reduce((sum, v) => sum + Math.abs(v), 0) / values.length;
          const inverse = Math.fround(1 / Math.fround(mean));
          const digits = values.map((v) => Math.max(-1, Math.min(1, roundEven(Math.fround(v * inverse)))));
          const got = await trits(type, rows, cols, stored(type, values));
          assert.deepEqual([got.result, got.masters], [ok, 1]);
          assert.equal(got.scale, types[type].round(Math.fround(mean)));
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
          const got = await trits(encoding, rows, cols, data);
          assert.equal(got.result, ok);
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

    describe('embeddings', () => {
      const source = new Float32Array(new Uint8Array(readFileSync(tensor('embed_8x512.f32'))).buffer);
      const halves = (file: string, value: (bits: number) => number): Float32Array => {
        const data = readFileSync(tensor(file));
        return Float32Array.from({ length: data.length / 2 }, (_, i) => value(data.readUInt16LE(2 * i)));
      };
      it('f32', async () => {
        assert.deepEqual(await floats('f32', 8, 512, readFileSync(tensor('embed_8x512.f32'))), {
          result: ok,
          values: source,
        });
      });
      it('f16', async () => {
        const { values } = await floats('f16', 8, 512, readFileSync(tensor('embed.f16.bin')));
        assert.deepEqual(values, halves('embed.f16.bin', halfOf));
        assert.deepEqual(values, source.map(roundHalf));
      });
      it('bf16', async () => {
        const { values } = await floats('bf16', 8, 512, readFileSync(tensor('embed.bf16.bin')));
        assert.deepEqual(
          values,
          halves('embed.bf16.bin', (bits) => floatOf(bits * 0x10000)),
        );
        assert.deepEqual(values, source.map(roundBfloat));
      });
      for (const encoding of ['q8_0', 'q6_k', 'q4_0'] as const) {
        it(encoding, async () => {
          const expected = new Float32Array(new Uint8Array(readFileSync(tensor(`embed.${encoding}.f32`))).buffer);
          const got = await floats(encoding, 8, 512, readFileSync(tensor(`embed.${encoding}.bin`)));
          assert.deepEqual(got, { result: ok, values: expected });
        });
      }
    });

    describe('rounding and special matrices', () => {
      it('rounds halves to even: 0.5 becomes 0, 1.5 becomes 1 (clamped 2)', async () => {
        // Mean magnitude is exactly 2, so 1 and 3 are the halves.
        const got = await trits(
          'f32',
          1,
          8,
          stored('f32', [1, -1, 3, -3, Math.fround(1 + 2 ** -22), 0, 4, 3 - 2 ** -22]),
        );
        assert.equal(got.scale, 2);
        assert.deepEqual([...got.digits], [0, 0, 1, -1, 1, 0, 1, 1]);
      });
      it('clamps tiny scales at 1e-5, so that dead matrices become zero', async () => {
        const got = await trits('f32', 1, 4, stored('f32', [1e-34, -2e-34, 1e-20, 4e-6]));
        assert.deepEqual([got.masters, got.scale, ...got.digits], [1, Math.fround(1e-5), 0, 0, 0, 0]);
      });
      it('lets ternary values differ in the last place', async () => {
        for (const [type, step] of [
          ['f32', 2 ** -22],
          ['f16', 2 ** -10],
          ['bf16', 2 ** -7],
        ] as const) {
          const got = await trits(type, 1, 4, stored(type, [1, -1 - step, 0, 1]));
          assert.deepEqual([got.masters, got.scale, ...got.digits], [0, 1 + step, 1, -1, 0, 1], type);
          const more = await trits(type, 1, 4, stored(type, [1, -1 - 2 * step, 0, 1]));
          assert.equal(more.masters, 1, type);
        }
      });
      for (const type of Object.keys(types) as FloatName[]) {
        it(`all zero in ${type}`, async () => {
          const got = await trits(type, 3, 5, stored(type, new Array(15).fill(0)));
          assert.deepEqual([got.result, got.scale, got.masters], [ok, 0, 0]);
          assert.deepEqual(got.digits, new Int8Array(15));
        });
      }
      it('refuses NaN and infinity', async () => {
        for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
          assert.equal((await trits('f32', 1, 4, stored('f32', [1, bad, 0, 2]))).result, badValue);
        }
      });
    });

    describe('blocks', () => {
      it('takes a TQ block of scale 0 as zeros, whatever its digits', async () => {
        for (const [encoding, bytes] of [
          ['tq2_0', 66],
          ['tq1_0', 54],
        ] as const) {
          const data = Buffer.concat([readFileSync(tensor(`${encoding}.bin`)).subarray(0, bytes), Buffer.alloc(bytes)]);
          const got = await trits(encoding, 1, 512, data);
          assert.deepEqual([got.result, got.scale], [ok, scale]);
          assert.deepEqual(
            got.digits,
            Int8Array.from({ length: 512 }, (_, i) => (i < 256 ? matrix[i]! : 0)),
          );
          const zero = await trits(encoding, 2, 256, Buffer.alloc(2 * bytes));
          assert.deepEqual([zero.result, zero.scale], [ok, 0]);
        }
      });
      it('refuses TQ blocks with different, negative or infinite scales', async () => {
        const data = readFileSync(tensor('tq2_0.bin'));
        for (const [half, result] of [
          [0x3000, badScales],
          [0xbe38, badValue],
          [0x7c00, badValue],
        ] as const) {
          data.writeUInt16LE(half, 3 * 66 + 64);
          assert.equal((await trits('tq2_0', rows, cols, data)).result, result);
        }
      });
      it('reads I2_S rows that straddle blocks', async () => {
        // 256 x 512 seen as 2048 x 64 and so on: the flattened matrix is the same.
        const data = readFileSync(tensor('i2_s.bin'));
        for (const cols of [64, 32, 8, 1]) {
          const rows = matrix.length / cols;
          assert.deepEqual((await trits('i2_s', rows, cols, data)).digits, matrix, `cols ${cols}`);
        }
        const odd = Buffer.concat([data.subarray(0, 96), data.subarray(-32)]);
        assert.deepEqual((await trits('i2_s', 2, 192, odd)).digits, matrix.subarray(0, 384));
        assert.deepEqual((await trits('i2_s', 128, 3, odd)).digits, matrix.subarray(0, 384));
      });
      it('takes code 3 as 0 in I2_S and refuses it elsewhere', async () => {
        const i2s = Buffer.alloc(64, 0xff);
        i2s.writeFloatLE(1, 32);
        assert.deepEqual((await trits('i2_s', 1, 128, i2s)).digits, new Int8Array(128));
        assert.equal((await trits('hf-u8', 4, 2, Buffer.from([0, 0xc0]))).result, badCode);
        const tq2 = Buffer.alloc(66, 0x55);
        tq2[9] = 0x03;
        assert.equal((await trits('tq2_0', 1, 256, tq2)).result, badCode);
      });
      it('refuses an I2_S scale that is no number', async () => {
        const data = Buffer.alloc(64);
        for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, -1]) {
          data.writeFloatLE(bad, 32);
          assert.equal((await trits('i2_s', 1, 128, data)).result, badValue);
        }
      });
      it('unpacks U8 whose rows are no multiple of four', async () => {
        // 5 rows in 2 packed rows: row r shares its byte with r + 2 and r + 4.
        const got = await trits('hf-u8', 5, 1, Buffer.from([0b100001 /* 1, 0, 2 */, 0b000110 /* 2, 1 */]));
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
          const got = await trits(encoding, rows, cols, Buffer.alloc(bytes));
          assert.equal(got.result, badSize, `${encoding} ${rows} x ${cols} in ${bytes}`);
        }
      });
      it('refuses encodings that are not for the purpose', async () => {
        assert.equal((await trits('q8_0', 1, 32, Buffer.alloc(34))).result, badEncoding);
        assert.equal((await floats('tq2_0', 1, 256, Buffer.alloc(66))).result, badEncoding);
        assert.equal((await floats('i2_s', 1, 128, Buffer.alloc(64))).result, badEncoding);
      });
    });

    describe('conversions', () => {
      it('widen all 65,536 halves and bfloats exactly', async () => {
        const out = await run('halves');
        const values = new Float32Array(out.buffer.slice(out.byteOffset));
        for (let i = 0; i < 65536; i++) {
          assert.ok(Object.is(values[i], halfOf(i)), `f16 ${i.toString(16)}`);
          assert.ok(Object.is(values[65536 + i], floatOf(i * 0x10000)), `bf16 ${i.toString(16)}`);
        }
      });
      it('narrow to the nearest, halves to even', async () => {
        const next = random(3);
        const inputs = [
          0,
          -0,
          1,
          65504,
          65519.99,
          65520,
          1e9,
          2 ** -24,
          2 ** -25,
          1.5 * 2 ** -25,
          2 ** -14,
          3e-5,
          1e-40,
        ];
        for (let i = 0; i < 3000; i++) inputs.push((next() - 0.5) * 2 ** Math.floor(next() * 44 - 27));
        // Half way between neighbours of either type, and a step to each side.
        for (let i = 0; i < 500; i++) {
          const half = Math.floor(next() * 0x7bff);
          const middle = (halfOf(half) + halfOf(half + 1)) / 2;
          inputs.push(middle, floatOf(bitsOf(middle) + 1), -floatOf(bitsOf(middle) - 1));
          inputs.push(floatOf(Math.floor(next() * 0x7f00) * 0x10000 + 0x8000));
        }
        const values = Float32Array.from(inputs);
        const out = await run('narrow', save(new Uint8Array(values.buffer)));
        for (const [i, value] of values.entries()) {
          assert.equal(out.readUInt16LE(2 * i), toHalf(value), `f16 of ${value}`);
          assert.equal(out.readUInt16LE(2 * (values.length + i)), toBfloat(value), `bf16 of ${value}`);
        }
      });
      it('keep infinities and NaNs', async () => {
        const values = Float32Array.from([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]);
        const out = await run('narrow', save(new Uint8Array(values.buffer)));
        assert.deepEqual([out.readUInt16LE(0), out.readUInt16LE(2)], [0x7c00, 0xfc00]);
        assert.ok(Number.isNaN(halfOf(out.readUInt16LE(4))));
        assert.deepEqual([out.readUInt16LE(6), out.readUInt16LE(8)], [0x7f80, 0xff80]);
        assert.ok(Number.isNaN(floatOf(out.readUInt16LE(10) * 0x10000)));
      });
    });
  });
}

describe('decode.c', () => {
  it('has the encodings of source.ts', () => {
    const header = readFileSync(path.join(here, '../templates/decode.h'), 'utf8');
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
      await execa(clang, [...warnings, '-O2', '-fsyntax-only', path.join(here, '../templates/decode.c')]);
      return;
    }
    skip(this, 'no clang');
  });
});
