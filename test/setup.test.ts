/** Error classes: what the command lines tell apart. */
import { strict as assert } from 'node:assert';
import { ModelError } from '../schemas/error.ts';

describe('errors', () => {
  it('carry the name of their class', () => assert.equal(new ModelError('x').name, 'ModelError'));
});
