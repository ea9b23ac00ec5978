/** What the library's packer (templates/pack.c) knows of a packing, as C text: from place() and encode, so it packs as pack() does. */
import { range } from './kernels/kernel.ts';
import { findOrdered, packingOf } from './packings/index.ts';
import { panelK } from './packings/orders.ts';

/** Where weights go in a line or its draft, and how drafts become lines. @param i number of the packing in the library */
export function packingTables(token: string, i: number): string {
  const { rows, lineK, place, encode } = findOrdered(token)?.coding ?? packingOf(token);
  const lines = range(rows).map((r) => {
    const pairs = range(lineK).map((k) => {
      const { byte, factor } = place(r, k);
      return `${byte},${factor},`;
    });
    return `    ${pairs.join(' ')}`;
  });
  const places = `/* ${token}: byte and factor of weight (row, k), a row of the line per text line */
static const uint16_t place_${i}[] = {
${lines.join('\n')}
};`;
  if (!encode) return places;
  const parts = encode.parts.map(({ low, high }) => `{${low.column}, ${low.shift}, ${high.column}, ${high.shift}}`);
  return `${places}

/* ${token}: the code of each number in a draft; where its low four bits and the others go */
static const uint8_t codes_${i}[] = {${encode.codes.join(', ')}};
static const bn_parts parts_${i}[] = {${parts.join(', ')}};`;
}

/** The packing's entry in bn_packings. */
export function packingEntry(token: string, i: number): string {
  const o = findOrdered(token);
  const { rows, lineK, lineBytes, encode } = o?.coding ?? packingOf(token);
  const order = o ? `BN_BY_${o.order.toUpperCase()}` : 'BN_BY_TILES';
  const draft = encode ? `${encode.parts.length}, codes_${i}, parts_${i}` : '0, 0, 0';
  return `    {"${token}", ${rows}, ${lineK}, ${lineBytes}, place_${i}, ${order}, ${o ? panelK(o) : lineK}, ${draft}},`;
}
