/**
 * Other engines in the same rotation: llama.cpp, through the npm package node-llama-cpp where that is installed. It is no
 * dependency: it is looked for when asked for. llama.cpp has no kernel of its own for per-token int8 activations, so it runs the
 * same shape as TQ2_0 with a Q6_K head, and with SiLU for models with sub-norms: as many weights, other numbers.
 */
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../schemas/files.ts';
import { randomGguf, refusal } from './gguf.ts';
import { randomWords } from './random.ts';
import { type Measured, median } from './rotation.ts';
import type { Request } from './subjects/subject.ts';
import { TOKENS } from './timers.ts';

const PACKAGE = 'node-llama-cpp';

/** What is used of node-llama-cpp 3. */
interface Sequence {
  readonly nextTokenIndex: number;
  evaluateWithoutGeneratingNewTokens(tokens: number[]): Promise<void>;
  evaluate(tokens: number[], options: { temperature: number; yieldEogToken: boolean }): AsyncGenerator<number>;
  eraseContextTokenRanges(ranges: { start: number; end: number }[]): Promise<void>;
}
interface Context {
  getSequence(): Sequence;
}
interface Model {
  createContext(options: { contextSize: number; threads: number; sequences: number }): Promise<Context>;
}
interface Llama {
  readonly llamaCppRelease: { readonly release: string };
  loadModel(options: { modelPath: string; gpuLayers: number }): Promise<Model>;
  dispose(): Promise<void>;
}
type GetLlama = (options: Record<string, unknown>) => Promise<Llama>;

/** A row of the result. */
export type PeerRow = {
  readonly engine: string;
  readonly weights: string;
  readonly threads: number;
  readonly context: number;
  readonly ms_per_token: number;
  readonly tok_s: number;
  readonly samples: number;
};

/** Decodes greedily from the same position over and over, as TokenTimer does. */
class Peer implements Measured {
  readonly #sequence: Sequence;
  readonly #first: number;
  readonly #about: Pick<PeerRow, 'engine' | 'weights' | 'threads' | 'context'>;
  readonly #ms: number[] = [];

  constructor(sequence: Sequence, first: number, about: Pick<PeerRow, 'engine' | 'weights' | 'threads' | 'context'>) {
    this.#sequence = sequence;
    this.#first = first;
    this.#about = about;
  }

  async turn(): Promise<void> {
    let count = 0;
    let last = performance.now();
    for await (const _ of this.#sequence.evaluate([this.#first], { temperature: 0, yieldEogToken: true })) {
      const now = performance.now();
      if (count > 0) this.#ms.push(now - last);
      last = now;
      if (++count === TOKENS) break;
    }
    await this.#sequence.eraseContextTokenRanges([{ start: this.#about.context, end: this.#sequence.nextTokenIndex }]);
  }

  get row(): PeerRow {
    const ms = median(this.#ms);
    return { ...this.#about, ms_per_token: ms, tok_s: 1000 / ms, samples: this.#ms.length };
  }
}

/** The package's entry, from the folder that was given, or beside this one. */
function find(folder: string): string | undefined {
  try {
    return createRequire(path.resolve(folder, 'package.json')).resolve(PACKAGE);
  } catch {
    return undefined;
  }
}

export interface Peers {
  readonly timers: readonly Peer[];
  close(): Promise<void>;
}

const none = (reason: string, notes: string[]): Peers => {
  notes.push(`llama.cpp left out: ${reason}`);
  return { timers: [], close: async () => {} };
};

/**
 * Starts llama.cpp on a random model of the request's shape, with a filled cache for each number of threads and context.
 * @param folder in which node-llama-cpp is installed; '' means beside this package
 * @param notes gets the reason when there is nothing to compare with
 */
export async function startPeers(
  request: Request,
  folder: string,
  wanted: readonly { readonly threads: number; readonly context: number }[],
  notes: string[],
): Promise<Peers> {
  const { shape, signal, onProgress } = request;
  const entry = find(folder || packageRoot);
  if (!entry)
    return none(`${PACKAGE} is not installed; npm install --no-save ${PACKAGE}, or --peers FOLDER that has it`, notes);
  const refused = refusal(shape);
  if (refused) return none(refused, notes);
  const file = await randomGguf(shape, (...at) => onProgress('writing a random GGUF, MB', ...at), signal);
  const { getLlama } = (await import(pathToFileURL(entry).href)) as { getLlama: GetLlama };
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 0, logLevel: 'error', progressLogs: false });
  try {
    const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
    const timers = new Map<string, Peer>();
    for (const { threads, context } of wanted) {
      const key = `${threads} ${context}`;
      if (timers.has(key)) continue;
      const room = context + TOKENS + 1;
      const sequence = (await model.createContext({ contextSize: room, threads, sequences: 1 })).getSequence();
      const [first, ...tokens] = Array.from(randomWords(context + 1, 3), (word) => word % shape.vocabulary);
      onProgress('filling caches of llama.cpp', timers.size, wanted.length);
      await sequence.evaluateWithoutGeneratingNewTokens(tokens);
      signal.throwIfAborted();
      const engine = `llama.cpp ${llama.llamaCppRelease.release}`;
      timers.set(key, new Peer(sequence, first!, { engine, weights: 'TQ2_0, Q6_K head', threads, context }));
    }
    return { timers: [...timers.values()], close: () => llama.dispose() };
  } catch (error) {
    await llama.dispose();
    throw error;
  }
}
