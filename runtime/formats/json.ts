/**
 * JSON files and headers, read within bounds: whatever they hold, the result is an object or a ModelError, and memory stays
 * near the size of the text. Values that a message quotes are shortened here, too.
 */
import { ModelError } from '../../schemas/error.ts';
import { withModelFile } from './file.ts';

/** A JSON object; nothing is known of its values. */
export type Json = Readonly<Record<string, unknown>>;

/**
 * The safetensors format allows its header 100 MB. Headers and indices in use have a few: 92,000 tensors of DeepSeek V3 take
 * 9 MB, the 18,000 of the deepest model that check.ts lets pass 3.
 */
export const maxJsonBytes = 1 << 25;

/**
 * A value costs up to some hundred bytes of memory however short its text is (`{}`), so their number is bounded too. A tensor
 * in a header has ten.
 */
const maxValues = 500_000;

/** Parses a JSON object file. @throws ModelError when it is missing, too large or no JSON object */
export function readJson(file: string): Json {
  return withModelFile(file, (opened) => {
    if (opened.size > maxJsonBytes) throw tooLarge(opened.name, opened.size);
    return parseJson(opened.read(0, opened.size), opened.name);
  });
}

/** Parses the bytes of a JSON object. @param where for messages @throws ModelError when they are none */
export function parseJson(bytes: Buffer, where: string): Json {
  if (bytes.length > maxJsonBytes) throw tooLarge(where, bytes.length);
  const values = countValues(bytes);
  if (values > maxValues) {
    throw new ModelError(`${where} holds ${values} values, more than ${maxValues}; it is damaged or not of a model`);
  }
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    // The message of JSON.parse quotes the text, line breaks included.
    throw new ModelError(`${where} is not valid JSON (${oneLine((error as Error).message)}); download it again`);
  }
  if (!isRecord(json)) throw new ModelError(`${where} is not a JSON object; download it again`);
  return json;
}

const tooLarge = (where: string, bytes: number): ModelError =>
  new ModelError(`${where} has ${bytes} bytes, more than ${maxJsonBytes}; it is damaged or not of a model`);

/** Every value but the first follows a comma or a bracket; those inside texts are counted, too, which does no harm. */
function countValues(bytes: Buffer): number {
  let count = 1;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === 0x2c || byte === 0x5b || byte === 0x7b) count++;
  }
  return count;
}

/** An object, not a list. */
export function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A number, or the text of one ("1e-5"), as some writers of config.json have it. */
export function numberOf(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  const isText = typeof value === 'string' && /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value);
  return isText ? Number(value) : undefined;
}

/** A value as a message quotes it: one line of at most some hundred characters, however deep and long the value is. */
export function shown(value: unknown): string {
  if (!isRecord(value) && !Array.isArray(value)) return scalar(value);
  const parts = Array.isArray(value)
    ? value.slice(0, 6).map(scalar)
    : Object.keys(value)
        .slice(0, 6)
        .map((key) => `${scalar(key)}:${scalar(value[key])}`);
  const more = (Array.isArray(value) ? value.length : Object.keys(value).length) > parts.length ? ',...' : '';
  const inner = parts.join(',') + more;
  return Array.isArray(value) ? `[${inner}]` : `{${inner}}`;
}

function scalar(value: unknown): string {
  if (typeof value === 'string') return oneLine(JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value));
  if (value === undefined) return 'missing';
  if (typeof value !== 'object' || value === null) return String(value);
  return Array.isArray(value) ? '[...]' : '{...}';
}

/** Line breaks and other control characters as blanks. */
export const oneLine = (text: string): string => text.replace(/\p{Cc}+/gu, ' ');

/** Up to eight of the names, for a message. */
export function listed(names: readonly string[]): string {
  const rest = names.length - 8;
  return names.slice(0, 8).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}
