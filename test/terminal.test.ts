/** A terminal shows what files, names and models contain, and does not obey it. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { createProgress } from '../runtime/progress.ts';
import { createTextStream } from '../runtime/text-stream.ts';
import { oneLine, print, printAside, tell, visible } from '../schemas/terminal.ts';

/** A stream that remembers. */
function output(isTTY: boolean) {
  const written: string[] = [];
  return { written, isTTY, columns: 40, write: (text: string | Uint8Array) => written.push(String(text)) > 0 };
}

const EVIL = 'a\x1b]0;title\x07\x1b[31mred\x9b2J\x7f\r\x00é€😀\tb\n';
const SHOWN = 'a\\u001b]0;title\\u0007\\u001b[31mred\\u009b2J\\u007f\\u000d\\u0000é€😀\tb\n';

describe('terminal', () => {
  it('sees control characters as escapes; line breaks, tabs and all other characters stay', () => {
    assert.equal(visible(EVIL), SHOWN);
    assert.equal(visible('a\r\nb'), 'a\nb');
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const shown = visible(text);
        assert.doesNotMatch(shown, /[^\P{Cc}\n\t]/u);
        if (!/[^\P{Cc}\n\t]/u.test(text)) assert.equal(shown, text);
      }),
    );
  });

  it('gets escapes, a pipe the bytes', () => {
    for (const write of [print, printAside]) {
      const [terminal, pipe] = [output(true), output(false)];
      write(EVIL, terminal);
      write(EVIL, pipe);
      assert.deepEqual([terminal.written, pipe.written], [[SHOWN], [EVIL]]);
    }
  });

  it('sees characters whole, whose bytes come in several tokens', () => {
    const terminal = output(true);
    const stream = createTextStream();
    for (const byte of Buffer.from('é€😀\u0085\x1b[0mz')) print(stream.push(Uint8Array.of(byte)).text, terminal);
    assert.equal(terminal.written.join(''), 'é€😀\\u0085\\u001b[0mz');
  });

  it('an object on a terminal is still JSON', () => {
    const value = { name: EVIL };
    assert.deepEqual(JSON.parse(visible(JSON.stringify(value))), value);
  });

  it('messages are one line without control characters, everywhere', () => {
    for (const isTTY of [true, false]) {
      const stream = output(isTTY);
      tell('bitnet-run', "no file 'a\nb\x1b[2J' there\n", stream);
      assert.deepEqual(stream.written, ["bitnet-run: no file 'a b\\u001b[2J' there\n"]);
    }
  });

  it('messages have at most 500 characters: the middle is left out', () => {
    const exact = 'x'.repeat(500);
    assert.equal(oneLine(exact), exact);
    const long = oneLine(`there is no '${'😀'.repeat(4000)}'; give another`);
    assert.equal([...long].length, 500);
    assert.match(long, /^there is no '😀+…😀+'; give another$/u);
  });

  it('a progress line obeys the same, and fits', async () => {
    const stream = output(true);
    const progress = createProgress(stream);
    await new Promise((resolve) => setTimeout(resolve, 720));
    progress.update(`packing \x1b[31m${'x'.repeat(100)}`, 1, 2);
    assert.deepEqual(stream.written, [`\r\x1b[Kpacking \\u001b[31m${'x'.repeat(21)}`]);
    progress.end();
    assert.equal(stream.written.at(-1), '\r\x1b[K');
  });
});
