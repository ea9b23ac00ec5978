/**
 * Compiled objects, kept by content in the folder that BITNET_OBJECTS names, so that builds of models of the same sizes share what is the
 * same. Without it nothing is kept but whole builds (compile.ts). The folder may be deleted at any time.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { asideOf, publish } from '../schemas/aside.ts';
import { requireTrusted } from '../schemas/trust.ts';

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
  keep(files: ReadonlyMap<string, string>, source: string, object: string): Promise<void>;
}

/** @param compiler everything that names the compiler and its flags */
export function objectsOf(compiler: unknown, folder = process.env.BITNET_OBJECTS): Objects {
  if (!folder) return { find: () => undefined, keep: async () => {} };
  const fileOf = (files: ReadonlyMap<string, string>, source: string) => {
    const content = JSON.stringify([compiler, textsOf(files, source)]);
    return path.join(folder, `${createHash('sha256').update(content).digest('hex').slice(0, 40)}.o`);
  };
  return {
    find: (files, source) => {
      const file = fileOf(files, source);
      if (!existsSync(file)) return undefined;
      try {
        // What others could have put there is compiled anew.
        requireTrusted(file);
        return file;
      } catch {
        return undefined;
      }
    },
    keep: async (files, source, object) => {
      const file = fileOf(files, source);
      const aside = asideOf(file);
      await mkdir(folder, { recursive: true, mode: 0o755 })
        .then(() => copyFile(object, aside))
        .then(() => stat(aside))
        .then(({ mode }) => chmod(aside, mode & 0o755))
        .then(() => publish(aside, file))
        .catch(() => rm(aside, { force: true }))
        .catch(() => undefined);
    },
  };
}
