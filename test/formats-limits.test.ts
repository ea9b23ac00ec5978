/**
 * Metadata that are larger than any model's: passed over, or refused in one line, with little memory. The files are mostly
 * holes, which take no room on disk.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, writeSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import {
  gguf,
  safetensors,
  smallConfig,
  smallGguf,
  smallTensors,
  temporaryFolder,
  text,
  u32,
  u64,
  writeFolder,
} from './formats-bytes.ts';

const u8 = 0;
const f32 = 6;
const string = 8;

describe('limits of metadata', () => {
  const root = temporaryFolder();

  /** Bytes, a hole of zeros, bytes. */
  function withHole(file: string, start: Buffer, hole: number, end: Buffer): string {
    const fd = openSync(file, 'w');
    writeSync(fd, start);
    ftruncateSync(fd, start.length + hole);
    writeSync(fd, end, 0, end.length, start.length + hole);
    closeSync(fd);
    return file;
  }

  /** The small GGUF model with one more key, a list of zeros or of empty strings. */
  function withList(key: string, type: number, items: number): string {
    const whole = gguf(smallGguf());
    const list = (name: string): Buffer => Buffer.concat([text(name), u32(9), u32(type), u64(items)]);
    const hole = items * ({ [u8]: 1, [f32]: 4, [string]: 8 }[type] ?? 0);
    // The rest must keep its distance from multiples of 32.
    const padding = key.startsWith('general.') ? 31 - ((list(key).length + hole + 31) % 32) : 0;
    const start = [whole.subarray(0, 16), u64(whole.readBigUInt64LE(16) + 1n), list(key + 'x'.repeat(padding))];
    const file = path.join(mkdtempSync(path.join(root(), 'gguf-')), 'model.gguf');
    return withHole(file, Buffer.concat(start), hole, whole.subarray(24));
  }

  /** The small folder with one file that begins with a text and goes on with zeros. */
  function withLong(name: string, start: Buffer, hole: number): string {
    const folder = mkdtempSync(path.join(root(), 'folder-'));
    writeFolder(folder, { 'config.json': smallConfig, 'model.safetensors': safetensors(smallTensors()) });
    withHole(path.join(folder, name), start, hole, Buffer.alloc(0));
    return folder;
  }

  /** Opens models in a process of its own. @returns their errors or notes, and what all of them took */
  function openApart(models: readonly string[]): { messages: string[]; megabytes: number } {
    const reader = path.join(import.meta.dirname, '../runtime/formats/open.ts');
    const script = `
      const { openModel } = await import(${JSON.stringify(pathToFileURL(reader))});
      const before = process.resourceUsage().maxRSS;
      const messages = process.argv.slice(1).map((model) => {
        try {
          return openModel(model).notes.join();
        } catch (error) {
          return error.name + ': ' + error.message;
        }
      });
      console.log(JSON.stringify({ messages, megabytes: (process.resourceUsage().maxRSS - before) / 1024 }));`;
    const args = [...process.execArgv, '--input-type=module', '-e', script, ...models];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    assert.ok(stdout, stderr);
    return JSON.parse(stdout) as { messages: string[]; megabytes: number };
  }

  it('pass over what nobody reads, refuse the rest, and take little memory', () => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(30_000_000n);
    const cases: [string, RegExp][] = [
      [withList('general.list', u8, 260_000_000), /^$/],
      [withList('general.list', f32, 100_000_000), /^$/],
      [withList('general.list', string, 4_200_000), /^$/],
      [withList('general.list', string, 40_000_000), /^ModelError: model\.gguf: header exceeds 268435456 bytes/],
      [
        withList('tokenizer.ggml.scores', u8, 260_000_000),
        /^ModelError: .*'tokenizer\.ggml\.scores': 260000000 entries, more than 4194304; the file is damaged/,
      ],
      [withList('tokenizer.ggml.scores', f32, 100_000_000), /^ModelError: .* 100000000 entries, more than 4194304/],
      [withList('tokenizer.ggml.tokens', string, 30_000_000), /^ModelError: .* 30000000 entries, more than 4194304/],
      [withLong('config.json', Buffer.from('{'), 300_000_000), /^ModelError: config\.json has 300000001 bytes, more/],
      [withLong('tokenizer.json', Buffer.from('{'), 300_000_000), /tokenizer\.json: has 300000001 bytes;/],
      [withLong('tokenizer_config.json', Buffer.from('{'), 30_000_000), /tokenizer_config\.json is not valid/],
      [withLong('model.safetensors', length, 300_000_000), /^ModelError: model\.safetensors: header is not valid JSON/],
    ];
    const { messages, megabytes } = openApart(cases.map(([model]) => model));
    for (const [i, [, message]] of cases.entries()) assert.match(messages[i]!, message);
    assert.ok(megabytes < 150, `${megabytes} MB`);
  });
});
