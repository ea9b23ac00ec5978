/** The documentation's programs: every TypeScript example that imports the package runs as it stands, on the demo model. */
import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { execa } from 'execa';
import { demo, useCache } from './machine.ts';
import { projectRoot } from './setup.ts';

const documents = [
  'README.md',
  ...readdirSync(path.join(projectRoot, 'docs')).map((name) => path.join('docs', name)),
].filter((name) => name.endsWith('.md'));

const examples = documents.flatMap((document) => {
  const text = readFileSync(path.join(projectRoot, document), 'utf8');
  const blocks = [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1]!);
  return blocks.filter((block) => block.includes("'bitnet-gen'")).map((block) => ({ document, block }));
});

describe('examples of the documentation', () => {
  const cache = useCache();

  it('there are some', () =>
    assert.deepEqual(
      examples.map(({ document }) => document),
      ['README.md', 'docs/library.md'],
    ));

  for (const [i, { document, block }] of examples.entries())
    it(`${document}`, async () => {
      const file = path.join(cache(), `example${i}.mts`);
      const index = pathToFileURL(path.join(projectRoot, 'index.ts')).href;
      const text = block
        .replace("'bitnet-gen'", JSON.stringify(index))
        .replace("'path/to/model'", JSON.stringify(demo));
      writeFileSync(file, text);
      const { stdout } = await execa(process.execPath, ['--import', 'tsx', file], { cwd: projectRoot });
      assert.ok(stdout.length > 40, stdout);
    });
});
