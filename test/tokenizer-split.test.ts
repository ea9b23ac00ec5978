/** How a text is cut into pieces: the translated regular expressions, and the stages of tokenizer.json that use them. */
import { strict as assert } from 'node:assert';
import { escapeRegex, translateRegex } from '../runtime/tokenizer/regex.ts';
import { cutAt } from '../runtime/tokenizer/split.ts';
import { demoJson, fromJson, plain, refused } from './tokenizer-samples.ts';

describe('tokenizer splitting', () => {
  // The example of Hugging Face's documentation of these behaviours.
  const behaviors = {
    Removed: 'the|final|countdown',
    Isolated: 'the|-|final|-|-|countdown',
    MergedWithPrevious: 'the-|final-|-|countdown',
    MergedWithNext: 'the|-final|-|-countdown',
    Contiguous: 'the|-|final|--|countdown',
  } as const;
  for (const [behavior, expected] of Object.entries(behaviors))
    it(behavior, () => {
      const cut = cutAt(/-/gu, behavior as keyof typeof behaviors);
      assert.equal(cut(['the-final--countdown'], true).join('|'), expected);
      const inverted = cutAt(/[^-]/gu, behavior as keyof typeof behaviors, true);
      if (behavior === 'Contiguous') assert.equal(inverted(['the-final--countdown'], true).join('|'), expected);
    });
  it('makes no empty pieces', () => {
    assert.deepEqual(cutAt(/x*/gu)(['abxxc', ''], true), ['a', 'b', 'xx', 'c']);
  });
  it('reads Digits, Punctuation, Split on a text and NFC', () => {
    const ids = (pre: object[], text: string): number[] => {
      const json = demoJson();
      const level = { type: 'ByteLevel', add_prefix_space: false, use_regex: false };
      Object.assign(json, {
        normalizer: { type: 'NFC' },
        pre_tokenizer: { type: 'Sequence', pretokenizers: [...pre, level] },
      });
      json.model.merges = [
        ['1', '2'],
        ['.', '.'],
        ['a', 'b'],
      ];
      Object.assign(json.model.vocab, { 12: 4100, '..': 4101, ab: 4102 });
      return plain(fromJson(json), text).map((id) => Math.max(id, 4099));
    };
    assert.deepEqual(ids([], '12..ab'), [4100, 4101, 4102]);
    assert.deepEqual(ids([{ type: 'Digits', individual_digits: true }], '12..'), [4099, 4099, 4101]);
    assert.deepEqual(ids([{ type: 'Digits', individual_digits: false }], '12'), [4100]);
    assert.deepEqual(ids([{ type: 'Punctuation' }], '12..'), [4100, 4099, 4099]);
    assert.deepEqual(ids([{ type: 'Punctuation', behavior: 'Contiguous' }], '12..'), [4100, 4101]);
    assert.deepEqual(ids([{ type: 'Split', pattern: { String: 'a' }, behavior: 'Isolated' }], 'ab'), [4099, 4099]);
    assert.equal(ids([], 'e\u0301').length, 2);
  });
});

describe('tokenizer regular expressions', () => {
  const found = (pattern: string, text: string): string[] => text.match(translateRegex(pattern, 'test')) ?? [];
  const matches: [string, string, string[]][] = [
    ['\\s+', 'a \u0085\u3000b\ufeffc', [' \u0085\u3000']],
    ['\\S+', 'a\u0085b\ufeffc', ['a', 'b\ufeffc']],
    ['[^\\s\\p{L}]+', 'a\u0085..\ufeff b', ['..\ufeff']],
    ['[\\S\\t]+', 'a\tb c', ['a\tb', 'c']],
    ["(?i:'s|'ll|k)", "'s'S'ſ'LL'll'lL k K \u212a", ["'s", "'S", "'ſ", "'LL", "'ll", "'lL", 'k', 'K', '\u212a']],
    ['(?i:[^a-b])+', 'aBcA', ['c']],
    ['(?i:[a-bk\\x{73}])+', 'aBſ\u212ac', ['aBſ\u212a']],
    ['(?i)a|b(?-i:c)', 'A B bc BC Bc', ['A', 'bc', 'Bc']],
    ['\\p{N}{1,3}', '12345½', ['123', '45½']],
    ['\\p{Han}+|\\P{L}|\\p{^N}', '中文1a', ['中文', '1', 'a']],
    ['\\d\\D\\w\\W', '٣xé-', ['٣xé-']],
    ['a++b|a+', 'aaab aaa', ['aaab', 'aaa']],
    ['a++a|b', 'aaab', ['b']],
    ['(?>a+)a|b', 'aaab', ['b']],
    ['x{2}+', 'xxxxx', ['xxxx']],
    ['a+?b??', 'aab', ['a', 'a']],
    ['^a$|.', 'a\nb\r', ['a', 'b', '\r']],
    ['(?<=a)b|(?<!a)c|d(?=e)|(f)', 'abacc de d f', ['b', 'c', 'd', 'f']],
    ['[\\]\\-/x-]+|\\/|\\u0041|[}]', ']-/x-A}', [']-/x-', 'A', '}']],
    ['[]a]+', ']a', [']a']],
  ];
  for (const [pattern, text, expected] of matches)
    it(`${pattern} has its meaning`, () => assert.deepEqual(found(pattern, text), expected));
  const unknown = [
    '\\G',
    '\\bx',
    '[a[b]]',
    '[a&&b]',
    '[[:alpha:]]',
    '(?<n>a)',
    '(a',
    'a)',
    '[a',
    'a{x}',
    '\\p{Foo}',
    '\\pL',
    '[\\s-z]',
    '(?i:é)',
    '(?i:[à-ý])',
    '\\',
    '*',
    '\\1',
  ];
  for (const pattern of unknown)
    it(`${pattern} is refused`, () =>
      refused(() => translateRegex(pattern, 'x.json'), /^x\.json: cannot translate .*; known are groups/));
  it('\\S and \\s share out all characters', () => {
    const space = translateRegex('\\s', '').source;
    for (const [inside, outside] of [
      [new RegExp(space, 'u'), new RegExp(translateRegex('\\S', '').source, 'u')],
    ] as const)
      for (let code = 0; code <= 0x10ffff; code++) {
        const character = String.fromCodePoint(code);
        assert.equal(inside.test(character), /^\p{White_Space}$/u.test(character), code.toString(16));
        assert.notEqual(inside.test(character), outside.test(character), code.toString(16));
      }
  });
  it('quotes any literal text', () => {
    const quoted = '.*+?^$ {}()|[]\\/-aé🦙 #';
    assert.deepEqual(new RegExp(`^${escapeRegex(quoted)}$`, 'u').test(quoted), true);
  });
});
