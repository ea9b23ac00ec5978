// Runs the tests on Node 20, 22 and 24. The binaries are those that the npm package `node` installs (node-<platform>-<arch>); a
// version that cannot be had is skipped with its reason.   usage: node scripts/test-nodes.mjs [test files]
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const files = process.argv.length > 2 ? process.argv.slice(2) : ['test/**/*.test.ts'];
const root = path.resolve(import.meta.dirname, '..');
const mocha = path.join(root, 'node_modules', 'mocha', 'bin', 'mocha.js');
const binary = `node-${process.platform}-${process.arch}`;
let failed = 0;
let skipped = 0;
for (const major of [20, 22, 24]) {
  const folder = path.join(tmpdir(), `bitnet-node-${major}`);
  const node = path.join(folder, 'node_modules', binary, 'bin', 'node');
  if (!existsSync(node)) {
    mkdirSync(folder, { recursive: true });
    const args = [
      'install',
      '--prefix',
      folder,
      '--no-save',
      '--ignore-scripts',
      '--no-package-lock',
      `${binary}@${major}`,
    ];
    const installed = spawnSync('npm', args, { encoding: 'utf8' });
    if (installed.status !== 0 || !existsSync(node)) {
      const reason = installed.stderr?.split('\n').find((line) => line.includes('error')) ?? 'npm cannot install it';
      console.log(`Node ${major}: skipped: ${reason}`);
      skipped++;
      continue;
    }
  }
  const version = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim();
  console.log(`\n=== Node ${version} ===`);
  const env = { ...process.env, PATH: `${path.dirname(node)}${path.delimiter}${process.env.PATH}` };
  const run = spawnSync(node, [mocha, ...files], { cwd: root, env, stdio: 'inherit' });
  if (run.status !== 0) failed++;
}
console.log(
  `\nNode versions: ${3 - failed - skipped} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`,
);
process.exitCode = failed ? 1 : 0;
