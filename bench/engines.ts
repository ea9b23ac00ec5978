/** Engines to be measured: one for each target, packing, number of threads, cache type, context and kind of head, on one model. */
import { Engine } from '../runtime/engine.ts';
import { type KvType, kvTypes } from '../runtime/memory.ts';
import { defaultThreads, usableCpus } from '../schemas/host.ts';
import { type Packings, type Prepared, prepare } from './prepare.ts';
import { randomWords } from './random.ts';
import type { Request } from './subjects/subject.ts';

/** An engine whose cache is filled with `context` random tokens. */
export interface Ready {
  readonly prepared: Prepared;
  readonly engine: Engine;
  readonly context: number;
}

/** What all rows say about an engine. */
export const about = ({ prepared, engine }: Ready) => ({
  target: prepared.cpu.isa,
  packing: prepared.packing,
  ...(prepared.path ? { sparsity: prepared.sparsity, path: prepared.path } : {}),
  threads: engine.threads,
  kv: Object.entries(kvTypes).find(([, bits]) => bits === engine.kv)![0],
});

/** Random tokens of the vocabulary. */
export const randomTokens = (count: number, vocabulary: number): number[] =>
  Array.from(randomWords(count, 3), (word) => word % vocabulary);

/**
 * Builds, opens and fills what a request asks for, has it measured, and closes it.
 * @param packings measured unless the request names some
 * @param contexts positions to fill @param room positions beyond them
 * @param notes gets what is not possible, and why
 */
export async function withEngines<T>(
  request: Request,
  { packings, contexts, room }: { packings: Packings; contexts: readonly number[]; room: number },
  notes: string[],
  measure: (engines: readonly Ready[]) => Promise<T>,
): Promise<T> {
  const threadCounts = request.threads ?? [
    ...new Set([1, request.quick ? Math.min(2, usableCpus()) : defaultThreads()]),
  ];
  const opened: Prepared[] = [];
  const engines: Ready[] = [];
  try {
    for await (const prepared of prepare(request, packings, notes)) {
      opened.push(prepared);
      const { source, library, model } = prepared;
      for (const threads of threadCounts)
        for (const kv of request.kv ?? [undefined])
          for (const [context, head] of contexts.flatMap((c) =>
            (request.heads ?? ['exact']).map((h) => [c, h] as const),
          )) {
            const engine = new Engine(source, library, model, {
              threads,
              head,
              context: context + room,
              shared: true,
              ...(kv ? { kv: kvTypes[kv as KvType] } : {}),
            });
            engines.push({ prepared, engine, context });
            // One token at least, so that all weights have been read once.
            await engine.prompt(randomTokens(Math.max(1, context), request.shape.vocabulary), {
              signal: request.signal,
              onPrompt: (...at) => request.onProgress('filling caches', ...at),
            });
            engine.rewind(context);
          }
    }
    return await measure(engines);
  } finally {
    for (const { engine } of engines) engine.dispose();
    for (const { library, model } of opened) library.close(model);
  }
}
