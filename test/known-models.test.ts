/** Packed weights belong to a model's content: not to its name, place or time stamps, and to nothing that only looks like it. */
import { strict as assert } from 'node:assert';
import {
  closeSync,
  copyFileSync,
  cpSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openModel } from '../runtime/formats/open.ts';
import { Identity, modelsRoot } from '../runtime/known-models.ts';
import { weightsRoot } from '../runtime/weights.ts';
import { ModelError } from '../schemas/error.ts';
import { usePacking, writeSmallest } from './packing.ts';

/** Longer than what a write may leave unchanged in a file's stamps. */
const settle = () => sleep(60);

/** A time of change that can be given to a file again, to the nanosecond. */
const WHOLE = new Date('2026-01-01');

/** Writes other bytes into a file of that time, which keeps size and time. */
function forge(file: string, change: () => void): void {
  const stamps = () => {
    const { size, mtimeNs } = statSync(file, { bigint: true });
    return [size, mtimeNs];
  };
  const before = stamps();
  change();
  utimesSync(file, WHOLE, WHOLE);
  assert.deepEqual(stamps(), before);
}

describe('known models', () => {
  const packing = usePacking();
  let folder = '';
  const weights = () => path.join(folder, 'model.safetensors');

  beforeEach(async function () {
    folder = path.join(packing.cache(), `model-${this.currentTest!.title.replace(/\W+/g, '-')}`);
    writeSmallest(folder);
    utimesSync(weights(), WHOLE, WHOLE);
    await settle();
    for (const root of [weightsRoot(), modelsRoot()]) rmSync(root, { recursive: true, force: true });
  });

  it('that nobody touched are found without being read', async () => {
    const { file, cached, steps } = await packing.open(folder);
    assert.deepEqual([cached, steps], [false, ['packing']]);
    assert.deepEqual(await packing.open(folder), { file, cached: true, steps: [], notes: [] });
    const spelling = path.relative(process.cwd(), folder);
    assert.deepEqual(await packing.open(spelling), { file, cached: true, steps: [], notes: [] });
  });

  it('replaced by another one of the same size and time: own packed weights', async () => {
    const first = await packing.open(folder);
    const logits = await packing.logits(folder);
    const original = readFileSync(weights());
    forge(weights(), () => writeSmallest(folder, 2));
    const second = await packing.open(folder);
    assert.equal(second.cached, false);
    assert.notEqual(second.file, first.file);
    const others = await packing.logits(folder);
    assert.notDeepEqual(others, logits);
    // And back, as another file.
    forge(weights(), () => {
      rmSync(weights());
      writeFileSync(weights(), original);
    });
    await settle();
    const again = await packing.open(folder);
    assert.deepEqual(again, { file: first.file, cached: true, steps: ['checking'], notes: [] });
    assert.deepEqual(await packing.logits(folder), logits);
    assert.equal(packing.names().length, 2);
  });

  for (const [what, change] of Object.entries({
    touched: () => utimesSync(weights(), new Date(), new Date('2020-01-01')),
    'with another config.json that says the same': () =>
      writeFileSync(path.join(folder, 'config.json'), ` ${readFileSync(path.join(folder, 'config.json'))}`),
    copied: () => {
      cpSync(folder, `${folder}-copy`, { recursive: true, preserveTimestamps: true });
      folder = `${folder}-copy`;
    },
    moved: () => {
      renameSync(folder, `${folder}-moved`);
      folder = `${folder}-moved`;
    },
    'downloaded again': () => {
      copyFileSync(weights(), `${weights()}.new`);
      renameSync(`${weights()}.new`, weights());
    },
    'hard linked': () => {
      linkSync(weights(), path.join(path.dirname(folder), 'linked'));
    },
  }))
    it(`${what}: the same packed weights, after one look at all bytes`, async () => {
      const { file } = await packing.open(folder);
      change();
      await settle();
      const [second, third] = [await packing.open(folder), await packing.open(folder)];
      assert.deepEqual([second.file, second.cached], [file, true]);
      assert.deepEqual(third, { file, cached: true, steps: [], notes: [] });
      assert.deepEqual(second.steps, what.startsWith('with') ? [] : ['checking']);
      assert.deepEqual(packing.names(), [path.basename(file)]);
    });

  it('in several files: a change in any of them counts', async () => {
    writeSmallest(folder, 1, 3);
    rmSync(weights());
    const shards = readdirSync(folder).filter((name) => name.endsWith('.safetensors'));
    assert.equal(shards.length, 3);
    for (const shard of shards) utimesSync(path.join(folder, shard), WHOLE, WHOLE);
    const first = await packing.open(folder);
    const files = [first.file];
    for (const shard of shards) {
      const file = path.join(folder, shard);
      const bytes = readFileSync(file);
      const changed = Buffer.from(bytes);
      // A byte that is valid as four codes, and as the low byte of a bf16 value.
      changed[changed.length - 2] = bytes.at(-2) ? 0 : 0x55;
      forge(file, () => writeFileSync(file, changed));
      files.push((await packing.open(folder)).file);
      forge(file, () => writeFileSync(file, bytes));
    }
    assert.equal(new Set(files).size, 4);
    assert.equal((await packing.open(folder)).file, first.file);
  });

  it('whose description gives the same bytes another meaning: other packed weights', async () => {
    const source = openModel(folder);
    const name = 'blk.0.ffn_down';
    const with_ = (facts: object) => ({
      ...source,
      tensors: new Map([...source.tensors, [name, { ...source.tensors.get(name)!, ...facts }]]),
    });
    const files = [source, with_({ scale: 0.5 }), with_({ factor: 2 })].map((one) => packing.open(one));
    assert.equal(new Set((await Promise.all(files)).map(({ file }) => file)).size, 3);
    // A tensor's name in the file means nothing.
    const renamed = await packing.open(with_({ name: 'another.weight' }));
    assert.deepEqual([renamed.file, renamed.cached], [(await files[0])!.file, true]);
  });

  it('that change while they are packed are refused, and nothing stays', async () => {
    const onProgress = (_: string, done: number) => {
      if (done === 3) utimesSync(weights(), new Date(), new Date());
    };
    await assert.rejects(packing.open(folder, { onProgress }), (error) => {
      assert.ok(error instanceof ModelError);
      assert.match(error.message, /: its files changed while they were read; start again when they are complete$/);
      return true;
    });
    assert.deepEqual(packing.names(), []);
    assert.equal((await packing.open(folder)).cached, false);
  });

  it('without records, or with damaged ones: the same packed weights, after one look at all bytes', async () => {
    const { file } = await packing.open(folder);
    const [record] = readdirSync(modelsRoot()).map((name) => path.join(modelsRoot(), name));
    const whole = readFileSync(record!, 'utf8');
    for (const text of [
      undefined,
      '',
      'null',
      '[]',
      '{"content":1}',
      whole.slice(0, -5),
      whole.replace('[{', '[null,{'),
    ]) {
      if (text === undefined) rmSync(record!);
      else writeFileSync(record!, text);
      const second = await packing.open(folder);
      assert.deepEqual(second, { file, cached: true, steps: ['checking'], notes: [] }, text);
      assert.deepEqual((await packing.open(folder)).steps, [], text);
    }
  });

  it('are not believed when they were written just before: a further write might leave all stamps as they are', async () => {
    const { file } = await packing.open(folder);
    const { now } = Date;
    /** Opens it so many milliseconds after the last change of its file. */
    const stepsAfter = async (ms: number) => {
      Date.now = () => Math.ceil(statSync(weights()).ctimeMs) + ms;
      return (await packing.open(folder)).steps;
    };
    try {
      utimesSync(weights(), new Date(), new Date());
      for (const [ms, steps] of [[1, 'checking'], [40, 'checking'], [100, 'checking'], [100], [1]] as const)
        assert.deepEqual(await stepsAfter(ms), steps ? [steps] : []);
    } finally {
      Date.now = now;
    }
    assert.deepEqual(packing.names(), [path.basename(file)]);
  });

  describe('by their files', () => {
    const never = new AbortController().signal;
    const hash = async (file: string, signal = never): Promise<string> => {
      const identity = new Identity('model', [file]);
      const content = await identity.hash(2, signal, () => {});
      identity.record(content);
      return content;
    };
    const large = () => path.join(packing.cache(), 'large');

    it('one byte anywhere is another content, also where no sample lies', async () => {
      writeFileSync(large(), '');
      truncateSync(large(), 20 << 20);
      utimesSync(large(), WHOLE, WHOLE);
      await settle();
      const first = await hash(large());
      const identity = new Identity('model', [large()]);
      assert.equal(identity.recorded, first);
      assert.ok(identity.mayBe(first));
      const fd = openSync(large(), 'r+');
      forge(large(), () => writeSync(fd, Buffer.of(1), 0, 1, 100_000));
      closeSync(fd);
      const changed = new Identity('model', [large()]);
      assert.equal(changed.recorded, undefined);
      assert.ok(changed.mayBe(first), 'the samples are the same');
      const second = await hash(large());
      assert.notEqual(second, first);
      writeFileSync(large(), readFileSync(large()).fill(2, 5000, 5001));
      assert.ok(!new Identity('model', [large()]).mayBe(first), 'this byte is in a sample');
    });

    it('reading a large one tells how far it is, gives the same on any number of threads, and can be interrupted', async () => {
      const size = 150 << 20;
      writeFileSync(large(), '');
      truncateSync(large(), size);
      const contents = [];
      for (const threads of [1, 2, 8]) {
        const seen: number[] = [];
        const identity = new Identity('model', [large()]);
        const content = await identity.hash(threads, never, (done, total) => {
          assert.equal(total, size);
          seen.push(done);
        });
        assert.ok(seen.length > 4 && seen.at(-1) === size);
        contents.push(content);
      }
      assert.equal(new Set(contents).size, 1);
      const fd = openSync(large(), 'r+');
      writeSync(fd, Buffer.of(1), 0, 1, size - 100_000);
      closeSync(fd);
      assert.notEqual(await hash(large()), contents[0]);
      const interrupted = new AbortController();
      const reading = hash(large(), interrupted.signal);
      interrupted.abort();
      await assert.rejects(reading, { name: 'AbortError' });
    });
  });
});
