/**
 * The interface between Node and a generated library, through each foreign function interface: every function, the message of
 * every refused call, limits, leaks, idle threads.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { isAvailable, loadNative } from '../runtime/ffi.ts';
import { openModel } from '../runtime/formats/open.ts';
import { encodings, type ModelSource } from '../runtime/formats/source.ts';
import { Library, operations, want } from '../runtime/library.ts';
import { openWeights } from '../runtime/weights.ts';
import abi from '../schemas/abi.json' with { type: 'json' };
import { skip } from './fixtures.ts';
import {
  type Built,
  bestTarget,
  buildFor,
  inChild,
  refuses,
  smallestShape,
  useCache,
  withInterface,
} from './machine.ts';
import { long } from './tier.ts';
import { writeHuggingFace } from './write-huggingface.ts';
import { randomModel } from './write-model.ts';

const shape = smallestShape;

for (const ffi of ['ffi-napi', 'koffi'] as const) {
  describe(`native interface: ${ffi}`, () => {
    const cache = useCache();
    let built: Built;
    let library: Library;
    let source: ModelSource;
    /** Packed weights of the model. */
    let weights = '';
    let model = -1;
    const token = Int32Array.of(1);
    const logits = new Float32Array(shape.vocabulary);

    before(async function () {
      if (!isAvailable(ffi)) skip(this as unknown as Mocha.Context, `${ffi} does not load here`);
      const folder = path.join(cache(), 'model');
      writeHuggingFace(folder, randomModel(shape, 3), { weights: 'packed' });
      source = openModel(folder);
      built = await buildFor(source.shape, bestTarget);
      library = withInterface(ffi, () => new Library(built.library));
      assert.equal(library.interface, ffi);
      const opened = await openWeights(source, built.manifest.layout, library, 2);
      weights = opened.file;
      library.close(opened.model);
    });

    beforeEach(() => {
      model = library.open(weights);
    });
    afterEach(() => {
      library.close(model);
    });

    /** A changed copy of the weights. */
    const damaged = (change: (bytes: Buffer) => Buffer | undefined): string => {
      const file = path.join(cache(), 'damaged.bnw');
      const bytes = readFileSync(weights);
      writeFileSync(file, change(bytes) ?? bytes);
      return file;
    };

    const packTensor = (index: number, changes: Partial<Record<string, string | number>> = {}) => {
      const name = built.manifest.layout.tensors[index]!.name;
      const t = { ...source.tensors.get(name)!, ...changes };
      const encoding = typeof t.encoding === 'number' ? t.encoding : encodings[t.encoding];
      library.packTensor(
        index,
        t.file,
        t.offset,
        t.bytes,
        encoding,
        t.rows,
        t.cols,
        t.scale ?? 0,
        1,
        t.permutedHeads ?? 0,
      );
    };
    const indexOf = (name: string) => built.manifest.layout.tensors.findIndex((t) => t.name === name);

    /** Starts a packing, and gives it up after `use`. */
    const whilePacking = (use: (file: string) => void): void => {
      const file = path.join(cache(), 'packing.bnw');
      library.packBegin(file, 2);
      try {
        use(file);
      } finally {
        library.packEnd(false);
      }
      assert.ok(!existsSync(file), 'the file is still there');
    };

    it('every function, once', () => {
      const native = withInterface(ffi, () => loadNative(built.library));
      assert.deepEqual(
        Object.keys(native.functions),
        abi.functions.map((f) => f.name),
      );
      const call = native.functions;
      assert.equal(call.bn_abi!(), abi.version);
      assert.equal(JSON.parse(call.bn_describe!() as string).layout, built.manifest.layout.id);
      assert.equal(call.bn_open!('/nowhere'), -1);
      assert.match(call.bn_error!() as string, /^cannot open weights '\/nowhere': No such file/);
      const number = call.bn_open!(weights) as number;
      const context = call.bn_context!(number, 2, 1, 16, 0, 2, 0, 0) as number;
      assert.ok(number >= 0 && context >= 0);
      assert.ok((call.bn_huge_pages!(context) as number) >= 0);
      assert.equal(call.bn_eval!(context, Int32Array.of(3, 4), 2, want.last, logits), 2);
      assert.ok(logits.every(Number.isFinite) && logits.some((x) => x !== 0));
      const [id, logit] = [new Int32Array(1), new Float32Array(1)];
      assert.equal(call.bn_top!(context, token, 0, 1, want.last, id, logit), 2);
      assert.equal(logits[id[0]!], logit[0]);
      assert.equal(logit[0], Math.max(...logits));
      assert.equal(call.bn_rewind!(context, 1), 1);
      assert.equal(call.bn_eval!(context, token, 1, want.none, null), 2);
      assert.equal(call.bn_profile!(context, 0, null), 0);
      assert.equal(call.bn_release!(context), 0);
      assert.equal(call.bn_close!(number), 0);
      assert.equal(call.bn_end_with_thread!(), 0);
      const file = path.join(cache(), 'once.bnw');
      assert.equal(call.bn_pack_begin!(file, 1), 0);
      const t = source.tensors.get('output_norm')!;
      assert.equal(call.bn_pack_tensor!(indexOf('output_norm'), t.file, t.offset, t.bytes, 30, 1, t.cols, 0, 1, 0), 0);
      assert.equal(call.bn_pack_end!(1), 0);
      assert.equal(readFileSync(file).length, built.manifest.layout.fileBytes);
    });

    it('paths with spaces and letters beyond ASCII', () => {
      const folder = path.join(cache(), 'größe 重さ');
      mkdirSync(folder, { recursive: true });
      const file = path.join(folder, 'w.bnw');
      writeFileSync(file, readFileSync(weights));
      library.close(library.open(file));
      refuses(() => library.open(`${file}x`), /größe 重さ\/w\.bnwx': No such file/);
    });

    it('weights that are missing, no file, empty', () => {
      refuses(() => library.open(path.join(cache(), 'missing')), /cannot open weights '.*missing': No such file/);
      refuses(() => library.open(cache()), /cannot use weights '.*': it is not a file/);
      refuses(() => library.open('/dev/null'), /cannot use weights '\/dev\/null': it is not a file/);
      refuses(() => library.open(damaged(() => Buffer.alloc(0))), /cannot use weights '.*': it is empty/);
      const pipe = path.join(cache(), 'pipe');
      assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
      refuses(() => library.open(pipe), /cannot use weights '.*pipe': it is not a file/);
      rmSync(pipe);
    });

    it('weights that are damaged, truncated, longer, or something else', () => {
      const flip = (at: number) =>
        damaged((bytes) => {
          bytes[at]! ^= 1;
          return bytes;
        });
      refuses(() => library.open(flip(8)), /its header is damaged/);
      refuses(() => library.open(flip(90)), /its header is damaged/);
      refuses(() => library.open(flip(4096)), /its data is damaged/);
      refuses(() => library.open(flip(built.manifest.layout.fileBytes - 1)), /its data is damaged/);
      refuses(() => library.open(flip(0)), /it is not a packed weights file/);
      refuses(() => library.open(damaged((bytes) => bytes.subarray(0, 100))), /it is too short/);
      refuses(() => library.open(damaged((bytes) => bytes.subarray(0, 5000))), /its size is wrong/);
      refuses(() => library.open(damaged((bytes) => Buffer.concat([bytes, bytes]))), /its size is wrong/);
      refuses(() => library.open(damaged(() => Buffer.alloc(8192, 'text '))), /it is not a packed weights file/);
    });

    it('weights of another layout', async () => {
      const other = await buildFor({ ...shape, vocabulary: shape.vocabulary + 1 }, bestTarget);
      const foreign = withInterface(ffi, () => new Library(other.library));
      refuses(() => foreign.open(weights), /cannot use weights '.*': it was packed for another model or layout/);
    });

    it('models that are not open', () => {
      for (const number of [-1, 63, 64, 2 ** 31 - 1]) {
        refuses(() => library.close(number), new RegExp(`there is no open model ${number}$`));
        refuses(() => library.context(number, 1, 1, 16, true), new RegExp(`there is no open model ${number}$`));
      }
    });

    it('a model that contexts use stays open', () => {
      const contexts = [1, 2].map(() => library.context(model, 1, 1, 16, true));
      refuses(() => library.close(model), new RegExp(`model ${model} is in use by 2 contexts; release them first`));
      library.release(contexts[0]!);
      refuses(() => library.close(model), /is in use by 1 contexts/);
      assert.equal(library.evaluate(contexts[1]!, token, 1, want.last, logits), 1);
      library.release(contexts[1]!);
    });

    it('contexts that make no sense', () => {
      refuses(() => library.context(model, 0, 1, 16, true), /context of 0 positions: must be 1 to 1048576/);
      refuses(() => library.context(model, -5, 1, 16, true), /context of -5 positions/);
      refuses(() => library.context(model, 2 ** 20 + 1, 1, 16, true), /context of 1048577 positions/);
      refuses(() => library.context(model, 1, 0, 16, true), /0 threads: must be 1 to 1024/);
      refuses(() => library.context(model, 1, 1025, 16, true), /1025 threads: must be 1 to 1024/);
      refuses(() => library.context(model, 1, 1, 4 as 8, true), /key-value cache of 4 bits: must be 8, 16 or 32/);
      // None of them counts as a user: afterEach closes the model.
    });

    it('contexts that do not exist', () => {
      const released = library.context(model, 1, 1, 16, true);
      library.release(released);
      for (const context of [-1, released, 64]) {
        const message = new RegExp(`there is no context ${context}$`);
        refuses(() => library.release(context), message);
        refuses(() => library.rewind(context, 0), message);
        refuses(() => library.evaluate(context, token, 1, want.last, logits), message);
      }
    });

    it('evaluations that make no sense leave the context as it was', () => {
      const context = library.context(model, 4, 1, 16, true);
      const evaluate = (tokens: readonly number[], which: 0 | 1 | 2 = want.last, out: Float32Array | null = logits) =>
        library.evaluate(context, Int32Array.from(tokens), tokens.length, which, out);
      try {
        evaluate([5, 6]);
        const expected = logits.slice();
        refuses(
          () => library.evaluate(context, token, 0, want.last, logits),
          /0 tokens to evaluate: must be at least 1/,
        );
        refuses(() => library.evaluate(context, token, -1, want.last, logits), /-1 tokens to evaluate/);
        refuses(() => evaluate([1, 2, 3]), /3 tokens do not fit: 2 of 4 positions are filled/);
        refuses(() => evaluate([1, 77]), /token 77 at index 1 is not in the vocabulary of 77/);
        refuses(() => evaluate([-1]), /token -1 at index 0 is not in the vocabulary/);
        refuses(() => evaluate([1], 3 as 2), /unknown choice of logits 3/);
        refuses(() => evaluate([1], want.last, null), /logits are wanted, but there is no buffer/);
        refuses(() => library.rewind(context, 3), /cannot rewind to position 3: 2 are filled/);
        refuses(() => library.rewind(context, -1), /cannot rewind to position -1/);
        assert.deepEqual(logits, expected, 'a refused call wrote logits');
        library.rewind(context, 1);
        assert.equal(evaluate([6]), 2);
        assert.deepEqual(logits, expected);
        assert.equal(evaluate([76, 0], want.none, null), 4);
        refuses(() => evaluate([1]), /1 tokens do not fit: 4 of 4/);
      } finally {
        library.release(context);
      }
    });

    it('as many contexts and models as there are slots, and one more', () => {
      const contexts: number[] = [];
      const models: number[] = [];
      try {
        refuses(() => {
          for (;;) contexts.push(library.context(model, 1, 1, 16, true));
        }, /64 contexts exist already; release one first/);
        refuses(() => {
          for (;;) models.push(library.open(weights));
        }, /64 models are open already; close one first/);
        assert.deepEqual([contexts.length, models.length], [64, 63]);
        library.release(contexts.pop()!);
        contexts.push(library.context(model, 1, 1, 16, true));
      } finally {
        for (const context of contexts) library.release(context);
        for (const number of models) library.close(number);
      }
    });

    it('a profile adds up, and is empty while it is off', () => {
      const sum = (profile: Record<string, number>) => operations.reduce((all, name) => all + profile[name]!, 0);
      for (const threads of [1, 3]) {
        const context = library.context(model, 64, threads, 16, false);
        library.evaluate(context, token, 1, want.last, logits);
        assert.equal(sum(library.profile(context, true)), 0);
        const started = performance.now();
        for (let i = 0; i < 32; i++) library.evaluate(context, token, 1, want.last, logits);
        const elapsed = (performance.now() - started) / 1000;
        const profile = library.profile(context, true);
        // The demo model's plan looks nothing up.
        assert.equal(profile.tables, 0);
        for (const name of operations.filter((o) => o !== 'tables' && (threads > 1 || o !== 'wait')))
          assert.ok(profile[name] > 0, name);
        assert.ok(sum(profile) <= elapsed, `${sum(profile)} of ${elapsed} s`);
        library.evaluate(context, token, 1, want.none, null);
        assert.equal(library.profile(context, false).head, 0, 'no logits');
        library.evaluate(context, token, 1, want.last, logits);
        assert.equal(sum(library.profile(context, false)), 0);
        library.release(context);
      }
      refuses(() => library.profile(9, true), /there is no context 9/);
    });

    it('packing that has not begun', () => {
      refuses(() => packTensor(0), /no packing in progress/);
      refuses(() => library.packEnd(true), /no packing in progress/);
      refuses(() => library.packEnd(false), /no packing in progress/);
    });

    it('packing that cannot begin', () => {
      const existing = path.join(cache(), 'existing');
      writeFileSync(existing, 'mine');
      refuses(() => library.packBegin(existing, 1), /cannot create '.*existing': File exists/);
      assert.equal(readFileSync(existing, 'utf8'), 'mine');
      refuses(() => library.packBegin(path.join(cache(), 'no/where'), 1), /cannot create '.*no\/where': No such file/);
      refuses(() => library.packBegin(path.join(cache(), 'x'.repeat(5000)), 1), /path of \d+ characters is too long/);
      refuses(() => library.packBegin(path.join(cache(), 'threads'), 0), /0 threads: must be 1 to 1024/);
      assert.ok(!existsSync(path.join(cache(), 'threads')));
      whilePacking(() =>
        refuses(() => library.packBegin(path.join(cache(), 'second'), 1), /another packing is in progress/),
      );
      assert.ok(!existsSync(path.join(cache(), 'second')));
    });

    it('tensors that cannot be packed', () => {
      const matrix = indexOf('blk.0.attn_q');
      const rows = indexOf('token_embd');
      const vector = indexOf('output_norm');
      const count = built.manifest.layout.tensors.length;
      whilePacking(() => {
        refuses(
          () => library.packTensor(count, '/', 0, 1, 0, 1, 1, 0, 1, 0),
          new RegExp(`there is no tensor ${count}$`),
        );
        refuses(() => library.packTensor(-1, '/', 0, 1, 0, 1, 1, 0, 1, 0), /there is no tensor -1/);
        refuses(
          () => packTensor(matrix, { rows: 161 }),
          /tensor 'blk\.0\.attn_q' is 161 x 36, but the library was generated for 160 x 36/,
        );
        refuses(() => packTensor(matrix, { scale: -1 }), /has scale -1 and factor 1: must not be negative/);
        refuses(() => packTensor(vector, { cols: 35 }), /tensor 'output_norm' is 1 x 35/);
        refuses(() => packTensor(rows, { encoding: 1 }), /tensor 'token_embd' has encoding 1, but .* generated for 30/);
        refuses(() => packTensor(matrix, { file: '/nowhere' }), /cannot open '\/nowhere': No such file/);
        const beyond = /tensor 'blk\.0\.attn_q' does not lie within/;
        refuses(() => packTensor(matrix, { offset: 1e9 }), beyond);
        refuses(() => packTensor(matrix, { offset: -1 }), beyond);
        refuses(() => packTensor(matrix, { bytes: 1e12 }), beyond);
        refuses(() => packTensor(matrix, { bytes: 0 }), beyond);
        // The bytes do not suffice for rows x cols; reading on would leave the file.
        for (const index of [matrix, rows, vector]) {
          const { bytes } = source.tensors.get(built.manifest.layout.tensors[index]!.name)!;
          refuses(() => packTensor(index, { bytes: bytes - 1 }), /cannot be packed/);
        }
        refuses(() => packTensor(matrix, { encoding: 99 }), /tensor 'blk\.0\.attn_q' cannot be packed/);
        refuses(() => packTensor(vector, { encoding: 36 }), /tensor 'output_norm' cannot be packed/);
        for (const permutedHeads of [-1, 7, 160, 2 ** 31 - 1])
          refuses(() => packTensor(matrix, { permutedHeads }), /has 160 rows: they are not the interleaved halves of/);
        // Two-bit code 3 is no ternary digit.
        const file = path.join(cache(), 'codes');
        writeFileSync(file, Buffer.alloc(40 * 36, 0xff));
        refuses(() => packTensor(matrix, { file, offset: 0 }), /tensor 'blk\.0\.attn_q' cannot be packed/);
        // A refused tensor does not spoil the packing.
        packTensor(matrix);
      });
    });

    long('100,000 evaluations and rewinds leak nothing', async () => {
      const bytes = (await inChild(ffi, 'calls', [built.library, weights])) as number;
      assert.ok(bytes < 20e6, `the process grew by ${bytes} bytes`);
    });

    long('300 models and contexts leak neither memory nor threads', async () => {
      const { bytes, threads } = (await inChild(ffi, 'objects', [built.library, weights])) as {
        bytes: number;
        threads: number;
      };
      assert.ok(bytes < 20e6, `the process grew by ${bytes} bytes`);
      assert.ok(threads <= 0, `${threads} threads are left`);
    });

    for (const spin of ['spin', 'sleep'])
      it(`an idle context of 7 threads takes no CPU time (${spin})`, async () => {
        const milliseconds = (await inChild(ffi, 'idle', [built.library, weights, spin])) as number;
        // One spinning thread would take 500.
        assert.ok(milliseconds < 100, `${milliseconds} ms of 500`);
      });
  });
}
