/**
 * The reference that everything else is measured against: a forward pass of a ternary model in plain TypeScript and
 * float64. It shares no code with the program. The semantics are those of Hugging Face's modeling_bitnet.py and
 * integrations/bitnet.py with the integer arithmetic of Microsoft's CPU path: activations are quantised to int8 once per
 * token over the whole row, the ternary products are exact integers, all else is floating point.
 *
 *     h  = x + o( subNorm( attention( norm(x) ) ) )
 *     x' = h + down( subNorm( f(gate(z)) * up(z) ) ),   z = norm(h),   f = relu^2 or silu
 *     logits = norm(x_last) . head^T
 *
 * A rounding of an activation to int8 that falls the other way moves every later logit by 1-2 % of its deviation. So the
 * oracle also reports how close the closest rounding came to a tie, and `safePrompt` finds prompts without close ones;
 * on those a float32 engine must agree to about 1e-4.
 */
import type { ModelShape } from '../schemas/types.ts';

export type Floats = Float64Array | Float32Array;

/** A ternary matrix: w[r][c] = scale * trits[r * cols + c], trits in {-1, 0, 1}; y[r] = sum over c of w[r][c] x[c]. */
export interface OracleMatrix {
  readonly trits: Int8Array;
  readonly rows: number;
  readonly cols: number;
  readonly scale: number;
}

export const projections = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] as const;
export type Projection = (typeof projections)[number];

/** [rows, cols] of each ternary matrix of a layer. */
export function matrixSizes(shape: ModelShape): Record<Projection, readonly [rows: number, cols: number]> {
  const { hidden, intermediate, heads, kvHeads, headSize } = shape;
  return {
    q: [heads * headSize, hidden],
    k: [kvHeads * headSize, hidden],
    v: [kvHeads * headSize, hidden],
    o: [hidden, heads * headSize],
    gate: [intermediate, hidden],
    up: [intermediate, hidden],
    down: [hidden, intermediate],
  };
}

export interface OracleLayer extends Readonly<Record<Projection, OracleMatrix>> {
  /** [hidden] */
  readonly attnNorm: Floats;
  /** [heads * headSize], with `subNorms` only. */
  readonly attnSubNorm?: Floats;
  /** [hidden] */
  readonly ffnNorm: Floats;
  /** [intermediate], with `subNorms` only. */
  readonly ffnSubNorm?: Floats;
}

export interface OracleModel {
  readonly shape: ModelShape;
  /** [vocabulary, hidden] */
  readonly embedding: Floats;
  /** [vocabulary, hidden]; absent when the head is the embedding. */
  readonly head?: Floats;
  /** [hidden] */
  readonly outputNorm: Floats;
  readonly layers: readonly OracleLayer[];
}

export interface OracleOptions {
  /** Relative noise put on every float vector, e.g. 1e-7: shows whether a prompt is as safe as its margin says. */
  readonly jitter?: number;
  readonly seed?: number;
}

/** Numbers in [0, 1) from a seed (mulberry32, public domain). */
export function generator(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// Adding 1.5 * 2^52 leaves no bits for a fraction, so the addition itself rounds to the nearest integer, ties to even.
const roundingConstant = 6755399441055744;

/**
 * float32 ulps in one quantised step, for a scaled activation of this size (0..127). Values below 16 count as 16: where
 * large terms of the residual stream nearly cancel, a small value carries the error of the large ones, and its own ulps
 * would flatter it (seen: a 1.5 that float32 moved by 46 of its ulps).
 */
const ulpsPerStep = (size: number): number => (size < 32 ? 2 ** 19 : size < 64 ? 2 ** 18 : 2 ** 17);

/** A running evaluation: one token at a time, keys and values of earlier positions kept. */
export class Oracle {
  readonly model: OracleModel;
  /**
   * Smallest distance of any scaled activation s * x from a rounding tie k + 0.5 in the latest `step`, in float32 ulps of
   * s * x, or of 16 if that is larger (see ulpsPerStep).
   */
  margin = Number.POSITIVE_INFINITY;
  private readonly keys: Float64Array[];
  private readonly values: Float64Array[];
  /** Quantised activations, [max(hidden, heads * headSize, intermediate)]. */
  private readonly quantised: Int8Array;
  /** Residual stream after the last layer, [hidden]. */
  private readonly x: Float64Array;
  private readonly noise: () => number;

  /** @param capacity positions for which keys and values are kept */
  constructor(model: OracleModel, capacity: number, { jitter = 0, seed = 1 }: OracleOptions = {}) {
    const { hidden, heads, kvHeads, headSize, intermediate, layers } = model.shape;
    if (model.layers.length !== layers) throw new Error(`${model.layers.length} layers, the shape says ${layers}`);
    this.model = model;
    const cache = () => Array.from({ length: layers }, () => new Float64Array(capacity * kvHeads * headSize));
    this.keys = cache();
    this.values = cache();
    this.quantised = new Int8Array(Math.max(hidden, heads * headSize, intermediate));
    this.x = new Float64Array(hidden);
    const random = generator(seed);
    this.noise = jitter === 0 ? () => 1 : () => 1 + jitter * (2 * random() - 1);
  }

  /**
   * Runs one token. Overwrites what an earlier step left at this position.
   * @param stop gives up as soon as the margin is below this many ulps
   * @returns false when it gave up
   */
  step(token: number, position: number, stop = 0): boolean {
    const { hidden, activation, vocabulary } = this.model.shape;
    if (!(token >= 0 && token < vocabulary)) throw new Error(`token ${token} is outside [0, ${vocabulary})`);
    const x = this.x;
    this.margin = Number.POSITIVE_INFINITY;
    for (let i = 0; i < hidden; i++) x[i] = this.model.embedding[token * hidden + i]!;
    for (const [l, layer] of this.model.layers.entries()) {
      const scale = this.quantise(this.norm(x, layer.attnNorm));
      if (this.margin < stop) return false;
      const q = this.product(layer.q, scale);
      const k = this.product(layer.k, scale);
      const v = this.product(layer.v, scale);
      let mixed = this.attention(l, position, q, k, v);
      if (layer.attnSubNorm) mixed = this.norm(mixed, layer.attnSubNorm);
      const mixedScale = this.quantise(mixed);
      if (this.margin < stop) return false;
      const attended = this.product(layer.o, mixedScale);
      for (let i = 0; i < hidden; i++) x[i] = x[i]! + attended[i]!;

      const ffnScale = this.quantise(this.norm(x, layer.ffnNorm));
      if (this.margin < stop) return false;
      const gate = this.product(layer.gate, ffnScale);
      let inner = this.product(layer.up, ffnScale);
      for (let i = 0; i < inner.length; i++) {
        const g = gate[i]!;
        inner[i] = inner[i]! * (activation === 'relu2' ? Math.max(g, 0) ** 2 : g / (1 + Math.exp(-g)));
      }
      if (layer.ffnSubNorm) inner = this.norm(inner, layer.ffnSubNorm);
      const downScale = this.quantise(inner);
      if (this.margin < stop) return false;
      const down = this.product(layer.down, downScale);
      for (let i = 0; i < hidden; i++) x[i] = x[i]! + down[i]!;
    }
    return true;
  }

  /** Logits of the latest step, [vocabulary]. Neither the head nor its input is quantised. */
  logits(out = new Float64Array(this.model.shape.vocabulary)): Float64Array {
    const head = this.model.head ?? this.model.embedding;
    const y = this.norm(this.x, this.model.outputNorm);
    for (let token = 0, at = 0; token < out.length; token++) {
      let sum = 0;
      for (let i = 0; i < y.length; i++) sum += head[at++]! * y[i]!;
      out[token] = sum;
    }
    return out;
  }

  /** RMSNorm: x / sqrt(mean(x^2) + eps) * weight. */
  private norm(x: Float64Array, weight: Floats): Float64Array {
    let squares = 0;
    for (let i = 0; i < x.length; i++) squares += x[i]! * x[i]!;
    const factor = 1 / Math.sqrt(squares / x.length + this.model.shape.normEps);
    return x.map((value, i) => value * factor * weight[i]! * this.noise());
  }

  /** Leaves round(s * x) in `quantised` and returns s = 127 / max(max|x|, 1e-5). Updates the margin. */
  private quantise(x: Float64Array): number {
    let max = 1e-5;
    for (let i = 0; i < x.length; i++) max = Math.max(max, Math.abs(x[i]!));
    const s = 127 / max;
    let margin = this.margin;
    for (let i = 0; i < x.length; i++) {
      const scaled = x[i]! * s;
      this.quantised[i] = scaled + roundingConstant - roundingConstant;
      const size = Math.abs(scaled);
      const distance = Math.abs(size - Math.floor(size) - 0.5) * ulpsPerStep(size);
      if (distance < margin) margin = distance;
    }
    this.margin = margin;
    return s;
  }

  /** matrix * (quantised / s): exact integers, then the two scales. */
  private product(matrix: OracleMatrix, s: number): Float64Array {
    const { trits, rows, cols, scale } = matrix;
    const q = this.quantised;
    const y = new Float64Array(rows);
    for (let r = 0, at = 0; r < rows; r++) {
      let sum = 0; // |sum| <= 127 * cols, far below 2^31
      for (let c = 0; c < cols; c++) sum = (sum + Math.imul(trits[at++]!, q[c]!)) | 0;
      y[r] = (sum / s) * scale * this.noise();
    }
    return y;
  }

  /** Rotates q and k, stores k and v at `position`, and mixes the values of all positions so far, [heads * headSize]. */
  private attention(layer: number, position: number, q: Float64Array, k: Float64Array, v: Float64Array): Float64Array {
    const { heads, kvHeads, headSize } = this.model.shape;
    const width = kvHeads * headSize;
    this.rotate(q, position);
    this.rotate(k, position);
    const keys = this.keys[layer]!;
    const values = this.values[layer]!;
    if ((position + 1) * width > keys.length) throw new Error(`position ${position} is beyond the oracle's capacity`);
    keys.set(k, position * width);
    values.set(v, position * width);
    const out = new Float64Array(heads * headSize);
    const weights = new Float64Array(position + 1);
    for (let h = 0; h < heads; h++) {
      // Consecutive query heads share a key-value head.
      const shared = Math.floor(h / (heads / kvHeads)) * headSize;
      let max = Number.NEGATIVE_INFINITY;
      for (let p = 0; p <= position; p++) {
        let dot = 0;
        for (let i = 0; i < headSize; i++) dot += q[h * headSize + i]! * keys[p * width + shared + i]!;
        weights[p] = dot / Math.sqrt(headSize);
        max = Math.max(max, weights[p]!);
      }
      let total = 0;
      for (let p = 0; p <= position; p++) {
        weights[p] = Math.exp(weights[p]! - max);
        total += weights[p]!;
      }
      for (let p = 0; p <= position; p++) {
        const share = weights[p]! / total;
        for (let i = 0; i < headSize; i++) {
          out[h * headSize + i] = out[h * headSize + i]! + share * values[p * width + shared + i]!;
        }
      }
    }
    return out.map((value) => value * this.noise());
  }

  /** RoPE on every head of x: elements i and i + headSize/2 turn by position * theta^(-2i/headSize). */
  private rotate(x: Float64Array, position: number): void {
    const { headSize, ropeTheta } = this.model.shape;
    const half = headSize / 2;
    for (let i = 0; i < half; i++) {
      const angle = position * ropeTheta ** ((-2 * i) / headSize);
      const cos = Math.cos(angle);
      const sin = Math.sin(angle);
      for (let head = 0; head < x.length; head += headSize) {
        const a = x[head + i]!;
        const b = x[head + half + i]!;
        x[head + i] = a * cos - b * sin;
        x[head + half + i] = b * cos + a * sin;
      }
    }
  }
}

export interface OracleRun {
  /** [tokens, vocabulary]; row t predicts token t + 1. */
  readonly logits: Float64Array;
  /** Over all tokens, layers and activations; see Oracle.margin. */
  readonly minMargin: number;
}

/** Runs a model over tokens at positions 0, 1, ... */
export function evaluate(model: OracleModel, tokens: readonly number[], options?: OracleOptions): OracleRun {
  const { vocabulary } = model.shape;
  const oracle = new Oracle(model, tokens.length, options);
  const logits = new Float64Array(tokens.length * vocabulary);
  let minMargin = Number.POSITIVE_INFINITY;
  for (const [position, token] of tokens.entries()) {
    oracle.step(token, position);
    minMargin = Math.min(minMargin, oracle.margin);
    oracle.logits(logits.subarray(position * vocabulary, (position + 1) * vocabulary));
  }
  return { logits, minMargin };
}

/** Logits of every position, [tokens, vocabulary]. */
export function logits(model: OracleModel, tokens: readonly number[]): Float64Array {
  return evaluate(model, tokens).logits;
}

export interface SafePrompt extends OracleRun {
  readonly tokens: number[];
}

/**
 * A random prompt none of whose activations lies within `minUlps` of a rounding tie. Greedy: at each position random
 * tokens are tried until one keeps the distance. About 40 ulps are enough for a careful float32 engine.
 * @param start tokens that the prompt begins with, e.g. BOS; they must keep the distance too
 * @throws when no token of the vocabulary fits at some position
 */
export function safePrompt(
  model: OracleModel,
  seed: number,
  length: number,
  minUlps = 40,
  start: readonly number[] = [],
): SafePrompt {
  const { vocabulary } = model.shape;
  const random = generator(seed);
  const oracle = new Oracle(model, length);
  const tokens: number[] = [];
  const all = new Float64Array(length * vocabulary);
  let minMargin = Number.POSITIVE_INFINITY;
  for (let position = 0; position < length; position++) {
    const fixed = start[position];
    const candidates = fixed === undefined ? shuffled(vocabulary, random) : [fixed];
    const token = candidates.find((candidate) => oracle.step(candidate, position, minUlps));
    if (token === undefined) {
      throw new Error(`seed ${seed}: no token keeps ${minUlps} ulps from a rounding tie at position ${position}`);
    }
    tokens.push(token);
    minMargin = Math.min(minMargin, oracle.margin);
    oracle.logits(all.subarray(position * vocabulary, (position + 1) * vocabulary));
  }
  return { tokens, logits: all, minMargin };
}

/** 0 .. count-1 in random order (Fisher-Yates). */
function shuffled(count: number, random: () => number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}
