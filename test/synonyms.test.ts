/** llama.cpp's options: those that mean the same, those that change nothing, and those that are refused. */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { ownNames, refused } from '../runtime/synonyms.ts';
import { UsageError } from '../schemas/error.ts';
import { packageRoot } from '../schemas/files.ts';

const options = [
  { short: '-p', long: '--prompt', required: true },
  { short: '-n', long: '--n-predict', required: true },
  { long: '--ctx', required: true },
  { long: '--greedy', required: false },
];
const own = (...args: string[]) => ownNames(args, options);

describe("llama.cpp's options", () => {
  it('that mean the same are translated, also with =', () => {
    assert.deepEqual(own('--ctx-size', '5', '--predict=7', '--temperature', '0', '--usage'), [
      ...['--ctx', '5', '--n-predict=7', '--temp', '0', '--help'],
    ]);
  });

  it('that ask for what is so anyway are left out', () => {
    assert.deepEqual(own('-no-cnv', '-ngl', '0', '--mmap', '-n', '4', '--n-gpu-layers', '0'), ['-n', '4']);
  });

  it('that mean something else are refused, with what to use here', () => {
    for (const [name, says] of [
      ['-tb', /--threads$/],
      ['-ngl', /CPU/],
      ['-r', /--stop/],
      ['-cnv', /no chat/],
      ['--mirostat', /--top-k/],
      ['--cache-type-k', /--kv i8/],
      ['--keep=4', /--ctx/],
    ] as const)
      assert.throws(
        () => own(name, '99'),
        (error) =>
          error instanceof UsageError && says.test(error.message) && error.message.startsWith(name.split('=')[0]!),
      );
    for (const name of refused) assert.throws(() => own(name), UsageError);
  });

  it('values, arguments and what follows -- are not options', () => {
    for (const args of [
      ['-p', '-ngl'],
      ['--prompt', '--ctx-size'],
      ['--prompt=--ctx-size'],
      ['--', '-ngl'],
      ['model', '-p'],
    ])
      assert.deepEqual(own(...args), args);
    assert.deepEqual(own('--ctx-size', '-ngl', '--greedy'), ['--ctx', '-ngl', '--greedy']);
    assert.throws(() => own('--greedy', '-ngl'), UsageError);
  });

  it('none is an option of bitnet-run, and the documentation names the usual ones', () => {
    const cli = readFileSync(path.join(packageRoot, 'runtime', 'cli.ts'), 'utf8');
    for (const name of refused) assert.doesNotMatch(cli, new RegExp(`option\\(\\s*'[^']*${name}[, <']`), name);
    const use = readFileSync(path.join(packageRoot, 'docs', 'use.md'), 'utf8');
    for (const name of ['--ctx-size', '--predict', '--temperature', '-ngl', '-tb', '-r', '-cnv'])
      assert.ok(use.includes(`\`${name}`), name);
  });
});
