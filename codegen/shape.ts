/**
 * The shape that a user of bitnet-gen or bitnet-tune means: a shipped one, a shape file, or that of a model on disk.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { ModelError } from '../schemas/error.ts';
import { demoModel, missing, packageRoot } from '../schemas/files.ts';
import type { ModelShape } from '../schemas/types.ts';
import { validate } from '../schemas/validate.ts';
import { blockElements } from './rows.ts';

/** Names of the shipped shapes. */
export const shippedShapes = (): string[] =>
  readdirSync(path.join(packageRoot, 'schemas', 'models'))
    .filter((name) => name.endsWith('.json'))
    .map((name) => path.basename(name, '.json'));

/** A shape file. @throws ModelError */
export function readShape(file: string): ModelShape {
  let document: unknown;
  try {
    document = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new ModelError(`shape '${file}' is not JSON: ${(error as Error).message}`);
  }
  const problem = validate('model', document);
  if (problem) throw new ModelError(`shape '${file}': ${problem}; see schemas/model.schema.json`);
  const shape = document as ModelShape;
  if (shape.heads % shape.kvHeads)
    throw new ModelError(
      `shape '${file}': ${shape.heads} heads are not a multiple of ${shape.kvHeads} key-value heads`,
    );
  if (shape.tiedEmbedding && shape.headType !== shape.embeddingType)
    throw new ModelError(
      `shape '${file}': a tied head has the embedding's type (${shape.embeddingType}), not ${shape.headType}`,
    );
  for (const type of [shape.embeddingType, shape.headType])
    if (shape.hidden % blockElements(type))
      throw new ModelError(
        `shape '${file}': rows of ${shape.hidden} are no whole ${type} blocks of ${blockElements(type)}; take f32, f16 or bf16`,
      );
  return shape;
}

/**
 * The shape a user means: a shipped name, a shape file, or a model.
 * @param openModel reads a model on disk (the command lines pass runtime/formats/open.ts; the generator does not know formats)
 */
export function shapeOf(model: string | undefined, openModel: (path: string) => { shape: ModelShape }): ModelShape {
  if (model === undefined) return openModel(demoModel).shape;
  const named = path.join(packageRoot, 'schemas', 'models', `${model}.json`);
  if (!existsSync(model) && shippedShapes().includes(model)) return readShape(named);
  if (model.endsWith('.json') && existsSync(model)) return readShape(model);
  if (!existsSync(model))
    throw new ModelError(
      `${missing('model or shape', model)}; give a folder, a GGUF file, a shape JSON or one of ${shippedShapes().join(', ')}`,
    );
  return openModel(model).shape;
}
