/**
 * The keys tokenizer.ggml.* of a GGUF file, read by name and type. A key that is not in the tables below is refused, as it might
 * change the ids.
 * Source: ggml, docs/gguf.md; llama.cpp, src/llama-arch.cpp (LLM_KV_TOKENIZER_*) and src/llama-vocab.cpp.
 */
import { ModelError } from '../../schemas/error.ts';
import { show } from './json.ts';

const namespace = 'tokenizer.ggml.';

/** Keys that gguf.ts reads. */
const honoured = [
  'model',
  'pre',
  'tokens',
  'token_type',
  'scores',
  'merges',
  'bos_token_id',
  'eos_token_id',
  'unknown_token_id',
  'add_bos_token',
  'add_eos_token',
  'add_space_prefix',
];
/** Keys that change no ids of a text on its own: kinds of segments, a mark between two texts, and names of tokens (below). */
const harmless = ['token_type_count', 'add_sep_token'];
/** Ids of padding, of turns' ends, of the parts of a program to be filled in, ... */
const namesToken = /_token_ids?$/;
/** Keys that change ids in a way that is not supported, unless they are false or empty. */
const refused: Readonly<Record<string, string>> = {
  remove_extra_whitespaces: 'joins spaces',
  precompiled_charsmap: 'replaces characters',
  'normalizer.lowercase': 'makes letters small',
  'normalizer.strip_accents': 'takes accents off',
  added_tokens: 'adds tokens',
  suppress_tokens: 'forbids tokens',
};

/** Typed access; keys are named without "tokenizer.ggml.". */
export class GgufKeys {
  private readonly metadata: ReadonlyMap<string, unknown>;

  /** @throws ModelError for a key that is unknown or not supported */
  constructor(metadata: ReadonlyMap<string, unknown>) {
    this.metadata = metadata;
    for (const [name, value] of metadata) {
      if (!name.startsWith(namespace)) continue;
      const key = name.slice(namespace.length);
      if (honoured.includes(key) || harmless.includes(key) || namesToken.test(key)) continue;
      if (!Object.hasOwn(refused, key))
        this.fail(
          key,
          `is not known, and may change how a text is read; known: ${[...honoured, ...harmless].join(', ')}, *_token_id`,
        );
      const off = value === false || (value as { readonly length?: unknown } | null)?.length === 0;
      if (!off) this.fail(key, `${refused[key]}, which is not supported; give token ids with --tokens`);
    }
  }

  fail(key: string, message: string): never {
    throw new ModelError(`${namespace}${key} ${message}`);
  }

  text(key: string): string | undefined {
    return this.typed(key, 'a text', (value) => typeof value === 'string');
  }

  flag(key: string): boolean | undefined {
    return this.typed(key, 'true or false', (value) => typeof value === 'boolean');
  }

  texts(key: string): readonly string[] | undefined {
    return this.typed(key, 'a list of texts', (value) => isListOf(value, 'string'));
  }

  /** One number for each token. */
  numbers(key: string, tokens: number): readonly number[] | undefined {
    const list = this.typed<ArrayLike<number>>(key, 'a list of numbers', (value) => isListOf(value, 'number'));
    if (list && list.length !== tokens)
      this.fail(key, `has ${list.length} entries; it must have one for each of the ${tokens} tokens`);
    return list && Array.from(list);
  }

  id(key: string, tokens: number): number | undefined {
    const id = this.typed<number>(key, 'a number', (value) => typeof value === 'number');
    if (id !== undefined && !(Number.isInteger(id) && id >= 0 && id < tokens))
      this.fail(key, `is ${id}, which is none of the ${tokens} tokens`);
    return id;
  }

  private typed<T>(key: string, kind: string, is: (value: unknown) => boolean): T | undefined {
    const value = this.metadata.get(`${namespace}${key}`);
    if (value === undefined || is(value)) return value as T | undefined;
    return this.fail(key, `is ${show(value)}, not ${kind}`);
  }
}

/** A list, or a typed array. */
const isListOf = (value: unknown, type: string): boolean =>
  (Array.isArray(value) || ArrayBuffer.isView(value)) &&
  Array.from(value as ArrayLike<unknown>).every((item) => typeof item === type);
