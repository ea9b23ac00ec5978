/** An aligned table for people: texts to the left, numbers to the right. */

/** @param rows cells as they are printed; those that look like numbers are numbers */
export function formatTable(headers: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headers.map((header, i) => Math.max(header.length, ...rows.map((row) => row[i]!.length)));
  const numeric = headers.map((_, i) => rows.every((row) => /^[-\d.]+( %)?$/.test(row[i]!)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => (numeric[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [headers, ...rows].map((cells) => `${line(cells)}\n`).join('');
}

/** `97.3 %` */
export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
