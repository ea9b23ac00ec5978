/**
 * The naming grammar. One string is file name, C symbol (with a `bn_` prefix), manifest key, test title, bench row and tuning key:
 *
 *     op_act_weight_out__shape__tile_isa[_variant]      gemv_i8_p2r16x16_i32__n2560k2560__1x16x64_avx512
 *
 * A name holds everything that changes a kernel's C text and nothing else: same name <=> same text, parse(format(s)) = s.
 */
import { PlanError } from '../schemas/error.ts';

/** A kernel to be generated, as plain data. */
export interface KernelSpec {
  /** Kernel family: key of codegen/kernels' registry. */
  readonly op: string;
  /** Type of the activations, of the weights (or second operand) and of the result; `none` where there is none. */
  readonly act: string;
  readonly weight: string;
  readonly out: string;
  /** Sizes that the code is specialised to, by letter: n rows, k columns, h heads, ... In this order in the name. */
  readonly shape: Readonly<Record<string, number>>;
  /** Work of one unrolled step; its axes are the family's: tokens x rows x k for products. */
  readonly tile: readonly number[];
  readonly isa: string;
  /** Further choices that change the text, e.g. `kb1280`. */
  readonly variant?: string;
}

const part = '[a-z0-9]+';
const grammar = new RegExp(
  `^(${part})_(${part})_(${part})_(${part})__((?:[a-z]+[0-9]+)+)__([0-9]+(?:x[0-9]+)*)_(${part})(?:_(${part}))?$`,
);

/** The name of a kernel. */
export function format(s: KernelSpec): string {
  const shape = Object.entries(s.shape)
    .map(([letter, size]) => letter + size)
    .join('');
  const name = `${s.op}_${s.act}_${s.weight}_${s.out}__${shape}__${s.tile.join('x')}_${s.isa}${s.variant ? `_${s.variant}` : ''}`;
  if (!grammar.test(name)) throw new PlanError(`'${name}' does not follow the naming grammar`);
  return name;
}

/** The kernel that a name stands for. @throws PlanError when it does not follow the grammar */
export function parse(name: string): KernelSpec {
  const m = grammar.exec(name);
  if (!m)
    throw new PlanError(`'${name}' is not a kernel name; the grammar is op_act_weight_out__shape__tile_isa[_variant]`);
  const [, op, act, weight, out, shape, tile, isa, variant] = m as unknown as string[];
  const spec: KernelSpec = {
    op: op!,
    act: act!,
    weight: weight!,
    out: out!,
    shape: Object.fromEntries([...shape!.matchAll(/([a-z]+)([0-9]+)/g)].map(([, l, n]) => [l!, Number(n)])),
    tile: tile!.split('x').map(Number),
    isa: isa!,
    ...(variant ? { variant } : {}),
  };
  // A letter twice, a leading zero: a second spelling of another kernel's name.
  if (format(spec) !== name) throw new PlanError(`'${name}' is not a kernel name; did you mean '${format(spec)}'?`);
  return spec;
}
