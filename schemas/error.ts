/**
 * An error whose message is meant for the person at the terminal: what went wrong, the value, the rule, the fix.
 * Each boundary (model files, generator, compiler, library, command line) has one subclass; the command-line files print
 * the message alone, without a stack, and exit with 1 (2 for UsageError).
 */
export abstract class BitnetError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The command line was used wrongly. */
export class UsageError extends BitnetError {}

/** A model file or folder is missing, damaged or of an unsupported kind. */
export class ModelError extends BitnetError {}

/** The generator cannot make what was asked for: unknown target, impossible tile, bad profile. */
export class PlanError extends BitnetError {}

/** No working C compiler, or it refused the generated code. */
export class CompileError extends BitnetError {}

/** The loaded library reported an error, or could not be loaded. */
export class LibraryError extends BitnetError {}
