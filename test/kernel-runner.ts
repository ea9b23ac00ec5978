/**
 * Runs recorded programs as compiled C: generates a small main that reads calls from a file, compiles it with the kernels by the
 * product's own compiler and flags, runs it here or in an emulator, and returns every buffer as the call left it.
 *
 * Each call runs twice: with every buffer's end against an unmapped page, then with its start against one, the other side
 * filled with canary bytes. So reads past an end stop the program and are reported, writes past an end damage canaries, and the
 * two alignments must give the same result.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import type { Compiler } from '../codegen/compile.ts';
import { FLAGS, findCompiler, hostFamily } from '../codegen/compile.ts';
import { missingFeatures } from '../codegen/cpu.ts';
import { CALL_TYPES, encodeArguments, printCalls } from '../codegen/ir/calls.ts';
import { helpersOf, printFunction } from '../codegen/ir/print.ts';
import type { Program } from '../codegen/ir/record.ts';
import type { Arguments } from '../codegen/ir/simulate.ts';
import type { Cell } from '../codegen/ir/words.ts';
import { isas } from '../codegen/isa/index.ts';
import type { Isa } from '../codegen/isa/isa.ts';
import { unitsOf } from '../codegen/units.ts';
import { CompileError } from '../schemas/error.ts';
import { hostFeatures } from '../schemas/host.ts';
import { bytesOf } from './kernel-inputs.ts';

export type Buffers = Readonly<Record<string, Cell['array']>>;

/** A kernel as the generator makes it: `kernelSource`, or `standalone` for a program without a spec. */
export interface Kernel {
  readonly program: Program;
  readonly text: string;
}

export interface Call {
  /** Name of the program. */
  readonly kernel: string;
  /** Not changed. */
  readonly args: Arguments;
}

export interface Outcome {
  /** Every buffer after the call. */
  readonly buffers: Buffers;
  /** What is wrong with the call apart from its result, one line each. */
  readonly damage: readonly string[];
}

/** Emulators by processor family, as commands. */
const emulators: Readonly<Record<string, readonly string[]>> = {
  arm64: ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', '-cpu', 'max'],
};

interface Machine {
  readonly compiler: Compiler;
  /** Command that the program's path is appended to. */
  readonly run: readonly string[];
}
const machines = new Map<Isa['family'], Promise<Machine | string>>();

/** An instruction set that spells its words as this one does, and has fewer; undefined: there is none. */
export const subsetOf = (isa: Isa): Isa | undefined =>
  Object.values<Isa>(isas).find(
    ({ family, lanes, words }) =>
      family === isa.family && lanes === isa.lanes && Object.keys(words).length < Object.keys(isa.words).length,
  );

export const isForeign = (family: Isa['family']): boolean => family !== 'any' && family !== hostFamily;

/** The compiler for a family, the best or the one asked for; or the reason why there is none. */
export async function compilerFor(family: Isa['family'], requested?: string): Promise<Compiler | string> {
  if (isForeign(family) && !requested && process.env.BITNET_CC) return 'BITNET_CC names a compiler for this machine';
  try {
    return await findCompiler(family, requested);
  } catch (error) {
    if (error instanceof CompileError) return error.message;
    throw error;
  }
}

/** Compiler and emulator for a family, looked for once; or the reason why there is none. */
function machineFor(family: Isa['family']): Promise<Machine | string> {
  let found = machines.get(family);
  if (!found) {
    found = (async () => {
      const run = isForeign(family) ? emulators[family] : [];
      if (!run) return `no emulator for ${family} is known`;
      if (run.length) {
        const asked = await execa(run[0]!, ['--version'], { reject: false });
        if (asked.failed) return `${run[0]} is not installed`;
      }
      const compiler = await compilerFor(family);
      return typeof compiler === 'string' ? compiler : { compiler, run };
    })();
    machines.set(family, found);
  }
  return found;
}

/** Why code of this instruction set cannot run on this machine; undefined when it can. */
export async function unavailable(isa: Isa): Promise<string | undefined> {
  if (!isForeign(isa.family)) {
    const missing = missingFeatures(isa);
    if (missing.length) return `this CPU lacks ${missing.join(', ')}`;
  }
  const machine = await machineFor(isa.family);
  return typeof machine === 'string' ? machine : undefined;
}

/** A C file for a program that no spec made, with all helpers of the instruction set. */
export function standalone(program: Program, isa: Isa): Kernel {
  const helpers = Object.values(helpersOf(isa)).join('\n');
  return {
    program,
    text: `#include <stdint.h>\n${isa.include}\n#define BN_ASSERT(condition) ((condition) ? (void)0 : __builtin_trap())
${helpers}\n${printFunction(program, isa)}`,
  };
}

const MAIN = `#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CANARY = 0xc5, MOST = 16 };
typedef struct {
  uint8_t *map;      /* guard page, buffer and canaries, guard page */
  uint8_t *at;
  size_t bytes, size; /* of the buffer; of map */
} buffer;
${CALL_TYPES}`;

const MAIN_BODY = `
static size_t page;
static char message[300];

static void stopped(int signal) {
  (void)signal;
  if (write(2, message, strlen(message)) < 0) _exit(4);
  _exit(3);
}

static void get(void *to, size_t bytes, FILE *in) {
  if (fread(to, 1, bytes, in) != bytes) exit(5);
}

/* high: the buffer ends at the second guard page; otherwise it starts after the first. */
static buffer place(const uint8_t *data, size_t bytes, int high) {
  buffer b = {.bytes = bytes, .size = (bytes + 64 + page - 1) / page * page + 2 * page};
  b.map = mmap(NULL, b.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (b.map == MAP_FAILED || mprotect(b.map + page, b.size - 2 * page, PROT_READ | PROT_WRITE)) exit(6);
  memset(b.map + page, CANARY, b.size - 2 * page);
  b.at = high ? b.map + b.size - page - bytes : b.map + page;
  memcpy(b.at, data, bytes);
  return b;
}

static int intact(const buffer *b) {
  for (uint8_t *p = b->map + page; p < b->map + b->size - page; p++)
    if ((p < b->at || p >= b->at + b->bytes) && *p != CANARY) return 0;
  return 1;
}

int main(int argc, char **argv) {
  FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out = in ? fopen(argv[2], "wb") : NULL;
  if (!out) return 2;
  page = (size_t)sysconf(_SC_PAGESIZE);
  signal(SIGSEGV, stopped);
  signal(SIGBUS, stopped);
  signal(SIGILL, stopped);
  signal(SIGTRAP, stopped);
  int32_t index;
  for (long number = 0; fread(&index, sizeof index, 1, in) == 1; number++) {
    const kernel *k = &kernels[index];
    const int count = (int)strlen(k->kinds);
    slot slots[MOST];
    uint8_t *data[MOST];
    uint64_t bytes[MOST];
    buffer buffers[2][MOST];
    for (int i = 0; i < count; i++) {
      get(&slots[i], 8, in);
      if (k->kinds[i] != 'p') continue;
      bytes[i] = (uint64_t)slots[i].number;
      data[i] = malloc(bytes[i] + 1);
      get(data[i], bytes[i], in);
    }
    for (int high = 1; high >= 0; high--) {
      for (int i = 0; i < count; i++)
        if (k->kinds[i] == 'p') {
          buffers[high][i] = place(data[i], bytes[i], high);
          slots[i].at = buffers[high][i].at;
        }
      snprintf(message, sizeof message, "%s stopped in call %ld: precondition, or access %s a buffer\\n", k->name, number,
               high ? "past the end of" : "before the start of");
      k->call(slots);
    }
    for (int i = 0; i < count; i++) {
      if (k->kinds[i] != 'p') continue;
      const buffer *a = &buffers[1][i], *b = &buffers[0][i];
      const uint8_t flags = (uint8_t)(!intact(a) | !intact(b) << 1 | !!memcmp(a->at, b->at, bytes[i]) << 2);
      if (fwrite(&flags, 1, 1, out) != 1 || fwrite(a->at, 1, bytes[i], out) != bytes[i]) return 7;
      munmap(a->map, a->size);
      munmap(b->map, b->size);
      free(data[i]);
    }
  }
  return fclose(out) ? 7 : 0;
}
`;

const damages = ['written before its start', 'written past its end', 'its result depends on alignment'];

const mainSource = (programs: readonly Program[]): string => `${MAIN}\n${printCalls(programs)}${MAIN_BODY}`;

/** Units of bounded length: a compiler's time grows faster than it. */
export function unitSources(kernels: readonly Kernel[], isa: Isa): string[] {
  const texts = new Map(kernels.map(({ program, text }) => [`kernels/${program.name}.c`, text]));
  const length = kernels.reduce((sum, { text }) => sum + text.length, 0);
  return unitsOf(texts, isa, Math.ceil(length / 400_000));
}

/** At most one compilation for each CPU, however many runs are prepared at once. */
let free = availableParallelism();
const waiting: (() => void)[] = [];
async function inTurn<T>(work: () => PromiseLike<T>, urgent = false): Promise<T> {
  if (free > 0) free--;
  else await new Promise<void>((resolve) => (urgent ? waiting.unshift(resolve) : waiting.push(resolve)));
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else free++;
  }
}

function encode(calls: readonly Call[], programs: readonly Program[]): Buffer[] {
  const indices = new Map(programs.map((p, i) => [p.name, i]));
  return calls.flatMap(({ kernel, args }) => {
    const index = indices.get(kernel)!;
    const first = Buffer.alloc(4);
    first.writeInt32LE(index);
    return [first, encodeArguments(programs[index]!, args)];
  });
}

function decode(out: Buffer, calls: readonly Call[], programs: readonly Program[]): Outcome[] {
  const byName = new Map(programs.map((p) => [p.name, p]));
  let at = 0;
  return calls.map(({ kernel, args }) => {
    const buffers: Record<string, Cell['array']> = {};
    const damage: string[] = [];
    for (const p of byName.get(kernel)!.params) {
      if (p.kind !== 'pointer') continue;
      const before = args[p.name] as Cell['array'];
      const flags = out[at++]!;
      for (const [bit, what] of damages.entries()) if (flags & (1 << bit)) damage.push(`${p.name}: ${what}`);
      const copy = before.slice();
      bytesOf(copy).set(out.subarray(at, at + before.byteLength));
      at += before.byteLength;
      buffers[p.name] = copy;
      if (p.access === 'in' && bytesOf(before).compare(bytesOf(copy))) damage.push(`${p.name}: an input was changed`);
    }
    return { buffers, damage };
  });
}

/** Compiled kernels. */
export interface Runner {
  /** Makes all calls, in order. @throws when a call stops: an access outside a buffer, a precondition */
  readonly run: (calls: readonly Call[]) => Promise<Outcome[]>;
  /** Removes the compiled program. */
  readonly dispose: () => Promise<void>;
}

/** Compiles kernels for `unavailable(isa) === undefined`. */
export async function compileKernels(isa: Isa, kernels: readonly Kernel[]): Promise<Runner> {
  const machine = await machineFor(isa.family);
  if (typeof machine === 'string') throw new Error(machine);
  const { compiler, run } = machine;
  const folder = await mkdtemp(path.join(tmpdir(), 'bitnet-kernels-'));
  const dispose = () => rm(folder, { recursive: true, force: true });
  const programs = kernels.map((k) => k.program);
  try {
    await mkdir(path.join(folder, 'kernels'));
    for (const { program, text } of kernels) await writeFile(path.join(folder, 'kernels', `${program.name}.c`), text);
    const sources = [mainSource(programs), ...unitSources(kernels, isa)];
    const objects = sources.map((_, i) => `unit${i}.o`);
    const [cc, ...first] = compiler.command as [string, ...string[]];
    const flags = [...FLAGS, ...isa.flags([...isa.requires, ...isa.optional.filter((f) => hostFeatures().has(f))])];
    // Unrolled code without vectors takes clang ten times as long with -O3, with which the engine's tests compile it, too.
    if (isa.lanes === 1) flags.push('-O0');
    // Warnings are the business of golden-text.test.ts.
    const build = (args: readonly string[], urgent?: boolean) =>
      inTurn(() => execa(cc, [...first, ...flags, '-w', ...args], { cwd: folder }), urgent);
    await Promise.all(
      sources.map(async (source, i) => {
        await writeFile(path.join(folder, `unit${i}.c`), source);
        await build(['-DBN_DEBUG', '-c', `unit${i}.c`, '-o', objects[i]!]);
      }),
    );
    await build(['-o', 'run', ...objects, '-lm'], true);
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    run: async (calls) => {
      await writeFile(path.join(folder, 'calls'), Buffer.concat(encode(calls, programs)));
      const [command, ...args] = [...run, path.join(folder, 'run'), 'calls', 'results'];
      await execa(command!, args, { cwd: folder });
      return decode(await readFile(path.join(folder, 'results')), calls, programs);
    },
    dispose,
  };
}

/** Compiles kernels, makes all calls in order, and leaves nothing behind. */
export async function runKernels(isa: Isa, kernels: readonly Kernel[], calls: readonly Call[]): Promise<Outcome[]> {
  const runner = await compileKernels(isa, kernels);
  try {
    return await runner.run(calls);
  } finally {
    await runner.dispose();
  }
}
