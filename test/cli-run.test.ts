/** bitnet-run from the outside: what it prints where, how it is prompted, and what its options change. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { nativeProfile } from '../codegen/cpu.ts';
import { shape, useModels } from './cli-models.ts';
import { skip } from './fixtures.ts';
import { demo, nativeTargets } from './machine.ts';
import { commandOf, projectRoot, useCli } from './run-cli.ts';
import { long } from './tier.ts';
import { tinyVocabulary } from './write-model.ts';

const OPENING = 'Once upon a time, there was a little girl named Lily. One day she';

/** A word for the shell. */
const quote = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

/** Where only gcc is there, a line after a fresh build recommends clang. */
const ADVICE = '^(?:bitnet-run: compiled by gcc;.*\\r?\\n)?';
describe('bitnet-run', () => {
  const cli = useCli();
  const models = useModels(cli);

  describe('what it prints', () => {
    it('the first run of all: a story on stdout, one line of statistics on stderr, no progress in a pipe', async () => {
      const { code, stdout, stderr } = await cli.run('run', []);
      assert.equal(code, 0, stderr);
      assert.ok(stdout.startsWith(`${OPENING} `), stdout);
      assert.ok(stdout.length > OPENING.length + 50 && stdout.endsWith('\n'), stdout);
      const target = nativeProfile().isa;
      const pattern = new RegExp(
        `${ADVICE}demo \\| ${target} \\| (clang|gcc) [\\d.]+ \\| \\d+ threads? \\| seed \\d+ \\| prompt 17 tokens, [\\d.]+ tok/s \\| ` +
          'generated \\d+ tokens, [\\d.]+ tok/s \\| stopped: (length|eos)\\n$',
      );
      assert.match(stderr, pattern);
      assert.deepEqual(
        readdirSync(cli.cache()).sort(),
        ['builds', 'compilers.json', 'models', 'requests', 'weights'],
        'everything is in the cache',
      );
    });

    it('a terminal sees progress while it waits, and then the whole prompt', async function () {
      if (spawnSync('script', ['--version']).status !== 0) skip(this, 'there is no script(1) to make a terminal');
      const line = commandOf('run', ['-n', '4', '--greedy']).map(quote).join(' ');
      // A cache of its own, so that there is something to wait for.
      const env = { ...cli.environment(), XDG_CACHE_HOME: cli.path('terminal') };
      const { stdout } = await execa('script', ['-qefc', line, '/dev/null'], { env, input: '' });
      assert.match(stdout, /compiling the model's kernels: \d+ of \d+ \(\d+ %\)/);
      // What a terminal shows after `erase the line` is what comes after it.
      assert.match(stdout.split('\x1b[K').at(-1)!, new RegExp(`${ADVICE}${OPENING} went to`), JSON.stringify(stdout));
    });

    it('a terminal does not obey the name of a model', async function () {
      if (spawnSync('script', ['--version']).status !== 0) skip(this, 'there is no script(1) to make a terminal');
      const name = 'red\x1b[31m\x9b2J\x07';
      symlinkSync(demo, cli.path(name));
      const line = commandOf('run', [cli.path(name), '--info'])
        .map(quote)
        .join(' ');
      const { stdout } = await execa('script', ['-qefc', line, '/dev/null'], { env: cli.environment(), input: '' });
      assert.match(stdout, /^model .*red\\u001b\[31m\\u009b2J\\u0007\r$/m);
      for (const control of ['\x1b', '\x9b', '\x07']) assert.ok(!stdout.includes(control));
      const piped = await cli.ok('run', [cli.path(name), '--info']);
      assert.ok(piped.includes(name));
    });

    it('--quiet: only the generated text', async () => {
      const { stdout, stderr } = await cli.run('run', ['-n', '5', '--greedy', '--quiet']);
      assert.equal(stdout, ' went to the park with\n');
      assert.equal(stderr, '');
    });

    it('--json: one object with the documented keys, alone on stdout', async () => {
      const { stdout, stderr } = await cli.run('run', ['-n', '5', '--greedy', '--json', '-t', '2']);
      assert.equal(stderr, '');
      const { timings, compiler, ...rest } = JSON.parse(stdout);
      assert.match(compiler, /^(clang|gcc) [\d.]+$/);
      for (const key of ['seed', 'huge_pages_mb']) assert.equal(typeof rest[key], 'number', key);
      assert.deepEqual(rest, {
        model: 'demo',
        target: nativeProfile().isa,
        threads: 2,
        text: ' went to the park with',
        prompt_tokens: 17,
        prompt_ids: [4091, 589, 519, 258, 443, 44, 413, 295, 258, 414, 581, 588, 506, 46, 738, 392, 343],
        tokens: [449, 270, 260, 789, 337],
        stop_reason: 'length',
        seed: rest.seed,
        context: 256,
        kv: 'i8',
        head: 'exact',
        lookup: null,
        live: null,
        dead: null,
        huge_pages_mb: rest.huge_pages_mb,
      });
      assert.deepEqual(Object.keys(timings).sort(), [
        'generation_ms',
        'generation_tok_s',
        'load_ms',
        'prompt_ms',
        'prompt_tok_s',
      ]);
      for (const value of Object.values(timings)) assert.ok(typeof value === 'number' && value > 0, stdout);
      const readme = readFileSync(path.join(projectRoot, 'README.md'), 'utf8');
      const documented = /`--json` prints `\{([^}]*)\}`/.exec(readme.replace(/\s+/g, ' '))?.[1]?.split(/,\s*/);
      assert.deepEqual(documented?.sort(), Object.keys(JSON.parse(stdout)).sort(), 'the README names the same keys');
    });

    it('--stats: what generated tokens left of the MLP, by layer', async () => {
      const asked = ['run', ['-n', '9', '--greedy', '--stats']] as const;
      const { stderr } = await cli.run(...asked);
      assert.match(stderr, /^layer {2}open gates .*\n(\d .* %\n){6}mean .* %\n$/m);
      const { live } = await cli.json('run', [...asked[1]]);
      assert.equal(live.length, 6);
      for (const { open, inputs, rows, columns } of live) {
        assert.ok(open > 0.02 && open < 0.6 && inputs > 0 && inputs <= open, `${open}, ${inputs}`);
        // The demo model's matrices are small: everything is read.
        assert.deepEqual([rows, columns], [1, 1]);
      }
    });

    it('--version, --help with examples', async () => {
      const { version } = JSON.parse(readFileSync(path.join(projectRoot, 'package.json'), 'utf8'));
      assert.equal(await cli.ok('run', ['--version']), `${version}\n`);
      const help = await cli.ok('run', ['--help']);
      assert.match(help, /^Examples:$/m);
      const options =
        '--model --prompt --file --escape --n-predict --threads --ctx --seed --temp --top-k --top-p --min-p --repeat-penalty ' +
        '--repeat-last-n --greedy --stop --kv ' +
        '--head --lookup --packing --kernel --sparse --stats --target --cc --tokens --logits --quiet --json --info --cache --allow-config --version --help';
      for (const option of options.split(' ')) assert.match(help, new RegExp(`^ .*${option}\\b`, 'm'));
    });

    it('--info: the model and the kernels, with nothing built', async () => {
      const env = { XDG_CACHE_HOME: cli.path('info') };
      const [text, info] = await Promise.all([
        cli.ok('run', ['--info'], { env }),
        cli.json('run', ['--info', '--target', 'neon'], { env }),
      ]);
      for (const part of [/^model .*demo$/m, /^format .*packed ternary/m, /^attn_q .*gemv_i8_\w+/m, /by estimate/])
        assert.match(text, part);
      assert.doesNotMatch(text, /undefined|NaN/);
      assert.match(text, /^ends at +4092 <\|end_of_text\|>, 4095 <\|eot_id\|>$/m);
      assert.deepEqual(info.endMarks, [
        { id: 4092, text: '<|end_of_text|>' },
        { id: 4095, text: '<|eot_id|>' },
      ]);
      assert.equal(info.target, 'neon');
      assert.deepEqual(info.prefetch, { hint: 'nta' });
      assert.equal(info.shape.hidden, 256);
      assert.match(info.matrices.ffn_down.gemm[0], /^gemm_i8_.*neon/);
      assert.match(info.matrices.ffn_down.tables[1], /^sums_i8_.*neon/);
      assert.ok(info.packedBytes > 1e6 && info.parameters.ternary > 1e6);
      assert.equal(existsSync(path.join(env.XDG_CACHE_HOME, 'bitnet-gen', 'builds')), false);
    });
  });

  describe('prompts', () => {
    const asked = ['-n', '6', '--greedy'];

    it("the argument, -p, -f, -f -, a pipe, -e and llama.cpp's names give the same", async () => {
      const text = 'The dog was happy because';
      writeFileSync(cli.path('prompt.txt'), `\ufeff${text}\r\n`, 'utf16le');
      const [first, ...others] = await Promise.all([
        cli.ok('run', [demo, text, ...asked]),
        cli.ok('run', ['-p', text, ...asked]),
        cli.ok('run', ['-f', cli.path('prompt.txt'), ...asked]),
        cli.ok('run', ['-f', '-', ...asked], { input: `${text}\n` }),
        cli.ok('run', [demo, ...asked], { input: `${text}\n` }),
        cli.ok('run', asked, { input: text }),
        cli.ok('run', [
          '-m',
          demo,
          '-e',
          String.raw`The dog\x20was happy because`,
          '--predict',
          '6',
          '--temperature',
          '0',
        ]),
      ]);
      assert.ok(first!.startsWith(text) && first!.length > text.length + 10, first);
      for (const other of others) assert.equal(other, first);
    });

    long('a model path ends in / or is .', async () => {
      assert.equal((await cli.json('run', ['.', 'A', '-n', '0'], { cwd: demo })).model, 'demo');
      assert.equal((await cli.json('run', [`${demo}/`, 'A', '-n', '0'])).model, 'demo');
    });

    it('--tokens, with and without a tokenizer', async () => {
      const [spoken, silent, text] = await Promise.all([
        cli.json('run', [models.gguf, '--tokens', '1, 2,3', ...asked]),
        cli.json('run', [models.folder, '--tokens', '1,2,3', ...asked]),
        cli.ok('run', [models.folder, '--tokens', '1,2,3', ...asked, '--quiet']),
      ]);
      assert.equal(spoken.prompt_tokens, 3, 'nothing is added');
      assert.equal(spoken.tokens.length, 6);
      assert.deepEqual(silent.tokens, spoken.tokens, 'the same model in two formats');
      assert.equal(silent.text, '');
      assert.equal(text, `${silent.tokens.join(',')}\n`);
    });

    it('its ids are visible, and special tokens may be plain text', async () => {
      const args = [models.gguf, '-p', 'Hi<|eot_id|>', '-n', '0'];
      const [marked, plain, printed] = await Promise.all([
        cli.json('run', args),
        cli.json('run', [...args, '--no-special']),
        cli.run('run', [...args, '--verbose-prompt']),
      ]);
      const [bos, h, i, eot] = marked.prompt_ids;
      assert.deepEqual(marked.prompt_ids, [bos, h, i, eot]);
      assert.deepEqual([marked.prompt_tokens, plain.prompt_tokens], [4, 3 + '<|eot_id|>'.length]);
      assert.deepEqual(plain.prompt_ids.slice(0, 3), [bos, h, i]);
      assert(!plain.prompt_ids.includes(eot));
      for (const [id, text] of [
        [bos, '<|begin_of_text|>'],
        [h, 'H'],
        [i, 'i'],
        [eot, '<|eot_id|>'],
      ] as const)
        assert.match(printed.stderr, new RegExp(`^ +${id}  ${JSON.stringify(text).replace(/\|/g, '\\|')}$`, 'm'));
    });

    it('--tokens do without a tokenizer that cannot be used', async () => {
      const file = models.changedGguf('strange.gguf', (bytes) => {
        bytes.write('tokenizer.ggml.prx', bytes.indexOf('tokenizer.ggml.pre'));
      });
      const strange = /tokenizer\.ggml\.prx is not known, and may change how a text is read/;
      const [ids, spoken] = await Promise.all([
        cli.run('run', [file, '--tokens', '1,2,3', ...asked]),
        cli.json('run', [models.gguf, '--tokens', '1,2,3', ...asked]),
      ]);
      assert.equal(ids.stdout, `${spoken.tokens.join(',')}\n`);
      assert.match(ids.stderr, /token ids are printed instead of text, as the tokenizer cannot be used/);
      assert.match(ids.stderr, strange);
      await cli.refuses('run', [file, '-p', 'Hi', ...asked], 1, [strange]);
    });
  });

  describe('generation', () => {
    long('-n 0 evaluates the prompt only, -n N gives N tokens', async () => {
      const [none, one] = await Promise.all([cli.json('run', ['-n', '0']), cli.json('run', ['-n', '1', '--greedy'])]);
      assert.deepEqual([none.tokens, none.text, none.stop_reason], [[], '', 'length']);
      assert.equal(none.prompt_tokens, 17);
      assert.deepEqual([one.tokens, one.stop_reason], [[449], 'length']);
      const { stderr } = await cli.run('run', ['--tokens', '1', '-n', '1', '--seed', '1']);
      assert.match(stderr, /\| prompt 1 token, [\d.]+ tok\/s \| generated 1 token \| stopped: length\n$/);
    });

    it('the end token ends it, and is not part of the text', async () => {
      // Which token follows is known beforehand, so a copy of the model can call it the end token.
      const { tokens } = await cli.json('run', [models.gguf, '--tokens', '5', '-n', '4', '--greedy']);
      const at = tokens.findIndex((token: number, i: number) => i > 0 && !tokens.slice(0, i).includes(token));
      assert.ok(at > 0, `all the same: ${tokens}`);
      const bytes = readFileSync(models.gguf);
      const key = 'tokenizer.ggml.eos_token_id';
      bytes.writeUInt32LE(tokens[at], bytes.indexOf(key) + key.length + 4);
      const ending = cli.path('ending.gguf');
      writeFileSync(ending, bytes);
      const ended = await cli.json('run', [ending, '--tokens', '5', '-n', '9', '--greedy']);
      assert.deepEqual([ended.tokens, ended.stop_reason], [tokens.slice(0, at), 'eos']);
    });

    long('seeds: the same gives the same text, the default is random, the printed one reproduces', async () => {
      const args = ['-n', '24', '--temp', '1.5', '--top-p', '1'];
      const [a, b, c, d] = await Promise.all([
        cli.json('run', [...args, '--seed', '7']),
        cli.json('run', [...args, '--seed', '7', '-t', '1']),
        cli.run('run', args),
        cli.json('run', args),
      ]);
      assert.deepEqual([a.seed, a.text], [7, b.text]);
      const printed = /seed (\d+)/.exec(c!.stderr)![1]!;
      assert.notEqual(Number(printed), d.seed);
      assert.notEqual(a.text, d.text);
      assert.equal(await cli.ok('run', [...args, '--seed', printed]), c!.stdout);
    });

    long('--greedy does not depend on the seed; --temp 0 is the same', async () => {
      const texts = await Promise.all(
        [
          ['--greedy', '--seed', '1'],
          ['--greedy', '--seed', '2'],
          ['--temp', '0'],
        ].map(async (args) => (await cli.json('run', ['-n', '12', ...args])).text),
      );
      assert.deepEqual(texts, [texts[0], texts[0], texts[0]]);
    });

    long('the number of threads, even above that of CPUs, does not change a text', async () => {
      const args = [models.gguf, '-p', 'in the', '-n', '24', '--greedy'];
      const [one, ...others] = await Promise.all(['1', '2', '5'].map((t) => cli.json('run', [...args, '-t', t])));
      for (const other of others) assert.deepEqual(other.tokens, one.tokens);
      assert.deepEqual([one.threads, ...others.map((o) => o.threads)], [1, 2, 5]);
    });

    long('neither does the target', async () => {
      const results = await Promise.all(
        nativeTargets.map((target) => cli.json('run', ['-n', '12', '--greedy', '--target', target])),
      );
      assert.deepEqual(
        results.map((r) => r.target),
        nativeTargets,
      );
      for (const result of results) assert.deepEqual(result.tokens, results[0].tokens);
    });

    long('neither do packing and kernel; one rounds, and says so', async () => {
      const args = ['-n', '12', '--greedy'];
      const usual = await cli.json('run', args);
      const asked = ['--packing', 'tmac', '--kernel'];
      assert.deepEqual((await cli.json('run', [...args, ...asked, 'lookup'])).tokens, usual.tokens);
      assert.equal((await cli.json('run', [...args, ...asked, 'roundlookup'])).tokens.length, 12);
      const { matrices } = await cli.json('run', ['--info', ...asked, 'roundlookup']);
      assert.match(matrices.attn_q.why, /rounds, so single tokens are not exact$/);
      const { stderr } = await cli.run('run', [...args, ...asked, 'roundlookup']);
      assert.match(stderr, /^bitnet-run: kernel 'roundlookup' rounds: /m);
      for (const [wrong, says] of [
        [['--packing', 'p9'], /^bitnet-run: unknown packing 'p9'; known packings: /],
        [['--kernel', 'gemm'], /^bitnet-run: 'gemm' is no decode kernel; there are gemv, /],
        [['--sparse', '--kernel', 'lookup'], /^bitnet-run: zeros cannot be skipped in ffn_up with kernel 'lookup' /],
      ] as const) {
        const refused = await cli.run('run', [...wrong]);
        assert.deepEqual([refused.code, refused.stdout], [1, '']);
        assert.match(refused.stderr, says);
      }
    });

    it('--stop, across tokens: the text ends before it', async () => {
      const args = ['-n', '30', '--greedy', '--stop', 'nowhere', '-e', '--stop', String.raw`e park\x20wi`];
      const [text, object] = await Promise.all([cli.ok('run', [...args, '--quiet']), cli.json('run', args)]);
      assert.equal(text, ' went to th\n');
      assert.deepEqual([object.text, object.stop_reason], [' went to th', 'stop']);
    });

    long('--lookup: the same text, and what the drafts came to', async () => {
      const args = ['-p', 'The big red dog ran. The big red dog ran. The big', '-n', '60', '--seed', '3'];
      const [plain, drafted, text] = await Promise.all([
        cli.json('run', args),
        cli.json('run', [...args, '--lookup']),
        cli.run('run', [...args, '--lookup']),
      ]);
      assert.deepEqual(drafted.tokens, plain.tokens);
      assert.deepEqual(Object.keys(drafted.lookup), ['drafted', 'accepted', 'evaluations']);
      assert.match(text!.stderr, /\| lookup: \d+ of \d+ drafted tokens? accepted in \d+ evaluations? \| stopped: /);
    });

    it('a full context ends it', async () => {
      const { tokens, stop_reason, context } = await cli.json('run', [
        ...[models.gguf, '--tokens', '1,2,3,4,5', '--greedy', '-n', '-1', '-c', '12'],
      ]);
      assert.deepEqual([context, stop_reason], [12, 'context']);
      // The last token needs no position: nothing is predicted from it.
      assert.equal(tokens.length, 8);
    });

    long('--ctx 0 is all that the model was trained for', async () => {
      const { context } = await cli.json('run', [models.gguf, '--tokens', '1', '-n', '1', '-c', '0']);
      assert.equal(context, shape.context);
    });

    long('--ctx beyond what the model was trained for: a warning, not with --quiet', async () => {
      const args = [models.gguf, '--tokens', '1', '-n', '1', '--ctx', '65'];
      const [loud, quiet] = await Promise.all([
        cli.run('run', [...args, '--json']),
        cli.run('run', [...args, '--quiet']),
      ]);
      assert.match(loud!.stderr, /^bitnet-run: the model was trained for 64 positions; [^\n]*\n$/);
      assert.equal(quiet!.stderr, '');
    });

    long('characters whose bytes come in several tokens are printed whole', async () => {
      // Byte tokens: one character of four bytes is four tokens, so the random model's text is full of broken characters, but a
      // character in the prompt's continuation must come out as the bytes say.
      const { tokens: names } = tinyVocabulary(shape.vocabulary);
      const args = [
        models.gguf,
        '-p',
        'é€😀',
        '-n',
        '60',
        '--temp',
        '3',
        '--top-k',
        '0',
        '--top-p',
        '1',
        '--min-p',
        '0',
        '--seed',
        '3',
      ];
      const [object, stdout] = await Promise.all([cli.json('run', args), cli.ok('run', args)]);
      assert.equal(object.prompt_tokens, 1 + 2 + 3 + 4, 'one token for each byte');
      const bytes = object.tokens.flatMap((id: number) => [...bytesOf(names[id]!)]);
      const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes));
      assert.equal(object.text, text);
      assert.ok(
        [...text].some((c) => c > '\x7f' && c !== '\ufffd'),
        `no character of several bytes: ${text}`,
      );
      assert.equal(stdout, `é€😀${text}\n`);
    });
  });
});

/** Bytes of a token in GPT-2's alphabet; control tokens have none. */
function bytesOf(name: string): Uint8Array {
  if (name.startsWith('<|')) return new Uint8Array();
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  const others = Array.from({ length: 256 }, (_, b) => b).filter((b) => !printable(b));
  return Uint8Array.from(
    [...name].map((c) => (c.codePointAt(0)! < 256 ? c.codePointAt(0)! : others[c.codePointAt(0)! - 256]!)),
  );
}
