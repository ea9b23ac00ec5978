// Runs a command of this package in a checkout; `npm start`, `npm run gen` and `npm run tune` go through it. It compiles the sources
// first if there is no dist/, as after `npm install --ignore-scripts`. The command then runs in this process, so that arguments,
// stdin, stdout, signals and exit code are its own.   usage: node scripts/command.mjs <name in package.json's bin> [arguments]
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const root = path.resolve(import.meta.dirname, '..');
const [node, , name, ...args] = process.argv;
const entry = path.join(root, JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')).bin[name]);

const say = (message) => process.stderr.write(`${name}: ${message}\n`);
function fail(message) {
  say(message);
  process.exit(1);
}

const built = existsSync(entry);
for (const needed of built ? ['commander'] : ['commander', 'typescript'])
  try {
    import.meta.resolve(needed);
  } catch {
    fail(`the package '${needed}' is missing; run: npm install --include=dev`);
  }
if (!built) {
  say('there is no dist/ yet; building it');
  // What the compiler prints goes to stderr: stdout is the command's.
  const { status } = spawnSync('npm', ['run', '-s', 'build'], { cwd: root, stdio: ['ignore', 2, 2] });
  if (status !== 0 || !existsSync(entry)) fail('dist/ cannot be built; to see why, run: npm run build');
}
process.argv = [node, entry, ...args];
await import(pathToFileURL(entry).href);
