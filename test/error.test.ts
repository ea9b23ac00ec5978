/** Error classes: what the command lines tell apart. */
import { strict as assert } from 'node:assert';
import * as errors from '../schemas/error.ts';

describe('errors', () => {
  const { BitnetError, ...boundaries } = errors;
  for (const [name, Boundary] of Object.entries(boundaries))
    it(`${name} carries its name, its cause and a message for people`, () => {
      const cause = new Error('why');
      const error = new Boundary('what', { cause });
      assert.ok(error instanceof BitnetError);
      assert.deepEqual([error.name, error.message, error.cause], [name, 'what', cause]);
    });
});
