/** How a text is cut into pieces: the translated regular expressions, and the stages of tokenizer.json that use them. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { findFast, findLinear, findPattern, findText } from '../runtime/tokenizer/matcher.ts';
import { knownPatterns } from '../runtime/tokenizer/patterns.ts';
import { cutAt } from '../runtime/tokenizer/split.ts';
import { UsageError } from '../schemas/error.ts';
import { cpuTime } from './cpu-time.ts';
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
      const cut = cutAt(findText('-', ''), behavior as keyof typeof behaviors);
      assert.equal(cut(['the-final--countdown'], true).join('|'), expected);
      const inverted = cutAt(findLinear('[^-]', ''), behavior as keyof typeof behaviors, true);
      if (behavior === 'Contiguous') assert.equal(inverted(['the-final--countdown'], true).join('|'), expected);
    });
  it('makes no empty pieces', () => {
    assert.deepEqual(cutAt(findLinear('x*', ''))(['abxxc', ''], true), ['a', 'b', 'xx', 'c']);
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
  const found = (pattern: string, text: string, find = findLinear): string[] =>
    [...find(pattern, 'test')(text)].map((match) => match[0]);
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
    ['x{2}+', 'xxxxx', ['xxxx']],
    ['a+?b??', 'aab', ['a', 'a']],
    ['^a$|.', 'a\nb\r', ['a', 'b', '\r']],
    ['(a|b)(?:c)', 'abc', ['bc']],
    ['\\s+(?!\\S)|\\s+', '  a   b \n', [' ', ' ', '  ', ' ', ' \n']],
    ['\\s*[\\r\\n]+|x|\\s+(?!\\S)|\\s+', ' \n  x  \t y', [' \n', ' ', ' ', 'x', '  \t', ' ']],
    ['[\\]\\-/x-]+|\\/|\\u0041|[}]', ']-/x-A}', [']-/x-', 'A', '}']],
    ['[]a]+', ']a', [']a']],
  ];
  for (const [pattern, text, expected] of matches)
    it(`${pattern} has its meaning, in both engines`, () => {
      assert.deepEqual(found(pattern, text), expected);
      // V8 knows scripts by longer names; no known expression has one.
      if (!pattern.includes('Han')) assert.deepEqual(found(pattern, text, findFast), expected);
    });
  const unknown = [
    '\\G',
    '\\bx',
    '[a[b]]',
    '[a&&b]',
    '[[:alpha:]]',
    '(?<n>a)',
    '(?=a)',
    '(?!a)a',
    '(?<=a)b',
    '(?<!a)b',
    'a++',
    '(?>a)',
    'a\\|\\s+(?!\\S)|\\s+',
    '\\x{110000}',
    'a{1001}',
    '(?:a{1000}){1000}',
    '('.repeat(10_000),
    '(?i)'.repeat(10_000),
    'a|'.repeat(10_000),
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
    it(`${pattern.slice(0, 40)} is refused`, () =>
      refused(
        () => findPattern(pattern, 'x.json'),
        /^x\.json: cannot use the regular expression .*; known are groups/,
      ));
  it('\\S and \\s share out all characters', () => {
    for (const find of [findFast, findLinear]) {
      const [inside, outside] = [find('\\s', ''), find('\\S', '')];
      for (let first = 0; first <= 0x10ffff; first += 0x10000) {
        // Surrogates stand in no text that is read from a file.
        const codes = Array.from({ length: 0x10000 }, (_, i) => first + i).filter(
          (code) => code < 0xd800 || code > 0xdfff,
        );
        const text = String.fromCodePoint(...codes.slice(0, 0x8000)) + String.fromCodePoint(...codes.slice(0x8000));
        const spaces = [...inside(text)].map((match) => match[0]);
        assert.deepEqual(spaces, text.match(/\p{White_Space}/gu) ?? []);
        assert.equal([...outside(text)].length, codes.length - spaces.length);
      }
    }
  });
  it('looks for any literal text', () => {
    const quoted = '.*+?^$ {}()|[]\\/-aé🦙 #';
    assert.deepEqual(
      [...findText(quoted, '')(`${quoted}x${quoted}`)].map((match) => match.index),
      [0, quoted.length + 1],
    );
    refused(() => findText('', 'x.json'), /x\.json: an empty text cannot be looked for/);
  });

  const unicode = fc.string({
    unit: fc.constantFrom(..."  \t\n\r\u0085\u3000'sSſtlLaBéÉǅʰ中\u0301١9½.,$/_🦙"),
    maxLength: 40,
  });
  for (const [pattern, run] of knownPatterns)
    it(`${pattern.slice(0, 40)} is the same in both engines, and fast on long runs`, () => {
      fc.assert(
        fc.property(unicode, (text) => assert.deepEqual(found(run, text, findFast), found(run, text))),
        { numRuns: 300, seed: 6 },
      );
      const fast = findPattern(pattern, '');
      for (const unit of [
        'a',
        'A',
        'É',
        '中',
        '\u0301',
        ' ',
        '\t',
        '\n',
        '1',
        '.',
        "'",
        ' a',
        'Aa',
        ' \n',
        '.\n',
        '𝕏',
      ]) {
        const text = unit.repeat(100_000);
        for (const ending of ['', 'b']) {
          const start = cpuTime();
          for (const _ of fast(text + ending));
          // Usually 0.02 s; a quadratic expression takes minutes.
          assert(cpuTime() - start < 3000, JSON.stringify([unit, ending]));
        }
      }
    }).timeout(60_000);
  it('an expression that backtracks for ever takes linear time', () => {
    for (const [pattern, text] of [
      ['(?:[a-z ]|[a-z ])*!', `${'a '.repeat(100_000)}! b`],
      ['(?:a*)*b', 'a'.repeat(200_000)],
      ['(?:a?){500}b', 'a'.repeat(20_000)],
      ['(?:x+x+)+y', 'x'.repeat(200_000)],
    ] as const) {
      const start = cpuTime();
      found(pattern, text);
      assert(cpuTime() - start < 3000, pattern);
    }
  });
  it('an expression that looks ahead to the end from everywhere is given up', () => {
    // Half a minute's work, if nobody stopped it.
    assert.throws(
      () => [...findLinear('[a-z]*!|[a-z]', 'x.json', 100)('a'.repeat(30_000))],
      (error) =>
        error instanceof UsageError && /x\.json: .* takes too long on a text of 30000 characters/.test(error.message),
    );
  });
});
