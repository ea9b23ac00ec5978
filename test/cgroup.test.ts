/** Limits of control groups, in trees like those of real machines: versions 1 and 2, nested, in containers; what follows; default threads. */
import { strict as assert } from 'node:assert';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { layerSlots } from '../codegen/graph.ts';
import { availableMemory, contextSize, positionBytes, shortageNote } from '../runtime/memory.ts';
import { groupCpus, groupMemory } from '../schemas/cgroup.ts';
import { LibraryError } from '../schemas/error.ts';
import { defaultThreads, tokenWeights, usableCpus } from '../schemas/host.ts';
import { smallestShape } from './machine.ts';
import { demoShape, shippedShapes } from './shapes.ts';

/** Mounts, as mountinfo tells: where the hierarchy begins, where it is seen, its type and options. */
type Mount = readonly [top: string, point: string, type: 'cgroup' | 'cgroup2', options: string];
const V2: Mount = ['/', '/sys/fs/cgroup', 'cgroup2', 'rw'];
const v1 = (controllers: string, top = '/'): Mount => [
  top,
  `/sys/fs/cgroup/${controllers}`,
  'cgroup',
  `rw,${controllers}`,
];
const MB = 1e6;
const UNLIMITED = '9223372036854771712';

describe('control groups', () => {
  let root = '';
  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-cgroup-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  /** Makes a machine. @param files below /sys/fs/cgroup */
  function machine(cgroup: string, mounts: readonly Mount[], files: Readonly<Record<string, string>>): string {
    const write = (file: string, text: string) => {
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), `${text}\n`);
    };
    const lines = mounts.map(
      ([top, point, type, options], i) =>
        `${30 + i} 23 0:${i} ${top} ${point} rw shared:1 - ${type} ${type} ${options}`,
    );
    write('proc/self/cgroup', cgroup);
    write('proc/self/mountinfo', ['22 1 254:0 / / rw,relatime - ext4 /dev/vda rw', ...lines].join('\n'));
    write('proc/meminfo', 'MemTotal:        8000000 kB\nMemFree:         1000000 kB\nMemAvailable:    6000000 kB');
    for (const [file, text] of Object.entries(files)) write(`sys/fs/cgroup/${file}`, text);
    return root;
  }

  it('none: no limit', () => {
    for (const at of [machine('0::/', [V2], {}), machine('', [], {}), path.join(root, 'nowhere')])
      assert.deepEqual([groupCpus(at), groupMemory(at)], [Infinity, Infinity]);
    assert.equal(availableMemory(root), 6000000 * 1024);
    assert.equal(usableCpus(root), availableParallelism());
  });

  describe('version 2', () => {
    it("the process's own group, not the topmost", () => {
      machine('0::/user.slice/job.scope', [V2], {
        'user.slice/job.scope/cpu.max': '150000 100000',
        'user.slice/job.scope/memory.max': `${100 * MB}`,
        'user.slice/job.scope/memory.high': 'max',
        'user.slice/job.scope/memory.current': `${30 * MB}`,
        'user.slice/other/cpu.max': '10000 100000',
        'user.slice/other/memory.max': '1',
      });
      assert.deepEqual([groupCpus(root), groupMemory(root)], [1.5, 70 * MB]);
      assert.equal(usableCpus(root), 1);
      assert.equal(availableMemory(root), 70 * MB);
    });

    it('a group above that allows less', () => {
      machine('0::/pod/container', [V2], {
        'pod/container/cpu.max': '400000 100000',
        'pod/cpu.max': '25000 50000',
        'pod/container/memory.max': `${900 * MB}`,
        'pod/container/memory.current': `${10 * MB}`,
        'pod/memory.max': `${500 * MB}`,
        'pod/memory.current': `${450 * MB}`,
      });
      assert.deepEqual([groupCpus(root), groupMemory(root)], [0.5, 50 * MB]);
      assert.equal(usableCpus(root), 1, 'half a CPU is one thread');
    });

    it('memory.high is a limit, too, and files in memory count as free', () => {
      machine('0::/a', [V2], {
        'a/memory.max': `${900 * MB}`,
        'a/memory.high': `${800 * MB}`,
        'a/memory.current': `${700 * MB}`,
        'a/memory.stat': `anon ${50 * MB}\nfile ${640 * MB}\ninactive_file ${400 * MB}\nactive_file ${200 * MB}`,
      });
      assert.equal(groupMemory(root), 700 * MB);
    });

    it('a group that uses more than it may leaves nothing', () => {
      machine('0::/a', [V2], { 'a/memory.max': `${5 * MB}`, 'a/memory.current': `${6 * MB}` });
      assert.equal(groupMemory(root), 0);
    });

    it('within a container: the mount is the group, whatever /proc/self/cgroup calls it', () => {
      const files = { 'cpu.max': '200000 100000', 'memory.max': `${64 * MB}`, 'memory.current': `${4 * MB}` };
      for (const [group, top] of [
        ['/', '/'],
        ['/docker/3f/inner', '/docker/3f/inner'],
        ['/docker/3f', '/docker/3f'],
        ['/../../3f', '/'],
        ['/elsewhere', '/docker/3f'],
      ] as const) {
        machine(`0::${group}`, [[top, '/sys/fs/cgroup', 'cgroup2', 'rw']], files);
        assert.deepEqual([groupCpus(root), groupMemory(root)], [2, 60 * MB], group);
      }
    });

    it('of several mounts the one that shows the group', () => {
      machine('0::/b/c', [['/a', '/mnt/a', 'cgroup2', 'rw'], V2], { 'b/cpu.max': '300000 100000' });
      assert.equal(groupCpus(root), 3);
    });

    it('a mount with a space in its name', () => {
      machine('0::/x', [['/', '/sys/fs/cgroup/a\\040b', 'cgroup2', 'rw']], { 'a b/x/cpu.max': '300000 100000' });
      assert.equal(groupCpus(root), 3);
    });
  });

  describe('version 1', () => {
    it('each resource in its own hierarchy, nested', () => {
      machine(
        '9:name=systemd:/\n4:memory:/jobs/7\n3:cpuset:/\n2:cpu,cpuacct:/jobs/7\n0::/',
        [v1('cpu,cpuacct'), v1('memory')],
        {
          'cpu,cpuacct/cpu.cfs_quota_us': '-1',
          'cpu,cpuacct/cpu.cfs_period_us': '100000',
          'cpu,cpuacct/jobs/cpu.cfs_quota_us': '250000',
          'cpu,cpuacct/jobs/cpu.cfs_period_us': '100000',
          'cpu,cpuacct/jobs/7/cpu.cfs_quota_us': '300000',
          'cpu,cpuacct/jobs/7/cpu.cfs_period_us': '100000',
          'memory/memory.limit_in_bytes': UNLIMITED,
          'memory/memory.usage_in_bytes': `${4000 * MB}`,
          'memory/jobs/memory.limit_in_bytes': `${1000 * MB}`,
          'memory/jobs/memory.usage_in_bytes': `${600 * MB}`,
          'memory/jobs/memory.stat': `inactive_file 1\ntotal_inactive_file ${100 * MB}\ntotal_active_file ${200 * MB}`,
          'memory/jobs/7/memory.limit_in_bytes': UNLIMITED,
          'memory/jobs/7/memory.usage_in_bytes': `${300 * MB}`,
        },
      );
      assert.deepEqual([groupCpus(root), groupMemory(root)], [2.5, 700 * MB]);
    });

    it('beside version 2: both count', () => {
      machine('4:memory:/a\n0::/b', [v1('memory'), ['/', '/sys/fs/cgroup/unified', 'cgroup2', 'rw']], {
        'memory/a/memory.limit_in_bytes': `${90 * MB}`,
        'memory/a/memory.usage_in_bytes': '0',
        'unified/b/cpu.max': '200000 100000',
      });
      assert.deepEqual([groupCpus(root), groupMemory(root)], [2, 90 * MB]);
    });

    it('a container that sees its own part only', () => {
      machine('4:memory:/docker/ab', [v1('memory', '/docker/ab')], {
        'memory/memory.limit_in_bytes': `${80 * MB}`,
        'memory/memory.usage_in_bytes': `${20 * MB}`,
      });
      assert.equal(groupMemory(root), 60 * MB);
    });
  });

  it('a cache that does not fit in the group is refused, with one that would', () => {
    machine('0::/a', [V2], { 'a/memory.max': '100000', 'a/memory.current': '0' });
    const each = positionBytes(smallestShape, 8);
    const most = Math.floor(100000 / each);
    assert.equal(contextSize(smallestShape, 8, most, root), most);
    assert.throws(
      () => contextSize(smallestShape, 8, most + 1, root),
      (error) => error instanceof LibraryError && error.message.includes(`--ctx ${Math.floor(90000 / each)} would fit`),
    );
  });

  it('weights and cache that do not fit are noted', () => {
    machine('0::/a', [V2], { 'a/memory.max': `${50 * MB}`, 'a/memory.current': '0' });
    assert.equal(shortageNote(40 * MB, 10 * MB, root), undefined);
    assert.match(
      shortageNote(41 * MB, 10 * MB, root)!,
      /weights \(41 MB\) and a full context \(10 MB\) exceed the 50 MB/,
    );
  });
});

describe('default threads', () => {
  it('the weights of a token are those of the matrices of its layers, and the head', () => {
    for (const shape of [...shippedShapes(), demoShape()]) {
      const layer = layerSlots(shape).filter(({ kind }) => kind === 'ternary');
      const weights = layer.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
      assert.equal(tokenWeights(shape), shape.layers * weights + shape.vocabulary * shape.hidden, shape.name);
    }
  });

  it('a tiny model takes one, those of real sizes all that there are', () => {
    assert.equal(defaultThreads(demoShape()), 1);
    for (const shape of shippedShapes())
      assert.equal(defaultThreads(shape), Math.min(defaultThreads(), Math.floor(tokenWeights(shape) / 2 ** 25)));
    const [largest] = shippedShapes().sort((a, b) => tokenWeights(b) - tokenWeights(a));
    assert.ok(tokenWeights(largest!) / 2 ** 25 > 128);
  });
});
