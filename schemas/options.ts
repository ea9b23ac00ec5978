/** Options of the library's functions, checked as those of the command line are: JavaScript passes anything. */
import { inspect } from 'node:util';
import { UsageError } from './error.ts';

/** What the value of an option must be. */
export interface Rule {
  readonly is: (value: unknown) => boolean;
  readonly must: string;
}

/** Rules by option. */
export type Rules<T> = Readonly<Record<keyof T, Rule>>;

/** The most threads of an engine (templates/context.c). */
export const MOST_THREADS = 1024;
/** The most positions of a context (templates/context.c). */
export const MOST_POSITIONS = 1 << 20;

/** A whole number in [min, max]. @param note what a number means */
export const wholeNumber = (min: number, max = Number.MAX_SAFE_INTEGER, note = ''): Rule => ({
  is: (value) => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
  must: `a whole number from ${min}${max === Number.MAX_SAFE_INTEGER ? '' : ` to ${max}`}${note}`,
});

/** A finite number for which something holds. */
export const realNumber = (holds: (value: number) => boolean, must: string): Rule => ({
  is: (value) => Number.isFinite(value) && holds(value as number),
  must,
});

/** One of these values. */
export const oneOf = (values: readonly (string | number)[]): Rule => ({
  is: (value) => (values as readonly unknown[]).includes(value),
  must: `one of ${values.join(', ')}`,
});

/** A text. */
export const anyText: Rule = { is: (value) => typeof value === 'string' && value !== '', must: 'text, not empty' };

/** A switch. */
export const yesOrNo: Rule = { is: (value) => typeof value === 'boolean', must: 'true or false' };

/** A function. */
export const callback: Rule = { is: (value) => typeof value === 'function', must: 'a function' };

/** What ends something early. */
export const abortSignal: Rule = { is: (value) => value instanceof AbortSignal, must: 'an AbortSignal' };

/** A list of which each element obeys a rule. */
export const listOf = ({ is, must }: Rule): Rule => ({
  is: (value) => Array.isArray(value) && value.every(is),
  must: `a list; each element ${must}`,
});

/** A value in a message: short, on one line. */
export const show = (value: unknown): string =>
  inspect(value, { depth: 0, maxArrayLength: 3, maxStringLength: 80, breakLength: Number.POSITIVE_INFINITY });

/** Refuses a value that breaks its rule. @throws UsageError naming it, the value and the rule */
export function checkValue(name: string, value: unknown, { is, must }: Rule): void {
  if (is(value)) return;
  const how = typeof value === 'number' ? 'out of range' : 'not possible';
  throw new UsageError(`${name} = ${show(value)} is ${how}; it must be ${must}`);
}

/** Refuses options that break their rules; one that is undefined counts as absent. @throws UsageError */
export function checkOptions<T extends object>(options: Partial<T>, rules: Partial<Rules<T>>): void {
  checkValue('options', options, { is: (value) => typeof value === 'object' && value !== null, must: 'an object' });
  for (const [name, rule] of Object.entries<Rule>(rules as Record<string, Rule>)) {
    const value = options[name as keyof T];
    if (value !== undefined) checkValue(name, value, rule);
  }
}

/** The same, and refuses options that there are not: a misspelt one would silently do nothing. @throws UsageError */
export function checkAllOptions<T extends object>(options: Partial<T>, rules: Rules<T>): void {
  checkOptions<T>(options, rules);
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(rules, name));
  if (unknown !== undefined)
    throw new UsageError(`there is no option '${unknown}'; there are ${Object.keys(rules).join(', ')}`);
}
