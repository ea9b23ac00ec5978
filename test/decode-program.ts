/**
 * templates/decode.c, decode-floats.c and decode-why.c as a program (decode-main.c) that tests can ask, compiled twice: optimised, and with
 * the address and undefined-behaviour sanitizers. tensors/ holds one ternary 256 x 512 matrix and one 8 x 512 embedding in every
 * encoding, written by reference encoders.
 */
import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import type { Encoding } from '../runtime/formats/source.ts';
import { encodings } from '../runtime/formats/source.ts';
import { skip } from './fixtures.ts';

const here = import.meta.dirname;

/** The decoder's sources and the warnings that they must compile without. */
export const decoderSources = ['decode.c', 'decode-floats.c', 'decode-why.c'].map((name) =>
  path.join(here, '../templates', name),
);
export const warnings = ['-std=c11', '-Wall', '-Wextra', '-Wconversion', '-Werror'];

/** A file of tensors/. */
export const tensor = (name: string): Buffer => readFileSync(path.join(here, 'tensors', name));

/** Results in the order of decode.h. */
export const results = { ok: 0, encoding: 1, size: 2, value: 4, code: 5, scales: 6, empty: 7 } as const;

/** A generator of numbers in [0, 1) that is the same on every run. */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export type Decoder = ReturnType<typeof useDecoder>;

/** Gives the enclosing suite the program. */
function useDecoder(sanitize: boolean) {
  let folder: string;
  let program: string;
  before(async function () {
    folder = mkdtempSync(path.join(tmpdir(), 'bitnet-decode-'));
    program = path.join(folder, 'decode');
    const flags = sanitize
      ? ['-O1', '-g', '-fsanitize=address,undefined,float-cast-overflow', '-fno-sanitize-recover']
      : ['-O2'];
    const sources = [...decoderSources, path.join(here, 'decode-main.c')];
    const built = await execa('cc', [...warnings, ...flags, ...sources, '-o', program], { reject: false });
    if (built.failed && sanitize && /cannot find|unsupported/.test(built.stderr)) {
      skip(this as unknown as Mocha.Context, 'the C compiler has no sanitizers');
    }
    assert.equal(built.exitCode, 0, `cc: ${built.code ?? ''} ${built.stderr}`);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const decoder = {
    /** Path of a file with these bytes. */
    save(data: Uint8Array): string {
      const file = path.join(folder, 'input');
      writeFileSync(file, data);
      return file;
    },
    /** What the program prints. */
    async run(...args: (string | number)[]): Promise<Buffer> {
      const { stdout } = await execa(program, args.map(String), { encoding: 'buffer', stripFinalNewline: false });
      return Buffer.from(stdout);
    },
    /** A ternary matrix [rows][cols]. */
    async trits(encoding: Encoding, rows: number, cols: number, data: Uint8Array) {
      const out = await decoder.run('trits', encodings[encoding], rows, cols, decoder.save(data));
      const digits = new Int8Array(out.subarray(12));
      return { result: out.readInt32LE(0), scale: out.readFloatLE(4), masters: out.readInt32LE(8), digits };
    },
    /** What is wrong with a source that gave this result. */
    async why(encoding: Encoding, rows: number, cols: number, result: number, data: Uint8Array): Promise<string> {
      const out = await decoder.run('why', encodings[encoding], rows, cols, decoder.save(data), result);
      return out.toString();
    },
    /** The largest magnitude of the elements, or of the scales of blocks. */
    async largest(encoding: Encoding, cols: number, data: Uint8Array): Promise<number> {
      const out = await decoder.run('largest', encodings[encoding], 1, cols, decoder.save(data));
      return out.readFloatLE(0);
    },
    /** A matrix of floats [rows][cols]. */
    async floats(encoding: Encoding, rows: number, cols: number, data: Uint8Array) {
      const out = await decoder.run('floats', encodings[encoding], rows, cols, decoder.save(data));
      return { result: out.readInt32LE(0), values: new Float32Array(out.buffer.slice(out.byteOffset + 4)) };
    },
  };
  return decoder;
}

/** Defines the same tests for both programs. */
export function describeDecoder(title: string, define: (decoder: Decoder) => void): void {
  for (const sanitize of [false, true])
    describe(`${title}${sanitize ? ' with sanitizers' : ''}`, () => define(useDecoder(sanitize)));
}
