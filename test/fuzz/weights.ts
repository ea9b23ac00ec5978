/**
 * Damaged weights, at random: a tiny model in every encoding, one tensor damaged, in its file or after packing. Either the
 * model is refused, by a ModelError or LibraryError that names the tensor and leaves nothing in the cache, or an evaluation
 * fails with a LibraryError that names a token, or all logits are finite and bn_top finds the same.
 *
 * The same seed and case give the same damage: a failure names both.
 */
import { strict as assert } from 'node:assert';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openModel } from '../../runtime/formats/open.ts';
import type { Encoding, ModelSource } from '../../runtime/formats/source.ts';
import { type Library, want } from '../../runtime/library.ts';
import { openWeights, weightsRoot } from '../../runtime/weights.ts';
import { LibraryError, ModelError } from '../../schemas/error.ts';
import type { RowType } from '../../schemas/types.ts';
import { type Random, randomOf } from '../kernel-inputs.ts';
import { type Built, bestTarget, buildFor, libraryFor } from '../machine.ts';
import { type GgufWeights, writeGguf } from '../write-gguf.ts';
import { type HuggingFaceWeights, writeHuggingFace } from '../write-huggingface.ts';
import { randomModel, smallShape } from '../write-model.ts';

/** What became of the cases. */
export interface Outcomes {
  cases: number;
  /** Refused when packed, refused by an evaluation, and sound. */
  refused: number;
  failed: number;
  sound: number;
}

/** A model on disk, whole. */
interface Subject {
  readonly title: string;
  readonly file: string;
  readonly bytes: Buffer;
  /** The tensors of the whole model; damage does not move them. */
  readonly source: ModelSource;
  readonly built: Built;
  readonly library: Library;
}

const forms: readonly (readonly [HuggingFaceWeights | GgufWeights, RowType])[] = [
  ['packed', 'bf16'],
  ['masters-bf16', 'bf16'],
  ['ternary-f32', 'bf16'],
  ['i2_s', 'q6_k'],
  ['tq1_0', 'q6_k'],
  ['tq2_0', 'q6_k'],
];

const isHuggingFace = (weights: string): weights is HuggingFaceWeights => /^(packed|masters|ternary)/.test(weights);

async function subjectsIn(folder: string): Promise<Subject[]> {
  const subjects: Subject[] = [];
  for (const [weights, embedding] of forms) {
    const name = path.join(folder, weights);
    const model = randomModel(smallShape({ embeddingType: embedding, headType: embedding }), 3);
    if (isHuggingFace(weights)) writeHuggingFace(name, model, { weights });
    else writeGguf(`${name}.gguf`, model, { arch: 'bitnet-b1.58', weights, embedding, head: embedding });
    const at = isHuggingFace(weights) ? name : `${name}.gguf`;
    const source = openModel(at);
    const file = source.tensors.get('output_norm')!.file;
    const built = await buildFor(source.shape, bestTarget);
    const title = `${weights}, ${embedding}`;
    subjects.push({ title, file, bytes: readFileSync(file), source, built, library: await libraryFor(built) });
  }
  return subjects;
}

const pick = <T>(random: Random, items: readonly T[]): T => items[random.integer(0, items.length - 1)]!;

/** Bits of numbers that should not be, by size of the element. */
const odd16 = [0x7fc0, 0xffc1, 0x7e00, 0x7c00, 0xfc00, 0x7f80, 0xff80, 0x7f7f, 0x7bff, 0x0001, 0x8000];
const odd32 = [0x7fc00000, 0xffc00001, 0x7f800000, 0xff800000, 0x7f7fffff, 0x7149f2ca, 0x00000001, 0x80000000];
const elementSize = (encoding: Encoding) => (encoding === 'f32' ? 4 : 2);

/** Changes some bytes of a tensor. @returns what was done */
function damage(bytes: Buffer, encoding: Encoding, random: Random): string {
  const kinds = ['bits', 'run', 'number', 'numbers'] as const;
  const kind = pick(random, kinds);
  if (kind === 'bits') {
    const count = random.integer(1, 8);
    for (let i = 0; i < count; i++) bytes[random.integer(0, bytes.length - 1)]! ^= 1 << random.integer(0, 7);
    return `${count} bits`;
  }
  if (kind === 'run') {
    const start = random.integer(0, bytes.length - 1);
    const whole = random.integer(0, 9) === 0;
    const end = whole ? bytes.length : random.integer(start + 1, bytes.length);
    const value = pick(random, [0, 0xff, 0x55, 0xaa, undefined]);
    const run = bytes.subarray(whole ? 0 : start, end);
    if (value === undefined) for (let i = 0; i < run.length; i++) run[i] = random.integer(0, 255);
    else run.fill(value);
    return `${run.length} bytes of ${value ?? 'anything'}`;
  }
  const size = elementSize(encoding);
  const count = kind === 'number' ? 1 : random.integer(2, 20);
  for (let i = 0; i < count; i++) {
    const at = random.integer(0, Math.floor(bytes.length / size) - 1) * size;
    if (size === 4) bytes.writeUInt32LE(pick(random, odd32), at);
    else bytes.writeUInt16LE(pick(random, odd16), at);
  }
  return `${count} odd numbers`;
}

const tokens = Int32Array.of(1, 17, 250, 3, 3, 99);

/** Logits of all tokens, and the largest by bn_top, one token at a time. @returns undefined where an evaluation failed */
function evaluate({ library, source }: Subject, model: number, kv: 8 | 16 | 32): Float32Array | undefined {
  const { vocabulary } = source.shape;
  const logits = new Float32Array(tokens.length * vocabulary);
  let context = -1;
  try {
    context = library.context(model, tokens.length, 2, kv, false, 'mapped');
    library.evaluate(context, tokens, tokens.length, want.all, logits);
    library.rewind(context, 0);
    for (const [t, token] of tokens.entries()) {
      const [ids, largest] = [new Int32Array(1), new Float32Array(1)];
      library.top(context, Int32Array.of(token), 1, 1, want.last, ids, largest);
      assert.equal(largest[0], logits[t * vocabulary + ids[0]!], 'one token gives other logits than several');
    }
    return logits;
  } catch (error) {
    if (!(error instanceof LibraryError)) throw error;
    assert.match(
      error.message,
      /at position \d+ gives numbers that are not finite|scale of '.*' in the packed weights/,
    );
    return undefined;
  } finally {
    if (context >= 0) library.release(context);
  }
}

/** One case. @returns what became of it */
async function once(subject: Subject, random: Random, log: (what: string) => void): Promise<keyof Outcomes> {
  const { source, file, built, library } = subject;
  const kv = pick(random, [8, 16, 32] as const);
  const inFile = random.integer(0, 3) > 0;
  rmSync(weightsRoot(), { recursive: true, force: true });
  let opened: { model: number; file: string };
  if (inFile) {
    const tensor = pick(random, [...source.tensors.values()]);
    const bytes = Buffer.from(subject.bytes);
    log(
      `${tensor.name}: ${damage(bytes.subarray(tensor.offset, tensor.offset + tensor.bytes), tensor.encoding, random)}`,
    );
    writeFileSync(file, bytes);
    try {
      // Readers look at a few numbers, too.
      opened = await openWeights(openModel(source.path), built.manifest.layout, library, 2);
    } catch (error) {
      if (!(error instanceof ModelError) && !(error instanceof LibraryError)) throw error;
      log(error.message);
      assert.ok(error.message.includes(tensor.name.replace(/\.weight$/, '')), 'the message does not name the tensor');
      return 'refused';
    } finally {
      writeFileSync(file, subject.bytes);
    }
  } else {
    opened = await openWeights(source, built.manifest.layout, library, 2);
    // Of ternary matrices the scale alone: whatever their other bytes, products are integers. Lists of neurons are checked
    // when the file is opened.
    const tensor = pick(
      random,
      built.manifest.layout.tensors.filter(({ kind }) => kind !== 'int32' && kind !== 'int8'),
    );
    const [start, size] = tensor.kind === 'ternary' ? [tensor.offset + tensor.bytes, 4] : [tensor.offset, tensor.bytes];
    const encoding = tensor.kind === 'rows' ? source.shape.embeddingType : 'f32';
    const bytes = readFileSync(opened.file).subarray(start, start + size);
    log(`packed ${tensor.name}: ${damage(bytes, encoding, random)}`);
    const packed = openSync(opened.file, 'r+');
    writeSync(packed, bytes, 0, size, start);
    closeSync(packed);
  }
  try {
    const logits = evaluate(subject, opened.model, kv);
    if (!logits) return 'failed';
    const bad = logits.findIndex((x) => !Number.isFinite(x));
    assert.equal(bad, -1, `logit ${bad} is ${logits[bad]}`);
    return 'sound';
  } finally {
    library.close(opened.model);
  }
}

/**
 * Runs cases until the time is over. The weights' cache must be the caller's to clear: $XDG_CACHE_HOME.
 * @throws the first failure, with the seed and number of its case
 */
export async function fuzzWeights(seed: number, seconds: number, first = 0): Promise<Outcomes> {
  const folder = mkdtempSync(path.join(tmpdir(), 'bitnet-fuzz-'));
  const outcomes: Outcomes = { cases: 0, refused: 0, failed: 0, sound: 0 };
  try {
    const subjects = await subjectsIn(folder);
    const end = performance.now() + 1000 * seconds;
    for (let n = first; performance.now() < end; n++) {
      const random = randomOf(`${seed}:${n}`);
      const subject = subjects[n % subjects.length]!;
      const story = [`seed ${seed}, case ${n}: ${subject.title}`];
      try {
        const outcome = await once(subject, random, (what) => story.push(what));
        if (outcome === 'refused') {
          const left = existsSync(weightsRoot()) ? readdirSync(weightsRoot()) : [];
          assert.deepEqual(left, [], 'a refused model leaves something in the cache');
        }
        outcomes[outcome]++;
        outcomes.cases++;
      } catch (error) {
        throw new Error(`${story.join('\n  ')}\n  ${(error as Error).message}`, { cause: error });
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return outcomes;
}
