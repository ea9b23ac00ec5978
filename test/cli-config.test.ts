/** Models whose configuration has a key that is not known: refused by all programs, unless --allow-config names it. */
import { strict as assert } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { useModels } from './cli-models.ts';
import { useCli } from './run-cli.ts';

describe('unknown keys of the configuration', () => {
  const cli = useCli();
  const models = useModels(cli);
  const key = 'logit_scale';
  const allowed = ['--allow-config', key];

  before(() => {
    const file = path.join(models.folder, 'config.json');
    const config = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(file, JSON.stringify({ ...config, [key]: 0.5, bos_token_id: -1 }));
  });

  it('are refused by name', async () => {
    const says = [/config\.json: unknown or unsupported/, /logit_scale = 0\.5/, /give --allow-config logit_scale$/m];
    await Promise.all([
      cli.refuses('run', [models.folder, '--info'], 1, says),
      cli.refuses('run', [models.folder, '--tokens', '1'], 1, says),
      cli.refuses('gen', [models.folder, '--dump', 'plan'], 1, says),
      cli.refuses('tune', [models.folder], 1, says),
      cli.refuses('tune', ['show', models.folder], 1, says),
    ]);
  });

  it('pass with --allow-config, which is noted', async () => {
    const [info, plan, tune] = await Promise.all([
      cli.run('run', [models.folder, '--info', ...allowed]),
      cli.json('gen', [models.folder, '--dump', 'plan', ...allowed]),
      cli.run('tune', ['show', models.folder, ...allowed]),
    ]);
    assert.equal(info.code, 0, info.stderr);
    assert.equal(
      info.stderr,
      'bitnet-run: config.json: logit_scale is ignored, as --allow-config says\n' +
        'bitnet-run: config.json: bos_token_id -1 is no token of the model (0 to 300) and is ignored\n',
    );
    assert.equal(plan.shape.vocabulary, 301);
    // Past the configuration.
    assert.match(tune.stderr, /nothing was measured/);
  });
});
