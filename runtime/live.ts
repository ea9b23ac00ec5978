/** What is zero in the MLP, for generated tokens and by the weights alone, for people: `bitnet-run --stats`. */
import type { DeadNeurons, LiveShares } from './library.ts';

const columns: readonly (readonly [title: string, part: keyof LiveShares])[] = [
  ['open gates', 'open'],
  ['open again', 'again'],
  ['inputs of down', 'inputs'],
  ['rows of up read', 'rows'],
  ['columns of down read', 'columns'],
];

/** A line for each layer and one for their mean, in percent of the neurons. */
export function formatLive(layers: readonly LiveShares[]): string {
  if (!layers.length) return 'no token was evaluated on its own: there is nothing to tell of the MLP\n';
  const line = (first: string, cells: readonly string[]) =>
    `${[first.padEnd(5), ...cells.map((cell, i) => cell.padStart(columns[i]![0].length))].join('  ')}\n`;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const mean = (part: keyof LiveShares) => layers.reduce((sum, layer) => sum + layer[part], 0) / layers.length;
  const row = (first: string, of: (part: keyof LiveShares) => number) =>
    line(
      first,
      columns.map(([, part]) => percent(of(part))),
    );
  return [
    line(
      'layer',
      columns.map(([title]) => title),
    ),
    ...layers.map((layer, l) => row(String(l), (part) => layer[part])),
    row('mean', mean),
  ].join('');
}

/** A line for all layers, or nothing where nothing is known. */
export function formatDead(layers: readonly DeadNeurons[]): string {
  if (!layers.length) return '';
  const sum = (part: keyof DeadNeurons) => layers.reduce((all, layer) => all + layer[part], 0);
  const parts = `rows of gate ${sum('gate')}, rows of up ${sum('up')}, weights of the norm ${sum('norm')}, columns of down ${sum('down')}`;
  return `all zero in the model, all layers together: ${parts}; rows of gate dropped ${sum('dropped')}\n`;
}
