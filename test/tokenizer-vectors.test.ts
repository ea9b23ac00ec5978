/**
 * The real Llama-3 vocabulary, which may not be shipped: llama.cpp's vocabulary tests, reference cases, long texts, load time,
 * and the same vocabulary in its three file kinds. Needs BITNET_FIXTURES.
 */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { readGguf } from '../runtime/formats/gguf.ts';
import { readTiktoken } from '../runtime/tokenizer/tiktoken.ts';
import { loadTokenizer, type Tokenizer } from '../runtime/tokenizer.ts';
import { fixture } from './fixtures.ts';
import { demoJson, fromText, type Gguf, gguf, plain, texts } from './tokenizer-samples.ts';

describe('tokenizer vectors', () => {
  const real = (context: Mocha.Context): Tokenizer =>
    loadTokenizer({ kind: 'tiktoken', ranks: fixture(context, 'tokenizer/tokenizer.model') });
  const separator = '\n__ggml_vocab_test__\n';
  interface Cases {
    plain: { text: string; ids: number[] }[];
    with_special: { text: string; ids: number[]; ids_plain: number[] }[];
    long: { file: string; chars: number; n_tokens: number; fnv1a64_of_u32le_ids: string }[];
  }
  const cases = (context: Mocha.Context): Cases =>
    JSON.parse(readFileSync(fixture(context, 'tokenizer/cases.json'), 'utf8')) as Cases;
  const checkCases = (tokenizer: Tokenizer, { plain: list, with_special }: Cases): void => {
    assert.deepEqual([list.length, with_special.length], [124, 10]);
    for (const { text, ids } of list) {
      assert.deepEqual(plain(tokenizer, text), ids, text);
      assert.equal(tokenizer.decode(ids), text);
    }
    for (const { text, ids, ids_plain } of with_special) {
      assert.deepEqual(tokenizer.encode(text, { special: true }), ids, text);
      assert.deepEqual(plain(tokenizer, text), ids_plain, text);
    }
  };
  /** The real vocabulary as tokenizer.json and GGUF files hold it: every split of every token is a merge. */
  const realGguf = (context: Mocha.Context): { source: Gguf; tokens: string[]; merges: string[] } => {
    const ranks = fixture(context, 'tokenizer/tokenizer.model');
    const { texts, ids, added } = readTiktoken({ kind: 'tiktoken', ranks });
    const tokens = texts as string[];
    const merges = [...ids.keys()].flatMap((text) =>
      Array.from({ length: text.length - 1 }, (_, i) => [text.slice(0, i + 1), text.slice(i + 1)] as const)
        .filter(([a, b]) => ids.has(a) && ids.has(b))
        .sort(([a], [b]) => ids.get(a)! - ids.get(b)!)
        .map((pair) => pair.join(' ')),
    );
    const token_type = tokens.map((_, id) => (id < tokens.length - added.length ? 1 : 3));
    return { source: gguf({ model: 'gpt2', tokens, token_type, merges, bos_token_id: 128000 }), tokens, merges };
  };

  for (const version of ['ik', 'upstream2025'])
    it(`llama.cpp's vocabulary test, ${version}`, function () {
      const tokenizer = real(this);
      const inputs = readFileSync(fixture(this, `tokenizer/llama-bpe.${version}.inp`), 'utf8')
        .split(separator)
        .slice(0, -1);
      const outputs = readFileSync(fixture(this, `tokenizer/llama-bpe.${version}.out`), 'utf8').split('\n');
      assert.equal(inputs.length, 46);
      for (const [i, text] of inputs.entries())
        assert.equal(plain(tokenizer, text).join(' '), outputs[i]!.trim(), text);
    });
  it('reference cases', function () {
    checkCases(real(this), cases(this));
  });
  it('reference cases with the merges of a GGUF file and of tokenizer.json', function () {
    const { source, tokens, merges } = realGguf(this);
    assert.equal(merges.length, 280147);
    assert.deepEqual(merges.slice(0, 4), ['Ġ Ġ', 'Ġ ĠĠĠ', 'ĠĠ ĠĠ', 'ĠĠĠ Ġ']);
    checkCases(loadTokenizer(source), cases(this));
    const json = demoJson();
    json.added_tokens = tokens.slice(128000).map((content, i) => ({ id: 128000 + i, content, special: true }));
    const vocab = Object.fromEntries(tokens.slice(0, 128000).map((text, id) => [text, id]));
    json.model = { type: 'BPE', ignore_merges: true, vocab, merges };
    const file = JSON.stringify(json);
    checkCases(fromText(file), cases(this));
  });
  it('long texts', function () {
    const tokenizer = real(this);
    const { long } = cases(this);
    assert.equal(long.length, 3);
    for (const { file, chars, n_tokens, fnv1a64_of_u32le_ids: sum } of long) {
      const text = [...readFileSync(fixture(this, `corpora/${file}`), 'utf8')].slice(0, chars).join('');
      const ids = plain(tokenizer, text);
      let hash = 0xcbf29ce484222325n;
      for (const byte of new Uint8Array(Uint32Array.from(ids).buffer))
        hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
      assert.equal(ids.length, n_tokens);
      assert.equal(hash.toString(16).padStart(16, '0'), sum, file);
      assert.equal(tokenizer.decode(ids), text);
    }
  });
  it('the tiny vocabulary agrees between its three forms', function () {
    const official = readGguf(fixture(this, 'tiny/2b4t/tiny-2b4t-i2_s.gguf')).tokenizer;
    assert(official?.kind === 'gguf' && !official.metadata.has('tokenizer.ggml.pre'));
    const forms = [
      loadTokenizer(official),
      loadTokenizer({ kind: 'tiktoken', ranks: fixture(this, 'tiny/tokenizer/tokenizer.model') }),
      loadTokenizer({ kind: 'huggingface', tokenizer: fixture(this, 'tiny/tokenizer/tokenizer.json') }),
    ];
    assert.deepEqual(
      forms.map((form) => form.vocabularySize),
      [4096, 4096, 4096],
    );
    const corpus = readFileSync(fixture(this, 'corpora/tinyshakespeare.txt'), 'utf8').slice(0, 50_000);
    for (const text of [...texts, corpus]) {
      const ids = forms.map((form) => form.encode(text, { special: true }));
      assert.deepEqual(ids[1], ids[0], text);
      assert.deepEqual(ids[2], ids[0], text);
    }
  });
});
