/**
 * Fixtures that do not belong to the project live in a folder named by BITNET_FIXTURES; tests that need one skip without it,
 * saying why.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';

/** Skips the current test with a reason that the reporter prints. */
export function skip(context: Mocha.Context, reason: string): never {
  const test = context.test as Mocha.Runnable & { skipReason?: string };
  test.skipReason = reason;
  return context.skip();
}

/** Path of a fixture, or skips the test. @param relative path inside the fixtures folder */
export function fixture(context: Mocha.Context, relative: string): string {
  const root = process.env.BITNET_FIXTURES;
  if (!root) return skip(context, 'BITNET_FIXTURES is not set');
  const file = path.resolve(root, relative);
  if (!existsSync(file)) return skip(context, `no ${relative} in BITNET_FIXTURES`);
  return file;
}
