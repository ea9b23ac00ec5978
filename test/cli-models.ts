/**
 * The small random models of the command-line tests, one model in two formats: a GGUF file with a byte-level tokenizer, and a
 * Hugging Face folder without any.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Cli } from './run-cli.ts';
import { writeGguf } from './write-gguf.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel, smallShape, specialTokens } from './write-model.ts';

/** Shape of the model. */
export const shape = smallShape({ layers: 1, context: 64 });

/** Gives the enclosing suite the models, in the temporary folder of its programs. */
export function useModels(cli: Cli) {
  before(() => {
    const model = randomModel(shape, 1);
    // The end tokens' logits are 0: there is always a better one, so the model never ends by itself.
    const { eos, endOfTurn } = specialTokens(shape.vocabulary);
    for (const id of [eos, endOfTurn]) model.embedding.fill(0, id * shape.hidden, (id + 1) * shape.hidden);
    writeGguf(models.gguf, model, { arch: 'bitnet-b1.58', weights: 'i2_s', embedding: 'bf16' });
    writeHuggingFace(models.folder, model, { weights: 'packed' });
  });
  const models = {
    /** Path of the file with a tokenizer. */
    get gguf(): string {
      return cli.path('small.gguf');
    },
    /** Path of the folder without a tokenizer. */
    get folder(): string {
      return cli.path('small');
    },
    /** Writes a copy of the GGUF file with changed bytes. @returns its path */
    changedGguf(name: string, change: (bytes: Buffer) => void): string {
      const file = cli.path(name);
      const bytes = readFileSync(models.gguf);
      change(bytes);
      writeFileSync(file, bytes);
      return file;
    },
  };
  return models;
}
