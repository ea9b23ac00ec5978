/** What becomes of the bytes of a prompt: encodings with and without a mark, bytes that are no text, and escapes. */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { openModel } from '../runtime/formats/open.ts';
import { decodeText, unescapeText } from '../runtime/text.ts';
import { loadTokenizer } from '../runtime/tokenizer.ts';
import { UsageError } from '../schemas/error.ts';
import { demoModel } from '../schemas/files.ts';
import { fixture } from './fixtures.ts';

const decode = (...bytes: (number | string)[]) =>
  decodeText(
    Buffer.concat(bytes.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.of(part)))),
    'it',
  );

const refuses = (action: () => unknown, says: RegExp) =>
  assert.throws(action, (error) => error instanceof UsageError && says.test(error.message) && true);

describe('text from bytes', () => {
  const text = 'Größe: 3 €, 😀\r\n\tend';
  const utf16 = (swap: boolean) => {
    const bytes = Buffer.from(`\ufeff${text}`, 'utf16le');
    return swap ? bytes.swap16() : bytes;
  };

  it('UTF-8 without a mark, with one, and UTF-16 of both orders are the same text', () => {
    for (const bytes of [Buffer.from(text), Buffer.from(`\ufeff${text}`), utf16(false), utf16(true)])
      assert.equal(decodeText(bytes, 'it'), text);
  });

  it('only a mark at the beginning goes; nothing is nothing', () => {
    assert.equal(decode('a\ufeffb'), 'a\ufeffb');
    assert.equal(decode('\ufeff\ufeffb'), '\ufeffb');
    assert.equal(decode(), '');
    assert.equal(decode('\ufeff'), '');
    assert.equal(decode(0xff, 0xfe), '');
  });

  it('a replacement character that is in the text stays', () => {
    assert.equal(decode('a\ufffdb'), 'a\ufffdb');
  });

  it('what is not UTF-8 is refused, with the offset of the first wrong byte', () => {
    const cases: [number, string, ...(number | string)[]][] = [
      [3, 'E9', 'Il ', 0xe9, 'tait'],
      [0, '80', 0x80],
      // Beginnings of characters, in the middle and at the end.
      [1, 'E2', 'a', 0xe2, 0x82, 'b'],
      [1, 'E2', 'a', 0xe2, 0x82],
      [2, 'F0', 'é', 0xf0, 0x9f, 0x98],
      // These share bytes with the UTF-8 of the replacement character.
      [1, 'EF', 'a', 0xef],
      [1, 'EF', 'a', 0xef, 0xbf],
      [1, 'EF', 'a', 0xef, 0xbf, 'b'],
      [4, 'EF', '\ufffdb', 0xef, 'b'],
      // A surrogate, an overlong form, a number that is too large.
      [0, 'ED', 0xed, 0xa0, 0x80],
      [0, 'C0', 0xc0, 0xaf],
      [0, 'F5', 0xf5, 0x80, 0x80, 0x80],
    ];
    for (const [offset, byte, ...bytes] of cases)
      refuses(() => decode(...bytes), new RegExp(`^it is not UTF-8: byte 0x${byte} at offset ${offset}; .*iconv`));
  });

  it('so is half a character of UTF-16', () => {
    refuses(() => decode(0xff, 0xfe, 'a\0b'), /^it is not UTF-16.* at offset 4$/);
    refuses(() => decode(0xff, 0xfe, 'a\0', 0x3d, 0xd8, 'b\0'), /^it is not UTF-16.* at offset 4$/);
    refuses(() => decode(0xfe, 0xff, '\0a', 0xd8, 0x3d), /^it is not UTF-16.* at offset 4$/);
  });

  it('and NUL bytes: a binary file, UTF-16 without a mark, UTF-32', () => {
    refuses(() => decode('O\0n\0'), /NUL byte at offset 1,.*iconv/);
    refuses(() => decode('é', 0), /NUL byte at offset 2,/);
    refuses(() => decode(0xff, 0xfe, 0, 0, 'O\0\0\0'), /NUL byte at offset 2,/);
  });

  it('the field cases: 14 tokens in four encodings, the fifth refused', function () {
    const prompt = (name: string) => readFileSync(fixture(this, `field/prompts/${name}.txt`));
    const { tokenizer } = openModel(demoModel);
    const sentence = 'Once upon a time, there was a little girl named Lily.';
    for (const name of ['plain', 'bom']) assert.equal(decodeText(prompt(name), name), sentence, name);
    for (const name of ['crlf', 'utf16']) assert.equal(decodeText(prompt(name), name), `${sentence}\r\n`, name);
    // And the start token.
    assert.equal(loadTokenizer(tokenizer!).encode(sentence, { special: true }).length + 1, 14);
    refuses(() => decodeText(prompt('latin1'), 'it'), /byte 0xE9 at offset 3;/);
  });
});

describe('escapes', () => {
  it('become characters; \\xNN is a byte', () => {
    assert.equal(unescapeText(String.raw`a\nb\tc\rd\\n\'\"`), 'a\nb\tc\rd\\n\'"');
    assert.equal(unescapeText(String.raw`\xE2\x82\xac \x41\x00é`), '€ A\0é');
    assert.equal(unescapeText(String.raw`\xef\xbb\xbfa`), '\ufeffa');
  });

  it('that llama.cpp does not know stay as they are', () => {
    for (const text of [String.raw`\q\0\u20ac`, String.raw`\x`, String.raw`\xG1 \x4`, 'end\\', 'no escape'])
      assert.equal(unescapeText(text), text);
    assert.equal(unescapeText(String.raw`\\x41`), String.raw`\x41`);
  });

  it('must be UTF-8 together', () => {
    refuses(() => unescapeText(String.raw`ab\xE2\x82`), /not UTF-8: byte 0xE2 at offset 2; give all bytes/);
  });
});
