/**
 * Which safetensors files of a folder hold which tensors: model.safetensors, or the shards that model.safetensors.index.json
 * lists. huggingface.ts makes a model of the tensors.
 */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { ModelError } from '../../schemas/error.ts';
import { isPresent, reason } from './file.ts';
import { isRecord, listed, readJson, shown } from './json.ts';
import type { SafetensorsEntry, SafetensorsHeader } from './safetensors.ts';
import { readSafetensorsHeader } from './safetensors.ts';

/** A tensor and the file that holds it. */
export type Located = SafetensorsEntry & { readonly file: string };

const whole = 'model.safetensors';
const indexName = 'model.safetensors.index.json';

/**
 * Finds all tensors of a folder.
 * @returns the files that say where weights lie and hold them, and the tensors by name
 * @throws ModelError when a file is missing or damaged
 */
export function readWeights(folder: string): { files: string[]; entries: ReadonlyMap<string, Located> } {
  const file = path.join(folder, whole);
  if (isPresent(file)) {
    const located = [...readSafetensorsHeader(file)].map(([name, entry]) => [name, { ...entry, file }] as const);
    return { files: [file], entries: new Map(located) };
  }
  const index = path.join(folder, indexName);
  if (!isPresent(index)) throw missing(folder, whole);

  const shards = readIndex(index);
  const names = [...new Set(shards.values())];
  const absent = names.filter((name) => !isPresent(path.join(folder, name)));
  if (absent.length) {
    throw new ModelError(
      `${folder}: of the ${names.length} shards that ${indexName} lists, these are missing: ${listed(absent)}; ` +
        'download them into this folder',
    );
  }
  const headers = new Map<string, SafetensorsHeader>();
  for (const name of names) headers.set(name, readSafetensorsHeader(path.join(folder, name)));
  const entries = new Map<string, Located>();
  for (const [name, shard] of shards) {
    const entry = headers.get(shard)!.get(name);
    if (!entry) throw new ModelError(`${shard}: tensor ${shown(name)} is missing, but the index says it is here`);
    entries.set(name, { ...entry, file: path.join(folder, shard) });
  }
  return { files: [index, ...names.map((name) => path.join(folder, name))], entries };
}

/** The shard of each tensor. */
function readIndex(index: string): Map<string, string> {
  const map = readJson(index).weight_map;
  if (!isRecord(map)) throw new ModelError(`${indexName}: field 'weight_map' is ${shown(map)}, not an object`);
  const shards = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    // Shards lie beside the index; a path would let a downloaded file point anywhere.
    if (typeof shard !== 'string' || !/^[^/\\\p{Cc}]{1,255}$/u.test(shard) || shard === '.' || shard === '..') {
      throw new ModelError(`${indexName}: ${shown(name)} lies in ${shown(shard)}, which is not a plain file name`);
    }
    shards.set(name, shard);
  }
  return shards;
}

/** The error for a folder without a file, with what it holds instead and what to do. */
export function missing(folder: string, file: string): ModelError {
  return new ModelError(`${folder}: no ${file}; ${advice(folder, file)}`);
}

function advice(folder: string, file: string): string {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    throw new ModelError(`${folder}: ${reason(error)}`, { cause: error });
  }
  const gguf = names.find((name) => name.endsWith('.gguf'));
  if (gguf) return `to use the GGUF file, name it: ${path.join(folder, gguf)}`;
  const shards = names.filter((name) => name.endsWith('.safetensors')).sort();
  if (file === whole && shards.length) {
    return `${indexName}, which says what lies in ${listed(shards)}, is missing, too; download it`;
  }
  if (names.some((name) => name.endsWith('.bin') || name.endsWith('.pt'))) {
    return 'PyTorch files are not read, download or convert to safetensors';
  }
  return 'a model folder holds config.json and model.safetensors';
}
