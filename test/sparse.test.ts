/**
 * Zeros of squared ReLU that are skipped: rows of `up` whose gate is closed and columns of `down` whose input is zero. The same
 * logits as with all of them read, for one token and for several, any number of threads, on every instruction set; and what is
 * told of them.
 */
import { strict as assert } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { isaOf } from '../codegen/isa/index.ts';
import { range } from '../codegen/kernels/kernel.ts';
import { orderedOf, orderedPackings, packingOf } from '../codegen/packings/index.ts';
import { packOrdered, unpackOrdered } from '../codegen/packings/orders.ts';
import { Engine } from '../runtime/engine.ts';
import { openModel } from '../runtime/formats/open.ts';
import {
  assertSameBits,
  bestTarget,
  buildFor,
  drive,
  nativeTargets,
  packedFor,
  prepare,
  refuses,
  runnerFor,
  targets,
  useCache,
} from './machine.ts';
import { isLong, long, some } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { mapMatrices, randomModel, smallShape } from './write-model.ts';

/** Nothing is a multiple of a run or a panel; rows enough for products by tables. */
const shape = smallShape({
  hidden: 340,
  layers: 6,
  heads: 6,
  kvHeads: 2,
  headSize: 100,
  intermediate: 1300,
  vocabulary: 283,
});
/** Weights of the gates by layer: few can be open; all can; none; all are open, or none is, as they are alike; 39 of 40, or one; all can. */
type Gates = (trits: ArrayLike<number>, row: number, col: number, cols: number) => number;
const gates: readonly Gates[] = [
  (trits, row, col, cols) => (row % 7 === 0 ? trits[row * cols + col]! : 0),
  (trits, row, col, cols) => trits[row * cols + col]!,
  () => 0,
  (trits, _, col) => trits[col]!,
  (trits, row, col) => (row % 40 ? trits[col]! : -trits[col]!),
  (trits, row, col, cols) => trits[row * cols + col]!,
];
/** The layer whose `down` is all zero. */
const WITHOUT_DOWN = 5;

/** Dead rows of `up` and columns of `down`, of all layers. */
const isDead = { up: (row: number) => row % 29 === 5, down: (col: number) => col % 50 === 3 } as const;
const neurons = range(shape.intermediate);
const shareOf = (isIt: (neuron: number) => boolean) => neurons.filter(isIt).length / neurons.length;

const model = randomModel(shape, 11);
const sparseModel = {
  ...model,
  layers: model.layers.map((layer, l) =>
    mapMatrices(layer, (matrix, kind) => {
      const { trits, cols } = matrix;
      const at = (weight: (row: number, col: number) => number) => ({
        ...matrix,
        trits: trits.map((_, i) => weight(Math.floor(i / cols), i % cols)),
      });
      const trit = (row: number, col: number) => trits[row * cols + col]!;
      if (kind === 'gate') return at((row, col) => gates[l]!(trits, row, col, cols));
      if (kind === 'up') return at((row, col) => (isDead.up(row) ? 0 : trit(row, col)));
      if (kind === 'down') return at((row, col) => (isDead.down(col) || l === WITHOUT_DOWN ? 0 : trit(row, col)));
      return matrix;
    }),
  ),
};

describe('sparse activations', () => {
  const cache = useCache();
  const tokens = Array.from({ length: 70 }, (_, i) => (i * 37) % 280);
  let folder = '';
  let expected: Float32Array = new Float32Array(0);

  before(async () => {
    folder = path.join(cache(), 'sparse');
    writeHuggingFace(folder, sparseModel, { weights: 'packed-divide' });
    const { source, built, library, model: opened } = await prepare(folder, 'scalar', [], 'p2', false);
    assert.ok(Object.values(built.manifest.matrices).every((m) => m.panel === undefined));
    const engine = new Engine(source, library, opened, { threads: 1, context: 128 });
    expected = engine.evaluate(tokens, true);
    engine.dispose();
  });

  it('both orders keep what is packed', () => {
    for (const isa of targets.map(isaOf))
      for (const o of [...orderedPackings(isa, 'rows'), ...orderedPackings(isa, 'columns')]) {
        const [n, k] = [37, 41];
        const trits = Int8Array.from({ length: n * k }, (_, i) => ((i * i) % 3) - 1);
        assert.deepEqual(unpackOrdered(o, packOrdered(o, trits, n, k), n, k), trits, o.token);
      }
  });

  for (const coding of some(['t5r32x20', 'p2r16x16', 't5r8x20']))
    it(`${coding} in both orders is written by the library as it is defined`, async () => {
      const packing = { ffn_gate: coding, ffn_up: `${coding}rows`, ffn_down: `${coding}columns` };
      const { built, weights, library, model: opened } = await prepare(folder, 'scalar', [], packing);
      library.close(opened);
      const bytes = readFileSync(weights);
      const ordered = built.manifest.layout.tensors.filter(({ name }) => /ffn_(up|down)$/.test(name));
      assert.equal(ordered.length, 2 * shape.layers);
      for (const t of ordered) {
        const [, layer, kind] = /^blk\.(\d+)\.ffn_(up|down)$/.exec(t.name)! as unknown as [
          string,
          string,
          'up' | 'down',
        ];
        const { trits } = sparseModel.layers[Number(layer)]![kind];
        const defined = packOrdered(orderedOf(t.type), trits, t.rows, t.cols);
        assert.equal(
          Buffer.compare(bytes.subarray(t.offset, t.offset + t.bytes), defined),
          0,
          `${t.name} as ${t.type}`,
        );
      }
    });

  for (const target of nativeTargets)
    (target === bestTarget ? it : long)(
      `the same logits on ${target}, for one token and for several, from the mapped file and from huge pages`,
      async () => {
        const { source, built, library, model: opened } = await prepare(folder, target, [], undefined, true);
        for (const slot of ['ffn_up', 'ffn_down']) assert.ok(built.manifest.matrices[slot]!.panel, slot);
        // What divides the work is the same C for all instruction sets: all of it on one, some on each.
        for (const threads of target === bestTarget ? some([2, 1, 3, 40]) : [2])
          for (const pages of target === bestTarget ? (['mapped', 'huge'] as const) : (['huge'] as const)) {
            const engine = new Engine(source, library, opened, { threads, pages, context: 128, shared: true });
            const what = `${threads} threads, ${pages}`;
            assertSameBits(engine.evaluate(tokens, true), expected, what);
            for (const chunk of threads < 3 ? [1, 2, 3, 9] : [1]) {
              engine.rewind(0);
              const parts: number[] = [];
              for (let i = 0; i < tokens.length; i += chunk)
                parts.push(...engine.evaluate(tokens.slice(i, i + chunk), true));
              assertSameBits(Float32Array.from(parts), expected, `${what}, ${chunk} at once`);
            }
            engine.dispose();
          }
        library.close(opened);
      },
    );

  for (const target of targets.filter((t) => !nativeTargets.includes(t)))
    long(`the same logits on ${target}`, async function () {
      const runner = await runnerFor(this, target);
      const built = await buildFor(openModel(folder).shape, target, { sparse: true });
      const weights = await packedFor(folder, built);
      assertSameBits(await drive(built, runner, weights, tokens, { threads: 3, pages: 2 }), expected, 'at once');
      const part = await drive(built, runner, weights, tokens.slice(0, 9), { chunk: 1, threads: 2 });
      assertSameBits(part, expected.subarray(0, part.length), 'token by token');
    });

  it('what tokens leave of the MLP is told by layer, of single tokens and only while it is asked for', async () => {
    const { source, library, model: opened } = await prepare(folder, bestTarget, [], undefined, true);
    const engine = new Engine(source, library, opened, { threads: 2, context: 128 });
    engine.evaluate(tokens.slice(0, 8), false);
    assert.deepEqual(engine.live(true), []);
    for (const token of tokens.slice(8, 20)) engine.step(token);
    engine.evaluate(tokens.slice(20, 30), false);
    const [few, half, none, alike, most, without] = engine.live(false);
    assert.ok(few!.open > 0.02 && few!.open < 1 / 7 && few!.rows === few!.open, JSON.stringify(few));
    assert.ok(few!.inputs > 0 && few!.inputs <= few!.open && few!.columns === few!.inputs, JSON.stringify(few));
    assert.ok(few!.again > 0 && few!.again < few!.open, JSON.stringify(few));
    assert.ok(half!.open > 0.45 && half!.open < 0.6 && half!.rows === half!.open, JSON.stringify(half));
    assert.deepEqual(none, { open: 0, again: 0, inputs: 0, rows: 0, columns: 0 });
    // Of each token all or none: several at once may be mostly open, and then take row tiles.
    const all = (12 * alike!.open) / shareOf((i) => !isDead.up(i));
    assert.ok(Math.abs(all - Math.round(all)) < 1e-3, JSON.stringify(alike));
    // 39 of 40: all rows are read.
    const mostly = (12 * (most!.rows - most!.open)) / shareOf((i) => i % 40 === 0 || isDead.up(i));
    assert.ok(mostly > 0.9 && Math.abs(mostly - Math.round(mostly)) < 1e-3, JSON.stringify(most));
    // Columns of zeros are not read, whatever their input.
    assert.ok(without!.open > 0.4 && without!.rows === without!.open, JSON.stringify(without));
    assert.deepEqual([without!.inputs, without!.columns], [0, 0]);
    engine.step(tokens[30]!);
    assert.deepEqual(engine.live(false), []);
    engine.dispose();
  });

  it('neurons that are dead by their weights are counted and dropped, in every packing; not where zeros are not skipped', async () => {
    /** By layer. */
    const isDeadGate = [(row: number) => row % 7 > 0, () => false, () => true, ...Array(3).fill(() => false)];
    for (const [target, packing, sparse] of [
      ...some(nativeTargets).map((name) => [name, undefined, true] as const),
      ...(isLong ? [['scalar', 't5', true] as const] : []),
      ['scalar', 'p2', false],
    ] as const) {
      const { source, built, library, model: opened } = await prepare(folder, target, [], packing, sparse);
      const engine = new Engine(source, library, opened, { threads: 1, context: 16 });
      const { rows } = packingOf(built.manifest.matrices.ffn_gate!.packing);
      const dead = isDeadGate.map((isDeadRow, l) => {
        const lost = neurons.filter((i) => isDeadRow(i) || isDead.up(i)).length;
        return {
          gate: neurons.filter(isDeadRow).length,
          up: neurons.filter(isDead.up).length,
          norm: 0,
          down: neurons.filter((i) => isDead.down(i) || l === WITHOUT_DOWN).length,
          dropped: lost - ((rows - ((neurons.length - lost) % rows)) % rows),
        };
      });
      assert.deepEqual(engine.dead(), sparse ? dead : [], `${target} ${packing}`);
      engine.dispose();
    }
  });

  it('a damaged list of dead neurons is refused', async () => {
    const { built, weights, library, model: opened } = await prepare(folder, bestTarget, [], undefined, true);
    library.close(opened);
    const { offset } = built.manifest.layout.tensors.find(({ kind }) => kind === 'int32')!;
    const bytes = readFileSync(weights);
    const file = path.join(cache(), 'damaged.bnw');
    // Of the first layer: row tiles, zero columns, the first one, where the last row is.
    const last = 7 + 2 * shape.intermediate - 1;
    for (const [number, value] of [
      [5, 1e6],
      [5, -1],
      [6, -1],
      [7, shape.intermediate],
      [last, 1e6],
    ] as const) {
      const damaged = Buffer.from(bytes);
      damaged.writeInt32LE(value, offset + 4 * number);
      writeFileSync(file, damaged);
      refuses(() => library.open(file), /its list of dead neurons is damaged/);
    }
  });
});
