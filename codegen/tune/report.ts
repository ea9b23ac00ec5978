/**
 * The report of a sweep: one HTML file that needs nothing else, with its drawings inline and the raw data as JSON inside.
 *
 *     page -> one section a problem -> roofline of all candidates, bars of the best of each kind, a heat map for each kind
 */
import { parse } from '../name.ts';
import { packingOf } from '../packings/index.ts';
import { bytesOf } from '../packings/packing.ts';
import type { TokenEntry, TuningEntry, TuningSample } from '../wisdom.ts';
import { bars, type Cell, escaped, heatMap, roofline } from './charts.ts';
import { explain, rateOf } from './explain.ts';

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1rem; }
svg { font: 12px system-ui, sans-serif; max-width: 100%; height: auto; } svg .axis { fill: #666; }
figure { margin: 1rem 0; } figcaption { color: #555; } .row { display: flex; flex-wrap: wrap; gap: 1rem 3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dt { color: #666; } dd { margin: 0; }
code, pre { font: 12px/1.4 ui-monospace, monospace; overflow-x: auto; } code { overflow-wrap: anywhere; }`;

const figure = (caption: string, drawing: string): string =>
  `<figure><figcaption>${escaped(caption)}</figcaption>\n${drawing}</figure>`;

/** Candidates of one family and packing. */
function kindsOf(entry: TuningEntry): Map<string, TuningSample[]> {
  const kinds = new Map<string, TuningSample[]>();
  for (const sample of entry.candidates) {
    const { op, weight } = parse(sample.kernel);
    const kind = `${op} ${weight}`;
    kinds.set(kind, [...(kinds.get(kind) ?? []), sample]);
  }
  return kinds;
}

function section(entry: TuningEntry): string {
  const { key, kernel } = entry;
  const kinds = kindsOf(entry);
  const weightsPerByte = (name: string) => (key.n * key.k) / bytesOf(packingOf(parse(name).weight), key.n, key.k);
  const point = (name: string, seconds: number, label = name) => ({
    name: label,
    x: weightsPerByte(name),
    y: rateOf(key, seconds),
    chosen: name === kernel,
  });
  const ceilings = [...kinds].flatMap(([kind, samples]) => {
    const inCache = samples.flatMap((s) => (s.cached_seconds ? [{ ...s, cached: s.cached_seconds }] : []));
    const best = inCache.sort((a, b) => a.cached - b.cached)[0];
    return best ? [point(best.kernel, best.cached / key.threads, `${kind}, in cache`)] : [];
  });
  const cell = (s: TuningSample): Cell => {
    const { tile, variant = '' } = parse(s.kernel);
    return { row: variant, column: String(tile.at(-1)!), value: s.roof, chosen: s.kernel === kernel };
  };
  return `<section>
<h2>${key.phase}: ${key.n} × ${key.k}, ${key.threads} thread${key.threads === 1 ? '' : 's'}</h2>
<p><code>${escaped(kernel)}</code><br>${escaped(entry.why)}</p>
<div class="row">
${figure(
  'All candidates, below what memory and arithmetic allow',
  roofline(
    'roofline',
    entry.read_rate / 1e9,
    entry.candidates.map((s) => point(s.kernel, s.seconds)),
    ceilings,
  ),
)}
${figure(
  'The best of each family and packing, thousand million weights a second',
  bars(
    'best of each kind',
    [...kinds].map(([kind, [best]]) => ({
      name: kind,
      value: rateOf(key, best!.seconds),
      label: `${rateOf(key, best!.seconds).toFixed(1)}, ${(100 * best!.roof).toFixed(0)} % of a plain read`,
      chosen: kinds.get(kind)!.some((s) => s.kernel === kernel),
    })),
  ),
)}
</div>
<div class="row">
${[...kinds]
  .map(([kind, samples]) =>
    figure(`${kind}: percent of a plain read`, heatMap(kind, 'prefetch', 'k of an unrolled step', samples.map(cell))),
  )
  .join('\n')}
</div>
<details><summary>All numbers</summary><pre>${escaped(explain(entry))}</pre></details>
</section>`;
}

/** The page. @param name of the model @param entries at least one */
export function reportOf(name: string, entries: readonly TuningEntry[], tokens: readonly TokenEntry[] = []): string {
  const { cpu, features, caches, compiler, generator } = entries[0]!.key;
  const facts: Readonly<Record<string, string>> = {
    CPU: cpu,
    features: features.join(' '),
    caches: Object.entries(caches)
      .map(([level, bytes]) => `${level.toUpperCase()} ${bytes >> 10} KB`)
      .join(', '),
    compiler,
    kernels: generator,
  };
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Kernels for ${escaped(name)}</title>
<style>${STYLE}
</style>
</head>
<body>
<h1>Kernels for ${escaped(name)}</h1>
<p>Weights cold from memory, all candidates and plain reads of as many bytes in turn; medians. The chosen kernels are orange.</p>
<dl>
${Object.entries(facts)
  .map(([term, value]) => `<dt>${term}</dt><dd>${escaped(value)}</dd>`)
  .join('\n')}
</dl>
${entries.map(section).join('\n')}
<script type="application/json" id="data">
${JSON.stringify({ model: name, entries, tokens }, null, 1).replaceAll('<', '\\u003c')}
</script>
</body>
</html>
`;
}
