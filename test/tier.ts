/**
 * Two tiers: `npm test` takes minutes and has some of every kind; `npm run test:all`, which is what .ci/run runs, has every
 * combination. Files in test/long/ belong to the second alone.
 */
export const isLong: boolean = process.env.BITNET_TESTS === 'all';

/** A test of the long tier. */
export const long = (title: string, test: (this: Mocha.Context) => Promise<void> | void): void => {
  if (isLong) it(title, test as Mocha.AsyncFunc);
};

/** All of them in the long tier, in the short one the first few. */
export const some = <T>(items: readonly T[], few = 1): readonly T[] => (isLong ? items : items.slice(0, few));
