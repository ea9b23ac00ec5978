/** The file of `bitnet-run --logits`: the logits of every prompt position, float32 little-endian [tokens][vocabulary]. */
import { existsSync, statSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import { asideOf, publish } from '../schemas/aside.ts';
import { UsageError } from '../schemas/error.ts';
import { cannotWrite } from '../schemas/folders.ts';
import { tell } from '../schemas/terminal.ts';
import type { Engine } from './engine.ts';

/** Refuses early what writeLogits would fail on after all the work; renaming onto a device would replace it. */
export function checkLogits(file: string): void {
  const there = statSync(file, { throwIfNoEntry: false });
  if (there && !there.isFile()) throw new UsageError(`--logits '${file}' is not an ordinary file; give another name`);
  if (!existsSync(path.dirname(file))) throw new UsageError(`--logits '${file}': there is no such folder; create it`);
}

/** Evaluates the prompt and writes all logits, aside first. @throws UsageError; AbortError when `signal` is aborted */
export async function writeLogits(
  engine: Engine,
  tokens: readonly number[],
  file: string,
  signal: AbortSignal,
): Promise<void> {
  const aside = asideOf(file);
  const replaced = existsSync(file);
  const refused = (error: NodeJS.ErrnoException): never => {
    throw new UsageError(`--logits: ${cannotWrite(file, error)}`);
  };
  const out = await open(aside, 'wx').catch(refused);
  try {
    for (let done = 0; done < tokens.length; done += 64) {
      const logits = engine.evaluate(tokens.slice(done, done + 64), true);
      await out.writeFile(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength)).catch(refused);
      signal.throwIfAborted();
    }
    await out.close().catch(refused);
    publish(aside, file);
  } catch (error) {
    await out.close().catch(() => undefined);
    await rm(aside, { force: true });
    throw error;
  }
  if (replaced) tell('bitnet-run', `replaced ${file}`);
}
