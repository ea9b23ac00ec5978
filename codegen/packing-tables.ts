/** What the library's packer (templates/pack.c) knows of a packing, as C text: from place() and encode, so it packs as pack() does. */
import { range } from './kernels/kernel.ts';
import type { Packing } from './packings/packing.ts';

/** Where weights go in a line or its draft, and how drafts become lines. @param i number of the packing in the library */
export function packingTables({ token, rows, lineK, place, encode }: Packing, i: number): string {
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
export const packingEntry = ({ token, rows, lineK, lineBytes, encode }: Packing, i: number): string =>
  `    {"${token}", ${rows}, ${lineK}, ${lineBytes}, place_${i}, ${encode ? `${encode.parts.length}, codes_${i}, parts_${i}` : '0, 0, 0'}},`;
