/** Checks documents against the JSON schemas of this folder, with messages for people. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { ValidateFunction } from 'ajv/dist/2020.js';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { packageRoot } from './files.ts';

/** Documents that have a schema. */
export type SchemaName = 'model' | 'cpu' | 'tuning' | 'manifest';
const compiled = new Map<SchemaName, ValidateFunction>();

/** @returns what is wrong with the document, in one line, or undefined */
export function validate(schema: SchemaName, document: unknown): string | undefined {
  let check = compiled.get(schema);
  if (!check) {
    const read = (name: SchemaName) =>
      JSON.parse(readFileSync(path.join(packageRoot, 'schemas', `${name}.schema.json`), 'utf8'));
    const ajv = new Ajv2020({ allErrors: false });
    if (schema === 'manifest') ajv.addSchema(read('model'));
    if (schema !== 'model' && schema !== 'cpu') ajv.addSchema(read('cpu'));
    check = ajv.compile(read(schema));
    compiled.set(schema, check);
  }
  if (check(document)) return undefined;
  const error = check.errors![0]!;
  const where = error.instancePath.slice(1).replaceAll('/', '.') || 'the document';
  const extra =
    error.keyword === 'additionalProperties'
      ? ` ('${error.params.additionalProperty}')`
      : error.keyword === 'enum'
        ? `: ${error.params.allowedValues.join(', ')}`
        : '';
  return `${where} ${error.message}${extra}`;
}
