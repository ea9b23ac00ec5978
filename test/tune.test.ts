/**
 * The sweep from the inside: how a race finds the fastest, what the statistics say, how whole tokens decide, and what the report shows.
 * Whom its exactness gate catches: tune-gate.test.ts.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { findCompiler } from '../codegen/compile.ts';
import { nativeProfile } from '../codegen/cpu.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { type KernelSpec, parse } from '../codegen/name.ts';
import { fieldOf } from '../codegen/tune/candidates.ts';
import type { Contest } from '../codegen/tune/contests.ts';
import { newStanding, race, winnerOf } from '../codegen/tune/halving.ts';
import { reportOf } from '../codegen/tune/report.ts';
import { isFaster, spread } from '../codegen/tune/statistics.ts';
import { finals } from '../codegen/tune/tokens.ts';
import type { ThresholdEntry, TokenEntry, TuningEntry, Wisdom } from '../codegen/wisdom.ts';
import { adviceFor, cpuOfBrand, foreign, here, matricesOf, merge, nothing, withIds } from '../codegen/wisdom.ts';
import { hostBrand, hostId, readCpuId } from '../schemas/host.ts';
import { skip } from './fixtures.ts';
import { long } from './tier.ts';
import { entryOf, othersWin } from './wisdom.ts';
import { smallShape } from './write-model.ts';

/** One problem, and a kernel that is none. */
const decoding: Contest = { phase: 'decode', tokens: 1, n: 96, k: 160, slot: 'attn_q' };
const noKernel: KernelSpec = {
  op: 'none',
  act: 'i8',
  weight: 'none',
  out: 'i32',
  shape: { n: 1 },
  tile: [1],
  isa: 'none',
};

describe('the tuner', () => {
  it('a CPU is known by its numbers; a brand string only where it names one product', async () => {
    const amd = { vendor: 'AuthenticAMD', family: 25, model: 17, stepping: 1 };
    const x86 =
      'processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n';
    assert.deepEqual(readCpuId(x86), amd);
    const arm =
      'processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n';
    assert.deepEqual(readCpuId(arm), { vendor: '0x41', family: 8, model: 0xd0c, stepping: 1 });
    assert.equal(readCpuId('flags : fpu\n'), undefined);

    for (const brand of [
      'AMD EPYC 9R14',
      'Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz',
      'AMD Ryzen 9 7950X 16-Core Processor',
    ])
      assert.deepEqual(cpuOfBrand(brand, brand, amd), amd, brand);
    for (const brand of [
      'AMD EPYC',
      'Intel(R) Xeon(R) Processor',
      'Intel(R) Xeon(R) Processor @ 2.10GHz',
      'QEMU Virtual CPU version 2.5+',
      'x64',
    ])
      assert.equal(cpuOfBrand(brand, brand, amd), brand);
    assert.equal(cpuOfBrand('AMD EPYC 9R14', 'AMD EPYC 9654', amd), 'AMD EPYC 9R14', 'of another machine');

    const cpu = nativeProfile();
    const compiler = await findCompiler(isaOf(cpu.isa).family);
    const key = here(cpu, compiler, 'decode', 1);
    assert.equal(foreign(key, cpu, compiler), undefined);
    assert.match(foreign({ ...key, cpu: 'Zilog Z80' }, cpu, compiler)!, /^measured on 'Zilog Z80', this is /);
    const id = hostId();
    if (!id) return;
    const other = { ...id, stepping: id.stepping + 1 };
    assert.match(
      foreign({ ...key, cpu: other }, cpu, compiler)!,
      /^measured on \S+ family \d+ model \d+ stepping \d+, this is /,
    );
    assert.match(
      foreign({ ...key, cpu: hostBrand() }, cpu, compiler)!,
      /^measured on a CPU of which only the name '.+' is known/,
    );
    const entry = entryOf(decoding, 1, ['a'], cpu, compiler);
    const old = { ...nothing, entries: [{ ...entry, key: { ...entry.key, cpu: hostBrand() } }] };
    assert.deepEqual(withIds(old, () => id).entries, [entry]);
  });

  it('quartiles, and a signed-rank test that needs six rounds and forgives outliers', () => {
    assert.deepEqual(spread([4, 1, 3, 2, 5]), { median: 3, low: 2, high: 4 });
    const slow = [10, 11, 12, 10, 11, 12, 10, 11, 12, 13];
    const fast = slow.map((s, i) => s - 1 - i / 100);
    assert.ok(isFaster(fast, slow));
    assert.ok(!isFaster(slow, fast));
    const twice = (values: readonly number[]) => [...values, ...values];
    assert.ok(isFaster(twice(fast).with(4, 50), twice(slow)), 'one outlier');
    assert.ok(!isFaster(fast.slice(0, 5), slow.slice(0, 5)), 'too few rounds');
    assert.ok(!isFaster(slow, slow));
    const mixed = slow.map((s, i) => s + (i % 2 ? 1 : -1.01));
    assert.ok(!isFaster(mixed, slow), 'half of the rounds each');
  });

  /** Runs a race of kernels with known times. @param seconds of a candidate in a round */
  async function raceOf(count: number, seconds: (who: number, round: number) => number, roof = 0.1) {
    const standing = newStanding(count);
    let round = 0;
    let turns = 0;
    await race(
      {
        count,
        until: performance.now() + 60,
        time: async (who, rounds) => {
          const first = round;
          round += rounds;
          turns += rounds * who.length;
          await new Promise((resolve) => setImmediate(resolve));
          const all = Array.from({ length: rounds }, (_, r) => first + r);
          return { seconds: all.map((r) => who.map((i) => seconds(i, r))), roof: all.map(() => roof) };
        },
      },
      standing,
    );
    return { standing, turns };
  }
  const noise = (who: number, round: number) => 0.02 * Math.sin(who * 12.9 + round * 78.2);

  it('a race ends with the fastest, and the slow leave early; the first takes part to the end', async () => {
    const { standing } = await raceOf(60, (who, round) => 1 + Math.abs(who - 41) / 50 + noise(who, round));
    assert.deepEqual(winnerOf(standing), { winner: 41, fastest: 41 });
    assert.ok(standing.finalists.includes(0));
    assert.ok(standing.samples[59]!.length < standing.samples[41]!.length / 2);
    assert.equal(standing.samples[41]!.length, standing.roof.length);
    assert.equal(standing.samples[0]!.length, standing.roof.length);
    assert.ok(!standing.atRoof);
  });

  it('among equals the first wins; at the roof the search ends', async () => {
    const equal = await raceOf(20, (who, round) => 1 + noise(who, round));
    assert.equal(winnerOf(equal.standing).winner, 0);
    const early = await raceOf(60, (who, round) => 1 + who / 50 + noise(who, round), 0.99);
    assert.ok(early.standing.atRoof);
    assert.ok(early.turns < equal.turns + 60 * 12);
    assert.equal(winnerOf(early.standing).winner, 0);
  });

  it('the field begins with what the plan takes, and with each packing', () => {
    const cpu = nativeProfile();
    const { candidates } = fieldOf(cpu, decoding, noKernel);
    const preferred = candidates.at(-1)!;
    assert.equal(fieldOf(cpu, decoding, preferred.spec).candidates[0]!.name, preferred.name);
    const packings = new Set(candidates.map(({ packing }) => packing.token));
    assert.deepEqual(new Set(candidates.slice(0, packings.size).map(({ packing }) => packing.token)), packings);
    assert.equal(new Set(candidates.map(({ name }) => name)).size, candidates.length);
  });

  describe('the report', () => {
    const cpu = nativeProfile();
    const names = fieldOf(cpu, decoding, noKernel).candidates.map(({ name }) => name);
    const kernel = names[0]!;
    const compiler = { command: ['cc'], version: 'cc', label: 'cc' };
    const made = entryOf(decoding, 2, [...names, kernel], cpu, compiler);
    const entry: TuningEntry = {
      ...made,
      key: { ...made.key, cpu: 'a <fast> & "new" CPU' },
      why: 'it is a </script> test',
      candidates: made.candidates.slice(0, -1).map((c) => ({ ...c, cached_seconds: c.seconds / 2 })),
    };
    const isa = isaOf(cpu.isa).name;
    const prompt: Contest = { phase: 'prefill', tokens: 128, n: 640, k: 160, slot: 'attn_q' };
    const dots = `gemm_i8_p2r16x16_i32__n640k160__8x16x16_${isa}_p0`;
    const sums = [4, 8].map((rows) => `sums_i8_p2r16x16_i16__k160__32x${rows}x32_${isa}_r2048`);
    const prompts = entryOf(prompt, 2, [...sums, dots], cpu, compiler);
    const timed = { seconds: 0.5, low: 0.4, high: 0.6, rounds: 9 };
    const sets = ['plan', 'winners'].map((name) => ({ name, kernels: { '640x160': dots }, ...timed }));
    const choice: TokenEntry = {
      key: { ...here(cpu, compiler, 'prefill', 2), matrices: '640x160', tokens: 128 },
      ...{ chosen: 'winners', why: 'the fastest', sets },
    };
    const threshold: ThresholdEntry = {
      key: { ...here(cpu, compiler, 'decode', 2), matrices: '640x160', tokens: 1, packing: 'p2r16x16rows' },
      most_live: 71,
      shares: [0.2, 0.6, 0.9].map((live) => ({ live, listed: 0.3 + live, whole: 1, rounds: 9 })),
    };
    const page = reportOf('tiny', { entries: [entry, prompts], tokens: [choice], thresholds: [threshold] });

    it('is one file: no address but the namespaces of w3.org, and all data inside', () => {
      const addresses = [...page.matchAll(/\b(?:https?:)?\/\/[^\s"'<>]+/g)].map(([address]) => address);
      assert.deepEqual([...new Set(addresses)], ['http://www.w3.org/2000/svg']);
      assert.doesNotMatch(page, /\b(?:src|href)=|@import|url\(/);
      const data = /<script type="application\/json" id="data">([\s\S]*?)<\/script>/.exec(page)![1]!;
      assert.deepEqual(JSON.parse(data), {
        ...{ model: 'tiny', entries: [entry, prompts] },
        ...{ tokens: [choice], thresholds: [threshold] },
      });
      assert.doesNotMatch(page, /NaN|undefined|Infinity|<fast>/);
    });

    long('is drawn by a browser', async function () {
      const names = ['chromium', 'chromium-browser', 'google-chrome'];
      const browser = names.find((name) => spawnSync(name, ['--version']).status === 0);
      if (!browser) return skip(this, `there is no browser (${names.join(', ')})`);
      const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-report-'));
      try {
        const [file, picture] = ['report.html', 'report.png'].map((name) => path.join(folder, name)) as [
          string,
          string,
        ];
        // The page says in its title what the browser made of it.
        const measured = `<script>document.title = [...document.querySelectorAll('svg')].map((s) => {
          const { width, height } = s.getBoundingClientRect();
          return width > 100 && height > 20 && s.getBBox().width > 100 ? 'drawn' : 'empty';
        }).join(' ');</script>`;
        writeFileSync(file, page.replace('</body>', `${measured}</body>`));
        const flags = [
          '--headless',
          '--no-sandbox',
          '--disable-gpu',
          `--user-data-dir=${path.join(folder, 'profile')}`,
        ];
        const shot = await execa(browser, [...flags, `--screenshot=${picture}`, `file://${file}`]);
        assert.ok(statSync(picture).size > 10_000, shot.stderr);
        const { stdout } = await execa(browser, [...flags, '--dump-dom', `file://${file}`]);
        const kinds = new Set(entry.candidates.map((c) => `${parse(c.kernel).op} ${parse(c.kernel).weight}`));
        // Roofline, bars and maps of both contests, and the bars of choice and threshold.
        const drawings = 2 + kinds.size + 2 + 2 + 2;
        const title = /<title>(.*?)<\/title>/.exec(stdout)![1]!;
        assert.equal(title, Array.from({ length: drawings }, () => 'drawn').join(' '));
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  });

  describe('the final choice', () => {
    const shape = smallShape({ layers: 2, hidden: 640, heads: 10, kvHeads: 10, intermediate: 640, context: 256 });

    long('measures whole tokens and prompts with the plan and with the winners', async () => {
      const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-gen-finals-'));
      const cpu = nativeProfile();
      const compiler = await findCompiler(isaOf(cpu.isa).family);
      const entries = othersWin(shape, cpu, compiler, ['decode', 'prefill']);
      const steps: string[] = [];
      const found: TokenEntry[] = [];
      try {
        for await (const entry of finals({
          ...{ shape, cpu, compiler, threads: 1, entries, cold: 1 << 20, folder },
          until: () => performance.now() + 5000,
          onProgress: (what, phase) => steps.push(`${phase}: ${what}`),
          signal: new AbortController().signal,
        }))
          found.push(entry);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
      assert.deepEqual(
        found.map(({ key }) => [key.phase, key.tokens, key.threads, key.matrices]),
        [
          ['decode', 1, 1, matricesOf(shape)],
          ['prefill', 128, 1, matricesOf(shape)],
        ],
      );
      for (const { key, chosen, sets } of found) {
        assert.deepEqual(sets.map(({ name }) => name).slice(0, 2), ['plan', 'winners']);
        assert.ok(sets.some(({ name }) => name === chosen));
        for (const { seconds, low, high, rounds } of sets)
          assert.ok(low > 0 && low <= seconds && seconds <= high && rounds >= 7);
        const [plan, winners] = sets.map(({ kernels }) => kernels) as [Record<string, string>, Record<string, string>];
        for (const { key: of, kernel, default_kernel } of entries.filter((entry) => entry.key.phase === key.phase)) {
          assert.equal(winners[`${of.n}x${of.k}`], kernel);
          assert.equal(plan[`${of.n}x${of.k}`], default_kernel);
        }
      }
      assert.deepEqual(
        [...new Set(steps)],
        ['decode', 'prefill'].flatMap((p) => [`${p}: building`, `${p}: whole tokens`]),
      );
    });

    it('where the winners are what the plan takes, nothing is built', async () => {
      const cpu = nativeProfile();
      const compiler = { command: ['none'], version: 'none', label: 'none' };
      const entries = othersWin(shape, cpu, compiler, ['decode'], () => false);
      const all = { shape, cpu, compiler, threads: 1, entries, cold: 1, folder: '/nowhere' };
      const asked = { ...all, until: () => performance.now() + 1e6, onProgress: () => {} };
      for await (const entry of finals({ ...asked, signal: new AbortController().signal })) assert.fail(entry.why);
    });
  });

  describe('advice', () => {
    const cpu = nativeProfile();
    const compiler = { command: ['cc'], version: 'cc 1', label: 'cc' };
    const shape = smallShape({ layers: 1, hidden: 640, heads: 10, kvHeads: 10, intermediate: 640, context: 64 });
    const contest: Contest = { ...decoding, n: 640, k: 640 };
    const entries = [1, 4, 2].map((threads) => entryOf(contest, threads, [`of_${threads}`, 'plan'], cpu, compiler));
    const choice = (threads: number, matrices = matricesOf(shape)): TokenEntry => ({
      key: { ...here(cpu, compiler, 'decode', threads), matrices, tokens: 1 },
      chosen: 'plan',
      why: '',
      sets: [{ name: 'plan', kernels: { '640x640': 'plan' }, seconds: 1, low: 1, high: 1, rounds: 9 }],
    });
    const kernel = (threads: number | undefined, wisdom: Wisdom, by = compiler) =>
      adviceFor(cpu, by, { shape, threads, wisdom: [wisdom] }).kernel('decode', 1, 640, 640);

    it('is of as many threads, or of the most that were measured', () => {
      const wisdom = { ...nothing, entries };
      assert.deepEqual(
        [1, 2, 4, 8, undefined].map((threads) => kernel(threads, wisdom)),
        ['of_1', 'of_2', 'of_4', 'of_4', 'of_4'],
      );
      assert.equal(kernel(1, wisdom, { ...compiler, version: 'cc 2' }), undefined);
      assert.equal(adviceFor(cpu, compiler, { shape, wisdom: [wisdom] }).kernel('batch', 2, 640, 640), undefined);
    });

    it('follows whole tokens of the same layer and threads, until a kernel is measured anew', () => {
      const wisdom = { ...nothing, entries, tokens: [choice(2), choice(1, '1x1')] };
      assert.deepEqual(
        [1, 2, 4].map((threads) => kernel(threads, wisdom)),
        ['of_1', 'plan', 'of_4'],
      );
      const later = merge(wisdom, { ...nothing, entries: entries.slice(2) });
      assert.equal(kernel(2, later), 'of_2');
      assert.deepEqual(merge(nothing, wisdom), wisdom);
    });
  });
});
