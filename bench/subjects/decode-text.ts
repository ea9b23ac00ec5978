/** The tables of the decode subject. */

import type { PeerRow } from '../peers.ts';
import { formatShares } from '../profile.ts';
import { formatTable, percent } from '../table.ts';
import type { DecodeRow } from './decode.ts';

const subjectOf = (row: DecodeRow) => [row.target, row.packing, String(row.threads), row.kv, String(row.context)];
const subjects = ['target', 'packing', 'threads', 'kv', 'context'];

/** Speed and roof, then the share of each operation. */
export function formatDecode(rows: readonly DecodeRow[]): string {
  // The kind of head only where others than the usual one were asked for.
  const heads = rows.some((row) => row.head !== 'exact');
  const sparse = rows.some((row) => row.path !== undefined);
  const headers = [...subjects, ...(heads ? ['mode of head'] : []), ...(sparse ? ['sparsity', 'path'] : [])];
  const labels = (row: DecodeRow) => [
    ...subjectOf(row),
    ...(heads ? [row.head] : []),
    ...(sparse ? [String(row.sparsity), String(row.path)] : []),
  ];
  const speed = rows.map((row) => [
    ...labels(row),
    row.ms_per_token.toFixed(2),
    row.tok_s.toFixed(1),
    (row.bytes_per_token / 1e6).toFixed(0),
    row.gb_s.toFixed(1),
    row.read_ms.toFixed(2),
    percent(row.roof_fraction),
    percent(row.ternary_roof_fraction),
    ...(sparse
      ? [
          percent(row.live_neurons!),
          percent(row.live_inputs!),
          percent(row.overlap!),
          (row.ternary_bytes! / 1e6).toFixed(0),
          row.over_ideal!.toFixed(2),
        ]
      : []),
  ]);
  const shares = rows.map((row) => ({
    cells: labels(row),
    parts: { ...row.profile, total: row.profile.token },
  }));
  const speedHeaders = ['ms/token', 'tok/s', 'MB/token', 'GB/s', 'read ms', 'of roof', 'ternary of roof'];
  if (sparse) speedHeaders.push('open gates', 'inputs of down', 'open again', 'ternary MB', 'over least');
  return `${formatTable([...headers, ...speedHeaders], speed)}${formatShares(headers, shares)}`;
}

/** Other engines; nothing without any. */
export function formatPeers(rows: readonly PeerRow[]): string {
  if (!rows.length) return '';
  const cells = rows.map((row) => [
    row.engine,
    row.weights,
    String(row.threads),
    String(row.context),
    row.ms_per_token.toFixed(2),
    row.tok_s.toFixed(1),
  ]);
  return `\nOther engines, in the same rotation\n${formatTable(['engine', 'weights', 'threads', 'context', 'ms/token', 'tok/s'], cells)}`;
}
