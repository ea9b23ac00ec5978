/**
 * The one way from a path to a model: recognises the format, lets its reader build a ModelSource, and checks it. What comes
 * out is complete and consistent; the rest of the runtime does not look at model files again except to read tensor data.
 */
import { statSync } from 'node:fs';
import { ModelError } from '../../schemas/error.ts';
import { missing } from '../../schemas/files.ts';
import { checkModel } from './check.ts';
import { gitLfsAdvice, isGitLfsPointer, isPresent, withModelFile } from './file.ts';
import { readGguf } from './gguf.ts';
import { readHuggingface } from './huggingface.ts';
import type { ModelSource } from './source.ts';

/** How a model's files are read. */
export interface OpenOptions {
  /**
   * Keys of config.json or of GGUF metadata that may be ignored. A key that is not known here may change the result, so it is
   * otherwise refused. Below quantization_config and the like the name is a path: `quantization_config.bits`.
   */
  readonly allowConfig?: readonly string[] | undefined;
}

/**
 * Opens a model: a Hugging Face folder or a GGUF file.
 * @throws ModelError when there is none, it is damaged, incomplete, or of a kind that cannot be run
 */
export function openModel(path: string, { allowConfig = [] }: OpenOptions = {}): ModelSource {
  if (!isPresent(path))
    throw new ModelError(`${missing('model', path)}; give a Hugging Face model folder or a .gguf file`);
  const source = statSync(path).isDirectory() ? readHuggingface(path, allowConfig) : readFile(path, allowConfig);
  checkModel(source);
  return source;
}

/** A file is judged by its first bytes; its name only helps to say what is wrong. */
function readFile(path: string, allowConfig: readonly string[]): ModelSource {
  const start = withModelFile(path, (file) => file.read(0, Math.min(file.size, 8)));
  if (start.toString('latin1', 0, 4) === 'GGUF') return readGguf(path, allowConfig);
  if (isGitLfsPointer(start)) throw new ModelError(`${path}: ${gitLfsAdvice}`);
  if (/\.(safetensors|json)$/.test(path)) {
    throw new ModelError(`${path} is one file of a Hugging Face model; give the folder that holds it`);
  }
  throw new ModelError(`${path} is not a GGUF file; give a Hugging Face model folder or a .gguf file`);
}
