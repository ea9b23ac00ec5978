/**
 * The ternary products of a layer (templates/products.c) are exactly the integers of their definition: for every number of tokens
 * and threads that decides how they are computed, for inputs that come as near to the limits of int16 sums as there are, for every
 * instruction set, and under the sanitizers. Bugs planted in products.c are found.
 */
import { strict as assert } from 'node:assert';
import { isaOf } from '../codegen/isa/index.ts';
import { packingsFor } from '../codegen/packings/index.ts';
import type { Packing } from '../codegen/packings/packing.ts';
import type { Plan } from '../codegen/plan.ts';
import { skip } from './fixtures.ts';
import { bestTarget, nativeTargets, oddShape, runnerFor, targets, useCache } from './machine.ts';
import {
  largeShape,
  lookUps,
  mixedPacking,
  mixedShape,
  type ProductsProgram,
  productsProgram,
  runProducts,
  smallerShape,
} from './products.ts';
import { compilerWith, env, sanitizers } from './sanitizer.ts';
import { long } from './tier.ts';

/** Numbers of threads; `c`: with a copy of the weights. */
const THREADS = ['1', '2c', '3', '5c'];

async function check(
  program: ProductsProgram,
  threads: readonly string[],
  options: Parameters<typeof runProducts>[2] = {},
) {
  const { code, products, message } = await runProducts(program, threads, options);
  assert.equal(code, 0, message);
  assert.ok(products > 0);
}

/** Vectors have tables, and for some matrix the kernels for a line that is left over; code without vectors has neither. */
function assertTables({ matrices, cpu }: Plan) {
  const all = Object.values(matrices);
  const vectors = isaOf(cpu.isa).lanes > 1;
  assert.equal(
    all.every((m) => m.tables !== undefined),
    vectors,
  );
  assert.equal(
    all.some((m) => m.tables?.last),
    vectors,
  );
}

describe('products of a layer', () => {
  useCache();

  for (const target of targets)
    (target === bestTarget ? it : long)(
      `${target}: every kind of input, ${nativeTargets.includes(target) ? '1, 2, 3 and 5' : '1 and 2'} threads`,
      async function () {
        const runner = await runnerFor(this, target);
        const large = nativeTargets.includes(target) && isaOf(target).lanes > 1;
        const program = await productsProgram(large ? largeShape : runner.length ? smallerShape : oddShape, target);
        assertTables(program.plan);
        await check(program, runner.length ? THREADS.slice(0, 2) : THREADS, { runner });
      },
    );

  it(`${bestTarget}: several tokens of matrices in the order of rows and columns`, async () => {
    const program = await productsProgram(largeShape, bestTarget, { sparse: true });
    const { ffn_up, ffn_down } = program.plan.matrices;
    assert.ok(ffn_up.panel && ffn_down.panel);
    await check(program, THREADS);
  });

  long('matrices with the same input in different packings', async function () {
    const known = (target: string) => packingsFor(isaOf(target)).map((p: Packing) => p.token);
    const target = nativeTargets.find((t) => isaOf(t).lanes > 1 && known(t).some((token) => token.startsWith('t5r16')));
    if (!target) return skip(this, 'no instruction set of this machine has vectors and two packings');
    const program = await productsProgram(mixedShape, target, { packing: mixedPacking });
    const { attn_q, attn_k, attn_v } = program.plan.matrices;
    assert.notEqual(attn_q.packing, attn_k.packing);
    assert.equal(attn_k.packing, attn_v.packing);
    assertTables(program.plan);
    await check(program, THREADS);
  });

  long('look-ups, of matrices with the same input in different tables', async () => {
    const target = nativeTargets.find((t) => isaOf(t).lanes > 1) ?? 'scalar';
    const program = await productsProgram(mixedShape, target, { packing: lookUps, kernel: ['lookup'] });
    const { attn_q, attn_k } = program.plan.matrices;
    assert.notDeepEqual(attn_q.tabulate, attn_k.tabulate);
    await check(program, THREADS);
  });

  describe('planted', () => {
    const bugs: Readonly<Record<string, readonly [text: string, other: string, message: RegExp]>> = {
      'a sum that passes int16 by one': ['BN_MOST_SUM', '32768', /^32,768/],
      'spans that are too long': ['BN_MOST_SUM', '40000', /^random|^all/],
      'a span that forgets': ['span += block[0]', 'span = block[0]', /^random|^all/],
      'the next block left out of account': ['span + block[1]', 'span', /^random|^all/],
      'tokens that are left out of account': ['most[b] = MAX(most[b], sum)', 'most[b] = sum', /./],
      'a last block that is skipped': [
        'line < shared->lines; line += ',
        'line + 1 < shared->lines; line += ',
        /^random/,
      ],
      'sums that are not cleared': ['memset(sums +', 'if (0) memset(sums +', /^random/],
      'a piece that begins too late': ['rest.first = piece->end', 'rest.first = piece->end + 1', /^random/],
      'a last token without products': ['t < s->n; t += tokens', 't < s->n - 1; t += tokens', /^random/],
      'a first token after the tables without products': ['t = t0,', 't = t0 + (t0 > 0),', /^random/],
      "another thread's sum": ['a->sum + thread', 'a->sum', /^random: 1 tokens/],
    };
    for (const [name, [text, other, expected]] of Object.entries(bugs))
      long(name, async function () {
        if (isaOf(bestTarget).lanes === 1) return skip(this, 'this machine has no vectors, and so no tables');
        const program = await productsProgram(largeShape, bestTarget, { edit: [text, other] });
        const { code, message } = await runProducts(program, THREADS);
        assert.equal(code, 2, message);
        assert.match(message, expected);
      });
  });

  for (const { name, flags } of sanitizers)
    long(`${bestTarget}, sanitizers: ${name}`, async function () {
      const found = await compilerWith(flags);
      if ('reason' in found) return skip(this, found.reason);
      await check(await productsProgram(smallerShape, bestTarget, { cc: found.cc, extra: flags }), ['1', '3c'], {
        env,
        // Where memory is read and written does not depend on the kind.
        kinds: 1,
      });
    });
});
