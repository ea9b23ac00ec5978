/**
 * llama.cpp's names for options of bitnet-run (common/arg.cpp). Those that mean the same are translated before the command line is
 * parsed; those that ask for what is so anyway are left out; others are refused with what to use here. commander could not do it: it has no
 * names of several letters after one hyphen, like -ngl. -m, -c, -s, -e, -n, -t, -p and -f are options of bitnet-run itself.
 */
import { UsageError } from '../schemas/error.ts';

/** What is needed of commander's options. */
interface Option {
  readonly short?: string | undefined;
  readonly long?: string | undefined;
  /** It takes a value, which may look like an option. */
  readonly required: boolean;
}

/** The same under another name. */
const same: Readonly<Record<string, string>> = {
  '--ctx-size': '--ctx',
  '--predict': '--n-predict',
  '--temperature': '--temp',
  '--usage': '--help',
};

const words = (text: string) => text.split(' ');

/** What is so anyway. */
const idle: ReadonlySet<string> = new Set(
  words(
    '-no-cnv --no-conversation --no-escape --no-warmup --no-context-shift --no-jinja --no-perf --mmap --no-kv-offload -nkvo --simple-io ' +
      '--display-prompt --offline',
  ),
);

const GPU = 'everything runs on the CPU; leave it out';

/** Names, and what to do instead. */
const others: ReadonlyMap<string, string> = new Map(
  (
    [
      ['-tb --threads-batch', 'as many threads read the prompt as write the text; use --threads'],
      ['-b --batch-size -ub --ubatch-size', 'how a prompt is cut is decided by the kernels; leave it out'],
      ['-ngl --gpu-layers --n-gpu-layers -dev --device -sm --split-mode -ts --tensor-split -mg --main-gpu', GPU],
      ['-fa --flash-attn', 'there is one attention; leave it out'],
      ['-ctk --cache-type-k -ctv --cache-type-v', 'keys and values have one type; use --kv i8, f16 or f32'],
      ['--no-mmap --mlock -lm --load-mode', 'use --pages huge for a copy of the weights in memory'],
      ['-C --cpu-mask -Cr --cpu-range --numa --prio --poll', 'use taskset, numactl or nice'],
      ['-r --reverse-prompt', 'use --stop, which ends the text before it'],
      ['--no-display-prompt --log-disable', 'use --quiet, which prints only the generated text'],
      ['-v --verbose -lv --verbosity', 'use --info or --stats'],
      ['--ignore-eos -l --logit-bias', 'logits cannot be changed, and end tokens end the text; leave it out'],
      [
        '--samplers --sampler-seq --typical --typical-p --top-nsigma --top-n-sigma --xtc-probability --xtc-threshold --presence-penalty ' +
          '--frequency-penalty --dry-multiplier --dynatemp-range --mirostat',
        'the samplers are --repeat-penalty, --top-k, --top-p, --min-p and --temp, in this order',
      ],
      [
        '-cnv --conversation -st --single-turn -i --interactive -if --interactive-first -sys --system-prompt --jinja --chat-template ' +
          '--chat-template-file --in-prefix --in-suffix',
        "there is no chat; write the model's marks into the prompt",
      ],
      ['--grammar --grammar-file -j --json-schema -jf --json-schema-file', 'there are no grammars; leave it out'],
      ['-hf -hfr --hf-repo -hff --hf-file -mu --model-url', 'models are not downloaded; give a folder or file'],
      ['-bf --binary-file', 'use --file'],
      ['--lora --lora-scaled --control-vector', 'merge it into the model first'],
      ['--rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --override-kv', "the model's files decide that"],
      ['--keep --context-shift', 'a full context ends the text; use --ctx for a larger one'],
      ['-co --color', 'the text has one colour; leave it out'],
    ] as const
  ).flatMap(([names, advice]) => words(names).map((name) => [name, advice] as const)),
);

/** Names of llama.cpp that are refused. */
export const refused: readonly string[] = [...others.keys()];

/**
 * @param args what follows the program's name @param options those of the program, whose values are left alone
 * @returns args in the program's own names @throws UsageError for an option that means something else than any of them
 */
export function ownNames(args: readonly string[], options: readonly Option[]): string[] {
  const found: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === '--') return [...found, ...args.slice(i)];
    const [, name = arg, value] = /^(--[^=]+)(=.*)$/.exec(arg) ?? [];
    if (idle.has(name)) continue;
    const advice = others.get(name);
    // `-ngl 0` is what bitnet.cpp's scripts give.
    if (advice === GPU && args[i + 1] === '0') i++;
    else if (advice) throw new UsageError(`${name} is an option of llama.cpp that is not one here: ${advice}`);
    else {
      const own = same[name] ?? name;
      found.push(`${own}${value ?? ''}`);
      const takesNext =
        value === undefined && options.some(({ required, short, long }) => required && [short, long].includes(own));
      if (takesNext && i + 1 < args.length) found.push(args[++i]!);
    }
  }
  return found;
}
