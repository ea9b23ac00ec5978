/**
 * Typed reading of the tokenizer's JSON files: every field is asked for by name and type, and a name that nobody asked for is
 * refused, as it might change the ids. Behind it, nothing of a damaged file is left that could throw anything but a ModelError.
 */
import { readFileSync, statSync } from 'node:fs';
import { ModelError } from '../../schemas/error.ts';

/** The largest published tokenizer.json (Gemma 3, 262,144 tokens) has 33 MB. */
const mostBytes = 2 ** 26;

/** One of a tokenizer's files. @throws ModelError if there is none, or one that is far too large */
export function readTokenizerFile(path: string): Buffer {
  try {
    const { size } = statSync(path);
    if (size > mostBytes) throw new RangeError(`it has ${size} bytes; ${mostBytes} are the limit`);
    return readFileSync(path);
  } catch (error) {
    throw new ModelError(`${path}: the tokenizer's file cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws ModelError if there is no such file, or no JSON in it */
export function readJsonFile(path: string): unknown {
  const text = readTokenizerFile(path).toString('utf8');
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ModelError(`${path}: not readable as JSON: ${(error as Error).message}`, { cause: error });
  }
}

/** A value in a message: short, whatever it is. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}...` : value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

/** One JSON object. A field that is missing or null gives undefined, or the fallback. */
export class Fields {
  /** What the object is, for messages: "model/tokenizer.json: normalizer". */
  readonly where: string;
  private readonly values: Readonly<Record<string, unknown>>;
  private readonly asked = new Set<string>();

  /** @throws ModelError if the value is no object */
  constructor(value: unknown, where: string) {
    this.where = where;
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      this.fail(`is ${show(value)}, not an object`);
    this.values = value as Readonly<Record<string, unknown>>;
  }

  fail(message: string): never {
    throw new ModelError(`${this.where} ${message}`);
  }

  /** The field as it is. */
  raw(key: string): unknown {
    this.asked.add(key);
    return (Object.hasOwn(this.values, key) ? this.values[key] : undefined) ?? undefined;
  }

  text(key: string): string | undefined {
    return this.typed(key, 'a text', (value) => typeof value === 'string');
  }

  flag(key: string, fallback: boolean): boolean {
    return this.typed(key, 'true or false', (value) => typeof value === 'boolean') ?? fallback;
  }

  list(key: string): readonly unknown[] | undefined {
    return this.typed(key, 'a list', Array.isArray);
  }

  object(key: string): Fields | undefined {
    const value = this.raw(key);
    return value === undefined ? undefined : new Fields(value, `${this.where} ${key}`);
  }

  /** One of some texts. */
  choice<T extends string>(key: string, known: readonly T[], fallback: T): T {
    const value = this.raw(key) ?? fallback;
    return (
      known.find((name) => name === value) ??
      this.fail(`${key} ${show(value)} is not supported; known: ${known.join(', ')}`)
    );
  }

  keys(): string[] {
    return Object.keys(this.values);
  }

  /** Fields that change no ids. */
  ignore(...keys: string[]): void {
    for (const key of keys) this.asked.add(key);
  }

  /** To be called when all is read. @throws ModelError for a field that nobody asked for */
  end(): void {
    const unknown = Object.keys(this.values).find((key) => !this.asked.has(key));
    if (unknown !== undefined)
      this.fail(
        `has a field ${show(unknown)} that is not known, and may change the ids; known: ${[...this.asked].join(', ')}`,
      );
  }

  private typed<T>(key: string, kind: string, is: (value: unknown) => boolean): T | undefined {
    const value = this.raw(key);
    if (value === undefined || is(value)) return value as T | undefined;
    return this.fail(`${key} is ${show(value)}, not ${kind}`);
  }
}
