/**
 * Every key tokenizer.ggml.* that can change ids is honoured, or refused by name: the rows of docs/tokenizers.md. The right values
 * follow from llama.cpp's source, src/llama-vocab.cpp.
 */
import { strict as assert } from 'node:assert';
import { preTokenizerOf } from '../runtime/tokenizer/patterns.ts';
import { byteCharacters } from '../runtime/tokenizer/spelling.ts';
import { ggufStages } from '../runtime/tokenizer/split.ts';
import { loadTokenizer } from '../runtime/tokenizer.ts';
import { demoJson, fromJson, gguf, ggufOf, plain, refused, texts } from './tokenizer-samples.ts';

describe('GGUF tokenizer keys', () => {
  /** Byte-level: 256 bytes, two merges, BOS and EOS. */
  const bytes = {
    model: 'gpt2',
    pre: 'gpt-2',
    tokens: [...byteCharacters, 'ab', 'abc', '<s>', '</s>', '<|x|>'],
    token_type: [...byteCharacters.map(() => 1), 1, 1, 3, 3, 4],
    merges: ['a b', 'ab c'],
    bos_token_id: 258,
    eos_token_id: 259,
  };
  /** SentencePiece, without byte tokens. */
  const pieces = {
    model: 'llama',
    tokens: ['<unk>', '<s>', '</s>', '▁', 'a', 'b', 'ab', '▁ab', '<|x|>'],
    token_type: [2, 3, 3, 1, 1, 1, 1, 1, 4],
    scores: [0, 0, 0, -5, -6, -7, -1, -2, 0],
  };
  const prompt = (keys: object, text = 'ab'): number[] =>
    loadTokenizer(gguf({ ...keys })).prompt(text, { special: true });
  const refuses = (keys: object, message: RegExp): void => refused(() => loadTokenizer(gguf({ ...keys })), message);

  describe('BOS and EOS', () => {
    for (const [name, keys, expected] of [
      ['gpt2 adds none by default', { ...bytes }, [256]],
      ['add_bos_token', { ...bytes, add_bos_token: true }, [258, 256]],
      ['add_eos_token', { ...bytes, add_eos_token: true }, [256, 259]],
      ['both', { ...bytes, add_bos_token: true, add_eos_token: true }, [258, 256, 259]],
      ['llama-bpe adds BOS by default', { ...bytes, pre: 'llama-bpe' }, [258, 256]],
      ['unless the file says no', { ...bytes, pre: 'llama-bpe', add_bos_token: false }, [256]],
      ['none is needed then', { ...bytes, bos_token_id: undefined, eos_token_id: undefined }, [256]],
      ['llama adds BOS by default, token 1 if it is a control token', { ...pieces }, [1, 7]],
      ['or another', { ...pieces, bos_token_id: 2 }, [2, 7]],
      ['or none', { ...pieces, add_bos_token: false }, [7]],
      ['and EOS if told', { ...pieces, add_eos_token: true, eos_token_id: 2 }, [1, 7, 2]],
    ] as const)
      it(name, () => assert.deepEqual(prompt(keys), expected));
    it('an id that is missing or no token is refused, if it is needed', () => {
      refuses(
        { ...bytes, add_bos_token: true, bos_token_id: undefined },
        /ggml\.bos_token_id is missing, but this tokenizer adds/,
      );
      refuses({ ...bytes, pre: 'llama-bpe', bos_token_id: undefined }, /ggml\.bos_token_id is missing/);
      refuses({ ...bytes, add_eos_token: true, eos_token_id: undefined }, /ggml\.eos_token_id is missing/);
      refuses(
        { ...bytes, add_bos_token: true, bos_token_id: 261 },
        /bos_token_id is 261, which is none of the 261 tokens/,
      );
      refuses(
        { ...pieces, token_type: pieces.token_type.map(() => 1), unknown_token_id: 0 },
        /bos_token_id is missing/,
      );
      refuses({ ...bytes, add_bos_token: 1 }, /add_bos_token is 1, not true or false/);
    });
  });

  describe('pre', () => {
    const cut = (name: string, text: string): string => {
      // Without the last stage, which spells bytes.
      const stages = ggufStages(preTokenizerOf(name)).slice(0, -1);
      return stages.reduce((parts, stage) => stage(parts, true), [text]).join('|');
    };
    for (const [name, text, expected] of [
      ['default', "Hello, it's 12345 world!! $5", "Hello|,| it|'|s| |123|45| world|!!| |$|5"],
      ['default', 'a_b = x^2 ~ "c" `d`', 'a|_|b| |=| x|^|2| |~| |"|c|"| `|d|`'],
      ['default', ' 1234567\n\n  ①٣x', ' |123|456|7|\n\n | |①٣|x'],
      ['gpt-2', "it's 12345  !!x\n\ny", "it|'s| 12345| | !!|x|\n|\n|y"],
      ['llama-bpe', "IT'S 12345  !!x\n\ny", "IT|'S| |123|45| | !!|x|\n\n|y"],
      ['qwen2', "it's 123 .\n\nx", "it|'s| |1|2|3| .\n\n|x"],
      ['qwen35', 'e\u0301t\u0301e\u0301 12', 'e\u0301t\u0301e\u0301| |1|2'],
    ] as const)
      it(`${name} cuts ${JSON.stringify(text)}`, () => assert.equal(cut(name, text), expected));
    it('other names of the same', () => {
      for (const name of ['llama3', 'llama-v3', 'falcon3', 'falcon_e'])
        assert.equal(preTokenizerOf(name), preTokenizerOf('llama-bpe'));
    });
    it('default is not GPT-2', () => {
      const [one, other] = ['default', 'gpt-2'].map((pre) => loadTokenizer(ggufOf(demoJson(), { pre })));
      assert(texts.some((text) => plain(one!, text).join() !== plain(other!, text).join()));
      for (const text of texts) assert.equal(one!.decode(plain(one!, text)), text);
    });
    it("missing: Llama 3's if the vocabulary is Llama 3's, else refused", () => {
      const demo = fromJson(demoJson());
      for (const text of texts) assert.deepEqual(plain(loadTokenizer(ggufOf(demoJson())), text), plain(demo, text));
      refuses({ ...bytes, pre: undefined }, /tokenizer\.ggml\.pre is missing, and the vocabulary is not Llama 3's/);
    });
    it('does not matter to "llama"', () => assert.deepEqual(prompt({ ...pieces, pre: 'unheard-of' }), [1, 7]));
    it('a name that is not known is refused', () => {
      refuses(
        { ...bytes, pre: 'tekken' },
        /tokenizer\.ggml\.pre = "tekken" is an unknown pre-tokenizer; known: llama-bpe/,
      );
      refuses({ ...bytes, pre: '' }, /pre = "" is an unknown/);
    });
  });

  describe('add_space_prefix', () => {
    it('is true by default, before every stretch of text', () => {
      assert.deepEqual(prompt(pieces, 'ab<|x|>ab'), [1, 7, 8, 7]);
      assert.deepEqual(prompt({ ...pieces, add_space_prefix: true }, ' ab'), [1, 3, 7]);
    });
    it('may be false', () => {
      const keys = { ...pieces, add_space_prefix: false };
      assert.deepEqual(prompt(keys, 'ab<|x|>ab'), [1, 6, 8, 6]);
      const tokenizer = loadTokenizer(gguf(keys));
      assert.equal(tokenizer.decode(plain(tokenizer, ' ab')), ' ab');
    });
    it('does not matter to "gpt2"', () => assert.deepEqual(prompt({ ...bytes, add_space_prefix: true }), [256]));
  });

  describe('tokens, token_type, scores, merges', () => {
    it('control tokens are found on demand, user-defined ones always, unused ones like normal ones', () => {
      const tokenizer = loadTokenizer(gguf(bytes));
      assert.deepEqual(tokenizer.encode('<s>ab<|x|>', { special: true }), [258, 256, 260]);
      assert.deepEqual(plain(tokenizer, 'ab<|x|>'), [256, 260]);
      assert(!plain(tokenizer, '<s>').includes(258));
      const unused = bytes.token_type.map((type, id) => (id === 257 ? 5 : type));
      assert.deepEqual(prompt({ ...bytes, token_type: unused }, 'abc'), [257]);
    });
    it('no types mean that all are normal', () => {
      assert.deepEqual(prompt({ ...bytes, token_type: undefined }, 'abc'), [257]);
    });
    it('the first of two like merges counts, not the last', () => {
      const tokens = [...byteCharacters, 'ab', 'bc'];
      const keys = { ...bytes, tokens, token_type: undefined, bos_token_id: undefined, eos_token_id: undefined };
      assert.deepEqual(prompt({ ...keys, merges: ['a b', 'b c', 'a b'] }, 'abc'), [256, bytes.tokens.indexOf('c')]);
    });
    it('unknown characters are the unknown token, once a run', () => {
      assert.deepEqual(prompt(pieces, 'abxyz'), [1, 7, 0]);
      const typeless = { ...pieces, token_type: undefined, bos_token_id: 1 };
      assert.deepEqual(prompt({ ...typeless, unknown_token_id: 0 }, 'x'), [1, 3, 0]);
      refuses(typeless, /unknown_token_id is missing, and there are no byte tokens/);
    });
    it('without merges, only a vocabulary whose ids are ranks will do', () => {
      assert.deepEqual(prompt({ ...bytes, pre: 'llama-bpe', merges: undefined }, 'abc'), [258, 257]);
      refuses(
        { ...bytes, merges: undefined },
        /tokenizer\.ggml\.merges is missing; a "gpt2" tokenizer merges by that list/,
      );
      refuses({ ...bytes, merges: [] }, /tokenizer\.ggml\.merges is missing/);
    });
    it('lists that are not right are refused', () => {
      const types = (id: number, type: unknown) => bytes.token_type.map((old, i) => (i === id ? type : old));
      for (const [keys, message] of [
        [{ ...bytes, tokens: undefined }, /tokens is missing/],
        [{ ...bytes, tokens: 'ab' }, /tokens is "ab", not a list of texts/],
        [{ ...bytes, tokens: ['a', 5] }, /tokens is a list of 2, not a list of texts/],
        [
          { ...bytes, tokens: bytes.tokens.map((text, id) => (id === 257 ? 'ab' : text)) },
          /has "ab" twice, 256 and 257/,
        ],
        [
          { ...bytes, tokens: bytes.tokens.map((text, id) => (id === 9 ? 'x'.repeat(5000) : text)) },
          /a token of 5000 characters, 9/,
        ],
        [{ ...bytes, token_type: [1] }, /token_type has 1 entries; it must have one for each of the 261 tokens/],
        [{ ...bytes, token_type: types(7, 9) }, /token_type of token 7 is 9; known are 0 to 6/],
        [{ ...bytes, token_type: types(7, 1.5) }, /token_type of token 7 is 1\.5/],
        [{ ...bytes, merges: ['a b', 'ab'] }, /tokenizer\.ggml\.merges: merge 1, "ab"/],
        [{ ...bytes, merges: ['a zz'] }, /merge 0, "a zz": both halves and the whole must be tokens/],
        [{ ...pieces, scores: undefined }, /scores is missing; a "llama" tokenizer merges by score/],
        [{ ...pieces, scores: pieces.scores.map(() => Number.POSITIVE_INFINITY) }, /has a score that is no number/],
        [
          { ...pieces, tokens: pieces.tokens.map((text) => (text === 'a' ? '<0x41>' : text)) },
          /has byte tokens, but no <0x00>/,
        ],
        [{ ...bytes, model: 'bert' }, /tokenizer\.ggml\.model = "bert" is not supported; known: gpt2, llama/],
        [{ ...bytes, model: 5 }, /tokenizer\.ggml\.model is 5, not a text/],
      ] as const)
        refuses(keys, message);
    });
  });

  describe('keys that are not read', () => {
    for (const key of ['remove_extra_whitespaces', 'normalizer.lowercase', 'normalizer.strip_accents'])
      it(`${key} is refused, unless it is false`, () => {
        refuses(
          { ...pieces, [key]: true },
          new RegExp(`tokenizer\\.ggml\\.${key} .*, which is not supported; give token ids`),
        );
        assert.deepEqual(prompt({ ...pieces, [key]: false }), [1, 7]);
      });
    for (const key of ['precompiled_charsmap', 'added_tokens', 'suppress_tokens'])
      it(`${key} is refused, unless it is empty`, () => {
        refuses({ ...bytes, [key]: [1] }, new RegExp(`tokenizer\\.ggml\\.${key} .*, which is not supported`));
        assert.deepEqual(prompt({ ...bytes, [key]: [] }), [256]);
      });
    it('names of tokens, kinds of segments and the mark between two texts change nothing', () => {
      const names = [
        'eot',
        'eom',
        'padding',
        'seperator',
        'mask',
        'cls',
        'fim_pre',
        'fim_suf',
        'prefix',
        'middle',
        'unheard_of',
      ];
      const keys = Object.fromEntries(names.map((name, i) => [`${name}_token_id`, i]));
      assert.deepEqual(
        prompt({ ...bytes, ...keys, token_type_count: 2, add_sep_token: true, eog_token_ids: [1] }),
        [256],
      );
    });
    it('a key that is not known is refused', () => {
      for (const key of ['ignore_merges', 'escape_whitespaces', 'treat_whitespace_as_suffix', 'toString'])
        refuses(
          { ...bytes, [key]: false },
          new RegExp(`tokenizer\\.ggml\\.${key} is not known, and may change how a text is read`),
        );
    });
    it('keys of other names are none of its business', () => {
      const source = gguf(bytes);
      const more = [
        ...source.metadata,
        ['tokenizer.chat_template', '{{ x }}'],
        ['tokenizer.huggingface.json', '{'],
      ] as const;
      const tokenizer = loadTokenizer({ ...source, metadata: new Map<string, unknown>(more) });
      assert.deepEqual(tokenizer.prompt('ab', { special: true }), [256]);
    });
  });
});
