// Test files run side by side, one a CPU; a file's own tests one after the other.
module.exports = {
  'node-option': ['import=tsx'],
  require: ['./test/setup.ts'],
  reporter: './test/reporter.cjs',
  parallel: true,
  jobs: require('node:os').availableParallelism(),
  timeout: 300_000,
};
