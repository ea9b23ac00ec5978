/** Where bitnet-run's prompt comes from: an argument, an option, a file or a pipe; and how it becomes text (text.ts). */
import { isUtf8 } from 'node:buffer';
import { existsSync, fstatSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { interrupted } from '../schemas/command.ts';
import { ModelError, UsageError } from '../schemas/error.ts';
import { missing } from '../schemas/files.ts';
import { decodeText, unescapeText } from './text.ts';

/** What the demo model continues when nothing else is given. */
const DEMO_PROMPT = 'Once upon a time, there was a little girl named Lily. One day she';

/** A pipe that nobody writes to must not keep the demo waiting: milliseconds until it starts without. */
const PATIENCE = 300;

/** The options that say what the prompt is. */
export interface PromptOptions {
  readonly prompt?: string;
  readonly file?: string;
  /** Turn escapes into characters, wherever the prompt comes from. */
  readonly escape?: boolean;
}

/**
 * @param model the model's path; undefined for the demo model, which has a prompt of its own
 * @param argument the prompt as an argument
 * @throws UsageError when there is none, several, or one that is not text; AbortError after Ctrl-C
 */
export async function promptText(
  model: string | undefined,
  argument: string | undefined,
  o: PromptOptions,
): Promise<string> {
  const text = await literalText(model, argument, o);
  return o.escape ? unescapeText(text) : text;
}

async function literalText(
  model: string | undefined,
  argument: string | undefined,
  { prompt, file }: PromptOptions,
): Promise<string> {
  if ([argument, prompt, file].filter((x) => x !== undefined).length > 1)
    throw new UsageError('several prompts are given; use one of the argument, --prompt and --file');
  const given = prompt ?? argument;
  if (given !== undefined) return checkedArgument(given);
  if (file === '-') return withoutLineBreak((await readStdin()) ?? '');
  if (file !== undefined) return withoutLineBreak(decodeText(await readPromptFile(file), `the prompt file '${file}'`));
  const piped = stdinIsInput() ? await readStdin(model === undefined ? PATIENCE : undefined) : undefined;
  if (piped !== undefined) return withoutLineBreak(piped);
  if (model === undefined) return DEMO_PROMPT;
  if (!existsSync(model))
    throw new ModelError(`${missing('model', model)}; for a text that the demo model shall continue, use --prompt`);
  throw new UsageError('there is no prompt; give one as an argument, with --prompt, --file or on stdin');
}

/** A file ends with a line break that is not part of the prompt. */
const withoutLineBreak = (text: string) => text.replace(/\r?\n$/, '');

/** Node has replaced what is not UTF-8 by U+FFFD: whether that was meant, the system knows. */
function checkedArgument(text: string): string {
  const isReplaced = () => {
    try {
      return !isUtf8(readFileSync('/proc/self/cmdline'));
    } catch {
      return false;
    }
  };
  if (text.includes('\ufffd') && isReplaced())
    throw new UsageError('the prompt is not UTF-8; give it in a file, or use a terminal in UTF-8');
  return text;
}

const readPromptFile = (file: string): Promise<Buffer> =>
  readFile(file).catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(
      error.code === 'ENOENT'
        ? missing('prompt file', file)
        : `cannot read the prompt file '${file}': ${error.message}`,
    );
  });

/** @param patience milliseconds to wait for the first bytes @returns undefined if there are none */
async function readStdin(patience?: number): Promise<string | undefined> {
  if (fstatSync(0).isDirectory()) throw new UsageError('standard input is a folder; give a file or a pipe');
  const chunks: Buffer[] = [];
  const close = () => process.stdin.destroy();
  const timer = patience === undefined ? undefined : setTimeout(close, patience);
  interrupted.addEventListener('abort', close);
  try {
    for await (const chunk of process.stdin) {
      clearTimeout(timer);
      chunks.push(chunk);
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // Closed here: nobody writes, or Ctrl-C.
    if (code !== 'ERR_STREAM_PREMATURE_CLOSE') throw new UsageError(`cannot read standard input: ${message}`);
  }
  clearTimeout(timer);
  interrupted.throwIfAborted();
  return chunks.length ? decodeText(Buffer.concat(chunks), 'standard input') : undefined;
}

/** Is something piped or redirected into this program? */
function stdinIsInput(): boolean {
  try {
    const s = fstatSync(0);
    return s.isFIFO() || s.isFile() || s.isSocket();
  } catch {
    return false;
  }
}
