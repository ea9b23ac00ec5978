/**
 * A process of its own for bit-identity.test.ts: evaluates tokens (JSON on standard input) through the foreign function interface
 * that BITNET_FFI names.
 *
 *     evaluate-child.ts LIBRARY WEIGHTS LOGITS
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { Library, want } from '../runtime/library.ts';

const [file, weights, output] = process.argv.slice(2) as [string, string, string];
const tokens = Int32Array.from(JSON.parse(readFileSync(0, 'utf8')) as number[]);
const library = new Library(file);
const { shape } = library.describe() as { shape: { vocabulary: number } };
const model = library.open(weights);
const context = library.context(model, tokens.length, 2, 16, true);
const logits = new Float32Array(tokens.length * shape.vocabulary);
const half = tokens.length >> 1;
// Two calls, so that a wrong position or a wrong part of a buffer shows.
library.evaluate(context, tokens, half, want.all, logits);
library.evaluate(
  context,
  tokens.subarray(half),
  tokens.length - half,
  want.all,
  logits.subarray(half * shape.vocabulary),
);
library.release(context);
library.close(model);
writeFileSync(output, logits);
console.log(library.interface);
