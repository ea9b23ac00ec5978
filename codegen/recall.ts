/**
 * Builds that were asked for before: for a shape, a CPU and options, which folder holds the build by which compiler. A start then needs
 * neither plan nor texts, nor a compiler where there is none. Kept beside the builds; may be deleted at any time.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { writeWhole } from '../schemas/aside.ts';
import { packageRoot } from '../schemas/files.ts';
import { makeFolder, readTrusted } from '../schemas/trust.ts';
import type { CpuProfile } from '../schemas/types.ts';
import type { Compiler } from './compile.ts';
import { wisdomFile } from './wisdom.ts';

/** A build, and what else it follows from. */
export interface Known {
  readonly compiler: Compiler;
  /** Hash of what makes a build the best one rather than a right one: see `circumstancesOf`. */
  readonly circumstances: string;
  /** Name of its folder among the builds. */
  readonly folder: string;
  /** What the user is told about it (BuildOptions.onNote). */
  readonly notes: readonly string[];
}

/** Most builds that are remembered for one question: compilers and circumstances change. */
const MOST = 16;

const hash = (texts: readonly (string | Buffer)[]): string =>
  texts
    .reduce((sum, text) => sum.update(`${text.length}:`).update(text), createHash('sha256'))
    .digest('hex')
    .slice(0, 32);

/** Contents of all files below a folder, in order of name. */
function contentsOf(folder: string): Buffer[] {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const file = path.join(folder, entry.name);
      if (entry.isDirectory()) return contentsOf(file);
      return entry.isFile() ? [Buffer.from(entry.name), readFileSync(file)] : [];
    });
}

let generator: string | undefined;

/** Hash of the code that generates, and of all that it reads: another version of it gives other builds. */
function generatorId(): string {
  generator ??= hash([
    ...contentsOf(import.meta.dirname),
    ...contentsOf(path.join(packageRoot, 'templates')),
    ...contentsOf(path.join(packageRoot, 'schemas')),
  ]);
  return generator;
}

/** The name under which builds for such a question are remembered. @param question shape, CPU and options, as plain data */
export const requestId = (question: unknown): string => hash([JSON.stringify(question), generatorId()]);

/**
 * Hash of what plans follow beside the question: the user's wisdom (the shipped one is part of the generator), caches and prefetching of
 * the CPU, threads. @param cpu what is known of it @throws LibraryError where others can change the wisdom
 */
export const circumstancesOf = (cpu: CpuProfile, threads: number | undefined): string =>
  hash([JSON.stringify([cpu, threads]), readTrusted(wisdomFile()) ?? '']);

const fileOf = (root: string, id: string) => path.join(root, '..', 'requests', `${id}.json`);

const isText = (value: unknown): value is string => typeof value === 'string';

const isKnown = ({ compiler, circumstances, folder, notes }: Known): boolean =>
  [compiler.version, compiler.label, circumstances, folder, ...compiler.command, ...notes].every(isText) &&
  path.basename(folder) === folder;

/**
 * The builds that were made for a question, the latest first; they may have gone since. @param root folder of builds
 * @throws LibraryError where others can change what is remembered
 */
export function recall(root: string, id: string): Known[] {
  const text = readTrusted(fileOf(root, id));
  try {
    return (JSON.parse(`${text}`) as Known[]).filter(isKnown);
  } catch {
    // Nothing, or damaged.
    return [];
  }
}

/** Remembers a build. Where that is not possible the next start takes half a second longer. */
export function remember(root: string, id: string, known: Known): void {
  const file = fileOf(root, id);
  try {
    const others = recall(root, id).filter(
      ({ folder, circumstances }) => folder !== known.folder || circumstances !== known.circumstances,
    );
    makeFolder(path.dirname(file));
    writeWhole(file, JSON.stringify([known, ...others].slice(0, MOST)));
  } catch {
    // A read-only or full cache.
  }
}
