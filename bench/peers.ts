/** placeholder */

import type { Measured } from './rotation.ts';
import type { Request } from './subjects/subject.ts';
export type PeerRow = {
  engine: string;
  weights: string;
  threads: number;
  context: number;
  ms_per_token: number;
  tok_s: number;
}
export interface Peer extends Measured {
  row(): PeerRow;
  close(): Promise<void>;
}
export async function startPeers(
  _r: Request,
  _w: readonly { threads: number; context: number }[],
  _n: string[],
): Promise<Peer[]> {
  return [];
}
