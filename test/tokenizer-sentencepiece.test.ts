/** SentencePiece vocabularies (1bitLLM, Llama-2), from GGUF metadata and from tokenizer.json; @huggingface/tokenizers is the oracle. */
import { strict as assert } from 'node:assert';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { loadTokenizer, type Tokenizer } from '../runtime/tokenizer.ts';
import { cpuTime } from './cpu-time.ts';
import { fromJson, gguf, type Json, plain, refused, texts } from './tokenizer-samples.ts';

describe('tokenizer SentencePiece vocabulary', () => {
  const pieces: [string, number, number][] = [
    ['<unk>', 0, 2],
    ['<s>', 0, 3],
    ['</s>', 0, 3],
    ...Array.from({ length: 256 }, (_, byte): [string, number, number] => {
      return [`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, 0, 6];
    }),
    ['▁t', -1, 1],
    ['he', -2, 1],
    ['▁the', -3, 1],
    ['ll', -4, 1],
    ['hell', -5, 1],
    ['▁▁', -6, 1],
    ...[...'▁thelo\u4f60'].map((text, i): [string, number, number] => [text, -7 - i, 1]),
    ['[X]', 0, 4],
  ];
  const tokens = pieces.map(([text]) => text);
  const keys = {
    model: 'llama',
    tokens,
    token_type: pieces.map(([, , type]) => type),
    scores: pieces.map(([, score]) => score),
  };
  const id = (text: string): number => tokens.indexOf(text);
  const ids = (...list: string[]): number[] => list.map(id);
  const merges = [
    ['▁', 't'],
    ['h', 'e'],
    ['▁t', 'he'],
    ['l', 'l'],
    ['he', 'll'],
    ['▁', '▁'],
  ];
  const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: false };
  const json = (more: Partial<Json>): Json => ({
    added_tokens: [1, 2, tokens.length - 1].map((at) => ({
      id: at,
      content: tokens[at]!,
      special: at < 3,
      normalized: false,
    })),
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'Fuse' }] },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(tokens.slice(0, -1).map((text, at) => [text, at])),
      merges,
      byte_fallback: true,
      unk_token: '<unk>',
      fuse_unk: true,
    },
    ...more,
  });
  const replacing = {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    ],
  };
  it('merges by score and falls back to bytes', () => {
    const tokenizer = loadTokenizer(gguf(keys));
    assert.deepEqual(plain(tokenizer, 'the hello'), ids('▁the', '▁', 'hell', 'o'));
    assert.deepEqual(plain(tokenizer, 'é你\n'), ids('▁', '<0xC3>', '<0xA9>', '你', '<0x0A>'));
    assert.deepEqual(plain(tokenizer, ''), []);
    assert.deepEqual(plain(tokenizer, ' t'), ids('▁', '▁t'));
  });
  it('finds user-defined tokens always, control tokens on demand', () => {
    const tokenizer = loadTokenizer(gguf(keys));
    assert.deepEqual(plain(tokenizer, '[X]the'), ids('[X]', '▁the'));
    assert.deepEqual(tokenizer.encode('<s>the</s>', { special: true }), ids('<s>', '▁the', '</s>'));
    assert.equal(plain(tokenizer, '<s>').includes(id('<s>')), false);
    assert.deepEqual(
      ids('<unk>', '<s>', '[X]', 'he').map((at) => tokenizer.isSpecial(at)),
      [true, true, false, false],
    );
    assert.equal(Buffer.from(tokenizer.bytes(id('[X]'))).toString(), '[X]');
  });
  it('decodes bytes and spaces, without the space in front', () => {
    const tokenizer = loadTokenizer(gguf(keys));
    for (const text of texts) assert.equal(tokenizer.decode(plain(tokenizer, text)), text);
    assert.equal(Buffer.from(tokenizer.bytes(id('▁the'))).toString(), ' the');
    assert.deepEqual([...tokenizer.bytes(id('<0xC3>'))], [0xc3]);
  });
  it('is the same from tokenizer.json, with a normalizer or with Metaspace, and in the library', () => {
    const forms = [json({ normalizer: replacing }), json({ pre_tokenizer: metaspace })];
    const reference = loadTokenizer(gguf(keys));
    for (const [at, form] of forms.entries()) {
      const tokenizer = fromJson(form);
      const library = new Library(form, { tokenizer_class: 'LlamaTokenizerFast' });
      for (const text of [...texts, 'the hello  othello', '[X]the', 'tthe']) {
        assert.deepEqual(plain(tokenizer, text), library.encode(text, { add_special_tokens: false }).ids, text);
        // Metaspace puts no second space before one that is there: the text's own cannot be told from it afterwards.
        if (at === 1 && text.startsWith(' ')) continue;
        assert.deepEqual(plain(tokenizer, text), plain(reference, text), text);
        // A space is put before each stretch of text, after an added token too.
        assert.equal(tokenizer.decode(plain(tokenizer, text)), text.replace('[X]', '[X] '));
      }
    }
  });
  it('honours prepend_scheme and split', () => {
    const of = (more: object): Tokenizer => fromJson(json({ pre_tokenizer: { ...metaspace, ...more } }));
    assert.deepEqual(plain(of({ prepend_scheme: 'first' }), 'the[X]the'), ids('▁the', '[X]', 't', 'he'));
    const first = { ...metaspace, prepend_scheme: 'first' };
    const sequence = { type: 'Sequence', pretokenizers: [{ type: 'Split', pattern: { String: 'o' } }, first] };
    assert.deepEqual(plain(fromJson(json({ pre_tokenizer: sequence })), 'theothe'), ids('▁the', 'o', 't', 'he'));
    assert.deepEqual(plain(of({ prepend_scheme: 'never' }), 'the'), ids('t', 'he'));
    assert.equal(of({ prepend_scheme: 'never' }).decode(ids('▁the')), ' the');
    assert.deepEqual(plain(of({ split: true }), 'a  t').slice(-2), ids('▁', '▁t'));
    refused(() => of({ prepend_scheme: 'maybe' }), /prepend_scheme "maybe" is not supported/);
  });
  it('uses the unknown token where there are no bytes, once per run if told', () => {
    const tokenizer = (fuse: boolean): Tokenizer => {
      const form = json({ normalizer: replacing });
      return fromJson({ ...form, model: { ...form.model, byte_fallback: false, fuse_unk: fuse } });
    };
    assert.deepEqual(plain(tokenizer(true), 'xyté'), ids('▁', '<unk>', 't', '<unk>'));
    assert.deepEqual(plain(tokenizer(false), 'xyté'), ids('▁', '<unk>', '<unk>', 't', '<unk>'));
  });
  it('needs scores', () => {
    const load = (scores: unknown) => () => loadTokenizer(gguf({ ...keys, scores }));
    refused(load(undefined), /tokenizer\.ggml\.scores is missing/);
    refused(load([1]), /scores has 1 entries; it must have one for each/);
    refused(
      load(keys.scores.map((score, i) => (i === 9 ? Number.NaN : score))),
      /scores has a score that is no number/,
    );
  });
  it('is fast on long texts without a break', () => {
    const tokenizer = loadTokenizer(gguf(keys));
    const start = cpuTime();
    assert.equal(plain(tokenizer, 'hell'.repeat(50_000)).length, 50_001);
    assert(cpuTime() - start < 5000);
  });
});
