/**
 * Builds that were asked for before: for a shape, a CPU and options, which folder holds the build by which compiler. A start then needs
 * neither plan nor texts, nor a compiler where there is none. Kept beside the builds; may be deleted at any time.
 */
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { packageRoot } from '../schemas/files.ts';
import type { Compiler } from './compile.ts';
import { buildAt } from './compile.ts';
import type { Manifest } from './emit.ts';
import { wisdomFile } from './wisdom.ts';

/** A build, and what else it follows from. */
export interface Known {
  readonly compiler: Compiler;
  /** Hash of what was measured (wisdom), which plans follow. */
  readonly wisdom: string;
  /** Name of its folder among the builds. */
  readonly folder: string;
  /** What the user is told about it (BuildOptions.onNote). */
  readonly notes: readonly string[];
}

/** Most builds that are remembered for one question: compilers and wisdom change. */
const MOST = 8;

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

/** Hash of the user's wisdom; the shipped one is part of the generator. */
export const wisdomId = (): string => hash(existsSync(wisdomFile()) ? [readFileSync(wisdomFile())] : []);

const fileOf = (root: string, id: string) => path.join(root, '..', 'requests', `${id}.json`);

/** The builds that are still there for a question, the latest first. @param root folder of builds */
export function recall(root: string, id: string): (Known & { readonly manifest: Manifest })[] {
  try {
    const known: Known[] = JSON.parse(readFileSync(fileOf(root, id), 'utf8'));
    return known.flatMap((one) => {
      const folder = path.join(root, one.folder);
      if (!existsSync(buildAt(folder).library)) return [];
      return [{ ...one, manifest: JSON.parse(readFileSync(path.join(folder, 'src', 'manifest.json'), 'utf8')) }];
    });
  } catch {
    return [];
  }
}

/** Remembers a build. Where that is not possible the next start takes half a second longer. */
export function remember(root: string, id: string, known: Known): void {
  const file = fileOf(root, id);
  const others = recall(root, id)
    .filter(({ folder }) => folder !== known.folder)
    .map(({ manifest: _, ...other }) => other);
  const aside = `${file}.${randomUUID()}`;
  try {
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(aside, JSON.stringify([known, ...others].slice(0, MOST)));
    renameSync(aside, file);
  } catch {
    rmSync(aside, { force: true });
  }
}
