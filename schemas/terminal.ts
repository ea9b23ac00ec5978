/**
 * The one way to standard output and standard error. A terminal belongs to its user: control characters that come from files, their
 * names, error messages or a model's tokens are shown there as `\u001b`, and not obeyed. What goes to a pipe or a file is not touched.
 */

/** A stream as `process.stdout`, or a test's own. */
export type Output = Pick<NodeJS.WriteStream, 'write' | 'isTTY'>;

/** Most characters of a message. */
const LONGEST = 500;

/**
 * Control characters (C0, DEL, C1) as escapes that are also those of JSON, so that an object on a terminal can still be copied; line
 * breaks and tabs stay.
 */
export const visible = (text: string): string =>
  text
    .replaceAll('\r\n', '\n')
    .replace(/[^\P{Cc}\n\t]/gu, (control) => `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** One line without control characters; a long one loses its middle, since the value stands in front and the fix at the end. */
export function oneLine(message: string): string {
  const characters = [
    ...visible(message)
      .trim()
      .replace(/\s*\n\s*/g, ' '),
  ];
  if (characters.length <= LONGEST) return characters.join('');
  const tail = LONGEST >> 1;
  return [...characters.slice(0, LONGEST - tail - 1), '…', ...characters.slice(-tail)].join('');
}

let silent = false;

/** From now on nothing is written: whoever read it has gone. */
export function fallSilent(): void {
  silent = true;
}

function write(stream: Output, text: string): void {
  if (!silent) stream.write(stream.isTTY ? visible(text) : text);
}

/** Writes results to standard output. */
export const print = (text: string, stream: Output = process.stdout): void => write(stream, text);

/** Writes a result as JSON. */
export const printJson = (value: unknown): void => print(`${JSON.stringify(value, null, 2)}\n`);

/** Writes what accompanies results, like statistics, to standard error. */
export const printAside = (text: string, stream: Output = process.stderr): void => write(stream, text);

/** Writes a message to standard error: one line that begins with the program's name. */
export const tell = (program: string, message: string, stream: Output = process.stderr): void =>
  write(stream, `${program}: ${oneLine(message)}\n`);
