/**
 * The sweep from the inside: whom the exactness gate catches, how a race finds the fastest, what the statistics say, and what the
 * report shows.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { findCompiler } from '../codegen/compile.ts';
import { hostProfile, nativeProfile, runnableIsas } from '../codegen/cpu.ts';
import { kernelSource } from '../codegen/generate.ts';
import { isaOf } from '../codegen/isa/index.ts';
import { activationStride } from '../codegen/kernels/ternary.ts';
import { format, type KernelSpec, parse } from '../codegen/name.ts';
import { packingOf } from '../codegen/packings/index.ts';
import { fieldOf } from '../codegen/tune/candidates.ts';
import { type Contest, inTiles } from '../codegen/tune/contests.ts';
import { newStanding, race, winnerOf } from '../codegen/tune/halving.ts';
import { reportOf } from '../codegen/tune/report.ts';
import { isFaster, spread } from '../codegen/tune/statistics.ts';
import { sweep } from '../codegen/tune/sweep.ts';
import { finals } from '../codegen/tune/tokens.ts';
import type { Phase, TokenEntry, TuningEntry, Wisdom } from '../codegen/wisdom.ts';
import { adviceFor, here, matricesOf, merge, nothing } from '../codegen/wisdom.ts';
import { skip } from './fixtures.ts';
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
    const page = reportOf('tiny', [entry, prompts], [choice]);

    it('is one file: no address but the namespaces of w3.org, and all data inside', () => {
      const addresses = [...page.matchAll(/\b(?:https?:)?\/\/[^\s"'<>]+/g)].map(([address]) => address);
      assert.deepEqual([...new Set(addresses)], ['http://www.w3.org/2000/svg']);
      assert.doesNotMatch(page, /\b(?:src|href)=|@import|url\(/);
      const data = /<script type="application\/json" id="data">([\s\S]*?)<\/script>/.exec(page)![1]!;
      assert.deepEqual(JSON.parse(data), { model: 'tiny', entries: [entry, prompts], tokens: [choice] });
      assert.doesNotMatch(page, /NaN|undefined|Infinity|<fast>/);
    });

    it('is drawn by a browser', async function () {
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
        // Roofline, bars and maps of both contests, and the bars of the choice.
        const drawings = 2 + kinds.size + 2 + 2 + 1;
        const title = /<title>(.*?)<\/title>/.exec(stdout)![1]!;
        assert.equal(title, Array.from({ length: drawings }, () => 'drawn').join(' '));
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  });

  describe('the final choice', () => {
    const shape = smallShape({ layers: 2, hidden: 640, heads: 10, kvHeads: 10, intermediate: 640, context: 256 });

    it('measures whole tokens and prompts with the plan and with the winners', async () => {
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

  describe('the exactness gate', () => {
    // An int16 sum of 640 products can overflow: 640 x 2 x 127 > 32,767. There are rows enough for tables.
    const shape = smallShape({ layers: 1, hidden: 640, heads: 10, kvHeads: 10, intermediate: 640, context: 64 });
    /** Of each phase, the kernels that have a bug: not those that the plan takes. */
    const hasBug: Readonly<Record<Phase, (spec: KernelSpec) => boolean>> = {
      decode: ({ variant }) => variant === 'p4096',
      batch: ({ op, tile, weight }) => op !== 'sums' && tile[2]! > packingOf(weight).lineK,
      prefill: ({ op, tile }) => op === 'sums' && tile[1] !== 4,
    };
    /** Sweeps one problem, some of whose candidates have a bug. @returns what is said of them */
    async function sweepWith(
      plant: (text: string) => string,
      isa = isaOf(nativeProfile().isa),
      phase: Phase = 'decode',
      isBad = hasBug[phase],
    ): Promise<string[]> {
      const planted: string[] = [];
      const entries: TuningEntry[] = [];
      for await (const { entries: found = [] } of sweep({
        shape,
        cpu: hostProfile(isa),
        compiler: await findCompiler(isa.family),
        phases: [phase],
        threads: [1],
        seconds: 6,
        textOf: (spec) => {
          const { name, text } = kernelSource(spec);
          const changed = isBad(spec) ? plant(text) : text;
          if (changed !== text) planted.push(name);
          return changed;
        },
        onProgress: () => {},
        signal: new AbortController().signal,
      }))
        entries.push(...found);
      const [{ inexact, candidates, kernel }] = entries as [TuningEntry];
      assert.ok(planted.length > 0, 'nothing was planted');
      assert.ok(inexact.length > 0, 'no bug was found');
      assert.deepEqual(
        inexact.map((bad) => bad.kernel).filter((name) => !planted.includes(name)),
        [],
      );
      for (const timed of [kernel, ...candidates.map((c) => c.kernel)])
        assert.ok(!planted.includes(timed), `${timed} was timed`);
      return inexact.map(({ problem }) => problem);
    }
    const wrong = /^random: row \d+( of token \d+)? is -?\d+ instead of -?\d+$/;

    it('catches an off-by-one in k', async () => {
      for (const problem of await sweepWith((text) => text.replace('(x + ', '(x + 1 + '))) assert.match(problem, wrong);
    });

    it('catches a wrong field and a wrong half of a table', async () => {
      const mask = await sweepWith((text) => text.replace(/\(char\)12\b|\(12\)/, '(char)3'));
      for (const problem of mask) assert.match(problem, wrong);
      // Tables that do not fit one register have two halves; packings without tables stay as they are.
      const tables = await sweepWith((text) => text.replace('(low, ', '(high, ')).catch((error: Error) => error);
      if (Array.isArray(tables)) for (const problem of tables) assert.match(problem, wrong);
      else assert.match(tables.message, /nothing was planted/);
    });

    it('catches several tokens that are mistaken for each other', async () => {
      // The second token's activations are the first one's.
      const stride = activationStride(shape.hidden);
      const mistaken = (text: string) => text.replaceAll(new RegExp(`\\(x \\+ (.*?)\\b${stride}\\b`, 'g'), '(x + $10');
      for (const problem of await sweepWith(mistaken, undefined, 'batch')) assert.match(problem, wrong);
    });

    it('catches a wrong half of a table of sums', async function () {
      const isa = isaOf(nativeProfile().isa);
      if (isa.lanes === 1) return skip(this, 'this machine has no vectors, and so no tables of sums');
      const half = (text: string) => text.replace(/(?<=s_q_12 = \w+\(low_q_3, high_q_)1/, '0');
      for (const problem of await sweepWith(half, isa, 'prefill')) assert.match(problem, wrong);
    });

    /** Whole chunks become one. */
    const flushedLate = (text: string) => {
      const [loop, all, step] = /for \(long chunk = 0; chunk < (\d+); chunk \+= (\d+)\)/.exec(text) ?? [];
      // A chunk that is unrolled has no loop to be made longer.
      if (!loop || !text.includes(`i < ${step};`)) return text;
      return text.replace(loop, loop.replace(`+= ${step}`, `+= ${all}`)).replace(`i < ${step};`, `i < ${all};`);
    };
    /** The packing of a kernel that looks up. */
    const lookedUp = (text: string) => /bn_lookup_i8_(tl1|tl2|tmac)/.exec(text)?.[1];

    it('catches a wrong half of a table, a wrong line and a late int16 sum of kernels that look up', async () => {
      const problems = await sweepWith((text) => {
        switch (lookedUp(text)) {
          case 'tl1':
            return text.replace(/(table_l0_g0_1 = .*?) \+ 9\)/, '$1)');
          case 'tl2':
            return text.replace('(tables + ', '(tables + 240 + ');
          case 'tmac':
            return flushedLate(text);
          default:
            return text;
        }
      });
      // Random data show the first two.
      const late = problems.filter((problem) => !wrong.test(problem));
      assert.ok(late.length > 0 && late.length < problems.length);
      for (const problem of late) assert.match(problem, /^all \+-1 and 127: row \d+ is /);
    });

    it('catches an int16 sum that is flushed too late, by the worst case', async function () {
      const isa = runnableIsas().find(({ dot }) => dot.limit <= 32767);
      if (!isa) return skip(this, 'no instruction set of this CPU has int16 sums');
      // A sum of look-ups begins with its length.
      const late = await sweepWith((text) => (lookedUp(text) ? text : flushedLate(text)), isa);
      // Random data do not show it.
      for (const problem of late) assert.match(problem, /^all \+-1 and 127: row \d+ is /);
    });

    it('catches crashes, foreign writes and compile errors', async () => {
      const bugs: readonly (readonly [code: string, says: RegExp])[] = [
        ['__builtin_trap();', /Illegal instruction|Trace/],
        ['*(volatile int *)8 = 0;', /Segmentation fault/],
        ['y[-3] = 0;', /writes outside the result/],
        ['nonsense;', /error/],
      ];
      // In all but the plan's own kernels, one after the other.
      let next = 0;
      const entry = '  BN_ASSERT(0 <= t0';
      const plant = (text: string) =>
        text.includes(entry) ? text.replace(entry, `  ${bugs[next++ % bugs.length]![0]}\n$&`) : text;
      const { matrices } = inTiles(shape, nativeProfile());
      const own = Object.values(matrices).map(({ gemv }) => format(gemv));
      const found = await sweepWith(plant, undefined, 'decode', (spec) => !own.includes(format(spec)));
      for (const problem of found)
        assert.ok(
          bugs.some(([, says]) => says.test(problem)),
          problem,
        );
      for (const [code, says] of bugs)
        assert.ok(
          found.some((problem) => says.test(problem)),
          code,
        );
    });
  });
});
