/**
 * The tokenizer: byte-level vocabularies, against @huggingface/tokenizers and a brute-force BPE as oracles, and from small
 * files made here. SentencePiece, splitting and the real Llama-3 vocabulary have files of their own beside this one.
 */
import { strict as assert } from 'node:assert';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { readMerges } from '../runtime/tokenizer/merge-list.ts';
import { byteCharacters } from '../runtime/tokenizer/spelling.ts';
import { loadTokenizer, type Tokenizer } from '../runtime/tokenizer.ts';
import {
  demo,
  demoJson,
  fromJson,
  fromRanks,
  fromText,
  ggufOf,
  type Json,
  plain,
  refused,
  texts,
} from './tokenizer-samples.ts';

describe('tokenizer', () => {
  describe('demo vocabulary', () => {
    const tokenizer = loadTokenizer({ kind: 'huggingface', tokenizer: demo });
    const library = new Library(demoJson(), { tokenizer_class: 'PreTrainedTokenizerFast' });
    const libraryIds = (text: string): number[] => library.encode(text, { add_special_tokens: false }).ids;
    const unicode = fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 40 }),
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.string({ unit: fc.constantFrom(..." \t\n\r\u0085\ufeff'sſSdD.,-a1²é中🦙"), maxLength: 40 }),
    );

    it('gives what the library gives', () => {
      for (const text of texts) assert.deepEqual(tokenizer.encode(text, { special: true }), libraryIds(text), text);
      fc.assert(
        fc.property(unicode, (text) => {
          assert.deepEqual(tokenizer.encode(text, { special: true }), libraryIds(text));
        }),
        { numRuns: 2000, seed: 3 },
      );
    });
    it('decodes what it encoded, for any text', () => {
      for (const text of texts) assert.equal(tokenizer.decode(plain(tokenizer, text)), text);
      fc.assert(
        fc.property(unicode, (text) => assert.equal(tokenizer.decode(plain(tokenizer, text)), text)),
        { numRuns: 2000, seed: 4 },
      );
    });
    it('reads lone surrogates as U+FFFD', () => {
      assert.deepEqual(plain(tokenizer, 'a\ud800b'), plain(tokenizer, 'a\ufffdb'));
    });
    it('recognises special tokens only on demand, and never prints them', () => {
      const text = '<|begin_of_text|>a<|eot_id|>';
      assert.deepEqual(tokenizer.encode(text, { special: true }), [4091, ...plain(tokenizer, 'a'), 4095]);
      assert(plain(tokenizer, text).every((id) => !tokenizer.isSpecial(id)));
      assert.equal(tokenizer.decode(tokenizer.encode(text, { special: true })), 'a');
      assert.deepEqual(
        [4090, 4091, 4095, 4096].map((id) => tokenizer.isSpecial(id)),
        [false, true, true, false],
      );
      assert.deepEqual(
        [4091, 4096, 99999, -1].map((id) => tokenizer.bytes(id).length),
        [0, 0, 0, 0],
      );
      assert.equal(tokenizer.vocabularySize, 4096);
    });
    it('gives the bytes of tokens that are parts of a character', () => {
      const ids = plain(tokenizer, '🦙');
      assert(ids.length > 1);
      assert.deepEqual(Buffer.concat(ids.map((id) => tokenizer.bytes(id))), Buffer.from('🦙'));
      assert.equal(tokenizer.decode(ids.slice(0, 1)), '\ufffd');
    });
    it('is the same with merges as "a b", from GGUF metadata, and from GGUF without merges', () => {
      const joined = demoJson();
      joined.model.merges = joined.model.merges.map((merge) => (merge as string[]).join(' '));
      const others = [
        fromJson(joined),
        loadTokenizer(ggufOf(joined)),
        loadTokenizer(ggufOf(joined, { merges: undefined })),
      ];
      for (const other of others)
        for (const text of texts)
          for (const special of [false, true])
            assert.deepEqual(other.encode(text, { special }), tokenizer.encode(text, { special }), text);
    });
    it('takes the GPT-2 expression when the file says so', () => {
      const json = demoJson();
      json.pre_tokenizer = { type: 'ByteLevel', add_prefix_space: false, use_regex: true };
      const oracle = new Library(json, { tokenizer_class: 'PreTrainedTokenizerFast' });
      const gguf = loadTokenizer(ggufOf(json, { pre: 'gpt-2' }));
      for (const text of texts) {
        const ids = oracle.encode(text, { add_special_tokens: false }).ids;
        assert.deepEqual(gguf.encode(text, { special: true }), ids, text);
        assert.deepEqual(fromJson(json).encode(text, { special: true }), ids, text);
      }
      assert(texts.some((text) => plain(fromJson(json), text).join() !== plain(tokenizer, text).join()));
    });
    it('is fast on long runs', () => {
      for (const unit of ['a', ' ', 'é', '中', '!', 'ab', '🦙', '\n', ' a', '<']) {
        const text = unit.repeat(100_000);
        const start = performance.now();
        const ids = tokenizer.encode(text, { special: true });
        const elapsed = performance.now() - start;
        // Usually 0.1 s; a quadratic algorithm takes minutes.
        assert(elapsed < 5000, `${JSON.stringify(unit)}: ${elapsed} ms`);
        assert.equal(tokenizer.decode(ids), text);
      }
    });
  });

  describe('byte-pair merges', () => {
    const bytes = byteCharacters.map((character, id) => [character, id] as const);
    const jsonOf = (merges: string[][], more: Partial<Json> = {}): Json => {
      const vocab = Object.fromEntries(bytes);
      for (const merge of merges) vocab[merge.join('')] ??= Object.keys(vocab).length;
      const pre_tokenizer = { type: 'ByteLevel', add_prefix_space: false, use_regex: false };
      return { added_tokens: [], pre_tokenizer, model: { type: 'BPE', vocab, merges }, ...more };
    };
    /** Looks through all pairs before every merge. */
    const bruteForce = (text: string, merges: string[][]): string[] => {
      let parts = [...text];
      for (;;) {
        const ranks = parts.slice(1).map((part, i) => merges.findLastIndex(([a, b]) => a === parts[i] && b === part));
        const best = Math.min(...ranks.filter((rank) => rank >= 0));
        if (best === Number.POSITIVE_INFINITY) return parts;
        const at = ranks.indexOf(best);
        parts = [...parts.slice(0, at), parts[at]! + parts[at + 1]!, ...parts.slice(at + 2)];
      }
    };
    it('are done in order, leftmost first, as by brute force', () => {
      // Each merge joins two tokens that exist when it is listed; few letters, so that merges overlap and compete.
      const lists = fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 1, maxLength: 16 }).map((picks) => {
        const known = ['a', 'b', 'c'];
        return picks.map(([i, j]) => {
          const merge = [known[i % known.length]!, known[j % known.length]!];
          known.push(merge.join(''));
          return merge;
        });
      });
      fc.assert(
        fc.property(lists, fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 60 }), (merges, text) => {
          const json = jsonOf(merges);
          const ids = bruteForce(text, merges).map((part) => json.model.vocab[part]);
          assert.deepEqual(plain(fromJson(json), text), ids);
        }),
        { numRuns: 3000, seed: 5 },
      );
    });
    it('are skipped for a whole piece that is a token, if the file says so', () => {
      const json = jsonOf([
        ['a', 'b'],
        ['b', 'c'],
        ['a', 'bc'],
      ]);
      const { vocab } = json.model;
      assert.deepEqual(plain(fromJson(json), 'abc'), [vocab.ab, vocab.c]);
      json.model.ignore_merges = true;
      assert.deepEqual(plain(fromJson(json), 'abc'), [vocab.abc]);
    });
    it('must fit the vocabulary', () => {
      for (const merge of ['a zz', 'ab', ['a', 'é'], ' a']) {
        const json = jsonOf([['a', 'b']]);
        json.model.merges = [['a', 'b'], merge as string];
        refused(() => fromJson(json), /: merge 1, .*must be tokens of the vocabulary/);
      }
    });
    it('tell spellings apart that share a place in the hash table', () => {
      // Runs of one letter differ by length alone, and 3,000 of them meet often.
      const ids = new Map(Array.from({ length: 3000 }, (_, i) => ['a'.repeat(i + 1), i]));
      const list = Array.from({ length: 2999 }, (_, i) => ['a'.repeat(i + 1), 'a']);
      const table = readMerges(list, ids, '');
      for (let i = 0; i < list.length; i++) {
        assert.equal(table.find(i, 0, '', 0, 0), i);
        assert.equal(table.results[i], i + 1);
      }
      assert.equal(table.find(0, 1, '', 0, 0), -1);
    });
    it('keep names that JavaScript objects have of their own', () => {
      const json = jsonOf([['_', '_']]);
      assert.deepEqual(plain(fromJson(json), 'constructor __proto__').length, 19);
    });
  });

  describe('tiktoken ranks', () => {
    const line = (text: string | number[], rank: number): string =>
      `${Buffer.from(text as string).toString('base64')} ${rank}`;
    const byteLines = Array.from({ length: 256 }, (_, byte) => line([byte], byte));
    it('are ids and priorities; the special tokens follow', () => {
      const tokenizer = fromRanks(`${[...byteLines, line('bc', 256), line('ab', 257), line('abc', 258)].join('\n')}\n`);
      assert.deepEqual(plain(tokenizer, 'abc'), [258]);
      assert.deepEqual(plain(tokenizer, 'abcaab1'), [258, 97, 257, 49]);
      assert.equal(tokenizer.vocabularySize, 259 + 256);
      const names = '<|begin_of_text|><|end_of_text|><|reserved_special_token_3|><|start_header_id|><|end_header_id|>';
      const more = '<|reserved_special_token_4|><|eot_id|><|reserved_special_token_5|><|reserved_special_token_250|>';
      const ids = [0, 1, 5, 6, 7, 8, 9, 10, 255].map((i) => 259 + i);
      assert.deepEqual(tokenizer.encode(names + more, { special: true }), ids);
    });
    it('join the lower rank first', () => {
      const tokenizer = fromRanks([...byteLines, line('bc', 256), line('ab', 257)].join('\n'));
      assert.deepEqual(plain(tokenizer, 'abcab'), [97, 256, 257]);
    });
    it('accept CRLF and no final line end', () => {
      assert.deepEqual(plain(fromRanks(byteLines.join('\r\n')), 'hé'), [104, 0xc3, 0xa9]);
    });
    it('are refused when damaged', () => {
      const damaged: [string | Uint8Array, RegExp][] = [
        [`${byteLines[0]}\nnonsense here\n`, /line 2: not a list of ranks/],
        [`${byteLines[0]}\nAQ==\n`, /line 2: not a list of ranks/],
        [`${byteLines[0]}\nAQ== 1x\n`, /line 2: not a list of ranks/],
        [`${byteLines[0]}\nAQ== 2\n`, /line 2: rank 2 is out of order/],
        [`${byteLines[0]}\n${line([0], 1)}\n`, /line 2: rank 1 is out of order/],
        [byteLines.slice(0, 255).join('\n'), /byte 255 is no token/],
        ['', /byte 0 is no token/],
        [Uint8Array.of(0x0a, 0x0e, 0x0a, 0x05, 0x3c, 0x75), /is a SentencePiece model/],
      ];
      for (const [content, message] of damaged) refused(() => fromRanks(content), message);
      refused(() => loadTokenizer({ kind: 'tiktoken', ranks: '/nowhere/tokenizer.model' }), /cannot be read: ENOENT/);
    });
  });

  describe('unsupported files', () => {
    const change = (edit: (json: Json) => void): (() => Tokenizer) => {
      const json = demoJson();
      edit(json);
      return () => fromJson(json);
    };
    const kinds: [string, () => unknown, RegExp][] = [
      [
        'a pre-tokenizer name',
        () => loadTokenizer(ggufOf(demoJson(), { pre: 'toString' })),
        /"toString".*known: llama-bpe, /,
      ],
      ['a GGUF model', () => loadTokenizer(ggufOf(demoJson(), { model: 'bert' })), /"bert".*known: gpt2, llama/],
      ['type lists', () => loadTokenizer(ggufOf(demoJson(), { token_type: [1, 1] })), /token_type has 2 entries/],
      [
        'a model type',
        change((json) => Object.assign(json.model, { type: 'Unigram' })),
        /"Unigram" is not supported; known: BPE/,
      ],
      [
        'a normalizer',
        change((json) => Object.assign(json, { normalizer: { type: 'Nmt' } })),
        /normalizer type "Nmt" is not supported; known: Sequence, NFC/,
      ],
      [
        'a pre-tokenizer',
        change((json) => Object.assign(json, { pre_tokenizer: { type: 'Bert' } })),
        /pre_tokenizer type "Bert" is not supported/,
      ],
      [
        'suffixes',
        change((json) => Object.assign(json.model, { end_of_word_suffix: '</w>' })),
        /end_of_word_suffix = "<\/w>"/,
      ],
      ['ids', change((json) => Object.assign(json.model.vocab, { zzz: -1 })), /token "zzz" has id -1/],
      ['no JSON', () => fromText('{'), /: not readable as JSON/],
    ];
    for (const [name, load, message] of kinds) it(`are refused: ${name}`, () => refused(load, message));
  });

  describe('added tokens', () => {
    const added = (...list: Partial<Json['added_tokens'][number]>[]): Tokenizer => {
      const json = demoJson();
      json.added_tokens = list.map((token, i) => ({ id: 4091 + i, content: 'x', ...token }));
      return fromJson(json);
    };
    it('match leftmost, the longest first', () => {
      const tokenizer = added({ content: '<a>' }, { content: '<a><b>' }, { content: '><' });
      assert.deepEqual(plain(tokenizer, '<a><a><b>><'), [4091, 4092, 4093]);
    });
    it('are printed as they are spelt, and so are tokens with characters that stand for no byte', () => {
      assert.equal(added({ content: 'éĠ' }).decode([4091]), 'éĠ');
      const json = demoJson();
      Object.assign(json.model.vocab, { 日本: 4096, 'a b': 4097 });
      assert.equal(fromJson(json).decode([4096, 4097]), '日本a b');
    });
    it('are not made from plain text if they are special, even where a whole piece is a token', () => {
      const json = demoJson();
      json.model.ignore_merges = true;
      json.model.vocab['@|'] = 4091;
      for (const special of [true, false]) {
        json.added_tokens = [{ id: 4091, content: '@|', special }];
        assert.equal(plain(fromJson(json), '@|').includes(4091), !special);
      }
    });
    it('take white space along and keep out of words, if told', () => {
      const tokenizer = added(
        { content: '@l', lstrip: true },
        { content: '@r', rstrip: true },
        { content: 'cat', single_word: true },
      );
      const letter = (text: string): number => plain(tokenizer, text)[0]!;
      assert.deepEqual(plain(tokenizer, 'a  @l  @r  b'), [
        letter('a'),
        4091,
        ...plain(tokenizer, '  '),
        4092,
        letter('b'),
      ]);
      assert.deepEqual(plain(tokenizer, 'cat.'), [4093, letter('.')]);
      for (const text of ['cats', 'ocat', 'cat_', '中cat', '1cat'])
        assert(!plain(tokenizer, text).includes(4093), text);
    });
  });
});
