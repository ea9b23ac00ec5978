/**
 * Translates the regular expressions of tokenizer.json (Oniguruma, as the Rust crate `tokenizers` runs them) to JavaScript's.
 * First stage of the tokenizer: split.ts cuts the text with the result.
 *
 * What differs: JavaScript's \s is not Unicode White_Space (it has U+FEFF and lacks U+0085); (?i:...) is new in 2025 and folds
 * by other rules; possessive and atomic groups do not exist and become (?=(?<p0>...))\k<p0>; `.`, `^` and `$` know
 * only \n as a line end. Whatever is not understood is refused: a nearly right split gives quietly wrong tokens.
 * Sources: Oniguruma doc/RE; Unicode PropList.txt (White_Space); CaseFolding.txt (the two non-ASCII letters that fold to ASCII).
 */
import { ModelError } from '../../schemas/error.ts';

/** Members of Unicode White_Space, to be put inside [...]. */
const whiteSpace = '\\t-\\r \\u0085\\u00A0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000';
/** All the rest: flag u has no class inside a class, so \S in [...] has to be spelt out. */
const notWhiteSpace =
  '\\0-\\x08\\x0E-\\x1F!-\\u0084\\u0086-\\u009F\\u00A1-\\u167F\\u1681-\\u1FFF\\u200B-\\u2027\\u202A-\\u202E' +
  '\\u2030-\\u205E\\u2060-\\u2FFF\\u3001-\\u{10FFFF}';
const word = '\\p{L}\\p{M}\\p{N}\\p{Pc}';

/** Escapes that stand for a set, as members of a character class. */
const sets: Readonly<Record<string, string>> = {
  s: whiteSpace,
  S: notWhiteSpace,
  d: '\\p{Nd}',
  D: '\\P{Nd}',
  w: word,
};
const controls: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, a: 7, e: 27 };
/** Beside its other case, an ASCII letter matches these in a case-insensitive group: long s and the Kelvin sign. */
const extraFolds: Readonly<Record<string, string>> = { s: '\\u{17F}', k: '\\u{212A}' };

/**
 * @param pattern Oniguruma pattern
 * @param origin where it was found, for the message
 * @returns the same expression with flags g and u
 * @throws ModelError if the pattern uses something that has no safe translation
 */
export function translateRegex(pattern: string, origin: string): RegExp {
  const source = new Translator(pattern, origin).translate();
  try {
    return new RegExp(source, 'gu');
  } catch (error) {
    throw refusal(pattern, origin, error instanceof Error ? error.message : String(error));
  }
}

/** Makes a literal text safe inside a regular expression with flag u. */
export function escapeRegex(text: string): string {
  return [...text].map((character) => literal(character.codePointAt(0)!)).join('');
}

function literal(code: number): string {
  const character = String.fromCodePoint(code);
  return /[A-Za-z0-9 ]/.test(character) ? character : `\\u{${code.toString(16).toUpperCase()}}`;
}

function refusal(pattern: string, origin: string, reason: string): ModelError {
  return new ModelError(
    `${origin}: cannot translate the pre-tokenizer's regular expression ${JSON.stringify(pattern)}: ${reason}; ` +
      'known are groups, look-around, classes, \\p{...}, \\s \\d \\w, (?i:...) over ASCII letters and all quantifiers',
  );
}

/** Recursive descent over the pattern: alternatives > sequence > quantified atom. */
class Translator {
  private readonly characters: readonly string[];
  private position = 0;
  private captures = 0;
  private readonly pattern: string;
  private readonly origin: string;

  constructor(pattern: string, origin: string) {
    this.pattern = pattern;
    this.origin = origin;
    this.characters = [...pattern];
  }

  translate(): string {
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
    let source = '';
    while (this.position < this.characters.length && this.characters[this.position] !== ')') {
      if (this.accept('|')) source += '|';
      // (?i) without a colon holds to the end of the group, the alternatives after it included.
      else if (this.accept('(?i)')) return `${source}(?:${this.alternatives(true)})`;
      else source += this.quantified(ignoreCase);
    }
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
      else if (quantifier[0] !== '{' && this.accept('+')) atom = this.atomic(`${atom}${quantifier}`);
      else atom = `(?:${atom}${quantifier})`;
    }
  }

  private atomic(source: string): string {
    const name = `p${this.captures++}`;
    return `(?:(?=(?<${name}>${source}))\\k<${name}>)`;
  }

  private atom(ignoreCase: boolean): string {
    if (this.accept('(')) return this.group(ignoreCase);
    if (this.accept('[')) return this.characterClass(ignoreCase);
    if (/^[*+?]$/.test(this.characters[this.position] ?? '')) this.fail('nothing to repeat');
    if (this.accept('.')) return '[^\\n]';
    if (this.accept('^')) return '(?<![^\\n])';
    if (this.accept('$')) return '(?![^\\n])';
    if (this.accept('\\W')) return `[^${word}]`;
    const { source } = this.member(ignoreCase);
    return source.length === 1 ? source : `[${source}]`;
  }

  private group(ignoreCase: boolean): string {
    let open = '(?:';
    let inner = ignoreCase;
    let atomic = false;
    if (this.accept('?i:')) inner = true;
    else if (this.accept('?-i:')) inner = false;
    else if (this.accept('?>')) atomic = true;
    else if (!this.accept('?:')) {
      const look = ['?=', '?!', '?<=', '?<!'].find((text) => this.accept(text));
      if (look) open = `(${look}`;
      else if (this.characters[this.position] === '?') this.fail('an unknown kind of group');
    }
    const body = this.alternatives(inner);
    if (!this.accept(')')) this.fail('missing )');
    return atomic ? this.atomic(body) : `${open}${body})`;
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
      members += `${literal(from.code)}-${literal(to.code)}`;
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
      return { source: ignoreCase ? this.folded(code) : literal(code), code };
    }
    const kind = this.next();
    if (kind === 'p' || kind === 'P') return { source: this.property(kind) };
    const set = sets[kind];
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
    }
    if (code === undefined && /[A-Za-z0-9]/.test(kind)) this.fail(`unknown kind \\${kind}`);
    code ??= kind.codePointAt(0)!;
    return { source: ignoreCase ? this.folded(code) : literal(code), code };
  }

  private property(kind: string): string {
    const braced = /^\{(\^?)([A-Za-z_ =]+)\}/.exec(this.characters.slice(this.position).join(''));
    const name = braced?.[2];
    if (!braced || !name) this.fail(`\\${kind} without a property in braces`);
    this.position += braced[0].length;
    const letter = (kind === 'P') === (braced[1] === '^') ? 'p' : 'P';
    for (const spelling of [name, `Script=${name}`]) {
      try {
        new RegExp(`\\p{${spelling}}`, 'u');
        return `\\${letter}{${spelling}}`;
      } catch {
        // Oniguruma names scripts without "Script="; try that, then give up.
      }
    }
    return this.fail(`unknown property ${name}`);
  }

  /** A character and all that differ from it only by case. */
  private folded(code: number): string {
    const lower = String.fromCodePoint(code).toLowerCase();
    if (code > 0x7f && lower !== lower.toUpperCase()) this.fail('a non-ASCII letter in a case-insensitive group');
    if (!/^[a-z]$/.test(lower)) return literal(code);
    return lower + lower.toUpperCase() + (extraFolds[lower] ?? '');
  }
}
