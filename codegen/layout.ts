/**
 * The packed weights file: which tensor lies where. The layout depends on shape and packings only, neither on the ISA nor on
 * threads, so targets with the same packings share one file.
 */
import { createHash } from 'node:crypto';
import type { ModelShape, RowType } from '../schemas/types.ts';
import type { MatrixSlot } from './graph.ts';
import { layerSlots, outerSlots } from './graph.ts';
import { roundUp } from './kernels/kernel.ts';
import { screenSize } from './kernels/screen-rows.ts';
import { matrixBytes } from './packings/index.ts';
import type { Plan } from './plan.ts';
import { isSparse } from './plan.ts';
import { rowBytes } from './rows.ts';

/** Bytes before the first tensor; BN_HEADER_BYTES in templates/internal.h. */
const HEADER_BYTES = 4096;
const LINE = 64;

/** One tensor of the packed weights file. */
export interface LayoutTensor {
  /** GGUF name without `.weight`. */
  readonly name: string;
  readonly kind: 'ternary' | 'rows' | 'vector' | 'int8' | 'int32';
  readonly rows: number;
  readonly cols: number;
  /** Byte offset in the file, a multiple of 64. */
  readonly offset: number;
  /** Bytes of the data; a ternary matrix is followed by its scale in a 64-byte line of its own. */
  readonly bytes: number;
  /** Packing token, type of the rows, or f32; i8 for the head's screen; i32 for what packing finds out of dead neurons. */
  readonly type: string;
  /** The model's tensor that it is made of, where that is another one. */
  readonly from?: string;
}

/** The packed weights file of a plan. */
export interface Layout {
  readonly tensors: readonly LayoutTensor[];
  readonly fileBytes: number;
  /** SHA-256 of the tensors: a file packed for another layout is refused. */
  readonly id: string;
}

/** int32 of a layer's bn_neurons (templates/internal.h). */
export const neuronNumbers = (shape: ModelShape): number => 7 + 2 * shape.intermediate;

/** Where everything lies in the packed weights file of a plan's library. */
export function layoutOf(plan: Plan): Layout {
  const shape: ModelShape = plan.shape;
  const tensors: LayoutTensor[] = [];
  let end = HEADER_BYTES;
  const place = (tensor: Omit<LayoutTensor, 'offset'>) => {
    tensors.push({ ...tensor, offset: end });
    end = roundUp(end + tensor.bytes, LINE) + (tensor.kind === 'ternary' ? LINE : 0);
  };
  const float = (name: string, kind: 'rows' | 'vector', rows: number, cols: number, type: RowType) =>
    place({ name, kind, rows, cols, type, bytes: rows * rowBytes(type, cols) });
  for (const slot of outerSlots(shape)) {
    if (slot.kind === 'int8') {
      const { weights, starts, factors } = screenSize(slot.rows, slot.cols);
      place({ ...slot, type: 'i8', bytes: weights + starts + factors });
    } else float(slot.name, slot.kind as 'rows' | 'vector', slot.rows, slot.cols, 'type' in slot ? slot.type : 'f32');
  }
  for (let layer = 0; layer < shape.layers; layer++)
    for (const slot of layerSlots(shape)) {
      const name = `blk.${layer}.${slot.name}`;
      if (slot.kind === 'vector') {
        float(name, 'vector', 1, slot.cols, 'f32');
        continue;
      }
      const type = plan.matrices[slot.name as MatrixSlot].packing;
      place({
        name,
        kind: 'ternary',
        rows: slot.rows,
        cols: slot.cols,
        type,
        bytes: matrixBytes(type, slot.rows, slot.cols),
      });
    }
  if (isSparse(plan)) {
    const cols = neuronNumbers(shape);
    place({
      name: 'dead_neurons',
      kind: 'int32',
      rows: shape.layers,
      cols,
      type: 'i32',
      bytes: 4 * shape.layers * cols,
    });
  }
  const fileBytes = roundUp(end, 4096);
  const id = createHash('sha256').update(JSON.stringify({ tensors, fileBytes })).digest('hex');
  return { tensors, fileBytes, id };
}
