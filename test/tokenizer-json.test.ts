/**
 * Every part of tokenizer.json and tokenizer_config.json that can change ids is honoured, or refused by name: the rows of
 * docs/tokenizers.md. @huggingface/tokenizers is the oracle where it does the same as the Rust library.
 */
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { openModel } from '../runtime/formats/open.ts';
import { loadTokenizer, type Tokenizer } from '../runtime/tokenizer.ts';
import { ModelError } from '../schemas/error.ts';
import { cpuTime } from './cpu-time.ts';
import { fixture } from './fixtures.ts';
import { demoJson, fromJson, type Json, plain, refused, texts } from './tokenizer-samples.ts';

describe('tokenizer.json', () => {
  /** The demo model's, with changes. */
  const changed = (change: object, model: object = {}): Json => {
    const json = demoJson();
    return { ...json, ...change, model: { ...json.model, ...model } };
  };
  const demo = fromJson(demoJson());
  /** What is encoded after one normalizer, as the text that gives the same ids without it. */
  const same = (normalizer: object, text: string, as: string): void =>
    assert.deepEqual(plain(fromJson(changed({ normalizer })), text), plain(demo, as), JSON.stringify(text));
  const bytes = { type: 'ByteLevel', add_prefix_space: false, use_regex: false };

  describe('normalizer', () => {
    it('Lowercase, character by character', () => {
      same({ type: 'Lowercase' }, 'AbÉ ΣΑΣ İ', 'abé σασ i\u0307');
    });
    it('StripAccents', () => {
      same({ type: 'StripAccents' }, 'e\u0301é', 'eé');
      same({ type: 'Sequence', normalizers: [{ type: 'NFD' }, { type: 'StripAccents' }] }, 'éüñ', 'eun');
    });
    it('Strip', () => {
      same({ type: 'Strip', strip_left: true, strip_right: true }, ' \u3000\n a b\u0085 ', 'a b');
      same({ type: 'Strip', strip_left: true, strip_right: false }, ' a ', 'a ');
      same({ type: 'Strip', strip_left: false, strip_right: true }, ' a ', ' a');
      same({ type: 'Strip', strip_left: true, strip_right: true }, ' \n ', '');
      same({ type: 'Strip', strip_left: true, strip_right: true }, '\ufeffa', '\ufeffa');
    });
    it('NFC, NFD, NFKC, NFKD', () => {
      for (const type of ['NFC', 'NFD', 'NFKC', 'NFKD'] as const)
        same({ type }, 'é ﬁ e\u0301', 'é ﬁ e\u0301'.normalize(type));
    });
    it('Prepend', () => {
      same({ type: 'Prepend', prepend: '_' }, 'ab', '_ab');
      same({ type: 'Prepend', prepend: '_' }, '', '');
    });
    it('Replace a text, or what an expression matches', () => {
      const replace = (pattern: object, content: string) => ({ type: 'Replace', pattern, content });
      same(replace({ String: 'a.' }, '$&'), 'a.aba', '$&aba');
      same(replace({ Regex: ' {2,}' }, ' '), 'a   b c', 'a b c');
      same(replace({ Regex: 'x' }, 'y'), '', '');
      same(replace({ Regex: 'x*' }, '-'), 'axb', '-a--b-');
    });
    it('ByteLevel', () => {
      const json = changed({ normalizer: { type: 'ByteLevel' }, pre_tokenizer: null });
      const before = changed({ pre_tokenizer: bytes });
      assert.deepEqual(plain(fromJson(json), 'Hi é'), plain(fromJson(before), 'Hi é'));
    });
    it('none, and an empty sequence', () => {
      for (const normalizer of [null, { type: 'Sequence', normalizers: [] }])
        assert.deepEqual(plain(fromJson(changed({ normalizer })), 'Éa'), plain(demo, 'Éa'));
    });
    it('anything else is refused', () => {
      for (const [normalizer, message] of [
        [{ type: 'Nmt' }, /normalizer type "Nmt" is not supported; known: Sequence, NFC/],
        [{ type: 'Precompiled', precompiled_charsmap: 'x' }, /"Precompiled" is not supported/],
        [{ type: 'BertNormalizer' }, /"BertNormalizer" is not supported/],
        [{ type: 'NFC', form: 2 }, /normalizer has a field "form" that is not known/],
        [{ type: 'Sequence' }, /normalizer has no list normalizers/],
        [{ type: 'Strip', strip_left: 1 }, /strip_left is 1, not true or false/],
        [{ type: 'Prepend', prepend: 'x'.repeat(65) }, /prepend has 65 characters; 64 are the limit/],
        [{ type: 'Replace', pattern: {}, content: '' }, /pattern is not supported; known: \{"Regex"/],
        [{ type: 'Replace', pattern: { String: '' }, content: '' }, /an empty text cannot be looked for/],
        ['NFC', /normalizer is "NFC", not an object/],
      ] as const)
        refused(() => fromJson(changed({ normalizer })), message);
    });
  });

  describe('pre_tokenizer', () => {
    it('ByteLevel with a space in front', () => {
      const pre_tokenizer = { ...bytes, add_prefix_space: true, trim_offsets: true };
      const tokenizer = fromJson(changed({ pre_tokenizer }));
      assert.deepEqual(plain(tokenizer, 'the'), plain(demo, ' the'));
      assert.deepEqual(plain(tokenizer, ' the'), plain(demo, ' the'));
      assert.equal(tokenizer.decode(plain(tokenizer, 'the')), 'the');
    });
    it('an expression that is not known, by RE2', () => {
      const Regex = '[a-z]+|[A-Z]+|\\s+(?!\\S)|\\s+';
      const pre_tokenizer = { type: 'Sequence', pretokenizers: [{ type: 'Split', pattern: { Regex } }, bytes] };
      const library = new Library(changed({ pre_tokenizer }), { tokenizer_class: 'PreTrainedTokenizerFast' });
      const tokenizer = fromJson(changed({ pre_tokenizer }));
      for (const text of [...texts, 'camelCase  andMORE'])
        assert.deepEqual(
          tokenizer.encode(text, { special: true }),
          library.encode(text, { add_special_tokens: false }).ids,
          text,
        );
    });
    it('anything else is refused', () => {
      const split = (more: object) => ({ type: 'Split', pattern: { String: 'a' }, behavior: 'Isolated', ...more });
      const types = [
        'BertPreTokenizer',
        'Whitespace',
        'WhitespaceSplit',
        'CharDelimiterSplit',
        'UnicodeScripts',
        'FixedLength',
      ];
      for (const [pre_tokenizer, message] of [
        ...types.map(
          (type) => [{ type }, new RegExp(`pre_tokenizer type "${type}" is not supported; known: Seq`)] as const,
        ),
        [split({ behavior: 'Smashed' }), /behavior "Smashed" is not supported; known: Isolated, Removed/],
        [split({ times: 2 }), /field "times" that is not known/],
        [split({ pattern: { Regex: '(?<=a)b' } }), /cannot use the regular expression "\(\?<=a\)b": a look-behind/],
        [split({ pattern: { Regex: 'a++' } }), /a possessive quantifier/],
        [{ type: 'Metaspace', replacement: 'ab' }, /replacement is not one character/],
        [
          { type: 'Metaspace', add_prefix_space: false, prepend_scheme: 'always' },
          /contradicts prepend_scheme "always"/,
        ],
        [{ type: 'Sequence', pretokenizers: [bytes, bytes] }, /has two ByteLevel steps/],
      ] as const)
        refused(() => fromJson(changed({ pre_tokenizer })), message);
    });
  });

  describe('post_processor', () => {
    const token = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
    const text = { Sequence: { id: 'A', type_id: 0 } };
    const special_tokens = Object.fromEntries(
      demoJson().added_tokens.map(({ content, id }) => [content, { id: content, ids: [id], tokens: [content] }]),
    );
    const template = (...single: object[]) => ({ type: 'TemplateProcessing', single, pair: [], special_tokens });
    const level = { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false, use_regex: true };
    const [bos, eos] = ['<|begin_of_text|>', '<|end_of_text|>'];
    const sequence = (...processors: object[]) => ({ type: 'Sequence', processors });
    const pairs = { sep: [eos, 4092], cls: [bos, 4091], trim_offsets: true, add_prefix_space: false };
    const ids = (tokenizer: Tokenizer): number[] => tokenizer.prompt('Hi there', { special: true });
    const around = (before: number[], after: number[]): number[] => [...before, ...plain(demo, 'Hi there'), ...after];

    for (const [name, post_processor, before, after] of [
      ['none', null, [], []],
      ['ByteLevel', level, [], []],
      ['a template that adds nothing', template(text), [], []],
      ['a start', template(token(bos), text), [4091], []],
      ['a start and an end', template(token(bos), text, token(eos)), [4091], [4092]],
      ['several tokens', template(token(eos), token(bos), text, token('<|eot_id|>')), [4092, 4091], [4095]],
      ['a sequence', sequence(level, template(token(bos), text)), [4091], []],
      [
        'templates around templates',
        sequence(template(token(bos), text), template(token(eos), text)),
        [4092, 4091],
        [],
      ],
      ['BertProcessing', { type: 'BertProcessing', sep: pairs.sep, cls: pairs.cls }, [4091], [4092]],
      ['RobertaProcessing', { type: 'RobertaProcessing', ...pairs }, [4091], [4092]],
    ] as const)
      it(name, () => {
        const json = changed({ post_processor });
        assert.deepEqual(ids(fromJson(json)), around([...before], [...after]));
        assert.deepEqual(new Library(json, {}).encode('Hi there').ids, around([...before], [...after]));
      });
    it('a template may add several ids for a token', () => {
      const many = { [bos]: { id: bos, ids: [4091, 4093], tokens: [bos, 'x'] } };
      const post_processor = { ...template(token(bos), text), special_tokens: many };
      assert.deepEqual(ids(fromJson(changed({ post_processor }))), around([4091, 4093], []));
    });
    it('what it adds is not added twice', () => {
      const tokenizer = fromJson(changed({ post_processor: template(token(bos), text, token(eos)) }));
      assert.deepEqual(tokenizer.prompt(`${bos}Hi there${eos}`, { special: true }), around([4091], [4092]));
      assert.deepEqual(tokenizer.prompt(`${bos}Hi there`, { special: true }), around([4091], [4092]));
      assert.deepEqual(tokenizer.prompt('', { special: true }), [4091, 4092]);
    });
    it('anything else is refused', () => {
      for (const [post_processor, message] of [
        [{ type: 'Bert' }, /post_processor type "Bert" is not supported; known: Sequence, Template/],
        [template(token(bos)), /single has text A 0 times, not once/],
        [template(text, text), /single has text A 2 times/],
        [template({ Sequence: { id: 'B', type_id: 0 } }), /neither a token nor text A/],
        [template(token('<nope>'), text), /special_tokens has no ids of "<nope>"/],
        [{ ...template(text), special_tokens: 5, single: [token(bos), text] }, /special_tokens is 5, not an object/],
        [{ type: 'BertProcessing', sep: ['x', -1], cls: ['y', 1] }, /sep has an id that is no token's/],
        [{ type: 'BertProcessing', sep: 'x', cls: 'y' }, /cls is "y", not a list/],
        [{ ...template(text), more: 1 }, /field "more" that is not known/],
      ] as const)
        refused(() => fromJson(changed({ post_processor })), message);
    });
  });

  describe('model', () => {
    it('other fields are refused, and values that are not right', () => {
      for (const [model, message] of [
        [{ dropout: 0.1 }, /model dropout is not 0/],
        [{ continuing_subword_prefix: '##' }, /continuing_subword_prefix = "##" is not supported/],
        [{ end_of_word_suffix: '</w>' }, /end_of_word_suffix = "<\/w>" is not supported/],
        [{ ranks: [] }, /model has a field "ranks" that is not known, and may change the ids/],
        [{ type: 'WordPiece' }, /type "WordPiece" is not supported; known: BPE/],
        [{ vocab: ['a'] }, /vocab of BPE is no object/],
        [{ vocab: null }, /vocab of BPE is no object/],
        [{ merges: undefined }, /has no list merges/],
        [{ merges: 'a b' }, /merges is "a b", not a list/],
        [{ merges: [null] }, /merge 0 is null, not "left right"/],
        [{ merges: [['a']] }, /merge 0 is a list of 1, not "left right"/],
        [{ merges: [['a', 'b', 'c']] }, /merge 0 is a list of 3/],
        [{ ignore_merges: 'no' }, /ignore_merges is "no", not true or false/],
        [{ unk_token: 5 }, /unk_token is 5, not a text/],
        [
          { byte_fallback: true, vocab: { ...demoJson().model.vocab, '<0x00>': 5000 } },
          /has byte tokens, but no <0x01>/,
        ],
      ] as const)
        refused(() => fromJson(changed({}, model)), message);
      for (const id of [-1, 1.5, '5', {}, null, 2 ** 20])
        refused(
          () => fromJson(changed({}, { vocab: { a: id }, merges: [] })),
          /token "a" has id .*; ids must be whole numbers/,
        );
      refused(() => fromJson(changed({}, { vocab: { a: 1, b: 1 }, merges: [] })), /"a" and "b" have one id, 1/);
    });
    it('dropout of 0, and empty prefixes, are none', () => {
      const tokenizer = fromJson(changed({}, { dropout: 0, continuing_subword_prefix: '', end_of_word_suffix: null }));
      assert.deepEqual(plain(tokenizer, 'Hello'), plain(demo, 'Hello'));
    });
    it('merges of byte tokens are refused, as Rust does them and this does not', () => {
      const names = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
      const vocab = Object.fromEntries([...names, '<0x0A><0x0A>'].map((name, id) => [name, id]));
      const model = { byte_fallback: true, vocab, merges: [['<0x0A>', '<0x0A>']] };
      refused(() => fromJson(changed({ added_tokens: [] }, model)), /merge 0 joins byte tokens or the unknown token/);
    });
    it('an unknown token that is missing is missed only when it is needed', () => {
      const model = { vocab: { a: 0 }, merges: [], unk_token: '<unk>' };
      const tokenizer = fromJson(changed({ added_tokens: [], pre_tokenizer: null, post_processor: null }, model));
      assert.deepEqual(plain(tokenizer, 'aa'), [0, 0]);
      refused(() => plain(tokenizer, 'ab'), /the tokenizer has neither "b" nor its unknown token "<unk>"/);
    });
  });

  describe('added tokens', () => {
    const token = (id: number, content: string, more: object = {}) => ({ id, content, special: false, ...more });
    const added = (list: object[], more: object = {}) =>
      fromJson(changed({ added_tokens: list, post_processor: null, ...more }));
    it('that are normalized are found after the normalizer, as what it makes of them', () => {
      const normalizer = { type: 'Lowercase' };
      const list = [token(4091, 'CAT', { normalized: true }), token(4092, 'DOG', { normalized: false })];
      const tokenizer = added(list, { normalizer });
      assert.deepEqual(plain(tokenizer, 'Cat'), [4091]);
      assert.deepEqual(plain(tokenizer, 'DOG'), [4092]);
      assert(!plain(tokenizer, 'Dog').includes(4092));
    });
    it('are normalized by default unless they are special', () => {
      const normalizer = { type: 'Lowercase' };
      const tokenizer = added(
        [
          { id: 4091, content: 'CAT' },
          { id: 4092, content: 'DOG', special: true },
        ],
        { normalizer },
      );
      const encode = (text: string) => tokenizer.encode(text, { special: true });
      assert.deepEqual([...encode('cat'), ...encode('DOG')], [4091, 4092]);
      assert(!encode('dog').includes(4092));
    });
    it('take Unicode white space along, and keep out of words of any script', () => {
      const tokenizer = added([
        token(4091, '@l', { lstrip: true }),
        token(4092, '@r', { rstrip: true }),
        token(4093, 'cat', { single_word: true }),
      ]);
      const a = plain(tokenizer, 'a');
      assert.deepEqual(plain(tokenizer, 'a\u0085\u3000@l'), [...a, 4091]);
      assert.deepEqual(plain(tokenizer, '@r\u0085\u3000a'), [4092, ...a]);
      // No white space in Unicode, though JavaScript trims it.
      assert.deepEqual(plain(tokenizer, '\ufeff@l'), [...plain(tokenizer, '\ufeff'), 4091]);
      for (const text of ['𝕏cat', 'cat𝕏', 'cat\u0301', 'cat_', 'ةcat'])
        assert(!plain(tokenizer, text).includes(4093), text);
      for (const text of ['cat', '-cat-', '½cat', '🦙cat🦙']) assert(plain(tokenizer, text).includes(4093), text);
    });
    it('a token inside a word hides shorter ones in it', () => {
      const tokenizer = added([token(4091, '@ca'), token(4092, '@cat', { single_word: true })]);
      assert(!plain(tokenizer, '@cats').some((id) => id >= 4091));
      assert.deepEqual(plain(tokenizer, '@cat'), [4092]);
    });
    it('are fast however many begin alike', () => {
      const list = Array.from({ length: 255 }, (_, i) => token(4091 + i, `${'¤'.repeat(i + 1)}b`));
      const start = cpuTime();
      plain(added(list), '¤'.repeat(100_000));
      assert(cpuTime() - start < 5000);
    });
    it('that contradict the vocabulary, or are none, are refused', () => {
      for (const [list, message] of [
        [[token(5, 'zzz')], /added token "zzz" has id 5, but in the vocabulary that id is/],
        [[token(4091, 'the')], /added token "the" has id 4091, but in the vocabulary it has id \d+/],
        [[token(-1, 'x')], /token "x" with id -1/],
        [[{ id: 4091 }], /token without content/],
        [[null], /added_tokens is null, not an object/],
        [[token(4091, 'x', { special: 'yes' })], /special is "yes", not true or false/],
        [[token(4091, 'x', { greedy: true })], /field "greedy" that is not known/],
        [[token(4091, 'x'.repeat(5000))], /a token of 5000 characters; 256 are the limit/],
      ] as const)
        refused(() => added([...list] as object[]), message);
    });
  });

  it('parts of the whole file', () => {
    for (const [change, message] of [
      [{ version: '2.0' }, /version "2\.0" is not supported; known: 1\.0/],
      [{ splitter: {} }, /has a field "splitter" that is not known, and may change the ids; known: version, trunc/],
      [{ added_tokens: {} }, /added_tokens is an object, not a list/],
      [{ normalizer: [] }, /normalizer is a list of 0, not an object/],
    ] as const)
      refused(() => fromJson(changed(change)), message);
    const options = {
      truncation: { max_length: 2 },
      padding: { length: 9 },
      decoder: { type: 'Unheard' },
      version: '1.0',
    };
    assert.deepEqual(plain(fromJson(changed(options)), 'Hello there'), plain(demo, 'Hello there'));
  });

  it('a normalizer that makes a text grow without end is stopped', () => {
    const double = { type: 'Replace', pattern: { String: 'a' }, content: 'aa' };
    const sequence = (count: number) => ({ type: 'Sequence', normalizers: Array(count).fill(double) as object[] });
    const tokenizer = fromJson(changed({ normalizer: sequence(31) }));
    const grows = (error: unknown) =>
      error instanceof ModelError && /normalizer makes a text more than 32 times as long/.test(error.message);
    assert.throws(() => plain(tokenizer, 'a'), grows);
    assert.deepEqual(plain(tokenizer, 'b'), plain(demo, 'b'));
    refused(() => fromJson(changed({ normalizer: sequence(33) })), /has 33 steps; 32 are the limit/);
  });

  it('10,000 nested brackets are no harm', () => {
    let normalizer: object = { type: 'NFC' };
    for (let i = 0; i < 2000; i++) normalizer = { type: 'Sequence', normalizers: [normalizer] };
    refused(() => fromJson(changed({ normalizer })), /sequences more than 8 deep/);
  });
});

describe('tokenizer_config.json', () => {
  /** The demo tokenizer with a configuration. @param said what its post_processor adds: BOS, nothing, or no word about it */
  function configured(config: object | string, said: 'bos' | 'none' | 'silent', bos?: number): Tokenizer {
    const json = demoJson();
    if (said === 'silent') json.post_processor = null;
    if (said === 'none')
      json.post_processor = {
        type: 'TemplateProcessing',
        single: [{ Sequence: { id: 'A' } }],
        pair: [],
        special_tokens: {},
      };
    const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-tokenizer-'));
    try {
      const files = {
        tokenizer: path.join(folder, 'tokenizer.json'),
        config: path.join(folder, 'tokenizer_config.json'),
      };
      writeFileSync(files.tokenizer, JSON.stringify(json));
      writeFileSync(files.config, typeof config === 'string' ? config : JSON.stringify(config));
      return loadTokenizer({ kind: 'huggingface', ...files, ...(bos === undefined ? {} : { bos }) });
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
  const added = (...args: Parameters<typeof configured>): number[] => {
    const tokenizer = configured(...args);
    return tokenizer.prompt('Hi', { special: true }).filter((id) => tokenizer.isSpecial(id));
  };
  const names = { bos_token: '<|begin_of_text|>', eos_token: { content: '<|end_of_text|>', special: true } };
  const llama = { ...names, tokenizer_class: 'LlamaTokenizerFast' };
  for (const [name, config, said, expected] of [
    ['the post_processor decides', { ...names, add_bos_token: false }, 'bos', [4091]],
    ['so it does where it adds nothing', { ...names, add_bos_token: true }, 'none', []],
    ['where it is silent, add_bos_token decides', { ...names, add_bos_token: true }, 'silent', [4091]],
    ['add_eos_token, too', { ...names, add_eos_token: true }, 'silent', [4092]],
    ['false adds none', { ...names, add_bos_token: false, add_eos_token: false }, 'silent', []],
    ['where both are silent, nothing is added', names, 'silent', []],
    ["Llama's class goes by add_bos_token", { ...llama, add_bos_token: false }, 'bos', []],
    ['in both ways', { ...llama, add_bos_token: true, add_eos_token: true }, 'none', [4091, 4092]],
    ['and adds BOS if nothing is said', llama, 'silent', [4091]],
    ['but not if the post_processor speaks', llama, 'none', []],
    ['or has no BOS', { tokenizer_class: 'LlamaTokenizer' }, 'silent', []],
  ] as const)
    it(name, () => assert.deepEqual(added(config, said), expected));
  it('a BOS without a name is that of config.json, or refused', () => {
    assert.deepEqual(added({ add_bos_token: true }, 'silent', 4093), [4093]);
    refused(
      () => added({ add_bos_token: true }, 'silent'),
      /tokenizer_config\.json: adds bos_token, but names none of the vocabulary/,
    );
    refused(
      () => added({ add_eos_token: true, eos_token: '<nope>' }, 'silent', 4093),
      /adds eos_token, but names none/,
    );
  });
  it('added_tokens_decoder adds what tokenizer.json lacks', () => {
    const token = { content: '<|extra|>', special: true, lstrip: false, normalized: false };
    const tokenizer = configured({ added_tokens_decoder: { 4096: token } }, 'silent');
    assert.deepEqual(tokenizer.encode('<|extra|>', { special: true }), [4096]);
    refused(() => configured({ added_tokens_decoder: { 5: token } }, 'silent'), /added token "<\|extra\|>" has id 5/);
    refused(() => configured({ added_tokens_decoder: { x: token } }, 'silent'), /with id NaN/);
  });
  it('what contradicts tokenizer.json is refused, as is what cannot be read', () => {
    refused(
      () => configured({ add_prefix_space: true }, 'bos'),
      /add_prefix_space is true, but tokenizer\.json puts no space/,
    );
    refused(
      () => configured({ split_special_tokens: true }, 'bos'),
      /split_special_tokens is true, which is not supported/,
    );
    refused(() => configured({ add_bos_token: 'yes' }, 'silent'), /add_bos_token is "yes", not true or false/);
    refused(() => configured({ add_bos_token: true, bos_token: 7 }, 'silent'), /bos_token is 7, not a text/);
    refused(() => configured('[', 'bos'), /tokenizer_config\.json: not readable as JSON/);
    refused(() => configured('[]', 'bos'), /tokenizer_config\.json: is a list of 0, not an object/);
    assert.deepEqual(added({ add_prefix_space: false }, 'bos'), [4091]);
  });
  for (const [folder, expected] of [
    ['falcon-like', [39, 301, 385, 1917]],
    ['bos-only-in-tokenizer', [3840, 39, 301, 385, 1917]],
  ] as const)
    it(`field case ${folder}`, function () {
      const { tokenizer } = openModel(fixture(this, `field/${folder}`));
      assert.deepEqual(loadTokenizer(tokenizer!).prompt('Hello world', { special: true }), expected);
    });
});
