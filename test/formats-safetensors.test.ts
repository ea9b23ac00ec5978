/** The safetensors header reader: what it returns, and every way in which a file can be wrong. */
import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { readSafetensorsHeader } from '../runtime/formats/safetensors.ts';
import { ModelError } from '../schemas/error.ts';
import { safetensors, safetensorsFile, temporaryFolder } from './formats-bytes.ts';

describe('safetensors', () => {
  const folder = temporaryFolder();
  const save = (content: Buffer | string): string => {
    const file = path.join(folder(), 'model.safetensors');
    writeFileSync(file, content);
    return file;
  };
  const one = (entry: object): string => JSON.stringify({ a: entry });

  it('lists names, types, shapes and absolute byte ranges', () => {
    const content = safetensors({ a: { dtype: 'U8', shape: [2, 3] }, b: { dtype: 'BF16', shape: [] } });
    const header = readSafetensorsHeader(save(content));
    const end = content.length;
    assert.deepEqual(
      [...header.values()],
      [
        { name: 'a', dtype: 'U8', shape: [2, 3], offset: end - 8, bytes: 6 },
        { name: 'b', dtype: 'BF16', shape: [], offset: end - 2, bytes: 2 },
      ],
    );
  });

  it('takes the last of duplicate keys, padding, and a tensor called __proto__', () => {
    const entry = (start: number, size: number): string =>
      `{"dtype":"U8","shape":[${size}],"data_offsets":[${start},${start + size}]}`;
    const header = `{"a":${entry(0, 4)},"a":${entry(0, 3)},"__proto__":${entry(3, 2)}}   `;
    const tensors = readSafetensorsHeader(save(safetensorsFile(header, 5)));
    assert.deepEqual(
      [...tensors].map(([name, { bytes }]) => [name, bytes]),
      [
        ['a', 3],
        ['__proto__', 2],
      ],
    );
  });

  const wrong: Record<string, [Buffer | string, RegExp]> = {
    'an empty file': [Buffer.alloc(0), /has 0 bytes/],
    'a file of 7 bytes': [Buffer.alloc(7), /has 7 bytes/],
    'a header beyond the file': [
      safetensorsFile('{}', 0, 1000n),
      /header ends at byte 1008, past the end .*\(10 bytes\)/,
    ],
    'a header above 32 MB': [safetensorsFile('{}', 0, 2n ** 25n + 1n), /header length 33554433 exceeds 33554432/],
    'a negative header length': [
      safetensorsFile('{}', 0, 2n ** 64n - 5n),
      /header length 18446744073709551611 exceeds/,
    ],
    'invalid JSON': [safetensorsFile('{"a":', 0), /header is not valid JSON/],
    'no JSON at all': [safetensorsFile('\0\0\0', 0), /header is not valid JSON/],
    'an empty header': [safetensorsFile('', 0), /header is not valid JSON/],
    'an array': [safetensorsFile('[]', 0), /header is not a JSON object/],
    'an entry that is no object': [safetensorsFile('{"a":3}', 0), /tensor 'a' is not described/],
    'an unknown dtype': [
      safetensorsFile(one({ dtype: 'F4', shape: [1], data_offsets: [0, 1] }), 1),
      /tensor 'a' has unknown dtype "F4"; known are BOOL/,
    ],
    'a dtype from the prototype': [
      safetensorsFile(one({ dtype: 'toString', shape: [1], data_offsets: [0, 1] }), 1),
      /unknown dtype "toString"/,
    ],
    'no dtype': [safetensorsFile(one({ shape: [1], data_offsets: [0, 1] }), 1), /unknown dtype missing/],
    'a negative size': [
      safetensorsFile(one({ dtype: 'U8', shape: [-1], data_offsets: [0, 1] }), 1),
      /has shape \[-1\]/,
    ],
    'a fractional size': [
      safetensorsFile(one({ dtype: 'U8', shape: [1.5], data_offsets: [0, 1] }), 1),
      /has shape \[1\.5\]/,
    ],
    'no shape': [safetensorsFile(one({ dtype: 'U8', data_offsets: [0, 1] }), 1), /has shape missing/],
    'three offsets': [
      safetensorsFile(one({ dtype: 'U8', shape: [1], data_offsets: [0, 1, 2] }), 2),
      /has data_offsets/,
    ],
    'reversed offsets': [
      safetensorsFile(one({ dtype: 'U8', shape: [1], data_offsets: [1, 0] }), 1),
      /reversed data_offsets \[1, 0\]/,
    ],
    'offsets that do not fit the shape': [
      safetensorsFile(one({ dtype: 'F32', shape: [2], data_offsets: [0, 7] }), 8),
      /has 7 bytes, but F32 \[2\] needs 8/,
    ],
    'a product beyond all numbers': [
      safetensorsFile(one({ dtype: 'U8', shape: [2 ** 40, 2 ** 40], data_offsets: [0, 1] }), 8),
      /has 1 bytes, but U8/,
    ],
    'tensors that overlap': [
      safetensorsFile(
        JSON.stringify({
          a: { dtype: 'U8', shape: [2], data_offsets: [0, 2] },
          b: { dtype: 'U8', shape: [2], data_offsets: [1, 3] },
        }),
        3,
      ),
      /tensors 'a' and 'b' overlap; the file is damaged/,
    ],
    'a name with a line break': [
      safetensorsFile(JSON.stringify({ 'a\nb': { dtype: 'U8', shape: [1], data_offsets: [0, 1] } }), 1),
      /"a\\nb" is no name of a tensor/,
    ],
    'a value that is nested a million times': [
      safetensorsFile(`{"a":${'['.repeat(400_000)}${']'.repeat(400_000)}}`, 0),
      /tensor 'a' is not described by a JSON object/,
    ],
    'a type that is nested': [
      safetensorsFile(`{"a":{"dtype":${'['.repeat(400_000)}${']'.repeat(400_000)}}}`, 0),
      /unknown dtype \[\[\.\.\.\]\]/,
    ],
    'more values than any model has': [safetensorsFile(`{"a":[${'0,'.repeat(500_000)}0]}`, 0), /holds 500003 values/],
    'truncated data': [
      safetensorsFile(one({ dtype: 'F32', shape: [25], data_offsets: [0, 100] }), 99),
      /tensor 'a' ends at byte \d+, past the end of the file \(\d+ bytes\); the file is truncated, download it again/,
    ],
    'a Git LFS pointer': ['version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n', /Git LFS pointer/],
  };
  for (const [what, [content, message]] of Object.entries(wrong)) {
    it(`refuses ${what}`, () => {
      assert.throws(() => readSafetensorsHeader(save(content)), { name: 'ModelError', message });
    });
  }

  it('refuses a missing file and a folder', () => {
    assert.throws(() => readSafetensorsHeader(path.join(folder(), 'absent')), {
      name: 'ModelError',
      message: /no such file/,
    });
    assert.throws(() => readSafetensorsHeader(folder()), { name: 'ModelError', message: /not a regular file/ });
  });

  it('refuses every file that is cut short, and survives every changed byte', () => {
    const content = safetensors({ a: { dtype: 'U8', shape: [2, 3] }, b: { dtype: 'F32', shape: [1] } });
    for (let length = 0; length < content.length; length++) {
      assert.throws(() => readSafetensorsHeader(save(content.subarray(0, length))), ModelError, `length ${length}`);
    }
    for (let at = 0; at < content.length; at++) {
      const changed = Buffer.from(content);
      changed[at] = changed[at]! ^ (1 << (at % 8));
      try {
        readSafetensorsHeader(save(changed));
      } catch (error) {
        assert.ok(error instanceof ModelError, `byte ${at}: ${error}`);
      }
    }
  });
});
