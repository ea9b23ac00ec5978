/**
 * Packed weights: made once for a model's content and a layout, in the user's cache, never beside the model, then mapped by the library.
 * The file is written aside, checksummed and renamed, so that an interrupted packing leaves nothing that looks whole.
 */
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, rmSync, statfsSync, statSync } from 'node:fs';
import path from 'node:path';
import { asideOf, publish, sweep } from '../schemas/aside.ts';
import { LibraryError, ModelError } from '../schemas/error.ts';
import { cacheRoot } from '../schemas/files.ts';
import { kindOf, makeFolder, requireTrusted } from '../schemas/trust.ts';
import type { ModelSource, SourceTensor } from './formats/source.ts';
import { encodings } from './formats/source.ts';
import { Identity } from './known-models.ts';
import { DamageError, type Library } from './library.ts';

/** What packing needs of a manifest. */
export interface PackedLayout {
  readonly id: string;
  readonly fileBytes: number;
  readonly tensors: readonly { readonly name: string; readonly kind: string; readonly from?: string }[];
}

/** What takes long: packing; reading a model to see whether it is a known one; reading packed weights to see whether they are whole. */
export type PackStep = 'packing' | 'checking' | 'verifying';

/** For whoever waits while weights are packed. */
export interface PackOptions {
  /** @param done of so many tensors (packing) or megabytes */
  readonly onProgress?: (what: PackStep, done: number, total: number) => void;
  /** What the user should know: packed weights were damaged. */
  readonly onNote?: (note: string) => void;
  readonly signal?: AbortSignal;
  /** Rely on nothing that was recorded: hash the model, and read all of its packed weights. */
  readonly verify?: boolean;
}

/** Packed weights that the library has mapped. */
export interface OpenedWeights {
  /** The library's number of the model. */
  readonly model: number;
  readonly file: string;
  /** It was there already. */
  readonly cached: boolean;
}

/** Packed weights are kept here. */
export const weightsRoot = (): string => path.join(cacheRoot(), 'weights');

/** Of what cannot be interrupted. */
const never = new AbortController().signal;

const inMegabytes =
  (what: PackStep, { onProgress }: PackOptions) =>
  (done: number, total: number): void =>
    onProgress?.(what, Math.floor(done / 1e6), Math.ceil(total / 1e6));

const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;

/** One opening: a model, and the library that packs and maps its weights. */
interface Work {
  readonly source: ModelSource;
  readonly layout: PackedLayout;
  readonly library: Library;
  readonly threads: number;
  readonly options: PackOptions;
}

/** The model's tensor that a tensor of the layout is made of; undefined where the library makes it out of others. */
function originOf({ source }: Pick<Work, 'source'>, { name, kind, from = name }: PackedLayout['tensors'][number]) {
  if (kind === 'int32') return undefined;
  const tensor = source.tensors.get(from);
  if (!tensor) throw new ModelError(`${source.path}: tensor '${from}' is missing`);
  return tensor;
}

/** What is read for a layout: files, in the order in which packing first needs them, and what is known of each tensor in them. */
function originsOf(work: Pick<Work, 'source' | 'layout'>) {
  const tensors = work.layout.tensors.map((tensor) => originOf(work, tensor));
  const files = [...new Set(tensors.flatMap((tensor) => (tensor ? [tensor.file] : [])))];
  // A tensor's name, and those of its file, change nothing.
  const facts = tensors.map((tensor) => tensor && { ...tensor, name: undefined, file: files.indexOf(tensor.file) });
  return { files, facts };
}

/** The end of the name of packed weights: hash of a layout, and of what the model's description says of its tensors. */
const endOf = ({ layout }: Pick<Work, 'layout'>, facts: unknown): string =>
  `${createHash('sha256')
    .update(JSON.stringify([layout.id, facts]))
    .digest('hex')
    .slice(0, 16)}.bnw`;

/** The content of the model that weights were packed from, which their name tells. */
export const contentOfPacked = (file: string): string | undefined =>
  /-([0-9a-f]{32})-[0-9a-f]{16}\.bnw$/.exec(file)?.[1];

/** Packed weights whose names have this end. */
function packedWith(end: string): string[] {
  try {
    return readdirSync(weightsRoot())
      .filter((name) => name.endsWith(end))
      .map((name) => path.join(weightsRoot(), name));
  } catch {
    // No folder yet.
    return [];
  }
}

function rename(aside: string, file: string): void {
  try {
    publish(aside, file);
  } catch (error) {
    throw new LibraryError(`cannot rename the packed weights '${aside}' to '${file}': ${(error as Error).message}`);
  }
}

function packTensor(library: Library, i: number, t: SourceTensor): void {
  const { file, offset, bytes, rows, cols, scale = 0, factor = 1, permutedHeads = 0 } = t;
  try {
    library.packTensor(i, file, offset, bytes, encodings[t.encoding], rows, cols, scale, factor, permutedHeads);
  } catch (error) {
    if (!(error instanceof LibraryError)) throw error;
    // The library knows tensors by our names.
    throw new ModelError(`${file}: ${error.message.replace(/(?<=^tensor ')[^']*/, () => t.name)}`);
  }
}

async function packTo(file: string, work: Work): Promise<void> {
  const { layout, library, threads, options } = work;
  try {
    library.packBegin(file, threads);
  } catch (error) {
    throw new LibraryError(`${(error as Error).message}; make room there, or set XDG_CACHE_HOME to another folder`);
  }
  try {
    for (const [i, tensor] of layout.tensors.entries()) {
      const t = originOf(work, tensor);
      if (t) packTensor(library, i, t);
      options.onProgress?.('packing', i + 1, layout.tensors.length);
      // Lets Ctrl-C and the progress line through.
      if (i % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
      options.signal?.throwIfAborted();
    }
  } catch (error) {
    library.packEnd(false);
    throw error;
  }
  library.packEnd(true);
}

/** Openings of this thread take turns: a library packs one file at a time, and the second finds what the first has packed. */
let turn: Promise<unknown> = Promise.resolve();

/**
 * The model's packed weights, opened; packs them first when they are missing or damaged.
 * @throws ModelError; LibraryError (no space, unwritable cache, a cache that others can change); AbortError
 */
export function openWeights(
  source: ModelSource,
  layout: PackedLayout,
  library: Library,
  threads: number,
  options: PackOptions = {},
): Promise<OpenedWeights> {
  const opened = turn.then(() => openOrPack({ source, layout, library, threads, options }));
  turn = opened.catch(() => undefined);
  return opened;
}

async function openOrPack(work: Work): Promise<OpenedWeights> {
  const { source, options } = work;
  options.signal?.throwIfAborted();
  requireTrusted(weightsRoot());
  sweep(weightsRoot());
  const { files, facts } = originsOf(work);
  const identity = new Identity(source.path, files);
  const end = endOf(work, facts);
  const packed = packedWith(end);
  let content = options.verify ? undefined : identity.recorded;
  if (!content && packed.some((file) => identity.mayBe(contentOfPacked(file))))
    content = await identity.hash(work.threads, options.signal ?? never, inMegabytes('checking', options));
  // The beginning of the name is for people: it is that of the first folder in which the model was met.
  const found = content && packed.find((file) => contentOfPacked(file) === content);
  const fileOf = (known: string) => found || path.join(weightsRoot(), `${source.shape.name}-${known}-${end}`);
  if (!found) return pack(work, identity, content, fileOf);
  try {
    const model = await openPacked(found, work);
    identity.record(contentOfPacked(found)!);
    return { model, file: found, cached: true };
  } catch (error) {
    if (!(error instanceof DamageError)) throw error;
    const damage = `packed weights in the cache are damaged: ${error.message}`;
    options.onNote?.(`${damage}; they are packed anew`);
    return pack(work, identity, content, fileOf).catch((failure) => {
      throw failure instanceof LibraryError ? new LibraryError(`${damage}; ${failure.message}`) : failure;
    });
  }
}

/** @throws DamageError where they must be packed anew; LibraryError */
async function openPacked(file: string, { library, options }: Work): Promise<number> {
  requireTrusted(file);
  const stat = statSync(file, { throwIfNoEntry: false }) ?? lstatSync(file, { throwIfNoEntry: false });
  if (stat?.isDirectory())
    throw new LibraryError(`'${file}' is in the place of packed weights, but is a folder; remove it`);
  if (!stat?.isFile()) throw new DamageError(`'${file}' is ${stat ? kindOf(stat) : 'gone'}`);
  const model = library.open(file);
  if (!options.verify) return model;
  try {
    await verify(library, model, options);
    return model;
  } catch (error) {
    library.close(model);
    throw error instanceof DamageError ? new DamageError(`'${file}': ${error.message}`) : error;
  }
}

/** Reads all weights of an open model. @throws DamageError; AbortError */
async function verify(library: Library, model: number, { onProgress, signal }: PackOptions): Promise<void> {
  let total: number | undefined;
  for (let left = 1; left > 0; ) {
    left = library.verify(model);
    total ??= left + 1;
    onProgress?.('verifying', total - left, total);
    await new Promise((resolve) => setImmediate(resolve));
    signal?.throwIfAborted();
  }
}

/** Packs and opens. @param content of the model, where it is known @param fileOf where packed weights of a content belong */
async function pack(
  work: Work,
  identity: Identity,
  content: string | undefined,
  fileOf: (content: string) => string,
): Promise<OpenedWeights> {
  const { source, layout, library, options } = work;
  makeFolder(weightsRoot());
  const { bavail, bsize } = statfsSync(weightsRoot());
  if (bavail * bsize < layout.fileBytes)
    throw new LibraryError(
      `the packed weights need ${megabytes(layout.fileBytes)} in '${weightsRoot()}', which has ${megabytes(bavail * bsize)} free; free some space (bitnet-run --cache list) or set XDG_CACHE_HOME`,
    );
  const aside = asideOf(path.join(weightsRoot(), `${source.shape.name}.bnw`));
  const stop = new AbortController();
  let isPacked = false;
  const checking = inMegabytes('checking', options);
  const hashing = content
    ? Promise.resolve(content)
    : // One thread that packing does not have.
      identity.hash(1, AbortSignal.any([stop.signal, options.signal ?? never]), (...at) => isPacked && checking(...at));
  // Nobody waits for it yet.
  hashing.catch(() => undefined);
  let model: number | undefined;
  try {
    await packTo(aside, work);
    isPacked = true;
    const packed = await hashing;
    const file = fileOf(packed);
    identity.requireUnchanged();
    // Opened before it has its name: whoever clears the cache takes nothing away then.
    model = library.open(aside);
    rename(aside, file);
    identity.record(packed);
    return { model, file, cached: false };
  } catch (error) {
    stop.abort();
    await hashing.catch(() => undefined);
    if (model !== undefined) library.close(model);
    rmSync(aside, { force: true });
    throw error;
  }
}
