/** The k largest logits under the sanitizers: no race between threads, nothing outside a buffer, nothing undefined. */
import { strict as assert } from 'node:assert';
import { execa } from 'execa';
import { findCompiler } from '../../codegen/compile.ts';
import { headProgram, headShape, matrix, rowKinds, runHead, stateKinds } from '../head.ts';
import { bestTarget, useCache } from '../machine.ts';

const sanitizers = {
  'address, undefined': ['-fsanitize=address,undefined,float-cast-overflow', '-fno-sanitize-recover=all'],
  thread: ['-fsanitize=thread'],
} as const;

for (const [name, flags] of Object.entries(sanitizers))
  describe(`sanitizers: the k largest logits, ${name}`, () => {
    const cache = useCache();
    for (const [type, k] of [
      ['bf16', 50],
      ['q6_k', 256],
    ] as const)
      it(`${type} rows that pass by the few and all together, exactly and fast, 1, 2 and 3 threads`, async function () {
        const { command } = await findCompiler('any');
        const probe = await execa(command[0]!, [...command.slice(1), ...flags, '-x', 'c', '-', '-o', '/dev/null'], {
          input: 'int main(void) { return 0; }',
          reject: false,
        });
        if (probe.failed) return this.skip();
        const n = 8203;
        const extra = [...flags, '-g', '-O1', '-DBN_DEBUG'];
        const program = await headProgram(cache(), headShape(n, k, type), bestTarget, { flags: extra });
        const { normal, huge } = stateKinds(k);
        const states = matrix(6, k, (t, i) => (t < 3 ? normal! : huge!)(t, i));
        for (const kind of ['normal', 'equal rows', 'zero rows', 'sizes from 1e-20 to 1e4']) {
          const rows = matrix(n, k, rowKinds(n, k)[kind]!);
          for (const [threads, head] of [
            [1, 'exact'],
            [2, 'fast'],
            [2, 'exact'],
            [3, 'fast'],
          ] as const) {
            const env = { TSAN_OPTIONS: 'exitcode=99', ASAN_OPTIONS: 'detect_leaks=0' };
            const answers = await runHead(program, rows, states, { ks: [1, 40, 1000], threads, head, env });
            assert.equal(answers[0]!.screened, 3, kind);
          }
        }
      });
  });
