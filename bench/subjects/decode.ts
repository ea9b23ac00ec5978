/**
 * Decoding: milliseconds of one generated token, against the time in which as many threads can merely read as many bytes. All
 * combinations and their plain reads are measured in rotation.
 */
import { Engine } from '../../runtime/engine.ts';
import { operations } from '../../runtime/library.ts';
import { type KvBits, type KvType, kvTypes } from '../../runtime/memory.ts';
import { defaultThreads, usableCpus } from '../../schemas/host.ts';
import { type TokenBytes, tokenBytes, totalOf } from '../bytes.ts';
import { type Peers, startPeers } from '../peers.ts';
import { type Prepared, prepare } from '../prepare.ts';
import { randomWords } from '../random.ts';
import { type Reader, startReader } from '../read.ts';
import { mean, median, middleHalf, rotate } from '../rotation.ts';
import { ReadTimer, TOKENS, TokenTimer } from '../timers.ts';
import { formatDecode, formatPeers } from './decode-text.ts';
import type { Request, Subject } from './subject.ts';

const cacheName = (kv: KvBits) => Object.entries(kvTypes).find(([, bits]) => bits === kv)![0];

/** One combination: what decodes, and the plain reads it is held against. */
interface Combination {
  readonly prepared: Prepared;
  readonly engine: Engine;
  readonly context: number;
  readonly bytes: TokenBytes;
  readonly timer: TokenTimer;
}

/** A row of the result; times are medians, milliseconds. */
export type DecodeRow = ReturnType<typeof rowOf>;

function rowOf({ prepared, engine, context, bytes, timer }: Combination, reads: Reads) {
  const { target, ...read } = reads;
  const ms = median(timer.ms);
  const total = totalOf(bytes);
  const profiled = middleHalf(timer.profiled, (token) => token.ms);
  const tokenMs = mean(profiled.map((token) => token.ms));
  const parts = operations.map((name) => [name, mean(profiled.map((token) => 1000 * token.profile[name]))] as const);
  const profile = Object.fromEntries(parts) as Record<(typeof operations)[number], number>;
  return {
    target,
    packing: prepared.packing,
    threads: engine.threads,
    kv: cacheName(engine.kv),
    context,
    head: engine.head,
    ms_per_token: ms,
    tok_s: 1000 / ms,
    bytes_per_token: total,
    gb_s: total / ms / 1e6,
    read_ms: read.all.ms,
    roof_fraction: read.all.ms / ms,
    ternary_roof_fraction: read.ternary.workMs / profile.ternary,
    huge_pages: read.hugePages,
    read_prefetch: read.all.distance,
    bytes,
    /** The middle half of the profiled tokens; `outside` is what the library's job does not see: call, sampling. */
    profile: { token: tokenMs, ...profile, outside: tokenMs - parts.reduce((sum, [, part]) => sum + part, 0) },
    samples: timer.ms.length,
  };
}

interface Reads {
  readonly target: string;
  readonly hugePages: boolean;
  readonly all: ReadTimer;
  readonly ternary: ReadTimer;
}

/** Random tokens of the vocabulary. */
const tokensOf = (count: number, vocabulary: number): number[] =>
  Array.from(randomWords(count, 3), (word) => word % vocabulary);

/** An engine for each number of threads, cache type, context and kind of head; the caches are empty. */
function* combine(prepared: Prepared, request: Request): Generator<Combination> {
  const { source, library, model, manifest } = prepared;
  const threadCounts = request.threads ?? [
    ...new Set([1, request.quick ? Math.min(2, usableCpus()) : defaultThreads()]),
  ];
  for (const threads of threadCounts)
    for (const kv of request.kv ?? [undefined])
      for (const context of request.contexts ?? (request.quick ? [128] : [128, 2048]))
        for (const head of request.heads ?? ['exact']) {
          const engine = new Engine(source, library, model, {
            threads,
            context: context + TOKENS,
            head,
            shared: true,
            ...(kv ? { kv: kvTypes[kv as KvType] } : {}),
          });
          const bytes = tokenBytes(manifest.layout.tensors, source.shape, engine.kv, context, head);
          yield { prepared, engine, context, bytes, timer: new TokenTimer(engine, context, 0) };
        }
}

/** Starts a reader for each target, and a read of all bytes and of the ternary bytes for each combination; equal ones once. */
async function readsOf(combinations: readonly Combination[], readers: Map<string, Reader>, request: Request) {
  const timers = new Map<string, ReadTimer>();
  const reads: Reads[] = [];
  for (const { prepared, engine, bytes } of combinations) {
    const { cpu, compiler, source } = prepared;
    const room = Math.max(...combinations.filter((c) => c.prepared.cpu === cpu).map((c) => totalOf(c.bytes)));
    const reader = readers.get(cpu.isa) ?? (await startReader(source.shape, cpu, compiler, room, request.signal));
    readers.set(cpu.isa, reader);
    const timer = (amount: number) => {
      const key = `${cpu.isa} ${engine.threads} ${amount}`;
      if (!timers.has(key)) timers.set(key, new ReadTimer(reader, engine.threads, amount));
      return timers.get(key)!;
    };
    const all = timer(totalOf(bytes));
    reads.push({ target: cpu.isa, hugePages: reader.hugePages, all, ternary: timer(bytes.ternary) });
  }
  return { timers: [...timers.values()], reads };
}

async function measure(request: Request): ReturnType<Subject['measure']> {
  const notes: string[] = [];
  const opened: Prepared[] = [];
  const combinations: Combination[] = [];
  const readers = new Map<string, Reader>();
  let peers: Peers | undefined;
  try {
    for await (const prepared of prepare(request, notes)) {
      opened.push(prepared);
      for (const combination of combine(prepared, request)) {
        combinations.push(combination);
        const { engine, context } = combination;
        await engine.prompt(tokensOf(context, request.shape.vocabulary), {
          signal: request.signal,
          onPrompt: (...at) => request.onProgress('filling caches', ...at),
        });
      }
    }
    const { timers, reads } = await readsOf(combinations, readers, request);
    const wanted = combinations.map(({ engine, context }) => ({ threads: engine.threads, context }));
    if (request.peers !== undefined) peers = await startPeers(request, request.peers, wanted, notes);
    const rounds = await rotate(
      [...combinations.map((c) => c.timer), ...timers, ...(peers?.timers ?? [])],
      request.seconds ?? (request.quick ? 20 : 40),
      (...at) => request.onProgress('measuring, s', ...at),
      request.signal,
    );
    const rows = combinations.map((combination, i) => rowOf(combination, reads[i]!));
    const peerRows = peers?.timers.map((peer) => peer.row);
    const text = `${formatDecode(rows)}${formatPeers(peerRows ?? [])}`;
    const pages = reads.every((read) => read.hugePages)
      ? 'huge pages'
      : 'ordinary pages, as huge ones were not granted';
    notes.push(`${rounds} rounds; plain reads from ${pages}`);
    return { rows, text, notes, ...(peerRows ? { peers: peerRows } : {}) };
  } finally {
    for (const { engine } of combinations) engine.dispose();
    for (const { library, model } of opened) library.close(model);
    await Promise.all([...readers.values(), ...(peers ? [peers] : [])].map((part) => part.close()));
  }
}

/** The subject. */
export const decode: Subject = {
  summary: 'one generated token: time, bytes, share of the bandwidth roof, time by operation',
  measure,
};
