// After `npm install`: compiles the demo model's kernels for this machine, so that the first run starts at once. Best effort: it
// prints one line, never fails an installation, and is skipped by BITNET_SKIP_BUILD=1 or in a checkout that is not compiled yet.
import { existsSync } from 'node:fs';

const entry = new URL('../dist/index.js', import.meta.url);
if (process.env.BITNET_SKIP_BUILD || !existsSync(entry)) process.exit(0);
try {
  const { prepareDemo } = await import(entry.href);
  console.log(`bitnet-gen: ${await prepareDemo()}`);
} catch (error) {
  console.log(`bitnet-gen: kernels are compiled at the first run (${error.message})`);
}
