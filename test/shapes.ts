/** The shapes that ship with the package, and the demo model's, for tests of the generator. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { openModel } from '../runtime/formats/open.ts';
import { demoModel, packageRoot } from '../schemas/files.ts';
import type { ModelShape } from '../schemas/types.ts';

const folder = path.join(packageRoot, 'schemas', 'models');

/** schemas/models/*.json */
export const shippedShapes = (): ModelShape[] =>
  readdirSync(folder).map((file) => JSON.parse(readFileSync(path.join(folder, file), 'utf8')));

/** The demo model's shape, as its reader finds it. */
export const demoShape = (): ModelShape => openModel(demoModel).shape;
