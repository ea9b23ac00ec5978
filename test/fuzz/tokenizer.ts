/**
 * Damaged and hostile tokenizers: tokenizer.json, tokenizer_config.json and GGUF metadata, changed at random from whole ones.
 * Whatever they are, loading and using them ends well or in a BitnetError, soon. A seed gives the same cases each time.
 */
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { byteCharacters } from '../../runtime/tokenizer/spelling.ts';
import { loadTokenizer, type Tokenizer } from '../../runtime/tokenizer.ts';
import { BitnetError } from '../../schemas/error.ts';
import { random } from '../decode-program.ts';
import { gguf } from '../tokenizer-samples.ts';

/** Milliseconds that one case may take, on a busy machine. */
const patience = 30_000;

type Json = { [key: string]: unknown };
type Draw = () => number;
/** What a case is made of, as text; `load` needs the folder for its files. */
interface Case {
  readonly text: string;
  readonly load: (folder: string) => Tokenizer;
}

const special = (id: number, content: string, more: Json = {}): Json => ({
  ...{ id, content, special: true, lstrip: false, rstrip: false, single_word: false, normalized: false },
  ...more,
});
const template = {
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  pair: [],
  special_tokens: { '<s>': { id: '<s>', ids: [258], tokens: ['<s>'] } },
};
const byteLevel = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: [special(258, '<s>'), special(259, 'ab ', { special: false, normalized: true, rstrip: true })],
  normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Lowercase' }, { type: 'StripAccents' }] },
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: ' ?\\p{L}+|\\s+(?!\\S)|\\s+' }, behavior: 'Isolated', invert: false },
      { type: 'Digits', individual_digits: true },
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    ],
  },
  post_processor: { type: 'Sequence', processors: [{ type: 'ByteLevel', trim_offsets: false }, template] },
  decoder: { type: 'ByteLevel' },
  model: {
    ...{ type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
    ...{ fuse_unk: false, byte_fallback: false, ignore_merges: true },
    vocab: { ...Object.fromEntries(byteCharacters.map((character, id) => [character, id])), ab: 256, abc: 257 },
    merges: ['a b', ['ab', 'c']],
  },
};
const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
const pieces = ['<unk>', '<s>', '</s>', ...bytes, '▁', 'a', 'b', 'ab', '▁ab'];
const sentencePiece = {
  version: '1.0',
  added_tokens: [0, 1, 2].map((id) => special(id, pieces[id]!, { lstrip: true, single_word: id === 2 })),
  normalizer: {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      { type: 'Replace', pattern: { Regex: 'b{2,}|\\d+' }, content: 'b' },
      { type: 'Strip', strip_left: false, strip_right: true },
    ],
  },
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: true },
  post_processor: { type: 'RobertaProcessing', sep: ['</s>', 2], cls: ['<s>', 1], trim_offsets: true },
  model: {
    ...{ type: 'BPE', unk_token: '<unk>', fuse_unk: true, byte_fallback: true },
    vocab: Object.fromEntries(pieces.map((text, id) => [text, id])),
    merges: [
      ['a', 'b'],
      ['▁', 'ab'],
    ],
  },
};
const config = {
  ...{ tokenizer_class: 'LlamaTokenizerFast', add_bos_token: true, add_eos_token: false, add_prefix_space: null },
  bos_token: { content: '<s>' },
  eos_token: '</s>',
  added_tokens_decoder: { 258: special(258, '<s>') },
};
const metadata = [
  {
    ...{ model: 'gpt2', pre: 'default', bos_token_id: 1, eos_token_id: 2, add_bos_token: true, add_eos_token: false },
    ...{ tokens: [...byteCharacters, 'ab', '<s>'], token_type: [...bytes.map(() => 1), 1, 3], merges: ['a b'] },
  },
  {
    ...{ model: 'llama', unknown_token_id: 0, add_space_prefix: true, remove_extra_whitespaces: false, tokens: pieces },
    ...{ scores: pieces.map((_, i) => -i), token_type: pieces.map((_, i) => (i < 3 ? 3 : i < 259 ? 6 : 1)) },
  },
];

/** Values that go where they should not; `deep` becomes 10,000 brackets in the file. */
const deep = '@deep@';
const hostile: readonly unknown[] = [
  ...[
    null,
    true,
    false,
    0,
    -1,
    1.5,
    258,
    2 ** 24,
    2 ** 53,
    1e308,
    '',
    'a',
    'A',
    '\ud800',
    '__proto__',
    'x'.repeat(50_000),
  ],
  ...[[], {}, [[]], [null], ['a'], { type: 'Sequence' }, { type: 'Nonsense' }, deep],
  ...[
    '(?:[a-z ]|[a-z ])*!',
    '[a-z]*!|[a-z]',
    'x*',
    '(',
    '(?:a{900}){900}',
    '\\p{L}{900}',
    '('.repeat(10_000),
    '(?<=a)b|\\1',
  ],
  ...[{ type: 'Replace', pattern: { String: 'a' }, content: 'aa' }, { type: 'ByteLevel' }, { type: 'NFKD' }],
  ...[{ Regex: '(a|aa)+$' }, { String: '' }, { Regex: '' }, { SpecialToken: { id: '<s>' } }, { Sequence: { id: 'B' } }],
];

/** One change in a place somewhere in the value. */
function change(value: unknown, draw: Draw): unknown {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(draw() * list.length)]!;
  const keys = typeof value === 'object' && value !== null ? Object.keys(value) : [];
  if (keys.length === 0 || draw() < 0.05) return pick(hostile);
  const copy = (Array.isArray(value) ? [...value] : { ...(value as Json) }) as Json;
  // Long lists are all alike inside.
  const key = keys.length > 20 && draw() < 0.5 ? keys[0]! : pick(keys);
  const kind = draw();
  if (kind < 0.12) {
    if (Array.isArray(copy)) copy.splice(Number(key), 1);
    else delete copy[key];
  } else if (kind < 0.18) copy[pick([...keys, 'unheard_of'])] = copy[key];
  else if (kind < 0.22 && Array.isArray(copy)) return Array.from({ length: 40 }, () => copy[Number(key)]);
  else copy[key] = change(copy[key], draw);
  return copy;
}

/** A damaged file: changed values, and now and then a damaged text. */
function damage(value: Json, draw: Draw): string {
  let changed: unknown = value;
  for (let n = 1 + Math.floor(draw() * 2); n > 0; n--) changed = change(changed, draw);
  const text = JSON.stringify(changed).replaceAll(`"${deep}"`, '['.repeat(10_000) + ']'.repeat(10_000));
  return draw() < 0.1 ? damageText(text, draw) : text;
}

/** A changed, cut or missing part. */
function damageText(text: string, draw: Draw): string {
  const at = Math.floor(draw() * text.length);
  const kind = draw();
  if (kind < 0.3) return text.slice(0, at);
  const length = Math.floor(draw() * 9);
  const inserted = kind < 0.6 ? '' : text.slice(Math.floor(draw() * text.length)).slice(0, length);
  return text.slice(0, at) + inserted + text.slice(at + length);
}

function makeCase(draw: Draw): Case {
  const kind = draw();
  if (kind < 0.05) {
    const lines = byteCharacters.map((_, byte) => `${Buffer.from([byte]).toString('base64')} ${byte}\n`).join('');
    return fileCase({ 'tokenizer.model': damageText(lines, draw) });
  }
  if (kind < 0.3) {
    const base = draw() < 0.5 ? metadata[0]! : metadata[1]!;
    const changed = change(draw() < 0.5 ? change(base, draw) : base, draw) as Json;
    return { text: JSON.stringify(changed), load: () => loadTokenizer(gguf(Object(changed))) };
  }
  const whole = JSON.stringify(kind < 0.65 ? byteLevel : sentencePiece);
  return fileCase(
    kind > 0.9
      ? { 'tokenizer.json': whole, 'tokenizer_config.json': damage(config, draw) }
      : { 'tokenizer.json': damage(JSON.parse(whole) as Json, draw) },
  );
}

/** A case that lies in files. */
function fileCase(files: Readonly<Record<string, string>>): Case {
  return {
    text: Object.values(files).join('\n'),
    load: (folder) => {
      for (const [name, content] of Object.entries(files)) writeFileSync(path.join(folder, name), content);
      const file = (name: string) => path.join(folder, name);
      if ('tokenizer.model' in files) return loadTokenizer({ kind: 'tiktoken', ranks: file('tokenizer.model') });
      const settings = 'tokenizer_config.json' in files ? { config: file('tokenizer_config.json') } : {};
      return loadTokenizer({ kind: 'huggingface', tokenizer: file('tokenizer.json'), ...settings });
    },
  };
}

/** Does with it what a run does. */
function use(tokenizer: Tokenizer): void {
  for (const text of ['', 'ab abc ab  <s>é🦙\ud800 12\n</s> x!', 'a'.repeat(300), ' ab'.repeat(300)])
    for (const special of [true, false]) {
      const ids = tokenizer.prompt(text, { special });
      for (const id of ids) assert(Number.isInteger(id) && id >= 0, `id ${id}`);
      tokenizer.decode(ids);
      for (const id of ids) tokenizer.spelling(id);
    }
}

/**
 * @param seed of the first case; the cases follow from it
 * @param limits.seconds and how many cases at most @returns how many were tried, and how many of them were refused
 * @throws AssertionError with seed and case, for anything but a BitnetError, and for a case that takes far too long
 */
export function fuzzTokenizer(
  seed: number,
  limits: { readonly seconds: number; readonly cases?: number },
): { cases: number; refused: number } {
  const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-fuzz-'));
  const end = performance.now() + limits.seconds * 1000;
  const count = { cases: 0, refused: 0 };
  try {
    for (; performance.now() < end && count.cases < (limits.cases ?? Number.POSITIVE_INFINITY); count.cases++) {
      const { text, load } = makeCase(random(Math.imul(seed + count.cases, 0x9e3779b1) >>> 0));
      const started = performance.now();
      try {
        use(load(folder));
      } catch (error) {
        if (!(error instanceof BitnetError))
          assert.fail(`seed ${seed + count.cases}: ${(error as Error).stack}\n${text.slice(0, 2000)}`);
        count.refused++;
      }
      const elapsed = performance.now() - started;
      assert(elapsed < patience, `seed ${seed + count.cases} took ${elapsed.toFixed(0)} ms\n${text.slice(0, 2000)}`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  return count;
}
