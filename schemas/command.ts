/** What the command-line programs share: option parsers, and how they end. */
import { inspect } from 'node:util';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { BitnetError, UsageError } from './error.ts';
import { version } from './files.ts';
import { otherFolder } from './folders.ts';
import { fallSilent, print, printAside, tell } from './terminal.ts';

/** Milliseconds to tidy up in after Ctrl-C. */
const PATIENCE = 3000;

const interruption = new AbortController();

/** Aborted by Ctrl-C; the program then tidies up and ends. */
export const interrupted: AbortSignal = interruption.signal;

/** A program whose wrong usage exits with 2. */
export function createProgram(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .allowExcessArguments(false)
    .showSuggestionAfterError()
    .configureOutput({
      writeOut: print,
      // In the same form as all other errors.
      outputError: (text) => tell(name, `${text.trim().replace(/^error: /, '')}; see ${name} --help`),
    })
    .exitOverride();
}

/** Parser of a whole number in [min, max]. */
export const wholeNumber =
  (min: number, max = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text.trim()) || value < min || value > max)
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}`);
    return value;
  };

/** Parser of a number in [min, max]. */
export const realNumber =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!text.trim() || Number.isNaN(value) || value < min || value > max)
      throw new InvalidArgumentError(`It must be a number from ${min} to ${max}`);
    return value;
  };

/** Parser of one word out of a list. */
export const oneOf =
  <T extends string>(...words: readonly T[]) =>
  (text: string): T => {
    if (!words.includes(text as T)) throw new InvalidArgumentError(`It must be one of ${words.join(', ')}`);
    return text as T;
  };

/** Parser of an option that may be given several times. */
export const collect = (text: string, before: readonly string[] = []): string[] => [...before, text];

/** The option with which programs that take a model let unknown keys of its configuration pass. */
export const allowConfig = [
  '--allow-config <key>',
  "ignore this key of the model's configuration, though it is unknown (may be given several times)",
  collect,
] as const;

/** Parser of a list with commas, each part parsed on its own, and counted once. */
export const listOf =
  <T>(parse: (text: string) => T) =>
  (text: string): T[] => [...new Set(text.split(',').map((part) => parse(part.trim())))];

/** Parser of a time: `90s`, `5m`, `1h`. @returns seconds, at least one */
export function duration(text: string): number {
  const [, value, unit] = /^(\d+(?:\.\d+)?)([smh])$/.exec(text.trim()) ?? [];
  const seconds = Number(value) * ({ s: 1, m: 60, h: 3600 }[unit as 's' | 'm' | 'h'] ?? Number.NaN);
  if (!(seconds >= 1)) throw new InvalidArgumentError('It must be a time of a second or more, like 90s, 5m or 1h');
  return seconds;
}

/**
 * Runs a program; errors for people become one line and exit code 1, or 2 for wrong usage. Ctrl-C aborts `interrupted` and gives
 * 130; a second one ends the program where it is, and so do a few seconds.
 * @param ownNames translates other programs' names of options
 */
export async function run(program: Command, ownNames = (args: readonly string[]) => args): Promise<void> {
  const end = (code: number): void => {
    process.exitCode = code;
    interruption.abort();
    setTimeout(() => process.exit(), PATIENCE).unref();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      if (interrupted.aborted) process.exit(130);
      end(130);
    });
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (interrupted.aborted) return;
    // A reader that closed the pipe (head, less) has read enough.
    const enough = error.code === 'EPIPE';
    if (!enough) tell(program.name(), `cannot write to standard output: ${error.message}`);
    fallSilent();
    end(enough ? 0 : 1);
  });
  process.stderr.on('error', () => {});
  try {
    await program.parseAsync(ownNames(process.argv.slice(2)), { from: 'user' });
  } catch (error) {
    // After an early end, whatever failed did so because of it: child processes get Ctrl-C too.
    if (!interrupted.aborted) process.exitCode = report(program, error);
  }
}

/** Prints an error that is meant for people; others are bugs and keep their stack. @returns the exit code */
function report(program: Command, error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof BitnetError) tell(program.name(), error.message);
  else if (isSystemError(error)) tell(program.name(), [error.message, fixOf(error)].filter(Boolean).join('; '));
  else printAside(`${inspect(error)}\n`);
  return error instanceof UsageError ? 2 : 1;
}

const isSystemError = (error: unknown): error is NodeJS.ErrnoException => error instanceof Error && 'syscall' in error;
const fixOf = ({ path }: NodeJS.ErrnoException): string | undefined => (path ? otherFolder(path) : undefined);
