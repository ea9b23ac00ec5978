/**
 * Tensor types of GGUF: which can be decoded, how many bytes they take, and where each tensor of a file ends. GGUF stores no
 * sizes, and forks of llama.cpp gave the same ids to different types (36 is I2_S in BitNet's fork but was IQ4_NL_4_4; 39 is
 * TL2 there but MXFP4 in mainline), so a type is believed only when its size fits the gap to the next tensor.
 *
 * Sizes: ggml.c type_traits; I2_S: ggml_nbytes in the fork of microsoft/BitNet, n / 4 bytes of codes and a 32-byte tail with
 * the scale.
 */
import { ModelError } from '../../schemas/error.ts';
import type { ModelFile } from './file.ts';
import type { GgufHeader, TensorInfo } from './gguf-header.ts';
import type { Encoding, SourceTensor } from './source.ts';

/** `bytes` per block of `block` elements along a row. */
const types: Readonly<Record<number, { encoding: Encoding; block: number; bytes: number }>> = {
  0: { encoding: 'f32', block: 1, bytes: 4 },
  1: { encoding: 'f16', block: 1, bytes: 2 },
  2: { encoding: 'q4_0', block: 32, bytes: 18 },
  8: { encoding: 'q8_0', block: 32, bytes: 34 },
  14: { encoding: 'q6_k', block: 256, bytes: 210 },
  30: { encoding: 'bf16', block: 1, bytes: 2 },
  34: { encoding: 'tq1_0', block: 256, bytes: 54 },
  35: { encoding: 'tq2_0', block: 256, bytes: 66 },
};
const i2s = 36;
const tl1 = 38;
const tl2 = 39;
const supported = 'F32, F16, BF16, Q4_0, Q8_0, Q6_K, TQ1_0, TQ2_0, I2_S';

/** Names of types that are recognised only to be refused. */
const otherTypes: Readonly<Record<number, string>> = {
  3: 'Q4_1',
  6: 'Q5_0',
  7: 'Q5_1',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  12: 'Q4_K',
  13: 'Q5_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  29: 'IQ1_M',
  31: 'Q4_0_4_4',
  32: 'Q4_0_4_8',
  33: 'Q4_0_8_8',
  37: 'IQ4_NL_4_8',
  40: 'NVFP4',
  41: 'Q1_0',
  42: 'Q2_0',
  134: 'IQ1_BN',
  135: 'IQ2_BN',
  335: 'IQ2_BN_R4',
};

/** A tensor's place, under the name the file gives it. */
export type PlacedTensor = Omit<SourceTensor, 'scale' | 'factor' | 'permutedHeads'>;

/**
 * Sizes and positions of all tensors.
 * @returns by name in the file
 * @throws ModelError when a type is unsupported, or a tensor overlaps another or the end of the file
 */
export function placeTensors(file: ModelFile, header: GgufHeader): Map<string, PlacedTensor> {
  const sorted = [...header.tensors].sort((a, b) => a.offset - b.offset);
  const dataBytes = file.size - header.dataStart;
  const placed = new Map<string, PlacedTensor>();
  for (const [i, info] of sorted.entries()) {
    const fail = (message: string): never => {
      throw new ModelError(`${file.name}: tensor '${info.name}' ${message}`);
    };
    const next = sorted[i + 1];
    const room = (next ? next.offset : dataBytes) - info.offset;
    const [cols = 1, rows = 1, ...more] = info.dims;
    if (more.some((size) => size !== 1))
      fail(`has shape ${info.dims.join(' x ')}; at most two dimensions are supported`);

    const { encoding, bytes } = sizeOf(info, rows, cols, room, header.alignment, next === undefined, fail);
    const offset = header.dataStart + info.offset;
    if (offset + bytes > file.size) {
      fail(
        `ends at byte ${offset + bytes}, past the end of the file (${file.size} bytes); ` +
          'the file is truncated, download it again',
      );
    }
    if (bytes > room)
      fail(`has ${bytes} bytes and overlaps tensor '${next?.name}', ${room} bytes further; damaged file`);
    placed.set(info.name, { name: info.name, file: file.path, offset, bytes, encoding, rows, cols });
  }
  return placed;
}

/**
 * Encoding and bytes of a tensor.
 * @param room bytes up to the next tensor or the end of the file, negative if that lies before
 * @param last nothing follows, so a larger room proves nothing
 */
function sizeOf(
  info: TensorInfo,
  rows: number,
  cols: number,
  room: number,
  alignment: number,
  last: boolean,
  fail: (message: string) => never,
): { encoding: Encoding; bytes: number } {
  const elements = rows * cols;
  const fits = (bytes: number): boolean => room >= bytes && (last || room - bytes < alignment);

  const known = types[info.type];
  if (known) {
    if (cols % known.block !== 0) {
      fail(`has rows of ${cols}, but ${known.encoding} stores blocks of ${known.block}; the file is damaged`);
    }
    return { encoding: known.encoding, bytes: (elements / known.block) * known.bytes };
  }
  if (info.type === i2s) {
    const bytes = elements / 4 + 32;
    if (elements % 128 !== 0) fail(`has ${elements} elements, but I2_S stores blocks of 128; the file is damaged`);
    if (!last && !fits(bytes)) {
      fail(
        `of type 36 has room for ${room} bytes where I2_S takes ${bytes}; it is IQ4_NL_4_4 or another type of that id, ` +
          `or the file is damaged; supported are ${supported}`,
      );
    }
    return { encoding: 'i2_s', bytes };
  }
  if (info.type === tl1 || (info.type === tl2 && !fits((elements / 32) * 17))) {
    const name = info.type === tl1 ? 'TL1' : 'TL2';
    fail(
      `has type ${info.type} (${name}), which cannot be decoded: its tile sizes were chosen when it was converted and are ` +
        'not stored in the file; use an I2_S, TQ1_0 or TQ2_0 GGUF, or the Hugging Face checkpoint',
    );
  }
  const name = info.type === tl2 ? 'MXFP4' : otherTypes[info.type];
  return fail(`has type ${info.type} (${name ?? 'unknown'}), which is not supported; supported are ${supported}`);
}
