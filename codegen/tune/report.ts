/**
 * The report of a sweep: one HTML file that needs nothing else, with its drawings inline and the raw data as JSON inside.
 *
 *     page -> one section a contest -> roofline of all candidates, bars of the best of each kind, a heat map for each kind
 *          -> one section a final choice -> bars of the sets of kernels
 *          -> one section a threshold -> bars of the shares of live neurons
 */
import { familyOf } from '../generate.ts';
import { parse } from '../name.ts';
import { packingOf } from '../packings/index.ts';
import { bytesOf } from '../packings/packing.ts';
import type { ThresholdEntry, TokenEntry, TuningEntry, TuningSample, Wisdom } from '../wisdom.ts';
import { keyName } from '../wisdom.ts';
import { bars, type Cell, escaped, heatMap, roofline } from './charts.ts';
import { aToken, explain, explainThreshold, explainTokens, rateOf, roofOf, threadsOf, titleOf } from './explain.ts';

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

/** Where a kernel stands in the heat map of its kind, and what the axes are. */
function placeOf(kernel: string) {
  const spec = parse(kernel);
  const { tile, variant = '' } = spec;
  const column = String(tile.at(-1)!);
  return familyOf(spec).tables
    ? { row: `${variant} x${tile[1]}`, column, rows: 'room x rows', columns: 'k of a block' }
    : { row: variant, column, rows: 'prefetch', columns: 'k of an unrolled step' };
}

function section(entry: TuningEntry): string {
  const { key, kernel } = entry;
  const kinds = kindsOf(entry);
  const unit = key.tokens === 1 ? 'weights' : 'multiply-adds';
  const perByte = (name: string) => (key.tokens * key.n * key.k) / bytesOf(packingOf(parse(name).weight), key.n, key.k);
  const point = (name: string, seconds: number, label = name) => ({
    name: label,
    x: perByte(name),
    y: rateOf(key, seconds),
    chosen: name === kernel,
  });
  const ceilings = [...kinds].flatMap(([kind, samples]) => {
    const inCache = samples.flatMap((s) => (s.cached_seconds ? [{ ...s, cached: s.cached_seconds }] : []));
    const best = inCache.sort((a, b) => a.cached - b.cached)[0];
    return best ? [point(best.kernel, best.cached / key.threads, `${kind}, in cache`)] : [];
  });
  const cell = (s: TuningSample): Cell => ({ ...placeOf(s.kernel), value: s.roof, chosen: s.kernel === kernel });
  const map = (kind: string, samples: readonly TuningSample[]) => {
    const { rows, columns } = placeOf(samples[0]!.kernel);
    return figure(
      `${kind}: percent of ${roofOf(entry)}`,
      heatMap(kind, rows, columns, roofOf(entry), samples.map(cell)),
    );
  };
  return `<section>
<h2>${key.phase}: ${titleOf(key)}, ${threadsOf(key.threads)}</h2>
<p><code>${escaped(kernel)}</code><br>${escaped(entry.why)}</p>
<div class="row">
${figure(
  'All candidates, below what memory and arithmetic allow',
  roofline(
    'roofline',
    unit,
    entry.read_rate / 1e9,
    (entry.peak_rate ?? 0) / 1e9,
    entry.candidates.map((s) => point(s.kernel, s.seconds)),
    ceilings,
  ),
)}
${figure(
  `The best of each family and packing, thousand million ${unit} a second`,
  bars(
    'best of each kind',
    [...kinds].map(([kind, [best]]) => ({
      name: kind,
      value: rateOf(key, best!.seconds),
      label: `${rateOf(key, best!.seconds).toFixed(1)}, ${(100 * best!.roof).toFixed(0)} % of ${roofOf(entry)}`,
      chosen: kinds.get(kind)!.some((s) => s.kernel === kernel),
    })),
  ),
)}
</div>
<div class="row">
${[...kinds].map(([kind, samples]) => map(kind, samples)).join('\n')}
</div>
<details><summary>All numbers</summary><pre>${escaped(explain(entry))}</pre></details>
</section>`;
}

/** Whole tokens: each set of kernels, and which was chosen. */
function choiceSection(entry: TokenEntry): string {
  const { key, chosen, why, sets } = entry;
  return `<section>
<h2>${escaped(aToken(key))}, ${threadsOf(key.threads)}</h2>
<p>${escaped(why)}; layers enough to leave the caches, no head</p>
${figure(
  'Tokens a second, by set of kernels',
  bars(
    'whole tokens',
    sets.map(({ name, seconds }) => ({
      name,
      value: key.tokens / seconds,
      label: `${(key.tokens / seconds).toFixed(1)}, ${(1e3 * seconds).toFixed(2)} ms`,
      chosen: name === chosen,
    })),
  ),
)}
<details><summary>All numbers</summary><pre>${escaped(explainTokens(entry))}</pre></details>
</section>`;
}

/** Lists of what is live against everything, and up to which share they are taken. */
function thresholdSection(entry: ThresholdEntry): string {
  const { key, most_live, shares } = entry;
  return `<section>
<h2>${escaped(aToken(key))}, ${threadsOf(key.threads)}: where zeros are skipped</h2>
<p>Up to ${most_live} % live neurons only those are read.</p>
${figure(
  'Time by lists of what is live, over the time with everything read, by share of live neurons',
  bars(
    'threshold',
    shares.map(({ live, listed, whole }) => ({
      name: `${(100 * live).toFixed(0)} %`,
      value: listed / whole,
      label: `${(listed / whole).toFixed(2)}, ${(1e3 * listed).toFixed(2)} ms`,
      chosen: 100 * live <= most_live,
    })),
  ),
)}
<details><summary>All numbers</summary><pre>${escaped(explainThreshold(entry))}</pre></details>
</section>`;
}

/** The page. @param name of the model @param found at least one entry */
export function reportOf(
  name: string,
  { entries, tokens, thresholds }: Pick<Wisdom, 'entries' | 'tokens' | 'thresholds'>,
): string {
  const { cpu, features, caches, compiler } = entries[0]!.key;
  const facts: Readonly<Record<string, string>> = {
    CPU: keyName(cpu),
    features: features.join(' '),
    caches: Object.entries(caches)
      .map(([level, bytes]) => `${level.toUpperCase()} ${bytes >> 10} KB`)
      .join(', '),
    compiler,
    kernels: [...new Set(entries.map(({ key }) => `${key.phase} ${key.generator}`))].join(', '),
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
<p>Weights cold from memory, all candidates in turn with plain reads of as many bytes and, for several tokens, with the arithmetic that limits
them, on registers; medians. The chosen kernels are orange.</p>
<dl>
${Object.entries(facts)
  .map(([term, value]) => `<dt>${term}</dt><dd>${escaped(value)}</dd>`)
  .join('\n')}
</dl>
${[...entries.map(section), ...tokens.map(choiceSection), ...thresholds.map(thresholdSection)].join('\n')}
<script type="application/json" id="data">
${JSON.stringify({ model: name, entries, tokens, thresholds }, null, 1).replaceAll('<', '\\u003c')}
</script>
</body>
</html>
`;
}
