/** What is said of folders that cannot be used, and where the cache lies. */
import { strict as assert } from 'node:assert';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { UsageError } from '../schemas/error.ts';
import { cacheRoot, missing } from '../schemas/files.ts';
import { cannotRun, cannotWrite, otherFolder } from '../schemas/folders.ts';
import { skip } from './fixtures.ts';

/** Does something with other variables; undefined removes one. */
function withVariables<T>(variables: Record<string, string | undefined>, work: () => T): T {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  const set = (name: string, value: string | undefined) => {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  };
  for (const [name, value] of Object.entries(variables)) set(name, value);
  try {
    return work();
  } finally {
    for (const [name, value] of before) set(name, value);
  }
}

/** As another user, who is in no list, where that is possible. */
function asNobody<T>(context: Mocha.Context, work: () => T): T {
  if (process.getuid?.() !== 0 || !process.seteuid) skip(context, 'only root can be another user');
  process.seteuid!(54321);
  try {
    return work();
  } finally {
    process.seteuid!(0);
  }
}

describe('folders', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'folders-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });

  it('that are full: the variable that moves them, and that room helps', () => {
    withVariables({ XDG_CACHE_HOME: folder }, () => {
      const file = path.join(cacheRoot(), 'builds');
      assert.equal(
        cannotWrite(file, full),
        `cannot write to '${file}': ${full.message}; make room there, or set XDG_CACHE_HOME to another folder`,
      );
    });
    assert.match(
      cannotWrite(path.join(tmpdir(), 'bitnet-probe-x'), full),
      /; make room there, or set TMPDIR to another/,
    );
    assert.match(cannotWrite(path.join(folder, 'logits'), full), /; make room there, or choose another folder$/);
    assert.equal(otherFolder('/elsewhere'), undefined);
  });

  it('from which nothing can be run, by the table of mounted file systems', () => {
    const inner = path.join(folder, 'a b');
    mkdirSync(inner);
    const mounted = (at: string, options: string) => `none ${at.replaceAll(' ', '\\040')} tmpfs ${options} 0 0\n`;
    const [root, above] = [mounted('/', 'rw'), mounted(folder, 'rw,nosuid,noexec')];
    const says = `'${folder}' is mounted noexec, so nothing in it can be run; choose another folder`;
    assert.equal(cannotRun(inner, root + above), says);
    assert.equal(cannotRun(inner, root + above + mounted(inner, 'rw')), undefined);
    assert.match(cannotRun(inner, mounted(inner, 'rw') + mounted(inner, 'noexec'))!, /noexec/);
    assert.equal(cannotRun(inner, mounted('/', 'rw') + mounted(`${folder}/a`, 'noexec')), undefined);
    assert.equal(cannotRun(inner, ''), undefined);
  });

  it('that are links to nothing', () => {
    const link = path.join(folder, 'link');
    symlinkSync('/nowhere', link);
    assert.equal(missing('model', link), `the model '${link}' is a link to '/nowhere', which is not there`);
    assert.equal(missing('model', '/nowhere'), "there is no model '/nowhere'");
  });

  describe('the cache', () => {
    it('is where XDG_CACHE_HOME says, else in the home folder', () => {
      withVariables({ XDG_CACHE_HOME: '/a', HOME: '/b' }, () => assert.equal(cacheRoot(), '/a/bitnet-gen'));
      for (const ignored of [undefined, '', 'relative'])
        withVariables({ XDG_CACHE_HOME: ignored, HOME: '/b' }, () => assert.equal(cacheRoot(), '/b/.cache/bitnet-gen'));
    });

    it('is never relative: an empty HOME is none', () => {
      withVariables({ XDG_CACHE_HOME: undefined, HOME: '' }, () => assert.ok(path.isAbsolute(cacheRoot())));
    });

    it('has no place where the user has no home: what to set', function () {
      for (const home of [undefined, '', 'relative'])
        withVariables({ XDG_CACHE_HOME: undefined, HOME: home }, () =>
          asNobody(this, () =>
            assert.throws(
              cacheRoot,
              (e) => e instanceof UsageError && /set XDG_CACHE_HOME to a folder/.test(e.message),
            ),
          ),
        );
    });
  });
});
