/** The text stream: every way of cutting bytes into tokens must print the same text, and never a piece of a stop string. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { createTextStream } from '../runtime/text-stream.ts';
import { UsageError } from '../schemas/error.ts';

interface Run {
  readonly text: string;
  readonly stopped: boolean;
  /** What each push gave, then what end() gave. */
  readonly parts: readonly string[];
}

function run(chunks: readonly Uint8Array[], stops: readonly string[]): Run {
  const stream = createTextStream(stops);
  let stopped = false;
  const parts: string[] = [];
  for (const chunk of chunks) {
    const result = stream.push(chunk);
    assert(!stopped || (result.stopped && result.text === ''), 'printed after a stop string');
    stopped = result.stopped;
    parts.push(result.text);
  }
  parts.push(stream.end());
  return { text: parts.join(''), stopped, parts };
}

const bytes = (text: string): Uint8Array => Buffer.from(text, 'utf8');
const single = (all: Uint8Array): Uint8Array[] => Array.from(all, (byte) => Uint8Array.of(byte));

/** What should be printed: up to the stop string that ends first, the longest of those. */
function expected(text: string, stops: readonly string[]): string {
  for (let end = 1; end <= text.length; end++) {
    const starts = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => end - stop.length);
    if (starts.length > 0) return text.slice(0, Math.min(...starts));
  }
  return text;
}

describe('text stream', () => {
  const sentence = 'né 你好 🦙\u200d👩 \ufeffok\u0000';
  it('keeps multi-byte characters whole, wherever two cuts fall', () => {
    const all = bytes(sentence);
    for (let a = 0; a <= all.length; a++)
      for (let b = a; b <= all.length; b++) {
        const { text, parts } = run([all.slice(0, a), all.slice(a, b), all.slice(b)], []);
        assert.equal(text, sentence);
        assert(!parts.some((part) => part.includes('\ufffd')), `cuts ${a}, ${b}`);
      }
  });
  it('prints a character with its last byte, not later', () => {
    assert.deepEqual(run(single(bytes('a🦙b')), []).parts, ['a', '', '', '', '🦙', 'b', '']);
  });
  it('keeps a byte order mark', () => assert.equal(run([bytes('\ufeffa')], []).text, '\ufeffa'));
  it('replaces bytes that are no UTF-8, and only them', () => {
    const invalid: [number[], string][] = [
      [[0x61, 0xff, 0x62], 'a\ufffdb'],
      [[0xe4, 0xbd, 0x61], '\ufffda'],
      [[0xc3, 0xc3, 0xa9], '\ufffdé'],
      [[0x80, 0x80], '\ufffd\ufffd'],
      [[0xf0, 0x9f, 0xa6], '\ufffd'],
    ];
    for (const [list, text] of invalid) {
      assert.equal(run([Uint8Array.from(list)], []).text, text);
      assert.equal(run(single(Uint8Array.from(list)), []).text, text);
    }
  });
  it('gives an incomplete character only at the end', () => {
    assert.deepEqual(run([bytes('é').slice(0, 1)], []).parts, ['', '\ufffd']);
  });

  it('finds a stop string across every cut', () => {
    const all = bytes('Hallo é\nUser: 🦙 more');
    for (const stop of ['\nUser:', 'é\n', '🦙', ' more', 'H'])
      for (let a = 0; a <= all.length; a++)
        for (let b = a; b <= all.length; b++) {
          const { text, stopped } = run([all.slice(0, a), all.slice(a, b), all.slice(b)], [stop]);
          assert.equal(text, Buffer.from(all).toString('utf8').split(stop)[0]);
          assert.equal(stopped, true);
        }
  });
  it('holds back just what may become a stop string', () => {
    assert.deepEqual(run([bytes('ab\nU'), bytes('x\n'), bytes('Use'), bytes('r')], ['\nUser:']).parts, [
      'ab',
      '\nUx',
      '',
      '',
      '\nUser',
    ]);
    assert.deepEqual(run([bytes('aa'), bytes('a'), bytes('b')], ['aaab']).parts, ['', '', '', '']);
    assert.deepEqual(run([bytes('aaaa'), bytes('c')], ['aaab']).parts, ['a', 'aaac', '']);
  });
  it('lets the stop string that ends first win, the longest of those', () => {
    assert.equal(run([bytes('xabc')], ['abc', 'b']).text, 'xa');
    assert.equal(run([bytes('xabc')], ['c', 'abc', 'bc']).text, 'x');
    assert.equal(run([bytes('xab')], ['ab', 'abc']).text, 'x');
    assert.equal(run([bytes('xabd')], ['abc', 'bd']).text, 'xa');
    assert.equal(run([bytes('ababac')], ['abac']).text, 'ab');
  });
  it('tells that it stopped in the push that completed the stop string, then prints nothing', () => {
    const stream = createTextStream(['END']);
    assert.deepEqual(stream.push(bytes('a EN')), { text: 'a ', stopped: false });
    assert.deepEqual(stream.push(bytes('D b')), { text: '', stopped: true });
    assert.deepEqual(stream.push(bytes('c')), { text: '', stopped: true });
    assert.equal(stream.end(), '');
  });
  it('stops at a replacement character that comes only at the end', () => {
    assert.equal(run([bytes('a'), bytes('é').slice(0, 1)], ['\ufffd']).text, 'a');
  });
  it('prints nothing twice', () => {
    const stream = createTextStream(['xyz']);
    stream.push(bytes('axy'));
    assert.equal(stream.end(), 'xy');
    assert.equal(stream.end(), '');
  });

  it('prints the same, however overlapping stop strings and cuts fall', () => {
    // Two letters and a two-byte character make every kind of overlap likely.
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'é'), minLength: 1, maxLength: 4 });
    const texts = fc.string({ unit: fc.constantFrom('a', 'b', 'é'), maxLength: 16 });
    fc.assert(
      fc.property(
        texts,
        fc.array(letters, { maxLength: 3 }),
        fc.array(fc.nat(20), { maxLength: 6 }),
        (text, stops, cuts) => {
          const all = bytes(text);
          const edges = [0, ...cuts.map((cut) => Math.min(cut, all.length)).sort((a, b) => a - b), all.length];
          const chunks = edges.slice(1).map((edge, i) => all.slice(edges[i], edge));
          assert.equal(run(chunks, stops).text, expected(text, stops));
          assert.equal(run(single(all), stops).text, expected(text, stops));
        },
      ),
      { numRuns: 2000, seed: 11 },
    );
  });
  it('refuses an empty stop string', () => assert.throws(() => createTextStream(['a', '']), UsageError));
});
