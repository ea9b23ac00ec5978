/**
 * Fixtures that do not belong to the project live in a folder named by BITNET_FIXTURES; tests that need one skip without it,
 * saying why.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const { REASON } = createRequire(import.meta.url)('./reporter.cjs') as { REASON: string };

/** Skips the current test with a reason that the reporter prints; from a hook, all tests that it is for. */
export function skip(context: Mocha.Context, reason: string): never {
  const test = context.test!;
  // A title is all that passes from a worker process to the reporter.
  const isHook = (test as { type?: string }).type === 'hook';
  const affected = isHook ? testsOf(test.parent!) : [test];
  for (const each of affected) each.title += `${REASON}${reason}`;
  return context.skip();
}

const testsOf = (suite: Mocha.Suite): Mocha.Runnable[] => [...suite.tests, ...suite.suites.flatMap(testsOf)];

/** Path of a fixture, or skips the test. @param relative path inside the fixtures folder */
export function fixture(context: Mocha.Context, relative: string): string {
  const root = process.env.BITNET_FIXTURES;
  if (!root) return skip(context, 'BITNET_FIXTURES is not set');
  const file = path.resolve(root, relative);
  if (!existsSync(file)) return skip(context, `no ${relative} in BITNET_FIXTURES`);
  return file;
}
