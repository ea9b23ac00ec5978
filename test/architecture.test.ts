/**
 * The rules of the house that a compiler does not check: which folder may import which, what may be named where, how long files
 * are, what is documented; and that an instruction set, a packing and a kernel family are one object each.
 */
import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { SourceFile } from 'ts-morph';
import { Node, Project } from 'ts-morph';
import { isas } from '../codegen/isa/index.ts';
import { kernels } from '../codegen/kernels/index.ts';
import { packings } from '../codegen/packings/index.ts';
import { packageRoot } from '../schemas/files.ts';

const folders = ['codegen', 'runtime', 'schemas'] as const;

/** Files below a folder of the package, with their paths relative to the package. */
function filesOf(folder: string, pattern: RegExp): string[] {
  return readdirSync(path.join(packageRoot, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => path.relative(packageRoot, path.join(entry.parentPath, entry.name)))
    .sort();
}
const textOf = (file: string) => readFileSync(path.join(packageRoot, file), 'utf8');
const sources = [...folders.flatMap((f) => filesOf(f, /\.ts$/)), 'index.ts'];
const handWritten = [
  ...sources,
  ...filesOf('templates', /\.[ch]$/),
  ...['bench', 'test'].flatMap((folder) => filesOf(folder, /\.(ts|cjs|c|h)$/)),
];

/** Command lines join generator and runtime, and speak to people. */
const isCommandLine = (file: string) => /(^|\/)([a-z]+-)?cli\.ts$/.test(file);

/** The program's syntax trees: parsed, not type-checked. */
const project = new Project({ useInMemoryFileSystem: false, compilerOptions: { allowJs: false } });
const trees = new Map<string, SourceFile>(
  sources.map((file) => [file, project.addSourceFileAtPath(path.join(packageRoot, file))]),
);

interface Import {
  /** Path relative to the package, or the name of a package. */
  readonly target: string;
  readonly typeOnly: boolean;
}

function importsOf(file: string): Import[] {
  const tree = trees.get(file)!;
  const resolve = (specifier: string) =>
    specifier.startsWith('.') ? path.normalize(path.join(path.dirname(file), specifier)) : specifier;
  const static_ = [...tree.getImportDeclarations(), ...tree.getExportDeclarations()].flatMap((d) => {
    const specifier = d.getModuleSpecifierValue();
    return specifier ? [{ target: resolve(specifier), typeOnly: d.isTypeOnly() }] : [];
  });
  const dynamic = [...tree.getFullText().matchAll(/\bimport\(\s*'([^']+)'\s*\)/g)].map((m) => ({
    target: resolve(m[1]!),
    typeOnly: false,
  }));
  return [...static_, ...dynamic];
}

/** Folder -> folders of the project that it may import. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  schemas: ['schemas'],
  codegen: ['codegen', 'schemas'],
  runtime: ['runtime', 'schemas'],
};

describe('architecture', () => {
  it('codegen and runtime know schemas, and not each other; only command lines join them', () => {
    const wrong = sources
      .filter((file) => file !== 'index.ts' && !isCommandLine(file))
      .flatMap((file) =>
        importsOf(file)
          .filter(
            ({ target }) => (folders as readonly string[]).includes(target.split('/')[0]!) || target.endsWith('.ts'),
          )
          .filter(({ target }) => !mayImport[file.split('/')[0]!]!.includes(target.split('/')[0]!))
          .map(({ target }) => `${file} imports ${target}`),
      );
    assert.deepEqual(wrong, []);
  });

  it('the vocabulary knows no instruction set, kernel or packing, and an instruction set only the vocabulary', () => {
    const wrong = sources.flatMap((file) => {
      const [, layer, name] = /^codegen\/(ir|isa)\/(.*)/.exec(file) ?? [];
      if (!layer) return [];
      // One instruction set may extend another.
      const allowed = layer === 'ir' ? ['codegen/ir/'] : ['codegen/isa/', ...(name === 'index.ts' ? ['schemas/'] : [])];
      return importsOf(file)
        .filter(({ target, typeOnly }) => !typeOnly && !allowed.some((prefix) => target.startsWith(prefix)))
        .map(({ target }) => `${file} imports ${target}`);
    });
    assert.deepEqual(wrong, []);
  });

  it('no file needs itself', () => {
    const state = new Map<string, 'open' | 'done'>();
    const visit = (file: string, trail: readonly string[]): void => {
      if (state.get(file) === 'done' || !trees.has(file)) return;
      assert.notEqual(state.get(file), 'open', `a circle: ${[...trail, file].join(' -> ')}`);
      state.set(file, 'open');
      for (const { target, typeOnly } of importsOf(file)) if (!typeOnly) visit(target, [...trail, file]);
      state.set(file, 'done');
    };
    for (const file of sources) visit(file, []);
    assert.equal(state.size, sources.length);
  });

  it('one file knows the foreign function interface', () => {
    const knowing = sources.filter((file) =>
      importsOf(file).some(({ target }) => /^(koffi|ffi-napi|ref-napi)$/.test(target)),
    );
    assert.deepEqual(
      knowing.filter((file) => file !== 'runtime/ffi.ts'),
      [],
    );
  });

  it('one file writes to standard output and standard error', () => {
    const writing = sources.filter((file) => /process\.(stdout|stderr)\.write|console\.\w+\(/.test(textOf(file)));
    assert.deepEqual(
      writing.filter((file) => file !== 'schemas/terminal.ts'),
      [],
    );
  });

  it('instruction sets are named in codegen/isa and schemas only', () => {
    const wrong = [...sources, ...filesOf('templates', /\.[ch]$/)]
      .filter((file) => !/^(codegen\/isa|schemas)\//.test(file) && !isCommandLine(file))
      .flatMap((file) => {
        // Printing without comments: they may give an instruction set as an example.
        const code = textOf(file).replaceAll(/\/\*[\s\S]*?\*\/|(?<!:)\/\/.*/g, '');
        const found = /avx|neon|_mm|vdot|\bsve|vnni|intrin\.h/i.exec(code);
        return found ? [`${file} says ${found[0]}`] : [];
      });
    assert.deepEqual(wrong, []);
  });

  it('a file is at most 400 lines long, tables excepted', () => {
    const tables = ['codegen/ir/words.ts'];
    const long = handWritten.filter((file) => !file.startsWith('test/') && textOf(file).split('\n').length > 401);
    assert.deepEqual(
      long.filter((file) => !tables.includes(file)),
      [],
    );
  });

  it('a file says what it is', () => {
    const silent = handWritten.filter((file) => !/^(#!.*\n)?(\/\*|\/\/)/.test(textOf(file)));
    assert.deepEqual(silent, []);
  });

  it('exported functions and constants are documented', () => {
    // What a registry holds is what its file's header describes.
    const registered = new Set<string>([isas, kernels, packings].flatMap((registry) => Object.keys(registry)));
    const undocumented = [...trees].flatMap(([file, tree]) => {
      return tree.getStatements().flatMap((s) => {
        if (!(Node.isFunctionDeclaration(s) || Node.isVariableStatement(s)) || !s.isExported() || s.getJsDocs().length)
          return [];
        const names = Node.isVariableStatement(s)
          ? s.getDeclarations().map((d) => d.getName())
          : [s.getName() ?? 'default'];
        const own = /^codegen\/(isa|kernels|packings)\//.test(file) ? registered : new Set<string>();
        return names.filter((name) => !own.has(name)).map((name) => `${file}: ${name}`);
      });
    });
    assert.deepEqual(undocumented, []);
  });

  it('there is no drawer for things that have no place, and no note to oneself', () => {
    assert.deepEqual(
      handWritten.filter((file) => /(^|\/)(utils?|helpers?|misc|common)(\.|\/)/i.test(file)),
      [],
    );
    const marked = handWritten.filter((file) =>
      new RegExp(['TO', 'DO|FIX', 'ME|XX', 'X:'].join('')).test(textOf(file)),
    );
    assert.deepEqual(marked, []);
  });

  it('hand-written C includes only headers of its own, of the system and of the generator', () => {
    const templates = filesOf('templates', /\.[ch]$/);
    const own = new Set([...templates.map((file) => path.basename(file)), 'plan.h', 'peaks.h']);
    const wrong = templates.flatMap((file) =>
      [...textOf(file).matchAll(/^#include "(.*)"/gm)].map((m) => m[1]!).filter((name) => !own.has(name)),
    );
    assert.deepEqual(wrong, []);
  });
});
