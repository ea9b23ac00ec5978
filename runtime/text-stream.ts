/**
 * Makes printable text of the bytes of one token after another. Between Tokenizer.bytes() and whatever prints (chat, server).
 * A token may end in the middle of a character, and a stop string may begin in one token and end in another: what cannot be
 * decided yet is held back. How the bytes are cut into tokens never changes the text that comes out in the end.
 */
import { UsageError } from '../schemas/error.ts';

/** Bytes in, printable text out. */
export interface TextStream {
  /**
   * @param bytes the next token's bytes, as from Tokenizer.bytes()
   * @returns text that can be printed now, and whether a stop string was completed; after that nothing is printed any more
   */
  push(bytes: Uint8Array): { readonly text: string; readonly stopped: boolean };
  /** What was held back; U+FFFD for an incomplete character. Nothing if a stop string was completed. */
  end(): string;
}

/**
 * @param stops strings that end the text; of several, the one that is completed first, and of those the longest
 * @throws UsageError if one is empty
 */
export function createTextStream(stops: readonly string[] = []): TextStream {
  if (stops.includes('')) throw new UsageError('stop string "" is empty; it must have at least one character');
  return new StoppingStream(stops);
}

class StoppingStream implements TextStream {
  private readonly stops: readonly string[];
  /** Holds back incomplete characters. A byte order mark is text like any other here. */
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  /** Decoded text that is not printed yet: always the beginning of a stop string, or empty. */
  private held = '';
  private stopped = false;

  constructor(stops: readonly string[]) {
    this.stops = stops;
  }

  push(bytes: Uint8Array): { text: string; stopped: boolean } {
    if (this.stopped) return { text: '', stopped: true };
    const text = this.release(this.decoder.decode(bytes, { stream: true }));
    return { text, stopped: this.stopped };
  }

  end(): string {
    if (this.stopped) return '';
    const text = this.release(this.decoder.decode()) + (this.stopped ? '' : this.held);
    this.held = '';
    this.stopped = true;
    return text;
  }

  /** Takes decoded text in and gives out what is certainly not part of a stop string. */
  private release(decoded: string): string {
    const text = this.held + decoded;
    // `held` contains no whole stop string, so the first one to be completed ends in the new part.
    let start = -1;
    let end = Number.POSITIVE_INFINITY;
    for (const stop of this.stops) {
      const at = text.indexOf(stop);
      if (at < 0) continue;
      const stopEnd = at + stop.length;
      if (stopEnd > end || (stopEnd === end && at > start)) continue;
      start = at;
      end = stopEnd;
    }
    if (start >= 0) {
      this.stopped = true;
      this.held = '';
      return text.slice(0, start);
    }
    const kept = this.beginningOfStop(text);
    this.held = text.slice(text.length - kept);
    return text.slice(0, text.length - kept);
  }

  /** Length of the longest end of the text with which a stop string begins. */
  private beginningOfStop(text: string): number {
    let longest = 0;
    for (const stop of this.stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (!text.endsWith(stop.slice(0, length))) continue;
        longest = length;
        break;
      }
    }
    return longest;
  }
}
