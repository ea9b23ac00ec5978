/** Files that are no library of this project, or a broken one: each is an error that says so, and never the end of the program. */
import { strict as assert } from 'node:assert';
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { findCompiler, hostFamily } from '../codegen/compile.ts';
import { loadNative } from '../runtime/ffi.ts';
import { Library, openLibrary } from '../runtime/library.ts';
import abi from '../schemas/abi.json' with { type: 'json' };
import { LibraryError, UsageError } from '../schemas/error.ts';
import { cpuTime } from './cpu-time.ts';
import { bestTarget, buildFor, refuses, smallestShape, useCache, withInterface } from './machine.ts';
import { long } from './tier.ts';

describe('libraries that are no good', () => {
  const cache = useCache();

  /** Compiles a library from C text. */
  async function library(name: string, text: string): Promise<string> {
    const folder = path.join(cache(), name);
    mkdirSync(folder);
    const source = path.join(folder, 'library.c');
    const file = path.join(folder, 'library.so');
    writeFileSync(source, text);
    const [command, ...args] = (await findCompiler(hostFamily)).command;
    await execa(command!, [...args, '-shared', '-fPIC', '-w', '-o', file, source]);
    return file;
  }
  const functions = abi.functions.map((f) => f.name);

  it('no library at all', () => {
    const file = path.join(cache(), 'text.so');
    writeFileSync(file, 'This is no library.');
    refuses(() => new Library(file), /cannot load the library '.*text\.so': /);
    refuses(() => new Library(path.join(cache(), 'missing.so')), /cannot load the library '.*missing\.so': /);
  });

  it("a library that cannot be loaded: the loader's own words, and what to do", async () => {
    const file = path.join(cache(), 'text.so');
    writeFileSync(file, 'This is no library.');
    await assert.rejects(
      openLibrary(file),
      /cannot load the library '.*text\.so': (file too short|invalid ELF header|.*Mach-O.*); remove '.*', so that it is built again/,
    );
  });

  it('a library without our functions', async () => {
    const file = await library('foreign', 'int other(void) { return 1; }');
    refuses(() => new Library(file), /cannot load the library '.*': .*bn_/);
  });

  it('another version of the interface', async () => {
    const file = await library('version', functions.map((name) => `int ${name}() { return 999; }`).join('\n'));
    refuses(() => new Library(file), /has interface version 999, this program needs \d+; generate it again/);
  });

  it('a library that crashes is an error of the program, not its end', async () => {
    const crash = '__attribute__((constructor)) static void crash(void) { __builtin_trap(); }';
    const file = await library(
      'crash',
      `${functions.map((name) => `int ${name}() { return 1; }`).join('\n')}\n${crash}`,
    );
    await assert.rejects(openLibrary(file), /does not work on this machine: it ends with SIG(ILL|TRAP)/);
    await assert.rejects(openLibrary(file), LibraryError);
  });

  long('a library that loads is not tried again', async () => {
    const built = await buildFor(smallestShape, bestTarget);
    const file = path.join(cache(), 'good', 'libbitnet.so');
    mkdirSync(path.dirname(file));
    writeFileSync(file, readFileSync(built.library));
    const mark = path.join(path.dirname(file), 'tried');
    assert.ok(!existsSync(mark));
    assert.equal((await openLibrary(file)).open instanceof Function, true);
    assert.ok(existsSync(mark));
    const started = cpuTime();
    await openLibrary(file);
    // Starting a child process takes several hundred, of which a part is this one's.
    assert.ok(cpuTime() - started < 100);
  });

  it('a truncated library is refused', async () => {
    const built = await buildFor(smallestShape, bestTarget);
    const file = path.join(cache(), 'half', 'libbitnet.so');
    mkdirSync(path.dirname(file));
    writeFileSync(file, readFileSync(built.library));
    truncateSync(file, 20_000);
    await assert.rejects(openLibrary(file), LibraryError);
  });

  it('an interface that does not exist', () => {
    const open = () => withInterface('dlopen', () => loadNative('any'));
    assert.throws(open, UsageError);
    assert.throws(open, /BITNET_FFI=dlopen is unknown; use ffi-napi or koffi/);
  });
});
