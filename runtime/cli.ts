#!/usr/bin/env node
/** bitnet-run: generates text with a model, building whatever is missing. */
import path from 'node:path';
import { describeModel, type Loaded, type LoadOptions, load, targets, verifyModel } from '../index.ts';
import {
  allowConfig,
  collect,
  createProgram,
  interrupted,
  oneOf,
  realNumber,
  run,
  wholeNumber,
} from '../schemas/command.ts';
import { LibraryError, ModelError, UsageError } from '../schemas/error.ts';
import { demoModel } from '../schemas/files.ts';
import { print, printAside, printJson, tell } from '../schemas/terminal.ts';
import { clearCache, listCache } from './cache.ts';
import { type Generation, type HeadMode, headModes } from './engine.ts';
import { formatInfo } from './info.ts';
import { type Pages, pages } from './library.ts';
import { formatDead, formatLive } from './live.ts';
import { checkLogits, writeLogits } from './logits-file.ts';
import { DEFAULT_KV, type KvType, kvTypes } from './memory.ts';
import { createProgress } from './progress.ts';
import { promptText } from './prompt.ts';
import { createSampler } from './sampler.ts';
import { ownNames } from './synonyms.ts';
import { unescapeText } from './text.ts';

const NAME = 'bitnet-run';

const program = createProgram(NAME, 'Runs a ternary (BitNet b1.58) language model.')
  .argument('[model]', 'Hugging Face folder or GGUF file (default: the built-in demo model)')
  .argument('[prompt]', 'text to continue (default: stdin if piped; the demo model has an opening of its own)')
  .option('-m, --model <path>', 'the model; the only argument is then the prompt')
  .option('-p, --prompt <text>', 'text to continue')
  .option('-f, --file <path>', 'read the prompt from a file (- for stdin)')
  .option('-e, --escape', 'turn \\n, \\r, \\t, \\\\, \\\', \\" and \\xNN (a byte) of prompt and --stop into characters')
  .option(
    '-n, --n-predict <n>',
    'tokens to generate; 0 only evaluates the prompt, -1 goes on until the text ends or the context is full',
    wholeNumber(-1),
    128,
  )
  .option('-t, --threads <n>', 'threads (default: physical cores this process may use)', wholeNumber(1, 1024))
  .option(
    '-c, --ctx <n>',
    "context size in tokens; 0: the model's (default: the model's, at most 4096)",
    wholeNumber(0, 1 << 20),
  )
  .option('-s, --seed <n>', 'seed of the sampler; -1: random (default: random)', wholeNumber(-1))
  .option('--temp <x>', 'temperature; 0 is greedy', realNumber(0, 100), 0.8)
  .option('--top-k <n>', 'keep the n most probable tokens; 0: all', wholeNumber(0), 40)
  .option('--top-p <x>', 'keep the most probable tokens up to this sum; 1: all', realNumber(0, 1), 0.95)
  .option('--min-p <x>', 'keep tokens this probable relative to the best; 0: all', realNumber(0, 1), 0.05)
  .option('--repeat-penalty <x>', 'makes recent tokens less probable; 1: off', realNumber(0.01, 100), 1)
  .option('--repeat-last-n <n>', 'how many tokens are recent', wholeNumber(0), 64)
  .option('--greedy', 'always the most probable token')
  .option('--lookup', 'guess tokens from repetitions in the text: the same tokens, sooner where it copies itself')
  .option(
    '--head <mode>',
    'exact: only the logits that matter, same tokens; fast: 4-bit rows tell which may matter, by a bound of 6 sigma that is likely, not certain; full: all',
    oneOf(...headModes),
    'exact' as HeadMode,
  )
  .option(
    '--pages <choice>',
    'weights are read from the mapped file, from a copy in huge pages, or (auto) from the copy where the file is not in such',
    oneOf(...(Object.keys(pages) as Pages[])),
    'auto' as Pages,
  )
  .option('--stop <text>', 'end at this text (may be given several times)', collect, [] as string[])
  .option(
    '--kv <type>',
    'type of the key-value cache: i8 (8-bit codes with scales), f16 or f32',
    oneOf(...(Object.keys(kvTypes) as KvType[])),
    DEFAULT_KV,
  )
  .option('--target <name>', `instruction set: ${targets.join(', ')}`, 'native')
  .option('--cc <command>', 'C compiler (default: the newest clang, else gcc)')
  .option('--packing <name>', 'packing of all ternary matrices (as of bitnet-gen)')
  .option('--kernel <name>', 'decode kernel (as of bitnet-gen; repeatable)', collect)
  .option(...allowConfig)
  .option('--tokens <ids>', 'prompt as token ids, e.g. 1,2,3: nothing is added, no tokenizer is needed')
  .option('--no-special', 'read texts such as <|eot_id|> in the prompt as plain text, not as special tokens')
  .option('--verbose-prompt', "print the prompt's token ids and their texts on stderr")
  .option('--logits <path>', 'write the logits of every prompt position, float32 little-endian [tokens, vocabulary]')
  .option('--sparse', 'skip what zeros of squared ReLU let off (default: in large models)')
  .option('--no-sparse', 'read all weights, for a model with few zeros')
  .option('--stats', 'tell what generated tokens left of the MLP, by layer: shares of its neurons')
  .option('--quiet', 'print only the generated text')
  .option('--json', 'print one JSON object instead of text')
  .option('--info', 'describe the model and the chosen kernels, then end')
  .option('--verify', 'read the build and the packed weights of the model whole, make what is damaged anew, then end')
  .option('--cache <what>', 'list or clear the cache of builds and packed weights, then end', oneOf('list', 'clear'))
  .addHelpText(
    'after',
    `
Examples:
  bitnet-run                                        a story by the built-in demo model
  bitnet-run models/2b4t "The capital of France is" -n 32 --greedy
  bitnet-run model.gguf -f question.txt --threads 4 --seed 7
  echo "Once upon a time" | bitnet-run model.gguf --json
  bitnet-run model.gguf --info                      architecture, sizes, kernels and why
  bitnet-run model.gguf --tokens 1,2,3 -n 0 --logits logits.f32

llama.cpp's names are understood (--ctx-size, --predict, --temperature, ...), or refused with what to use here.
Builds and packed weights are kept in $XDG_CACHE_HOME/bitnet-gen (default ~/.cache/bitnet-gen).
Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.`,
  );

interface Options {
  model?: string;
  prompt?: string;
  file?: string;
  escape?: boolean;
  nPredict: number;
  threads?: number;
  ctx?: number;
  seed?: number;
  temp: number;
  topK: number;
  topP: number;
  minP: number;
  repeatPenalty: number;
  repeatLastN: number;
  greedy?: boolean;
  lookup?: boolean;
  head: HeadMode;
  pages: Pages;
  stop: string[];
  kv: KvType;
  target: string;
  cc?: string;
  packing?: string;
  kernel?: string[];
  allowConfig?: string[];
  tokens?: string;
  special: boolean;
  verbosePrompt?: boolean;
  logits?: string;
  sparse?: boolean;
  stats?: boolean;
  quiet?: boolean;
  json?: boolean;
  info?: boolean;
  verify?: boolean;
  cache?: 'list' | 'clear';
}

/** What the user should know, unless only the text is wanted. */
const inform = (note: string, { quiet }: Options) => {
  if (!quiet) tell(NAME, note);
};

function parseTokens(text: string): number[] {
  const parts = text.split(',').map((part) => part.trim());
  const bad = parts.find((part) => !/^\d+$/.test(part));
  if (bad !== undefined)
    throw new UsageError(`--tokens: '${bad}' is not a token id; write whole numbers with commas: 1,2,3`);
  return parts.map(Number);
}

/** One line a token: its id and its text. */
const formatTokens = (tokens: readonly number[], tokenizer: Loaded['tokenizer']): string =>
  tokens
    .map((id) => `${String(id).padStart(6)}${tokenizer ? `  ${JSON.stringify(tokenizer.spelling(id))}` : ''}\n`)
    .join('');

function promptTokens(loaded: Loaded, text: string | undefined, o: Options): number[] {
  if (o.tokens !== undefined) return parseTokens(o.tokens);
  const { tokenizer, source } = loaded;
  if (!tokenizer)
    throw new ModelError(
      `${source.path} has no tokenizer${source.noTokenizer ? `: ${source.noTokenizer}, or` : ';'} give the prompt as token ids with --tokens`,
    );
  const tokens = tokenizer.prompt(text ?? '', { special: o.special });
  if (!tokens.length) throw new UsageError('the prompt is empty and this model has no start token; give a text');
  return tokens;
}

const nameOf = ({ source }: Loaded) => path.basename(path.resolve(source.path));
/** Tokens per second, to a tenth. */
const rate = (tokens: number, ms: number) => (ms > 0 ? Math.round((tokens / ms) * 10000) / 10 : 0);
/** The first generated token comes from the prompt's logits and costs nothing. */
const generationRate = (g: Generation) => rate(Math.max(0, g.tokens.length - 1), g.generationMs);
/** Milliseconds, to a microsecond. */
const milliseconds = (ms: number) => Math.round(ms * 1000) / 1000;
const counted = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`;

const lookupText = ({ drafted, accepted, evaluations }: NonNullable<Generation['lookup']>) =>
  `lookup: ${accepted} of ${counted(drafted, 'drafted token')} accepted in ${counted(evaluations, 'evaluation')}`;

function statistics(loaded: Loaded, promptCount: number, g: Generation, seed: number): string {
  const { engine, manifest, compiler } = loaded;
  return [
    nameOf(loaded),
    manifest.cpu.isa,
    compiler,
    counted(engine.threads, 'thread'),
    ...(engine.hugePages ? [`${engine.hugePages} MB in huge pages`] : []),
    `seed ${seed}`,
    `prompt ${counted(promptCount, 'token')}, ${rate(promptCount, g.promptMs)} tok/s`,
    `generated ${counted(g.tokens.length, 'token')}${g.tokens.length > 1 ? `, ${generationRate(g)} tok/s` : ''}`,
    ...(g.lookup ? [lookupText(g.lookup)] : []),
    `stopped: ${g.stopReason}`,
  ].join(' | ');
}

/** What takes long at a start, for the progress line. */
const steps = {
  compiling: "compiling the model's kernels",
  packing: 'packing weights',
  checking: 'reading the model, MB',
  verifying: 'reading its packed weights, MB',
} as const;

/** Options of load(), and the progress line that follows it. */
function loading(o: Options): [LoadOptions, ReturnType<typeof createProgress>] {
  const progress = createProgress();
  const options: LoadOptions = {
    target: o.target,
    head: o.head,
    pages: o.pages,
    kv: kvTypes[o.kv],
    needsTokenizer: o.tokens === undefined,
    ...(o.sparse === undefined ? {} : { sparse: o.sparse }),
    signal: interrupted,
    onNote: (note) => {
      progress.end();
      inform(note, o);
    },
    onProgress: (what, done, total) => progress.update(steps[what], done, total),
    ...(o.threads ? { threads: o.threads } : {}),
    ...(o.ctx === undefined ? {} : { context: o.ctx }),
    ...(o.cc ? { cc: o.cc } : {}),
    ...(o.packing ? { packing: o.packing } : {}),
    ...(o.kernel ? { kernel: o.kernel } : {}),
    allowConfig: o.allowConfig,
  };
  return [options, progress];
}

async function generate(model: string | undefined, positional: string | undefined, o: Options): Promise<void> {
  // Wrong usage is told before anything is read, compiled or packed.
  if (o.tokens !== undefined) {
    if (positional !== undefined || o.prompt !== undefined || o.file !== undefined)
      throw new UsageError('--tokens is the prompt; do not give another one');
    parseTokens(o.tokens);
  }
  if (o.stop.includes('')) throw new UsageError('--stop is empty; give at least one character');
  if (o.logits !== undefined) checkLogits(o.logits);
  const seed = o.seed !== undefined && o.seed >= 0 ? o.seed : Math.floor(Math.random() * 2 ** 32);
  const count = o.nPredict < 0 ? Number.MAX_SAFE_INTEGER : o.nPredict;
  const sampler = createSampler({
    temperature: o.greedy ? 0 : o.temp,
    topK: o.topK,
    topP: o.topP,
    minP: o.minP,
    repeatPenalty: o.repeatPenalty,
    repeatLastN: o.repeatLastN,
    seed,
  });
  const stop = o.escape ? o.stop.map(unescapeText) : o.stop;
  const text = o.tokens === undefined ? await promptText(model, positional, o) : undefined;
  const [options, progress] = loading(o);
  const started = performance.now();
  const loaded = await load(model ?? demoModel, options).finally(() => progress.end());
  const loadMs = performance.now() - started;
  progress.end();
  const { engine, tokenizer, source } = loaded;
  try {
    if (loaded.advice) inform(loaded.advice, o);
    if (engine.context > source.shape.context)
      inform(`the model was trained for ${source.shape.context} positions; text beyond them may be poor`, o);
    const tokens = promptTokens(loaded, text, o);
    if (o.verbosePrompt) printAside(formatTokens(tokens, tokenizer));
    const outside = tokens.find((id) => id >= source.shape.vocabulary);
    if (outside !== undefined)
      throw new LibraryError(`token ${outside} is not in the model's vocabulary of ${source.shape.vocabulary}`);
    if (tokens.length > engine.context)
      throw new LibraryError(
        `the prompt has ${tokens.length} tokens, but the context holds ${engine.context}; shorten it or give --ctx ${tokens.length + Math.max(1, o.nPredict)}`,
      );
    if (o.logits !== undefined) {
      await writeLogits(engine, tokens, o.logits, interrupted);
      engine.rewind(0);
    }
    const live = !o.json;
    if (o.stats) engine.live(true);
    const g = await engine.generate(tokens, tokenizer, {
      count,
      sampler,
      lookup: o.lookup ?? false,
      stop,
      signal: interrupted,
      onPrompt: (done, total) => {
        if (done < total) return progress.update('reading the prompt', done, total);
        // Only now: wiping the progress line would wipe the prompt.
        progress.end();
        if (live && !o.quiet) print(text ?? '');
      },
      ...(live ? { onText: print } : {}),
    });
    const zeros = { live: o.stats ? engine.live(false) : null, dead: o.stats ? engine.dead() : null };
    if (live && !tokenizer) print(g.tokens.join(','));
    if (live) print('\n');
    if (live && !o.quiet) printAside(`${statistics(loaded, tokens.length, g, seed)}\n`);
    if (live && zeros.live) printAside(`${formatLive(zeros.live)}${formatDead(zeros.dead ?? [])}`);
    if (o.json)
      printJson({
        model: nameOf(loaded),
        target: loaded.manifest.cpu.isa,
        compiler: loaded.compiler,
        threads: engine.threads,
        text: g.text,
        prompt_tokens: tokens.length,
        prompt_ids: tokens,
        tokens: g.tokens,
        stop_reason: g.stopReason,
        seed,
        context: engine.context,
        kv: o.kv,
        head: o.head,
        lookup: g.lookup ?? null,
        ...zeros,
        huge_pages_mb: engine.hugePages,
        timings: {
          load_ms: milliseconds(loadMs),
          prompt_ms: milliseconds(g.promptMs),
          prompt_tok_s: rate(tokens.length, g.promptMs),
          generation_ms: milliseconds(g.generationMs),
          generation_tok_s: generationRate(g),
        },
      });
  } finally {
    progress.end();
    engine.dispose();
  }
}

program.action(async (first: string | undefined, second: string | undefined, o: Options) => {
  if (o.model !== undefined && second !== undefined)
    throw new UsageError(`the model is given twice, as '${first}' and by --model '${o.model}'; give one`);
  const [model, positional] = o.model === undefined ? [first, second] : [o.model, first];
  if (o.cache) {
    const entries = o.cache === 'list' ? listCache() : clearCache();
    if (o.json) {
      printJson(entries);
      return;
    }
    for (const e of entries) {
      const about = e.model ? `  of ${e.model}` : e.kind === 'unfinished' ? '  unfinished' : '';
      print(`${(e.bytes / 1e6).toFixed(1).padStart(9)} MB  ${e.changed.slice(0, 16)}  ${e.path}${about}\n`);
    }
    const total = entries.reduce((sum, e) => sum + e.bytes, 0);
    print(
      `${o.cache === 'clear' ? 'removed ' : ''}${entries.length} ${entries.length === 1 ? 'entry' : 'entries'}, ${(total / 1e6).toFixed(1)} MB\n`,
    );
    return;
  }
  if (o.verify) {
    const [options, progress] = loading(o);
    const verified = await verifyModel(model ?? demoModel, options).finally(() => progress.end());
    if (o.json) printJson(verified);
    else
      print(
        `${verified.compiled ? 'compiled' : 'OK'}: ${verified.build}\n${verified.packed ? 'packed' : 'OK'}: ${verified.weights}\n`,
      );
    return;
  }
  if (o.info) {
    const info = await describeModel(model ?? demoModel, { ...o, onNote: (note) => inform(note, o) });
    if (o.json) printJson(info);
    else print(formatInfo(info));
    return;
  }
  await generate(model, positional, o);
});

await run(program, (args) => ownNames(args, program.options));
