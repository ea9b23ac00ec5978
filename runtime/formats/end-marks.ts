/**
 * Which tokens end a text. A model ends a text, a turn or a message with a token of its own for each, and its files often name
 * one of them only: BitNet 2B4T's say <|end_of_text|>, but its turns end with <|eot_id|>. A runtime that misses one prints
 * nothing for ever. So every id that a file names counts, and every special token that is spelt as such marks are.
 * The readers of both formats call this; the engine stops at the ids, and `--info` lists them.
 */

/** A token that ends a text. */
export interface EndMark {
  readonly id: number;
  /** Its spelling, if a file of the model says. */
  readonly text?: string;
}

/** A token id that a file gives under a key. */
export interface NamedToken {
  /** File and key, for messages. */
  readonly from: string;
  readonly id: number;
}

/** A token of the vocabulary that steers the model: text that a user types never becomes it by chance. */
export interface SpecialToken {
  readonly id: number;
  readonly text: string;
}

/**
 * Spellings in use for the end of a text, of a turn (chat) and of a message (before a tool is called). llama.cpp goes by such
 * a list, too (src/llama-vocab.cpp, special_eog_ids); marks of families that are never ternary are left out.
 */
const spellings: ReadonlySet<string> = new Set([
  // Text: Llama 1 and 2, GPT-2 with Falcon and Qwen, Llama 3, Gemma, DeepSeek.
  ...['</s>', '<|endoftext|>', '<|end_of_text|>', '<eos>', '[EOS]', '<｜end▁of▁sentence｜>'],
  // Turn: Llama 3, ChatML, Phi, Gemma, CodeLlama and others.
  ...['<|eot_id|>', '<|im_end|>', '<|end|>', '<end_of_turn>', '<turn|>', '<|endofturn|>', '<|end_of_turn|>'],
  ...['<EOT>', '_<EOT>', '▁<EOT>', '[EOT]', '<end_of_utterance>'],
  // Message.
  '<|eom_id|>',
]);

/** What ends and begins a text, as ModelSource has it. */
export interface Marks {
  readonly bos?: number;
  readonly eos: readonly number[];
  readonly endMarks: readonly EndMark[];
  /** Ids that a file names but the vocabulary lacks. */
  readonly notes: readonly string[];
}

/**
 * Joins what the files name with what the vocabulary holds.
 * @param ends in order of importance
 * @param special special tokens of the vocabulary; the tokenizer may know more tokens than the model, whose ids never come up
 * @param textOf spelling of any id, if known
 */
export function readMarks(
  bos: NamedToken | undefined,
  ends: readonly NamedToken[],
  special: Iterable<SpecialToken>,
  textOf: (id: number) => string | undefined,
  vocabulary: number,
): Marks {
  const notes: string[] = [];
  const exists = ({ from, id }: NamedToken): boolean => {
    const is = id >= 0 && id < vocabulary;
    if (!is) notes.push(`${from} ${id} is no token of the model (0 to ${vocabulary - 1}) and is ignored`);
    return is;
  };
  const start = bos && exists(bos) ? bos.id : undefined;
  const ids = new Set(ends.filter(exists).map(({ id }) => id));
  for (const { id, text } of special) if (id < vocabulary && spellings.has(text)) ids.add(id);
  if (!ids.size)
    notes.push('no token ends a text: no file names one, and the vocabulary holds none of the known marks');
  const endMarks = [...ids].map((id) => {
    const text = textOf(id);
    return { id, ...(text === undefined ? {} : { text }) };
  });
  return { eos: [...ids], endMarks, notes, ...(start === undefined ? {} : { bos: start }) };
}
