/**
 * Compiled objects, kept by content in the folder that BITNET_OBJECTS names, so that builds of models of the same sizes share what is the
 * same. Without it nothing is kept but whole builds (compile.ts). The folder may be deleted at any time.
 */
import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { isKept, keepFile } from './seal.ts';

/** The text of a generated file, and of the generated headers that it includes, directly or through each other. */
function textsOf(files: ReadonlyMap<string, string>, name: string, seen = new Set<string>()): string[] {
  const text = files.get(name);
  if (text === undefined || seen.has(name)) return [];
  seen.add(name);
  const included = [...text.matchAll(/^#include "([^"]+)"/gm)].flatMap(([, header]) => textsOf(files, header!, seen));
  return [text, ...included];
}

/** Objects of one compiler with one set of flags. */
export interface Objects {
  /** The kept object of a source file among `files`; undefined where it must be compiled. */
  find(files: ReadonlyMap<string, string>, source: string): string | undefined;
  /** Keeps what was compiled, where that is possible: a build does not depend on it. */
  keep(files: ReadonlyMap<string, string>, source: string, object: string): void;
}

/** @param compiler everything that names the compiler and its flags */
export function objectsOf(compiler: unknown, folder = process.env.BITNET_OBJECTS): Objects {
  if (!folder) return { find: () => undefined, keep: () => {} };
  const fileOf = (files: ReadonlyMap<string, string>, source: string) => {
    const content = JSON.stringify([compiler, textsOf(files, source)]);
    return path.join(folder, `${createHash('sha256').update(content).digest('hex').slice(0, 40)}.o`);
  };
  return {
    find: (files, source) => {
      const file = fileOf(files, source);
      try {
        return isKept(file) ? file : undefined;
      } catch {
        // What others could have put there is compiled anew.
        return undefined;
      }
    },
    keep: (files, source, object) => {
      try {
        mkdirSync(folder, { recursive: true, mode: 0o755 });
        keepFile(object, fileOf(files, source));
      } catch {
        // A full or read-only folder.
      }
    },
  };
}
