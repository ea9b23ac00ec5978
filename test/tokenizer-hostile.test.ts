/** Damaged and hostile tokenizer files end in an error that says why, soon, and never in anything else. */
import { strict as assert } from 'node:assert';
import { cpuTime } from './cpu-time.ts';
import { fuzzTokenizer } from './fuzz/tokenizer.ts';
import { long } from './tier.ts';
import { demoJson, fromJson, fromText, plain, refused } from './tokenizer-samples.ts';

describe('hostile tokenizers', () => {
  it('changed at random, end in a BitnetError or work', () => {
    const { cases, refused: bad } = fuzzTokenizer(1, { seconds: 10, cases: 3000 });
    assert(cases > 100 && bad > cases / 2 && bad < cases, `${cases} cases, ${bad} refused`);
  });
  long('for some seconds', () => {
    fuzzTokenizer(1_000_000, { seconds: 15 });
  });
  it('that are no tokenizer at all', () => {
    for (const content of [
      '',
      'null',
      '5',
      '"x"',
      '[]',
      '[null]',
      '{}',
      '{"model":null}',
      '{"model":[]}',
      '\0',
      '['.repeat(100_000),
    ])
      refused(() => fromText(content), /: (not readable as JSON|is |model is )/);
  });
  it('with an expression that would take V8 years', () => {
    const json = demoJson();
    const pattern = { Regex: '(?:[a-z ]|[a-z ])*!' };
    const pretokenizers = [
      { type: 'Split', pattern, behavior: 'Isolated' },
      { type: 'ByteLevel', use_regex: false },
    ];
    const tokenizer = fromJson({ ...json, pre_tokenizer: { type: 'Sequence', pretokenizers } });
    const start = cpuTime();
    assert(plain(tokenizer, 'once upon a time '.repeat(1000)).length > 1000);
    assert(cpuTime() - start < 5000);
  });
});
