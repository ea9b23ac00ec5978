/**
 * What all tests share: the project compiled once, for the tests that run its programs, and a folder for what outlives a run because it
 * is kept by content: builds and compiled objects. BITNET_TEST_CACHE names another one.
 */
import { mkdirSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';

export const projectRoot: string = path.resolve(import.meta.dirname, '..');
export const sharedRoot: string =
  process.env.BITNET_TEST_CACHE ?? path.join(tmpdir(), `bitnet-gen-tests-${userInfo().uid}`);
/** Within the project, since compiled programs look for its files above them. */
export const compiledRoot: string = path.join(projectRoot, 'node_modules', '.cache', 'bitnet-gen');

process.env.BITNET_OBJECTS = path.join(sharedRoot, 'objects');

/** Called by mocha once before all tests. @throws Error with the compiler's complaints */
export async function mochaGlobalSetup(): Promise<void> {
  mkdirSync(sharedRoot, { recursive: true });
  const tsc = path.join(projectRoot, 'node_modules', 'typescript', 'bin', 'tsc');
  // Types are checked by npm run check.
  const options = [
    '--noCheck',
    '--noEmit',
    'false',
    '--declaration',
    'false',
    '--rootDir',
    projectRoot,
    '--outDir',
    compiledRoot,
  ];
  const incremental = ['--incremental', '--tsBuildInfoFile', path.join(compiledRoot, 'tsbuildinfo')];
  const args = [tsc, '-p', path.join(projectRoot, 'tsconfig.json'), ...options, ...incremental];
  const compiled = await execa(process.execPath, args, { reject: false });
  if (compiled.failed) throw new Error(`the project does not compile:\n${compiled.stdout}${compiled.stderr}`);
}
