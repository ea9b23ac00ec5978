/** The drawings of a tuning report, as inline SVG: heat map, bars, roofline. Pure functions from numbers to text. */

/** Text as it may stand in HTML and SVG. */
export const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const svg = (width: number, height: number, title: string, parts: readonly string[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img"><title>${escaped(title)}</title>\n${parts.join('\n')}\n</svg>`;

const text = (x: number, y: number, content: string, attributes = ''): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;

const rect = (x: number, y: number, width: number, height: number, fill: string, tip = ''): string =>
  `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}" fill="${fill}"><title>${escaped(tip)}</title></rect>`;

const line = (x1: number, y1: number, x2: number, y2: number, attributes: string): string =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" ${attributes}/>`;

/** From pale to dark blue, one hue: lightness alone tells, in grey and to the colour-blind too. @param share in [0, 1] */
const shade = (share: number): string => `hsl(212 60% ${(94 - 62 * share).toFixed(0)}%)`;

/** One cell of a heat map. */
export interface Cell {
  readonly row: string;
  readonly column: string;
  /** Share of the roof. */
  readonly value: number;
  readonly chosen: boolean;
}

/** A table of shares of the roof, the darker the better; the chosen one is framed. */
export function heatMap(
  title: string,
  rowTitle: string,
  columnTitle: string,
  roof: string,
  cells: readonly Cell[],
): string {
  const rows = [...new Set(cells.map((c) => c.row))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const columns = [...new Set(cells.map((c) => c.column))].sort((a, b) => Number(a) - Number(b));
  const values = cells.map((c) => c.value);
  const high = Math.max(...values);
  // What is far behind is pale, and does not take the contrast from the others.
  const low = Math.max(Math.min(...values), 0.7 * high);
  const [left, top, width, height] = [130, 40, 62, 28];
  const parts = [
    text(left, 14, `${columnTitle} →`, 'class="axis"'),
    text(left - 8, top - 10, `${rowTitle} ↓`, 'class="axis" text-anchor="end"'),
    ...columns.map((c, i) => text(left + (i + 0.5) * width, top - 10, c, 'text-anchor="middle"')),
    ...rows.map((r, i) => text(left - 8, top + (i + 0.65) * height, r, 'text-anchor="end"')),
    ...cells.flatMap((c) => {
      const x = left + columns.indexOf(c.column) * width;
      const y = top + rows.indexOf(c.row) * height;
      const share = high > low ? Math.max(0, (c.value - low) / (high - low)) : 1;
      const label = (100 * c.value).toFixed(0);
      return [
        rect(x + 1, y + 1, width - 2, height - 2, shade(share), `${c.row}, ${c.column}: ${label} % of ${roof}`),
        text(x + width / 2, y + 0.65 * height, label, `text-anchor="middle"${share > 0.5 ? ' fill="#fff"' : ''}`),
        ...(c.chosen
          ? [
              `<rect x="${x + 2}" y="${y + 2}" width="${width - 4}" height="${height - 4}" fill="none" stroke="#d9480f" stroke-width="3"/>`,
            ]
          : []),
      ];
    }),
  ];
  return svg(left + columns.length * width + 10, top + rows.length * height + 8, title, parts);
}

/** Something with a size, for `bars`. */
export interface Bar {
  readonly name: string;
  readonly value: number;
  readonly label: string;
  readonly chosen: boolean;
}

/** Horizontal bars from zero. */
export function bars(title: string, items: readonly Bar[]): string {
  const [left, length, height] = [170, 330, 26];
  const most = Math.max(...items.map((b) => b.value));
  const parts = items.flatMap((b, i) => [
    text(left - 8, (i + 0.65) * height, b.name, 'text-anchor="end"'),
    rect(left, i * height + 3, (length * b.value) / most, height - 6, b.chosen ? '#d9480f' : shade(0.6), b.label),
    text(left + (length * b.value) / most + 6, (i + 0.65) * height, b.label),
  ]);
  return svg(left + length + 220, items.length * height + 6, title, parts);
}

/** A point of a roofline plot. */
export interface Point {
  readonly name: string;
  /** Weights or multiply-adds for a byte that is read. */
  readonly x: number;
  /** Thousand millions of them a second. */
  readonly y: number;
  readonly chosen: boolean;
}

/** A round number of about a fifth of `most`. */
function stepOf(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most / 5));
  return power * ([1, 2, 5, 10].find((f) => f * power >= most / 5) ?? 10);
}

/**
 * Work a second over work for a byte: below the slope, what memory delivers, the level line, what arithmetic on registers allows, and
 * the short lines, what it allows while the weights stay in the caches.
 * @param unit of the work @param readRate GB/s of plain reads @param peak thousand millions a second; 0: not measured
 */
export function roofline(
  title: string,
  unit: string,
  readRate: number,
  peak: number,
  points: readonly Point[],
  ceilings: readonly Point[],
): string {
  const [left, top, width, height] = [64, 16, 480, 300];
  const mostX = 1.35 * Math.max(...points.map((p) => p.x));
  const mostY = 1.1 * Math.max(peak || readRate * mostX, ...[...points, ...ceilings].map((p) => p.y));
  // Where the slope ends: at the right or at the top.
  const end = Math.min(mostX, mostY / readRate);
  const px = (x: number) => left + (x / mostX) * width;
  const py = (y: number) => top + height - (y / mostY) * height;
  const [stepX, stepY] = [stepOf(mostX), stepOf(mostY)];
  const ticks = (most: number, step: number) => Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
  /** Where the last label of a ceiling is: none covers another. */
  let below = 0;
  const parts = [
    ...ticks(mostY, stepY).flatMap((y) => [
      line(left, py(y), left + width, py(y), 'stroke="#ddd"'),
      text(left - 6, py(y) + 4, String(Math.round(y * 100) / 100), 'text-anchor="end"'),
    ]),
    ...ticks(mostX, stepX).map((x) =>
      text(px(x), top + height + 18, String(Math.round(x * 100) / 100), 'text-anchor="middle"'),
    ),
    text(left + width, top + height + 36, `${unit} for a byte`, 'class="axis" text-anchor="end"'),
    text(left + 6, top + 4, `thousand million ${unit} a second`, 'class="axis"'),
    line(px(0), py(0), px(end), py(readRate * end), 'stroke="#333" stroke-width="2"'),
    ...(peak
      ? [
          line(left, py(peak), left + width, py(peak), 'stroke="#333" stroke-width="2"'),
          text(left + width + 6, py(peak) + 4, 'peak'),
        ]
      : []),
    text(px(0.5 * end) + 12, py(0.5 * readRate * end) + 8, `plain read, ${readRate.toFixed(1)} GB/s`),
    ...ceilings
      .toSorted((a, b) => b.y - a.y)
      .flatMap((c, i) => {
        const dashes = 'stroke="#333" stroke-dasharray="5 3" stroke-width="2"';
        below = Math.max(py(c.y) + 4, i ? below + 14 : 0);
        return [line(px(c.x) - 34, py(c.y), px(c.x) + 34, py(c.y), dashes), text(px(c.x) + 40, below, c.name)];
      }),
    ...points
      .toSorted((a, b) => Number(a.chosen) - Number(b.chosen))
      .map(
        (p) =>
          `<circle cx="${px(p.x).toFixed(1)}" cy="${py(p.y).toFixed(1)}" r="${p.chosen ? 6 : 4}" fill="${p.chosen ? '#d9480f' : shade(0.6)}" fill-opacity="${p.chosen ? 1 : 0.6}"><title>${escaped(p.name)}</title></circle>`,
      ),
  ];
  return svg(left + width + 130, top + height + 44, title, parts);
}
