// Mocha's spec reporter, the reasons of skipped tests, the files that took longest, and a last line that a script can read:
// N passed, N failed[, N skipped].
const path = require('node:path');
const Mocha = require('mocha');

/** Parts of a test's title that fixtures.ts adds: what passes from a worker process to this one. */
const REASON = ' — skipped: ';

module.exports = class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const skipped = [];
    const seconds = new Map();
    const count = ({ file, duration }) => {
      if (!file || !duration) return;
      const name = path.basename(file);
      seconds.set(name, (seconds.get(name) ?? 0) + duration / 1000);
    };
    runner.on('pending', (test) => skipped.push(test.fullTitle()));
    runner.on('test end', count);
    runner.on('hook end', count);
    runner.once('end', () => {
      for (const title of skipped) {
        const [test, reason = 'switched off'] = title.split(REASON);
        console.log(`skipped: ${test}: ${reason}`);
      }
      const slow = [...seconds].filter(([, s]) => s >= 10).sort(([, a], [, b]) => b - a);
      if (slow.length) console.log(`seconds by file: ${slow.map(([name, s]) => `${name} ${s.toFixed(0)}`).join(', ')}`);
      const { passes, failures } = this.stats;
      console.log(`${passes} passed, ${failures} failed${skipped.length ? `, ${skipped.length} skipped` : ''}`);
    });
  }
};

module.exports.REASON = REASON;
