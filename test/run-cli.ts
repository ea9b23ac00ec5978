/**
 * Runs the command-line programs as their users do: compiled (setup.ts), as child processes, with a cache folder for each test file.
 * Compiled objects are shared with the other tests.
 */
import { strict as assert } from 'node:assert';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { compiledRoot, projectRoot } from './setup.ts';

export { projectRoot };

const programs = {
  run: 'runtime/cli.js',
  gen: 'codegen/cli.js',
  tune: 'codegen/tune-cli.js',
  bench: 'bench/cli.js',
} as const;
export type ProgramName = keyof typeof programs;

export interface CliOptions {
  /** Added to the environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** What is piped to stdin; default: it is empty and not a pipe. */
  readonly input?: string;
  readonly cwd?: string;
}

export interface Outcome {
  /** Undefined after death by a signal. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Command and arguments of a program. */
export const commandOf = (program: ProgramName, args: readonly string[]): [string, ...string[]] => [
  process.execPath,
  path.join(compiledRoot, programs[program]),
  ...args,
];

/** At most as many children at once as there are CPUs, so that tests may ask for many together. */
let free = availableParallelism();
const waiting: (() => void)[] = [];
async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (free > 0) free--;
  else await new Promise<void>((resolve) => waiting.push(resolve));
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else free++;
  }
}

export type Cli = ReturnType<typeof useCli>;

/** Gives the enclosing suite the programs, a cache folder of their own, and a temporary folder. */
export function useCli() {
  let folder = '';
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-cli-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const cli = {
    /** Path below the temporary folder. */
    path: (...names: string[]): string => path.join(folder, ...names),

    /** Path below the programs' cache. */
    cache: (...names: string[]): string => path.join(folder, 'cache', 'bitnet-gen', ...names),

    environment: (): Record<string, string> => ({ XDG_CACHE_HOME: path.join(folder, 'cache') }),

    /** Starts a program; the caller looks after its process. */
    start(program: ProgramName, args: readonly string[], { env = {}, input, cwd = projectRoot }: CliOptions = {}) {
      const [file, ...rest] = commandOf(program, args);
      const stdin = input === undefined ? { stdin: 'ignore' as const } : { input };
      const environment = { ...cli.environment(), ...env };
      return execa(file, rest, { cwd, env: environment, reject: false, stripFinalNewline: false, ...stdin });
    },

    /** Runs a program to its end. */
    run: (program: ProgramName, args: readonly string[], options?: CliOptions): Promise<Outcome> =>
      inTurn(async () => {
        const { exitCode: code, stdout, stderr } = await cli.start(program, args, options);
        return { code, stdout, stderr };
      }),

    /** Runs a program that must succeed. @returns its stdout */
    async ok(program: ProgramName, args: readonly string[], options?: CliOptions): Promise<string> {
      const { code, stdout, stderr } = await cli.run(program, args, options);
      assert.equal(code, 0, `bitnet-${program} ${args.join(' ')} ended with ${code}: ${stderr}`);
      return stdout;
    },

    /** Runs a program that must print one JSON object and nothing else on stdout. */
    json: async (program: ProgramName, args: readonly string[], options?: CliOptions) =>
      JSON.parse(await cli.ok(program, [...args, '--json'], options)),

    /** The program must refuse: exit code, empty stdout, one line on stderr that says all of this, an unchanged cache. */
    async refuses(
      program: ProgramName,
      args: readonly string[],
      code: 1 | 2,
      says: readonly RegExp[],
      options: CliOptions = {},
    ): Promise<void> {
      const before_ = snapshot(cli.cache());
      const outcome = await cli.run(program, args, options);
      assert.equal(outcome.code, code, outcome.stderr || outcome.stdout);
      assert.equal(outcome.stdout, '');
      assert.match(outcome.stderr, /^[^\n]+\n$/, 'not one line');
      assert.ok(outcome.stderr.startsWith(`bitnet-${program}: `), outcome.stderr);
      assert.doesNotMatch(outcome.stderr, /^\s+at |node:|Error:|undefined|NaN|\[object/m);
      for (const pattern of says) assert.match(outcome.stderr, pattern);
      assert.equal(snapshot(cli.cache()), before_, 'the cache changed');
    },
  };
  return cli;
}

/** Everything below a folder with sizes and times, as one text: equal texts mean that nothing was touched. */
export function snapshot(folder: string): string {
  const stat = statSync(folder, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) return stat ? `${stat.size} bytes` : 'nothing';
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const entry = statSync(path.join(folder, name));
      // The time of a folder changes when something in it comes and goes.
      return entry.isDirectory() ? `${name}/` : `${name} ${entry.size} ${entry.mtimeMs}`;
    })
    .join('\n');
}
