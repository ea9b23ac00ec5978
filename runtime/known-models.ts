/**
 * Models that were packed before. A model is known by its content, the hash of all bytes that packing reads, whatever its name, place and
 * time stamps. Reading gigabytes at every start would be too slow, so a record says what the files with that content looked like: stamps
 * that change with every write, and samples.
 *
 *     all stamps as recorded            -> that content
 *     else samples of no known model    -> a new model
 *     else                              -> the content must be hashed
 *
 * Kept in the cache; may be deleted at any time.
 */
import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { writeWhole } from '../schemas/aside.ts';
import { ModelError } from '../schemas/error.ts';
import { cacheRoot } from '../schemas/files.ts';
import { samplesOf } from '../schemas/samples.ts';
import { makeFolder, readTrusted } from '../schemas/trust.ts';
import { hashFiles } from './content.ts';

/**
 * What changes when a file is written to, replaced, moved or copied; whole numbers as text. The number of the device is not among it: that
 * of a container's files, or of a network's, is another one after every mount.
 */
export interface Stamp {
  readonly path: string;
  readonly ino: string;
  readonly size: string;
  readonly mtimeNs: string;
  readonly ctimeNs: string;
}

/** Where a model was seen. */
export interface Place {
  /** Folder or file that the user named. */
  readonly model: string;
  readonly files: readonly Stamp[];
}

/** A model that was packed before. */
export interface KnownModel {
  /** 32 hex digits: the name of the record. */
  readonly content: string;
  /** As of `samplesOf`. */
  readonly samples: string;
  /** The latest first. */
  readonly places: readonly Place[];
}

/** Most places that are remembered of a model. */
const MOST = 16;

/** Records are kept here. */
export const modelsRoot = (): string => path.join(cacheRoot(), 'models');

const stampsOf = (files: readonly string[]): Stamp[] =>
  files.map((file) => {
    const { ino, size, mtimeNs, ctimeNs } = statSync(file, { bigint: true });
    return {
      path: path.resolve(file),
      ino: `${ino}`,
      size: `${size}`,
      mtimeNs: `${mtimeNs}`,
      ctimeNs: `${ctimeNs}`,
    };
  });

/**
 * Would a write after this moment have changed the stamps? A system's clock of files ticks every few milliseconds, some file systems' only
 * every second or two: of two writes within a tick the second changes nothing.
 * @param moment milliseconds, as of Date.now()
 */
function isSettled(stamps: readonly Stamp[], moment: number): boolean {
  return stamps.every(({ mtimeNs, ctimeNs }) => {
    const tick = [mtimeNs, ctimeNs].every((time) => time.endsWith('000000000')) ? 2000 : 50;
    return moment - Number(ctimeNs) / 1e6 > tick;
  });
}

function parse(text: Buffer | undefined): KnownModel | undefined {
  try {
    const { content, samples, places } = JSON.parse(`${text}`) as KnownModel;
    const isWhole = typeof content === 'string' && typeof samples === 'string';
    return isWhole && places.every(({ model, files }) => typeof model === 'string' && Array.isArray(files))
      ? { content, samples, places }
      : undefined;
  } catch {
    // Damaged: not known.
    return undefined;
  }
}

/** All of them. @throws LibraryError where another user can change the records */
export function knownModels(): KnownModel[] {
  let names: string[] = [];
  try {
    names = readdirSync(modelsRoot()).filter((name) => name.endsWith('.json'));
  } catch {
    // None yet.
  }
  return names.map((name) => parse(readTrusted(path.join(modelsRoot(), name)))).filter((known) => known !== undefined);
}

/** Remembers a model. Where that is not possible, the next start reads the model once more. */
function remember({ content, samples, places }: KnownModel): void {
  const file = path.join(modelsRoot(), `${content}.json`);
  try {
    const before = parse(readTrusted(file))?.places ?? [];
    const others = before.filter(({ files }) => !places.some((place) => place.files[0]?.path === files[0]?.path));
    makeFolder(modelsRoot());
    writeWhole(file, JSON.stringify({ content, samples, places: [...places, ...others].slice(0, MOST) }));
  } catch {
    // A read-only or full cache.
  }
}

/** What is found out about the content of a model's files. */
export class Identity {
  readonly #model: string;
  readonly #files: readonly string[];
  readonly #begun = Date.now();
  readonly #stamps: readonly Stamp[];
  readonly #known = knownModels();
  #samples: string | undefined;

  /**
   * @param model folder or file that the user named @param files what packing reads, in the order in which it first needs them
   * @throws LibraryError where another user can change the records
   */
  constructor(model: string, files: readonly string[]) {
    this.#model = path.resolve(model);
    this.#files = files;
    this.#stamps = stampsOf(files);
  }

  /** The content, where the files have not been touched since it was recorded. */
  get recorded(): string | undefined {
    return this.#known.find(({ places }) => places.some(({ files }) => isDeepStrictEqual(files, this.#stamps)))
      ?.content;
  }

  get #sampled(): string {
    this.#samples ??= samplesOf(this.#files);
    return this.#samples;
  }

  /** May the files have this content? Not if it is recorded with other samples. */
  mayBe(content: string | undefined): boolean {
    const record = this.#known.find((known) => known.content === content);
    return !record || record.samples === this.#sampled;
  }

  /** Reads the files. @param onProgress bytes so far, and in all @returns their content @throws ModelError; AbortError */
  async hash(threads: number, signal: AbortSignal, onProgress: (done: number, total: number) => void): Promise<string> {
    const content = (await hashFiles(this.#files, threads, signal, onProgress)).slice(0, 32);
    // Of the same files.
    this.#samples = samplesOf(this.#files);
    this.requireUnchanged();
    return content;
  }

  /** Remembers what the files hold, where that is news: of a model that can be packed. */
  record(content: string): void {
    if (this.recorded === content) return;
    const place = { model: this.#model, files: this.#stamps };
    remember({ content, samples: this.#sampled, places: isSettled(this.#stamps, this.#begun) ? [place] : [] });
  }

  /** @throws ModelError when the files are not those of the beginning any more */
  requireUnchanged(): void {
    let now: Stamp[] = [];
    try {
      now = stampsOf(this.#files);
    } catch {
      // Gone.
    }
    if (!isDeepStrictEqual(now, this.#stamps))
      throw new ModelError(
        `${this.#model}: its files changed while they were read; start again when they are complete`,
      );
  }
}
