/**
 * Translates the regular expressions of tokenizer.json (Oniguruma, as the Rust crate `tokenizers` runs them) for the two engines
 * of matcher.ts. The first stage of the tokenizer, split.ts, cuts the text with the result.
 *
 * What differs: neither engine's \s is Unicode White_Space; (?i:...) folds by other rules; `.`, `^` and `$` know only \n as a line
 * end. Whatever is not understood is refused: a nearly right split gives quietly wrong tokens.
 * Sources: Oniguruma doc/RE; Unicode PropList.txt (White_Space); CaseFolding.txt (the two non-ASCII letters that fold to ASCII).
 */
import { ModelError } from '../../schemas/error.ts';
import { show } from './json.ts';

/** How an engine spells what a pattern means. */
export interface Dialect {
  /** One character, by its code. */
  readonly character: (code: number) => string;
  readonly lineStart: string;
  readonly lineEnd: string;
  /** Whether it knows (?=...) and (?!...). */
  readonly lookahead: boolean;
}

/** First and last codes of Unicode White_Space. */
const whiteSpace: readonly (readonly [number, number])[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0x85, 0x85],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
];
/** All the rest: no engine has a class inside a class, so \S in [...] has to be spelt out. */
const notWhiteSpace = [[-1, -1], ...whiteSpace].map(([, last], i): readonly [number, number] => [
  last! + 1,
  (whiteSpace[i]?.[0] ?? 0x110000) - 1,
]);

const controls: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, a: 7, e: 27 };
/** Beside its other case, an ASCII letter matches these in a case-insensitive group: long s and the Kelvin sign. */
const extraFolds: Readonly<Record<string, number>> = { s: 0x17f, k: 0x212a };

/** The longest published pattern has 900 characters. */
const longestPattern = 4096;
const deepestGroup = 32;

/**
 * @param pattern Oniguruma pattern
 * @param origin where it was found, for the message
 * @returns the same expression for an engine that reads Unicode code points
 * @throws ModelError if the pattern uses something that has no safe translation
 */
export function translateRegex(pattern: string, dialect: Dialect, origin: string): string {
  return new Translator(pattern, dialect, origin).translate();
}

/** What to throw for a pattern that cannot be run. */
export function refusal(pattern: string, origin: string, reason: string): ModelError {
  return new ModelError(
    `${origin}: cannot use the regular expression ${show(pattern)}: ${reason}; ` +
      'known are groups, classes, \\p{...}, \\s \\d \\w, (?i:...) over ASCII letters, quantifiers, and \\s+(?!\\S)|\\s+ at the end',
  );
}

const word = '\\p{L}\\p{M}\\p{N}\\p{Pc}';

/** Recursive descent over the pattern: alternatives > sequence > quantified atom. */
class Translator {
  private readonly characters: readonly string[];
  private position = 0;
  private depth = 0;
  private readonly pattern: string;
  private readonly dialect: Dialect;
  private readonly origin: string;

  constructor(pattern: string, dialect: Dialect, origin: string) {
    this.pattern = pattern;
    this.dialect = dialect;
    this.origin = origin;
    this.characters = [...pattern];
  }

  translate(): string {
    if (this.pattern.length > longestPattern) this.fail(`more than ${longestPattern} characters`);
    const source = this.alternatives(false);
    if (this.position < this.characters.length) this.fail('unmatched )');
    return source;
  }

  private fail(reason: string): never {
    throw refusal(this.pattern, this.origin, `${reason} at character ${this.position}`);
  }

  private accept(text: string): boolean {
    if (
      !this.characters
        .slice(this.position, this.position + text.length)
        .join('')
        .startsWith(text)
    )
      return false;
    this.position += text.length;
    return true;
  }

  private next(): string {
    return this.characters[this.position++] ?? this.fail('unexpected end');
  }

  private alternatives(ignoreCase: boolean): string {
    if (++this.depth > deepestGroup) this.fail(`groups more than ${deepestGroup} deep`);
    let source = '';
    while (this.position < this.characters.length && this.characters[this.position] !== ')') {
      if (this.accept('|')) source += '|';
      // (?i) without a colon holds to the end of the group, the alternatives after it included.
      else if (this.accept('(?i)')) source += `(?:${this.alternatives(true)})`;
      else source += this.quantified(ignoreCase);
    }
    this.depth--;
    return source;
  }

  private quantified(ignoreCase: boolean): string {
    let atom = this.atom(ignoreCase);
    for (;;) {
      const at = this.position;
      let quantifier: string;
      if (this.accept('?')) quantifier = '?';
      else if (this.accept('*')) quantifier = '*';
      else if (this.accept('+')) quantifier = '+';
      else if (this.accept('{')) {
        const end = this.characters.indexOf('}', at);
        quantifier = this.characters.slice(at, end + 1).join('');
        if (!/^\{\d+(,\d*)?\}$/.test(quantifier)) this.fail('a { that is no repetition count');
        this.position = end + 1;
      } else return atom;
      if (this.accept('?')) atom = `(?:${atom}${quantifier}?)`;
      // X{2}+ is a repeated X{2} in Oniguruma's Ruby syntax, not a possessive one: the loop handles it.
      else if (quantifier[0] !== '{' && this.accept('+')) this.fail('a possessive quantifier');
      else atom = `(?:${atom}${quantifier})`;
    }
  }

  private atom(ignoreCase: boolean): string {
    if (this.accept('(')) return this.group(ignoreCase);
    if (this.accept('[')) return this.characterClass(ignoreCase);
    if (/^[*+?]$/.test(this.characters[this.position] ?? '')) this.fail('nothing to repeat');
    if (this.accept('.')) return '[^\\n]';
    if (this.accept('^')) return this.dialect.lineStart;
    if (this.accept('$')) return this.dialect.lineEnd;
    if (this.accept('\\W')) return `[^${word}]`;
    const { source } = this.member(ignoreCase);
    return source.length === 1 ? source : `[${source}]`;
  }

  private group(ignoreCase: boolean): string {
    let open = '(?:';
    let inner = ignoreCase;
    if (this.accept('?i:')) inner = true;
    else if (this.accept('?-i:')) inner = false;
    else if (!this.accept('?:')) {
      const look = ['?=', '?!'].find((text) => this.accept(text));
      if (look && !this.dialect.lookahead) this.fail('a look-ahead');
      if (look) open = `(${look}`;
      else if (this.characters[this.position] === '?') this.fail('a look-behind, or an unknown kind of group,');
    }
    const body = this.alternatives(inner);
    if (!this.accept(')')) this.fail('missing )');
    return `${open}${body})`;
  }

  private characterClass(ignoreCase: boolean): string {
    const negated = this.accept('^');
    let members = '';
    for (let first = true; first || this.characters[this.position] !== ']'; first = false) {
      if (this.characters[this.position] === '[') this.fail('a class inside a class');
      if (this.accept('&&')) this.fail('an intersection of classes');
      const from = this.member(ignoreCase);
      const range = this.characters[this.position] === '-' && (this.characters[this.position + 1] ?? ']') !== ']';
      if (!range) {
        members += from.source;
        continue;
      }
      this.position++;
      const to = this.member(ignoreCase);
      if (from.code === undefined || to.code === undefined) this.fail('a range between sets');
      members += `${this.literal(from.code)}-${this.literal(to.code)}`;
      if (!ignoreCase) continue;
      if (to.code > 0x7f) this.fail('a non-ASCII range in a case-insensitive group');
      for (let code = from.code; code <= to.code; code++) members += this.folded(code);
    }
    this.position++;
    return `[${negated ? '^' : ''}${members}]`;
  }

  /** One character or set, as text that may stand inside [...]; `code` only if it is a single character of the pattern. */
  private member(ignoreCase: boolean): { source: string; code?: number } {
    const character = this.next();
    if (character !== '\\') {
      const code = character.codePointAt(0)!;
      return { source: ignoreCase ? this.folded(code) : this.literal(code), code };
    }
    const kind = this.next();
    if (kind === 'p' || kind === 'P') return { source: this.property(kind) };
    const set = this.set(kind);
    if (set) return { source: set };
    let code = controls[kind];
    if (kind === 'x' || kind === 'u') {
      const digits = /^(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2,4}))/.exec(
        this.characters.slice(this.position).join(''),
      );
      const hex = digits?.[1] ?? digits?.[2]?.slice(0, kind === 'x' ? 2 : 4);
      if (!hex) this.fail(`\\${kind} without hexadecimal digits`);
      this.position += digits?.[1] ? hex.length + 2 : hex.length;
      code = Number.parseInt(hex, 16);
      if (code > 0x10ffff) this.fail(`\\${kind} beyond U+10FFFF`);
    }
    if (code === undefined && /[A-Za-z0-9]/.test(kind)) this.fail(`unknown kind \\${kind}`);
    code ??= kind.codePointAt(0)!;
    return { source: ignoreCase ? this.folded(code) : this.literal(code), code };
  }

  /** Escapes that stand for a set, as members of a character class. */
  private set(kind: string): string | undefined {
    if (kind === 's') return this.ranges(whiteSpace);
    if (kind === 'S') return this.ranges(notWhiteSpace);
    if (kind === 'd') return '\\p{Nd}';
    if (kind === 'D') return '\\P{Nd}';
    return kind === 'w' ? word : undefined;
  }

  private ranges(list: typeof whiteSpace): string {
    return list.map(([first, last]) => `${this.literal(first)}-${this.literal(last)}`).join('');
  }

  /** A name that the engine does not know is refused when it compiles the result. */
  private property(kind: string): string {
    const braced = /^\{(\^?)([A-Za-z_]+)\}/.exec(this.characters.slice(this.position).join(''));
    if (!braced) this.fail(`\\${kind} without a property in braces`);
    this.position += braced[0].length;
    return `\\${(kind === 'P') === (braced[1] === '^') ? 'p' : 'P'}{${braced[2]}}`;
  }

  private literal(code: number): string {
    const character = String.fromCodePoint(code);
    return /[A-Za-z0-9 ]/.test(character) ? character : this.dialect.character(code);
  }

  /** A character and all that differ from it only by case. */
  private folded(code: number): string {
    const lower = String.fromCodePoint(code).toLowerCase();
    if (code > 0x7f && lower !== lower.toUpperCase()) this.fail('a non-ASCII letter in a case-insensitive group');
    if (!/^[a-z]$/.test(lower)) return this.literal(code);
    const extra = extraFolds[lower];
    return lower + lower.toUpperCase() + (extra === undefined ? '' : this.literal(extra));
  }
}
