/** What the command-line programs share: option parsers, and how they end. */
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { BitnetError, UsageError } from './error.ts';
import { version } from './files.ts';

/** A program whose wrong usage exits with 2. */
export function createProgram(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .allowExcessArguments(false)
    .showSuggestionAfterError()
    .exitOverride();
}

/** Parser of a whole number in [min, max]. */
export const wholeNumber =
  (min: number, max = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text.trim()) || value < min || value > max)
      throw new InvalidArgumentError(`it must be a whole number from ${min} to ${max}.`);
    return value;
  };

/** Parser of a number in [min, max]. */
export const realNumber =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!text.trim() || Number.isNaN(value) || value < min || value > max)
      throw new InvalidArgumentError(`it must be a number from ${min} to ${max}.`);
    return value;
  };

/** Parser of one word out of a list. */
export const oneOf =
  <T extends string>(...words: readonly T[]) =>
  (text: string): T => {
    if (!words.includes(text as T)) throw new InvalidArgumentError(`it must be one of ${words.join(', ')}.`);
    return text as T;
  };

/** Runs a program; errors for people become one line and exit code 1, or 2 for wrong usage. */
export async function run(program: Command, argv: readonly string[] = process.argv): Promise<void> {
  // A reader that closed the pipe (head, less) has read enough.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  try {
    await program.parseAsync(argv as string[]);
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : 2;
    } else if (error instanceof BitnetError) {
      process.stderr.write(`${program.name()}: ${error.message}\n`);
      process.exitCode = error instanceof UsageError ? 2 : 1;
    } else if (isSystemError(error)) {
      process.stderr.write(`${program.name()}: ${error.message}\n`);
      process.exitCode = 1;
    } else throw error;
  }
}

const isSystemError = (error: unknown): error is NodeJS.ErrnoException => error instanceof Error && 'syscall' in error;
