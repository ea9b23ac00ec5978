/** What is made aside: names that nobody shares, whole files under the final name or none, and what killed processes left. */
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { asideOf, isAside, isLive, publish, sweep, temporaryFolder, writeWhole } from '../schemas/aside.ts';
import { skip } from './fixtures.ts';

describe('what is made aside', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-aside-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const target = () => path.join(folder, 'target');

  /** A child that makes something aside and then waits; `name` is what it made. */
  async function child(command: readonly string[] = []) {
    const script = `
      const { asideOf } = await import(${JSON.stringify(import.meta.resolve('../schemas/aside.ts'))});
      const { writeFileSync } = await import('node:fs');
      const aside = asideOf(process.argv[1]);
      writeFileSync(aside, 'half');
      console.log(aside);
      setInterval(() => {}, 1000);`;
    const node = [process.execPath, ...process.execArgv, '--input-type=module', '-e', script, target()];
    const [file, ...args] = [...command, ...node];
    const started = execa(file!, args, { reject: false });
    const name = await Promise.race([once(started.stdout, 'data').then(String), started.then(() => '')]);
    return { started, name: name.trim() };
  }

  it('has a name that tells boot, process namespace, process and start, and is never given twice', () => {
    const names = Array.from({ length: 100 }, () => asideOf(target()));
    assert.equal(new Set(names).size, 100);
    for (const name of names) {
      assert.equal(path.dirname(name), folder);
      assert.match(
        path.basename(name),
        new RegExp(`^target\\.[0-9a-z]+-\\d+-${process.pid}-\\d+-[0-9a-f-]{36}\\.aside$`),
      );
      assert.ok(isAside(name) && isLive(name));
    }
    for (const other of ['a.bnw', 'a.bnw.1234', 'aside', 'a.aside', `${names[0]}.bnw`])
      assert.ok(!isAside(other), other);
  });

  it('of a target with the longest name, in any script, has a name that can be created', () => {
    for (const letter of ['x', 'ß', '重', '😀']) {
      const longest = letter.repeat(Math.floor(255 / Buffer.byteLength(letter)));
      writeWhole(path.join(folder, longest), 'all');
      assert.deepEqual(readdirSync(folder), [longest]);
      rmSync(path.join(folder, longest));
    }
  });

  it('replaces its target at once', () => {
    writeFileSync(target(), 'old');
    writeWhole(target(), 'new');
    assert.deepEqual([readFileSync(target(), 'utf8'), readdirSync(folder)], ['new', ['target']]);
  });

  it('goes when it cannot get its name', () => {
    mkdirSync(path.join(target(), 'inside'), { recursive: true });
    assert.throws(() => writeWhole(target(), 'new'), /EISDIR|EEXIST|ENOTEMPTY/);
    assert.deepEqual(readdirSync(folder), ['target']);
  });

  it('may be a folder', () => {
    const aside = asideOf(target());
    mkdirSync(path.join(aside, 'inside'), { recursive: true });
    publish(aside, target());
    assert.deepEqual([readdirSync(folder), readdirSync(target())], [['target'], ['inside']]);
  });

  it('stays while the process that makes it lives, and goes when that was killed', async () => {
    const { started, name } = await child();
    assert.ok(existsSync(name));
    sweep(folder);
    assert.deepEqual([isLive(name), existsSync(name)], [true, true], 'its process lives');
    started.kill('SIGKILL');
    await started;
    assert.equal(isLive(name), false);
    sweep(folder);
    assert.deepEqual(readdirSync(folder), []);
  });

  it('of another process with the same number goes', () => {
    const own = asideOf(target());
    const [start] = /\d+(?=-[0-9a-f-]{36}\.aside$)/.exec(own)!;
    const earlier = own.replace(`-${start}-`, `-${Number(start) + 1}-`);
    writeFileSync(own, '');
    mkdirSync(path.join(earlier, 'src'), { recursive: true });
    writeFileSync(path.join(folder, 'other'), '');
    sweep(folder);
    assert.deepEqual(readdirSync(folder).sort(), ['other', path.basename(own)].sort());
  });

  it('of another machine or container goes when it is older than a day', () => {
    const own = asideOf(target());
    for (const foreign of [own.replace(/\.[0-9a-z]+-/, '.01234567-'), own.replace(/(\.[0-9a-z]+-)\d+-/, '$17-')]) {
      assert.notEqual(foreign, own);
      writeFileSync(foreign, '');
      utimesSync(foreign, new Date(), new Date(Date.now() - 23 * 3600e3));
      sweep(folder);
      assert.ok(existsSync(foreign), 'younger');
      utimesSync(foreign, new Date(), new Date(Date.now() - 25 * 3600e3));
      sweep(folder);
      assert.ok(!existsSync(foreign), 'older');
    }
  });

  it('in another process namespace is another one, although the numbers are the same', async function () {
    const inNamespace = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const tried = await execa('unshare', [...inNamespace.slice(1), 'true'], { reject: false });
    if (tried.failed) skip(this, `unshare: ${tried.stderr || tried.shortMessage}`);
    const containers = await Promise.all([child(inNamespace), child(inNamespace)]);
    const [first, second] = containers.map(({ name }) => name);
    assert.ok(first && second && first !== second);
    // Both are process 1 of their own; a name without the namespace would be one that the other, or this process, calls dead.
    assert.match(first, /-1-\d+-[0-9a-f-]{36}\.aside$/);
    sweep(folder);
    assert.equal(readdirSync(folder).length, 2);
    for (const { started } of containers) started.kill('SIGKILL');
    await Promise.all(containers.map(({ started }) => started));
  });

  it('a temporary folder is private, and goes with a later process', () => {
    const own = temporaryFolder('test');
    try {
      assert.deepEqual(readdirSync(own), []);
      assert.ok(isLive(own) && path.dirname(own) === tmpdir());
    } finally {
      rmSync(own, { recursive: true });
    }
  });
});
