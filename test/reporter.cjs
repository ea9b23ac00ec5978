// Mocha's spec reporter, the reasons of skipped tests, and a last line that a script can read: N passed, N failed[, N skipped].
const Mocha = require('mocha');

module.exports = class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const skipped = [];
    runner.on('pending', (test) => skipped.push(test));
    runner.once('end', () => {
      for (const test of skipped) console.log(`skipped: ${test.fullTitle()}: ${test.skipReason ?? 'switched off'}`);
      const { passes, failures } = this.stats;
      console.log(`${passes} passed, ${failures} failed${skipped.length ? `, ${skipped.length} skipped` : ''}`);
    });
  }
};
