/** What tests of packed weights share: the smallest model on disk, its library, and weights that are opened and closed again. */
import { existsSync, readdirSync } from 'node:fs';
import { openModel } from '../runtime/formats/open.ts';
import type { ModelSource } from '../runtime/formats/source.ts';
import { type Library, want } from '../runtime/library.ts';
import { openWeights, type PackOptions, weightsRoot } from '../runtime/weights.ts';
import { type Built, bestTarget, buildFor, libraryFor, smallestShape, useCache } from './machine.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel } from './write-model.ts';

/** Writes the model of a seed; all are of the same size. */
export const writeSmallest = (folder: string, seed = 1, shards = 1) =>
  writeHuggingFace(folder, randomModel(smallestShape, seed), { weights: 'packed', shards });

/** Calls `use` with another cache folder. */
export async function withCache<T>(folder: string, use: () => Promise<T>): Promise<T> {
  const before = process.env.XDG_CACHE_HOME;
  process.env.XDG_CACHE_HOME = folder;
  try {
    return await use();
  } finally {
    process.env.XDG_CACHE_HOME = before;
  }
}

/** Gives the enclosing suite a cache of its own, and the smallest model's library. @param extra compiler flags */
export function usePacking(extra: readonly string[] = []) {
  const cache = useCache();
  let built: Built;
  let library: Library;
  before(async () => {
    built = await buildFor(smallestShape, bestTarget, { extra });
    library = await libraryFor(built);
  });
  const packing = {
    cache,
    get built(): Built {
      return built;
    },
    get library(): Library {
      return library;
    },
    /** Names in the folder of packed weights. */
    names: (): string[] => (existsSync(weightsRoot()) ? readdirSync(weightsRoot()) : []),

    /** Opens a model's weights and closes them again. @returns also what was done (each step once) and said */
    async open(model: string | ModelSource, options: PackOptions = {}) {
      const source = typeof model === 'string' ? openModel(model) : model;
      const steps = new Set<string>();
      const notes: string[] = [];
      const opened = await openWeights(source, built.manifest.layout, library, 2, {
        ...options,
        onNote: (note) => notes.push(note),
        onProgress: (...at) => {
          steps.add(at[0]);
          options.onProgress?.(...at);
        },
      });
      library.close(opened.model);
      return { file: opened.file, cached: opened.cached, steps: [...steps], notes };
    },

    /** Logits of one token. */
    async logits(folder: string): Promise<Float32Array> {
      const { model } = await openWeights(openModel(folder), built.manifest.layout, library, 1);
      const context = library.context(model, 1, 1, 32, false);
      const logits = new Float32Array(smallestShape.vocabulary);
      library.evaluate(context, Int32Array.of(5), 1, want.last, logits);
      library.release(context);
      library.close(model);
      return logits;
    },
  };
  return packing;
}
