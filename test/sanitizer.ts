/** What the tests under the compiler's sanitizers share: flags, settings, and a compiler that has them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { findCompiler, hostFamily } from '../codegen/compile.ts';

/** BN_DEBUG turns the preconditions of the kernels on. */
const common = ['-fno-sanitize-recover=all', '-fno-omit-frame-pointer', '-g1', '-DBN_DEBUG'];

/** What is looked for, and the compiler's flags. */
export const sanitizers = [
  // -O0: with -O1 clang takes 40 s for one kernel of 12,000 lines of scalar code, as against 4 s.
  // Integers made of floats that they cannot hold are not among what is undefined for every compiler.
  { name: 'address and undefined', flags: ['-fsanitize=address,undefined,float-cast-overflow', '-O0', ...common] },
  // Of vectors clang watches those up to 16 bytes only: what the wide kernels do, the scalar ones show.
  { name: 'thread', flags: ['-fsanitize=thread', '-O1', ...common] },
];

/** Findings end the program with a code of their own. */
export const env = {
  ASAN_OPTIONS: 'exitcode=99:detect_stack_use_after_return=1',
  TSAN_OPTIONS: 'exitcode=99',
  UBSAN_OPTIONS: 'print_stacktrace=1',
};

/** A compiler whose programs run with this sanitizer, or why there is none. */
export async function compilerWith(flags: readonly string[]): Promise<{ cc: string } | { reason: string }> {
  const reasons: string[] = [];
  const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-sanitizer-'));
  try {
    writeFileSync(path.join(folder, 'probe.c'), 'int main(void) { return 0; }\n');
    for (const command of [(await findCompiler(hostFamily)).command, ['gcc'], ['clang']]) {
      const [cc, ...args] = command as [string, ...string[]];
      const built = await execa(cc, [...args, ...flags, '-o', 'probe', 'probe.c'], {
        cwd: folder,
        reject: false,
      });
      const ran = built.failed ? built : await execa(path.join(folder, 'probe'), [], { reject: false, env });
      if (!ran.failed) return { cc: command.join(' ') };
      reasons.push(`${command.join(' ')}: ${ran.stderr.split('\n')[0] || ran.shortMessage}`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return { reason: `no compiler with ${flags[0]}: ${reasons.join('; ')}` };
}
