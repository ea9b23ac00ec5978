/**
 * Worker threads: several load the model at once and generate what the main thread does; however they end, their threads, mappings
 * and contexts end with them, and the process goes on. In a process of their own, as a fault would end it.
 */
import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { demo, useCache } from './machine.ts';
import { compiledRoot } from './setup.ts';

/** A worker: opens the demo model, tells what it generates, and ends as it is told. */
const worker = (root: string) => `
import { readFileSync, readdirSync } from 'node:fs';
import { isMainThread, parentPort, workerData, Worker } from 'node:worker_threads';
import { createSampler, greedy, load } from ${JSON.stringify(path.join(root, 'index.js'))};

const generate = async () => {
  const loaded = await load(${JSON.stringify(demo)}, { threads: 2 });
  const prompt = loaded.tokenizer.encode('Once upon a time', { special: false });
  const { tokens } = await loaded.engine.generate(prompt, loaded.tokenizer, { count: 12, sampler: greedy });
  return { loaded, prompt, tokens };
};

if (!isMainThread) {
  const { loaded, prompt, tokens } = await generate();
  parentPort.postMessage({ tokens, ffi: loaded.library.interface });
  if (workerData === 'dispose') loaded.engine.dispose();
  if (workerData === 'exit') process.exit(3);
  if (workerData === 'throw') throw new Error('on purpose');
  if (workerData === 'evaluate') for (;;) { loaded.engine.rewind(0); loaded.engine.evaluate(prompt); }
  if (workerData === 'generate')
    for (;;) await loaded.engine.generate(prompt, undefined, { count: 100, sampler: createSampler({ seed: 1 }) });
} else {
  /** What this process has of the library: mapped weights, and threads. */
  const held = () => ({
    weights: readFileSync('/proc/self/maps', 'utf8').split('\\n').filter((line) => line.includes('.bnw')).length,
    threads: readdirSync('/proc/self/task').length,
  });
  const results = [];
  /** Ends of workers that ran at the same time. */
  const run = (ways) => Promise.all(ways.map((way) => new Promise((resolve) => {
    const one = new Worker(new URL(import.meta.url), { workerData: way });
    one.on('message', (message) => {
      results.push(message);
      if (way === 'evaluate' || way === 'generate') setTimeout(() => one.terminate(), 100);
    });
    one.on('error', (error) => { if (way !== 'throw') results.push(String(error)); });
    one.on('exit', resolve);
  })));
  const settled = () => new Promise((resolve) => setTimeout(resolve, 300));
  // Nothing is packed yet.
  await run(['end', 'dispose']);
  const { loaded, prompt, tokens } = await generate();
  results.push({ tokens, ffi: 'main' });
  await settled();
  const before = held();
  await run(['end', 'exit', 'throw', 'evaluate', 'generate']);
  await settled();
  const after = held();
  results.push(await loaded.engine.generate(prompt, undefined, { count: 12, sampler: greedy }));
  loaded[Symbol.dispose]();
  console.log(JSON.stringify({ before, after, results }));
}
`;

describe('workers', () => {
  const cache = useCache();

  /** Runs a module that imports the compiled library. @returns what it prints, as JSON */
  async function run(text: string, env: NodeJS.ProcessEnv = {}): Promise<never> {
    const file = path.join(cache(), 'main.mjs');
    writeFileSync(file, text);
    const { exitCode, signal, stdout, stderr } = await execa(process.execPath, [file], { reject: false, env });
    assert.equal(exitCode, 0, `ended with ${exitCode ?? signal}: ${stderr}`);
    return JSON.parse(stdout) as never;
  }

  it('load, generate and end, by themselves and terminated, several at once; nothing of theirs stays', async () => {
    type Result = { tokens: number[]; ffi: string };
    type Held = { weights: number; threads: number };
    const { before, after, results } = (await run(worker(compiledRoot))) as {
      before: Held;
      after: Held;
      results: Result[];
    };
    assert.equal(results.length, 9, JSON.stringify(results));
    for (const { tokens } of results) assert.deepEqual(tokens, results[0]!.tokens);
    assert.equal(results[0]!.tokens.length, 12);
    assert.equal(results.filter(({ ffi }) => ffi === 'koffi').length, 7);
    assert.deepEqual(after, before);
    assert.ok(before.weights > 0, 'the main thread has its own');
  });

  it('refuse ffi-napi, whose end would end the process', async () => {
    const text = `
      import { isMainThread, parentPort, Worker } from 'node:worker_threads';
      import { load } from ${JSON.stringify(path.join(compiledRoot, 'index.js'))};
      if (isMainThread) new Worker(new URL(import.meta.url)).on('message', (m) => console.log(JSON.stringify(m)));
      else load(${JSON.stringify(demo)}).catch((error) => parentPort.postMessage([error.name, error.message]));`;
    const [name, message] = (await run(text, { BITNET_FFI: 'ffi-napi' })) as [string, string];
    assert.equal(name, 'UsageError');
    assert.match(message, /BITNET_FFI=ffi-napi is not possible in a worker thread/);
  });
});
