/**
 * How a vocabulary spells bytes as text, and back: the two conventions in use. Consumed by the readers of the three file
 * kinds (huggingface.ts, tiktoken.ts, gguf.ts), by split.ts on the way in and by ../tokenizer.ts on the way out.
 *
 *   byte-level  one character per byte: printable Latin-1 stands for itself, the other 68 bytes for U+0100 + 0, 1, 2, ...
 *               ("Ġ" is a space). Source: OpenAI gpt-2, src/encoder.py, bytes_to_unicode.
 *   metaspace   plain text with U+2581 for a space; characters outside the vocabulary are spelt as bytes, "<0xE2>".
 *               Source: google/sentencepiece, doc/special_symbols.md and src/model_interface (byte_fallback).
 */
import { ModelError } from '../../schemas/error.ts';

/** A space in a SentencePiece vocabulary. */
export const metaspace = '\u2581';

/** Character of each byte in a byte-level vocabulary. */
export const byteCharacters: readonly string[] = (() => {
  const table: string[] = [];
  let moved = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table.push(String.fromCharCode(printable ? byte : moved++));
  }
  return table;
})();

/** Byte of each character code below 0x144, or -1. The last moved byte is 0xAD, at 0x100 + 67. */
const characterBytes = new Int16Array(0x144).fill(-1);
for (const [byte, character] of byteCharacters.entries()) characterBytes[character.charCodeAt(0)] = byte;

/** UTF-8 bytes of a text in the spelling of a byte-level vocabulary. Lone surrogates become U+FFFD. */
export function spellBytes(text: string): string {
  // Nearly every piece of English or code is printable ASCII, where only the space moves.
  if (/^[ -~]*$/.test(text)) return text.replaceAll(' ', byteCharacters[0x20]!);
  let spelt = '';
  for (const byte of Buffer.from(text, 'utf8')) spelt += byteCharacters[byte];
  return spelt;
}

/** Bytes of a byte-level token. A token with a foreign character counts as plain text, as in the Rust `tokenizers`. */
export function unspellBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = characterBytes[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return Buffer.from(token, 'utf8');
    bytes[i] = byte;
  }
  return bytes;
}

/** Bytes of a SentencePiece token: "<0xNN>" is one byte, U+2581 a space, all else itself. */
export function unspellMetaspace(token: string): Uint8Array {
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
  if (byte) return Uint8Array.of(Number.parseInt(byte[1]!, 16));
  return Buffer.from(token.replaceAll(metaspace, ' '), 'utf8');
}

/**
 * Ids of the 256 byte tokens of a SentencePiece vocabulary.
 * @param where for the message
 * @returns undefined if it has none @throws ModelError if it has some of them only
 */
export function byteTokens(ids: ReadonlyMap<string, number>, where: string): Int32Array | undefined {
  const names = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const missing = names.filter((name) => !ids.has(name));
  if (missing.length === 256) return undefined;
  if (missing.length > 0) throw new ModelError(`${where} has byte tokens, but no ${missing[0]}; all 256 are needed`);
  return Int32Array.from(names, (name) => ids.get(name)!);
}
