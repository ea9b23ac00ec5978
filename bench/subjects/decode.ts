/**
 * Decoding: milliseconds of one generated token, against the time in which as many threads can merely read as many bytes. All
 * combinations and their plain reads are measured in rotation.
 */

import type { LiveShares } from '../../runtime/library.ts';
import { type TokenBytes, tokenBytes, totalOf } from '../bytes.ts';
import { about, type Ready, withEngines } from '../engines.ts';
import { type Peers, startPeers } from '../peers.ts';
import { partsOf } from '../profile.ts';
import { type Reader, startReader } from '../read.ts';
import { median, rotate } from '../rotation.ts';
import { ReadTimer, type RunTimer, TOKENS, tokenTimer } from '../timers.ts';
import { formatDecode, formatPeers } from './decode-text.ts';
import type { Request, Subject } from './subject.ts';

/** One combination: what decodes, and the plain reads it is held against. */
interface Combination extends Ready {
  readonly bytes: TokenBytes;
  /** Of a model made for it: what its tokens leave of the MLP, means over the layers. */
  readonly live?: LiveShares;
  /** Bytes of the ternary weights that matter. */
  readonly ideal?: number;
  readonly timer: RunTimer;
}

/** A row of the result; times are medians, milliseconds. */
export type DecodeRow = ReturnType<typeof rowOf>;

function rowOf(combination: Combination, read: Reads) {
  const { context, bytes, timer } = combination;
  const ms = median(timer.ms);
  const total = totalOf(bytes);
  const { total: token, ...parts } = partsOf(timer.profiled);
  return {
    ...about(combination),
    ...sparsityOf(combination),
    context,
    head: combination.engine.head,
    ms_per_token: ms,
    tok_s: 1000 / ms,
    bytes_per_token: total,
    gb_s: total / ms / 1e6,
    read_ms: read.all.ms,
    roof_fraction: read.all.ms / ms,
    ternary_roof_fraction: read.ternary.workMs / parts.ternary,
    huge_pages: read.hugePages,
    read_prefetch: read.all.prefetch,
    bytes,
    profile: { token, ...parts },
    samples: timer.ms.length,
  };
}

/** Live shares, and how much more than the least is read of the ternary weights. */
function sparsityOf({ live, bytes, ideal }: Combination) {
  if (!live || !ideal) return {};
  return {
    live_neurons: live.open,
    live_inputs: live.inputs,
    overlap: live.open && live.again / live.open,
    ternary_bytes: bytes.ternary,
    over_ideal: bytes.ternary / ideal,
  };
}

/** Share of the rows of the gate that are not dropped. */
function gatesOf({ engine, prepared }: Ready): number {
  const dead = engine.dead();
  const rows = dead.length * prepared.source.shape.intermediate;
  return rows ? 1 - dead.reduce((sum, { dropped }) => sum + dropped, 0) / rows : 1;
}

/** What a turn's tokens leave of the MLP. */
async function liveOf({ prepared, engine }: Ready): Promise<LiveShares | undefined> {
  if (prepared.sparsity === undefined) return undefined;
  const timer = tokenTimer(engine);
  engine.live(true);
  await timer.turn();
  const layers = engine.live(false);
  const mean = (part: keyof LiveShares) => layers.reduce((sum, layer) => sum + layer[part], 0) / layers.length;
  return {
    open: mean('open'),
    again: mean('again'),
    inputs: mean('inputs'),
    rows: mean('rows'),
    columns: mean('columns'),
  };
}

interface Reads {
  readonly hugePages: boolean;
  readonly all: ReadTimer;
  readonly ternary: ReadTimer;
}

/** Starts a reader for each target, and a read of all bytes and of the ternary bytes for each combination; equal ones once. */
async function readsOf(combinations: readonly Combination[], readers: Map<string, Reader>, request: Request) {
  const timers = new Map<string, ReadTimer>();
  const reads: Reads[] = [];
  for (const { prepared, engine, bytes } of combinations) {
    const { cpu } = prepared;
    const room = Math.max(...combinations.filter((c) => c.prepared.cpu === cpu).map((c) => totalOf(c.bytes)));
    const reader = readers.get(cpu.isa) ?? (await startReader(prepared, room, request.signal));
    readers.set(cpu.isa, reader);
    const timer = (amount: number) => {
      const key = `${cpu.isa} ${engine.threads} ${amount}`;
      if (!timers.has(key)) timers.set(key, new ReadTimer(reader, engine.threads, amount));
      return timers.get(key)!;
    };
    const all = timer(totalOf(bytes));
    reads.push({ hugePages: reader.hugePages, all, ternary: timer(bytes.ternary) });
  }
  return { timers: [...timers.values()], reads };
}

async function measure(request: Request): ReturnType<Subject['measure']> {
  const notes: string[] = [];
  const contexts = request.contexts ?? (request.quick ? [128] : [128, 2048]);
  const readers = new Map<string, Reader>();
  let peers: Peers | undefined;
  const run = async (engines: readonly Ready[]) => {
    const combinations: Combination[] = [];
    for (const ready of engines) {
      const { prepared, engine, context } = ready;
      const { tensors } = prepared.manifest.layout;
      const gates = gatesOf(ready);
      const bytesFor = (shares = { rows: 1, columns: 1 }) =>
        tokenBytes(tensors, request.shape, engine.kv, context, engine.head, { gates, ...shares });
      const live = await liveOf(ready);
      const ideal = live && bytesFor({ rows: live.open, columns: live.inputs }).ternary;
      combinations.push({
        ...ready,
        bytes: bytesFor(live),
        timer: tokenTimer(engine),
        ...(live ? { live, ideal: ideal! } : {}),
      });
    }
    const { timers, reads } = await readsOf(combinations, readers, request);
    const wanted = combinations.map(({ engine, context }) => ({ threads: engine.threads, context }));
    if (request.peers !== undefined) peers = await startPeers(request, request.peers, wanted, notes);
    const rounds = await rotate(
      [...combinations.map((c) => c.timer), ...timers, ...(peers?.timers ?? [])],
      { seconds: request.seconds ?? (request.quick ? 20 : 40) },
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
  };
  try {
    return await withEngines(request, { packings: 'all', contexts, room: TOKENS }, notes, run);
  } finally {
    await Promise.all([...readers.values(), ...(peers ? [peers] : [])].map((part) => part.close()));
  }
}

/** The subject. */
export const decode: Subject = {
  summary: 'one generated token: time, bytes, share of the bandwidth roof, time by operation',
  measure,
};
