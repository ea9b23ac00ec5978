/**
 * Damaged model files without end: takes the smallest models of both formats, damages one file in a few places, and opens the
 * model. Whatever the damage, the result is a model that is consistent, or one line for people; never another exception.
 * The same seed makes the same cases.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openModel } from '../../runtime/formats/open.ts';
import type { ModelSource } from '../../runtime/formats/source.ts';
import { BitnetError } from '../../schemas/error.ts';
import { gguf, safetensors, smallConfig, smallGguf, smallTensors } from '../formats-bytes.ts';

/** How long to go on: whichever comes first. */
export interface FuzzLimits {
  readonly seed: number;
  readonly seconds?: number;
  readonly cases?: number;
}

/** How many cases were opened, and how many refused. */
export interface FuzzResult {
  readonly opened: number;
  readonly refused: number;
}

/** A number from 0 to `below` - 1. */
type Dice = (below: number) => number;

/** mulberry32 (T. Ettinger, public domain): 32 bits of state, good enough to choose what to break. */
function diceOf(seed: number): Dice {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const pick = <T>(dice: Dice, items: readonly T[]): T => items[dice(items.length)]!;

type Damage = (content: Buffer, dice: Dice) => Buffer;

const words = [
  0n,
  1n,
  2n,
  8n,
  9n,
  255n,
  65_536n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/** Damage to bytes, of which it knows nothing. */
const toBytes: readonly Damage[] = [
  (content, dice) => content.subarray(0, dice(content.length)),
  (content, dice) => Buffer.concat([content, Buffer.alloc(dice(64), dice(256))]),
  changed((content, at, dice) => {
    content[at] = content[at]! ^ (1 << dice(8));
  }),
  changed((content, at, dice) => {
    content[at] = dice(256);
  }),
  changed((content, at, dice) => {
    content.fill(dice(2) * 255, at, Math.min(content.length, at + dice(32)));
  }),
  // A count, a length or an offset.
  changed((content, at, dice) => {
    if (at + 8 > content.length) return;
    if (dice(2)) content.writeBigUInt64LE(pick(dice, words), at);
    else content.writeUInt32LE(Number(pick(dice, words) & 0xffffffffn), at);
  }),
  (content, dice) => {
    const [from, to] = [dice(content.length), dice(content.length)].sort((a, b) => a - b) as [number, number];
    return Buffer.concat([content.subarray(0, from), content.subarray(Math.min(to, from + 64))]);
  },
  (content, dice) => {
    const [from, at] = [dice(content.length), dice(content.length)];
    return Buffer.concat([content.subarray(0, at), content.subarray(from, from + dice(64)), content.subarray(at)]);
  },
];

/** Headers are what matters: most damage is done to the first two kilobytes. */
function changed(change: (content: Buffer, at: number, dice: Dice) => void): Damage {
  return (content, dice) => {
    const copy = Buffer.from(content);
    if (copy.length) change(copy, dice(dice(4) ? Math.min(2048, copy.length) : copy.length), dice);
    return copy;
  };
}

const deep = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);

/** JSON texts of values that somebody might not expect. */
const values = [
  ...[
    'null',
    'true',
    'false',
    '0',
    '-1',
    '1',
    '2',
    '3',
    '1.5',
    '1e400',
    '-0',
    '4294967296',
    '9007199254740993',
    '1e-5',
  ],
  ...['""', '"1e-5"', '"32"', '"default"', '"bitnet"', '"U8"', '"BF16"', '"../x"', '"a\\u0000b"', '"\\u2028\\ud800"'],
  ...['[]', '{}', '[1]', '[0,-1]', '[[]]', '{"a":1}', '{"__proto__":1}', '["lm_head","model.layers.0"]', '[16,16]'],
  ...[deep(2000), `"${'x'.repeat(5000)}"`, '{"rope_type":"yarn","factor":4}', '[2,99,-1,"3",2.5]'],
];
const names = [
  '__proto__',
  'constructor',
  'toString',
  'hidden_size',
  'sliding_window',
  'rope_scaling',
  'dtype',
  'a\\nb',
  '',
];

/** Damage to a value, a name or a bracket of a JSON text. */
const toJson: readonly Damage[] = [
  replaced(/(?<=:\s*)(?:-?[\d.]+(?:e-?\d+)?|"[^"]*"|true|false|null|\[[^[\]]*\])/g, (dice) => pick(dice, values)),
  replaced(/(?<=[{,]\s*)"[^"]*"(?=\s*:)/g, (dice) => JSON.stringify(pick(dice, names))),
  replaced(/(?<=\{)/g, (dice) => `${JSON.stringify(pick(dice, names))}:${pick(dice, values)},`),
  replaced(/[{}[\],:]/g, (dice) => pick(dice, ['', '{', '}', '[', ']', ',', ':'])),
  replaced(/\d+/g, (dice) => String(dice(100_000))),
];

/** Replaces one match. */
function replaced(what: RegExp, by: (dice: Dice) => string): Damage {
  return (content, dice) => {
    // latin1 keeps every byte.
    const text = content.toString('latin1');
    const matches = [...text.matchAll(what)];
    if (!matches.length) return content;
    const { index, 0: found } = pick(dice, matches);
    return Buffer.from(text.slice(0, index) + by(dice) + text.slice(index + found.length), 'latin1');
  };
}

/** Damages the JSON header of a safetensors file, and makes its length fit again. */
const toHeader: Damage = (content, dice) => {
  if (content.length < 8) return content;
  const end = Math.min(content.length, 8 + Number(content.readBigUInt64LE()));
  const header = pick(dice, toJson)(content.subarray(8, end), dice);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, content.subarray(end)]);
};

interface Target {
  /** Files of the model, whole. */
  readonly files: Readonly<Record<string, Buffer>>;
  /** What openModel gets: the folder, or a file in it. */
  readonly open: string;
  readonly damage: Readonly<Record<string, readonly Damage[]>>;
}

function targets(): Target[] {
  const json = (value: object): Buffer => Buffer.from(JSON.stringify(value, null, 1));
  const added = [1, 2, 9].map((id) => ({ id, content: id === 9 ? '<|eot_id|>' : `<${id}>`, special: true }));
  const common = {
    'config.json': json(smallConfig),
    'generation_config.json': json({ bos_token_id: 1, eos_token_id: [2, 9] }),
    'tokenizer.json': json({ version: '1.0', added_tokens: added, model: { type: 'BPE', vocab: {}, merges: [] } }),
    'tokenizer_config.json': json({ add_bos_token: true, eos_token: '<2>', added_tokens_decoder: { 2: added[1]! } }),
  };
  const entries = Object.entries(smallTensors());
  const shards = [entries.slice(0, 9), entries.slice(9)];
  const map = Object.fromEntries(shards.flatMap((part, i) => part.map(([name]) => [name, `${i}.safetensors`])));
  const both = [...toBytes, ...toJson];
  const jsons = Object.fromEntries(Object.keys(common).map((name) => [name, both]));
  return [
    {
      files: { ...common, 'model.safetensors': safetensors(smallTensors()) },
      open: '.',
      damage: { ...jsons, 'model.safetensors': [...toBytes, toHeader, toHeader, toHeader, toHeader, toHeader] },
    },
    {
      files: {
        ...common,
        ...Object.fromEntries(shards.map((part, i) => [`${i}.safetensors`, safetensors(Object.fromEntries(part))])),
        'model.safetensors.index.json': json({ metadata: {}, weight_map: map }),
      },
      open: '.',
      damage: { 'model.safetensors.index.json': both, '1.safetensors': [...toBytes, toHeader] },
    },
    ...['bitnet-b1.58', 'llama'].map((arch) => ({
      files: { 'model.gguf': gguf(smallGguf(arch)) },
      open: 'model.gguf',
      damage: { 'model.gguf': toBytes },
    })),
  ];
}

/** @throws Error when an opened model is not what check.ts promises */
function check(model: ModelSource): void {
  const sizes = new Map(model.files.map((file) => [file.path, file.size]));
  for (const { name, file, offset, bytes } of model.tensors.values()) {
    if (!(offset >= 0 && offset + bytes <= sizes.get(file)!)) throw new Error(`tensor ${name} ends outside its file`);
  }
  for (const id of [...model.eos, ...(model.bos === undefined ? [] : [model.bos])]) {
    if (!(id >= 0 && id < model.shape.vocabulary)) throw new Error(`token ${id} is outside the vocabulary`);
  }
}

/** Opens a path. @returns whether it is a model @throws Error for everything that must not happen */
function isOpened(target: string): boolean {
  try {
    check(openModel(target));
    return true;
  } catch (error) {
    if (!(error instanceof BitnetError)) throw error;
    if (/\p{Cc}/u.test(error.message) || error.message.length > 5000) {
      throw new Error(`no line for people: ${error.message.slice(0, 5000)}`);
    }
    return false;
  }
}

/**
 * Opens damaged models until the time or the cases are used up.
 * @throws Error naming seed and case of the first that ends in anything but a model or a BitnetError
 */
export function fuzzFormats({
  seed,
  seconds = Number.POSITIVE_INFINITY,
  cases = Number.POSITIVE_INFINITY,
}: FuzzLimits): FuzzResult {
  const root = mkdtempSync(path.join(tmpdir(), 'fuzz-formats-'));
  const end = performance.now() + 1000 * seconds;
  const count = { opened: 0, refused: 0 };
  try {
    const ready = targets().map((target, i) => {
      const folder = path.join(root, String(i));
      mkdirSync(folder);
      for (const [name, content] of Object.entries(target.files)) writeFileSync(path.join(folder, name), content);
      const open = path.join(folder, target.open);
      if (!isOpened(open)) throw new Error(`the whole model of target ${i} is refused`);
      return { ...target, folder, open };
    });
    for (let number = 0; number < cases && performance.now() < end; number++) {
      // Each case can be repeated alone.
      const dice = diceOf(seed * 1_000_003 + number);
      const { files, damage, folder, open } = pick(dice, ready);
      const [name, ways] = pick(dice, Object.entries(damage));
      const file = path.join(folder, name);
      let content = files[name]!;
      for (let times = 1 + dice(3); times > 0; times--) content = pick(dice, ways)(content, dice);
      writeFileSync(file, content);
      try {
        count[isOpened(open) ? 'opened' : 'refused']++;
      } catch (error) {
        throw new Error(`seed ${seed}, case ${number} (${name}): ${(error as Error).stack}`, { cause: error });
      }
      writeFileSync(file, files[name]!);
    }
    return count;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
