/**
 * Text from bytes that people give: prompt files, pipes, escapes. It is UTF-8, or UTF-16 with a byte order mark; anything else is
 * refused rather than read as something that was not meant. Between the command line and the tokenizer.
 */
import { UsageError } from '../schemas/error.ts';

/** @param source what the bytes are of, for messages @throws UsageError with the offset of the first byte that is no text */
export function decodeText(bytes: Uint8Array, source: string): string {
  const [first, second] = bytes;
  const [little, big] = [first === 0xff && second === 0xfe, first === 0xfe && second === 0xff];
  const text =
    little || big
      ? fromUtf16(Buffer.from(bytes.subarray(2)), big, source)
      : fromUtf8(bytes, source).replace(/^\ufeff/, '');
  const nul = text.indexOf('\0');
  if (nul >= 0) {
    const offset = little || big ? 2 + 2 * nul : bytes.indexOf(0);
    throw new UsageError(
      `${source} has a NUL byte at offset ${offset}, so it is no text, or UTF-16 or UTF-32 without a mark; convert it, for example by iconv -f UTF-16LE -t UTF-8`,
    );
  }
  return text;
}

const ICONV = 'convert it, from Latin-1 for example by iconv -f LATIN1 -t UTF-8';

function fromUtf8(bytes: Uint8Array, source: string, fix = ICONV): string {
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
  const offset = firstDifference(bytes, Buffer.from(text));
  if (offset === undefined) return text;
  const byte = bytes[offset]!.toString(16).toUpperCase().padStart(2, '0');
  throw new UsageError(`${source} is not UTF-8: byte 0x${byte} at offset ${offset}; ${fix}`);
}

/**
 * Where bytes differ from their own text in UTF-8. A sequence that is not UTF-8 became U+FFFD, with which it may share bytes: the
 * offset is that of the sequence's first byte.
 */
function firstDifference(bytes: Uint8Array, again: Uint8Array): number | undefined {
  let at = 0;
  while (at < again.length && again[at] === bytes[at]) at++;
  if (at === again.length) return undefined;
  const isContinuation = (byte: number) => (byte & 0xc0) === 0x80;
  while (isContinuation(again[at]!)) at--;
  return at;
}

/** @param bytes without the mark; they are changed */
function fromUtf16(bytes: Buffer, big: boolean, source: string): string {
  const text = bytes.length % 2 ? undefined : (big ? bytes.swap16() : bytes).toString('utf16le');
  const alone = text === undefined ? bytes.length >> 1 : text.search(/\p{Surrogate}/u);
  if (text !== undefined && alone < 0) return text;
  throw new UsageError(`${source} is not UTF-16, as its mark says: half a character at offset ${2 + 2 * alone}`);
}

const escapes: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', '\\': '\\', "'": "'", '"': '"' };

/**
 * Turns \n, \r, \t, \\, \', \" and \xNN into what they stand for; \xNN is a byte, so that \xE2\x82\xAC is the euro sign. Other
 * backslashes stay as they are. The rules are llama.cpp's (common/common.cpp, string_process_escapes).
 * @throws UsageError where the bytes are not UTF-8
 */
export function unescapeText(text: string): string {
  const parts = text.split(/(\\(?:x[0-9a-fA-F]{2}|[nrt\\'"]))/);
  // Odd parts are escapes.
  const bytes = parts.map((part, i) => {
    if (i % 2 && part[1] === 'x') return Buffer.of(Number.parseInt(part.slice(2), 16));
    return Buffer.from(i % 2 ? escapes[part[1]!]! : part);
  });
  return fromUtf8(Buffer.concat(bytes), `'${text}' with its escapes`, 'give all bytes of a character');
}
