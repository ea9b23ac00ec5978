/**
 * Everything that is generated for a plan, as a map from file name to text: one C file a kernel, the plan's constants and
 * tables, the templates and the manifest. Same plan, same text, byte for byte.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { packageRoot, version } from '../schemas/files.ts';
import type { MatrixKernels, RowType } from '../schemas/types.ts';
import { kernelSource } from './generate.ts';
import { hasScreen, layerSlots, outerSlots } from './graph.ts';
import { printSignature } from './ir/print.ts';
import type { Program } from './ir/record.ts';
import { isaOf } from './isa/index.ts';
import type { Isa } from './isa/isa.ts';
import { attentionScratch, partSize, SPAN } from './kernels/attention-blocks.ts';
import { LANES, roundUp } from './kernels/kernel.ts';
import { tablesBytes } from './kernels/look-up-tables.ts';
import { panelBytes } from './kernels/panels.ts';
import { screenSize } from './kernels/screen-rows.ts';
import { COLUMNS, scalesOf } from './kernels/sparse-columns.ts';
import { APART, LIST_ROOM, listBytes } from './kernels/sparse-rows.ts';
import { BATCH, entryBytes, LEAST_ROWS, MOST_SUM, roomOf, tableScratch, tableTokens } from './kernels/tables.ts';
import { activationStride, divisorOf, productStride } from './kernels/ternary.ts';
import type { Layout } from './layout.ts';
import { layoutOf, neuronNumbers } from './layout.ts';
import type { KernelSpec } from './name.ts';
import { format } from './name.ts';
import { packingEntry, packingTables } from './packing-tables.ts';
import { findOrdered, packingOf, tilesFor } from './packings/index.ts';
import type { Ordered } from './packings/orders.ts';
import { columnBytes, fieldsOf, paddedK, panelK, rowBytes } from './packings/orders.ts';
import type { Packing } from './packings/packing.ts';
import { linesOf, tileBytes, tilesOf } from './packings/packing.ts';
import type { MatrixPlan, Plan } from './plan.ts';
import { isSparse, kernelsOf } from './plan.ts';
import { inverseFrequencies } from './rotary.ts';
import { isBlocks, rowConstant } from './rows.ts';
import type { TableSteps } from './space.ts';
import { kernelsOfTables } from './space.ts';

/** The document that travels with a library (schemas/manifest.schema.json). */
export interface Manifest {
  readonly generator: string;
  readonly shape: Plan['shape'];
  readonly cpu: Plan['cpu'];
  readonly batch: number;
  readonly layout: { readonly id: string; readonly fileBytes: number; readonly tensors: Layout['tensors'] };
  readonly matrices: Readonly<Record<string, MatrixKernels>>;
  readonly kernels: Readonly<Record<string, string>>;
}

/** `attn_q` -> `BN_ATTN_Q` */
const constant = (slot: string) => `BN_${slot.toUpperCase()}`;
const decimal = (x: number) => `${Number.isInteger(x) ? `${x}.0` : x}f`;

/** The manifest of a plan's library. */
export function manifestOf(plan: Plan): Manifest {
  const { id, fileBytes, tensors } = layoutOf(plan);
  return {
    generator: version,
    shape: plan.shape,
    cpu: plan.cpu,
    batch: plan.batch,
    layout: { id, fileBytes, tensors },
    matrices: Object.fromEntries(
      Object.entries(plan.matrices).map(([slot, m]) => [
        slot,
        {
          packing: m.packing,
          gemv: format(m.gemv),
          ...(m.tabulate ? { tabulate: format(m.tabulate) } : {}),
          ...(m.panel ? { panel: format(m.panel) } : {}),
          gemm: m.gemm.map(format),
          ...(m.tables ? { tables: kernelsOfTables(m.tables).map(format) } : {}),
          why: m.why,
        },
      ]),
    ),
    kernels: Object.fromEntries(Object.entries(plan.kernels).map(([role, spec]) => [role, format(spec)])),
  };
}

/** Tokens of a batch whose sums over columns a thread keeps before they are added. */
const DOWN_TOKENS = 8;
/** Most weights of a byte. */
const MOST_FIELDS = 5;
/** Most logits that bn_top finds: bounds its buffers. */
const MOST_TOP = 1024;

/**
 * Of the 8-bit rows: bytes of one row of codes, and where starts and factors begin in the screen's tensor; of the 4-bit rows: bytes
 * of a row of codes and of a tile.
 */
function screenNumbers(shape: Plan['shape']): [string, number][] {
  const { tiles, lines, weights, starts } = screenSize(shape.vocabulary, shape.hidden);
  const fast = screenSize(shape.vocabulary, shape.hidden, 'u4');
  return [
    ['BN_SCREEN_TILES', tiles],
    ['BN_SCREEN_STRIDE', 4 * lines],
    ['BN_SCREEN_STARTS', weights],
    ['BN_SCREEN_FACTORS', weights + starts],
    ['BN_FAST_STRIDE', fast.lineK * fast.lines],
    ['BN_FAST_TILE', fast.weights / tiles],
  ];
}

/** What packing finds out of dead neurons: its tensor, and numbers of a layer. */
const deadNumbers = (shape: Plan['shape'], { tensors }: Layout): [string, number][] => [
  ['BN_DEAD_NEURONS', tensors.findIndex(({ kind }) => kind === 'int32')],
  ['BN_NEURON_NUMBERS', neuronNumbers(shape)],
];

/** Bytes of the tables that the kernel for one token looks up in; it may take activations instead. */
const lookUpBytes = (m: MatrixPlan) => (m.tabulate ? tablesBytes(packingOf(m.packing), m.gemv.shape.k!) : 0);

/** Sizes of products by tables, and where a thread's offsets, tables and sums lie; nothing without tables. */
function tableNumbers(p: Packing, isa: Isa, tables: TableSteps | undefined) {
  if (!tables) return { lines: 0, rows: 0, others: 0, tables: 0, sums: 0, bytes: 0 };
  const lines = tables.sums.tile[2]! / p.lineK;
  const rows = roomOf(tables.sums);
  return { lines, rows, ...tableScratch(p, isa, lines, rows, BATCH) };
}

/** Bytes that a thread needs for products of a batch. */
export const scratchBytes = (p: Packing, isa: Isa, tables: TableSteps | undefined): number =>
  roundUp(Math.max(64, tableNumbers(p, isa, tables).bytes), 64);

/** The numbers of a `bn_matrix` (templates/internal.h): a matrix [n, k] in a packing, multiplied with many tokens by these tables. */
export function matrixNumbers(p: Packing, n: number, k: number, isa: Isa, tables: TableSteps | undefined) {
  const { lines, rows, others, tables: at, sums } = tableNumbers(p, isa, tables);
  return {
    tiles: tilesOf(p, n),
    tile_rows: p.rows,
    tile_bytes: tileBytes(p, k),
    lines: linesOf(p, k),
    line_k: p.lineK,
    line_bytes: p.lineBytes,
    table_lines: lines,
    table_rows: rows,
    others_at: others,
    tables_at: at,
    sums_at: sums,
    x_stride: activationStride(k),
    y_stride: productStride(p, n),
  };
}

/** Of a matrix in an order of its own: its further numbers, and those that are a panel's instead. */
function orderNumbers(m: MatrixPlan, isa: Isa) {
  const o = findOrdered(m.packing);
  if (!o) return {};
  const { n, k } = m.gemv.shape as { n: number; k: number };
  const divisors = scalesOf(o, isa).map(divisorOf);
  return {
    order: `BN_BY_${o.order.toUpperCase()}`,
    tile_bytes: tileBytes(o.tiles, panelK(o)),
    run: o.order === 'rows' ? rowBytes(o.coding, k) : columnBytes(o.coding, n),
    fields: fieldsOf(o.coding),
    field_k: o.coding.lineK,
    panel_lines: o.panelLines,
    panel_rows: panelRows(o, m),
    panel_at: scratchBytes(o.tiles, isa, m.tables),
    shifts: `{${divisors.map(({ shift }) => shift)}}`,
    inverses: `{${divisors.map(({ inverse }) => inverse)}}`,
  };
}

/** Rows of a panel: those that share tables, or by columns all. */
function panelRows(o: Ordered, { gemv, tables }: MatrixPlan): number {
  if (o.order === 'columns') return gemv.shape.n!;
  return tables ? roomOf(tables.sums) : LEAST_ROWS;
}

/** Where a thread's marks of neurons begin, for one token, behind a list and its activations. */
function marksAt({ shape, matrices: { ffn_up } }: Plan): number {
  const o = findOrdered(ffn_up.packing);
  const most = Math.max(shape.intermediate, o ? paddedK(o, shape.hidden) : 0);
  return roundUp(listBytes(Math.max(shape.hidden, shape.intermediate)) + most + LIST_ROOM, 64);
}

/** Bytes that a thread needs for products of a matrix: of a batch, with a panel, or for one token its lists. */
function threadBytes(plan: Plan, m: MatrixPlan): number {
  const isa = isaOf(plan.cpu.isa);
  const batch = scratchBytes(tilesFor(m.packing), isa, m.tables);
  const o = findOrdered(m.packing);
  if (!o) return batch;
  const lists = marksAt(plan) + roundUp(plan.shape.intermediate, LANES);
  return roundUp(Math.max(batch + panelBytes(o, panelRows(o, m)), lists), 64);
}

/** int32 of the sums of `down` by columns; 0: it has row tiles. */
function sumsOfDown({ matrices: { ffn_down } }: Plan): number {
  const o = findOrdered(ffn_down.packing);
  return o ? fieldsOf(o.coding) * columnBytes(o.coding, ffn_down.gemv.shape.n!) : 0;
}

function planHeader(plan: Plan, layout: Layout, programs: ReadonlyMap<string, Program>): string {
  const { shape } = plan;
  const slots = layerSlots(shape);
  const outer = outerSlots(shape);
  const matrices = Object.values(plan.matrices);
  const numbers: [string, number | string][] = [
    ['BN_HIDDEN', shape.hidden],
    ['BN_LAYERS', shape.layers],
    ['BN_HEADS', shape.heads],
    ['BN_KV_HEADS', shape.kvHeads],
    ['BN_HEAD_SIZE', shape.headSize],
    ['BN_INTERMEDIATE', shape.intermediate],
    ['BN_VOCABULARY', shape.vocabulary],
    ['BN_BATCH', plan.batch],
    ['BN_SCRATCH_BYTES', Math.max(...matrices.map((m) => threadBytes(plan, m)))],
    ['BN_LOOK_UP_BYTES', roundUp(Math.max(...matrices.map(lookUpBytes)), 64)],
    ['BN_GEMMS', Math.max(1, ...matrices.map((m) => m.gemm.length))],
    ['BN_DOWN_SUMS', sumsOfDown(plan)],
    ['BN_FIELDS', MOST_FIELDS],
    ['BN_DOWN_TOKENS', DOWN_TOKENS],
    ['BN_MOST_LIVE', plan.mostLive.decode],
    ['BN_MOST_LIVE_OF_BATCH', plan.mostLive.batch],
    ['BN_MOST_LIVE_OF_PROMPT', plan.mostLive.prefill],
    ['BN_LIST_BYTES', listBytes(Math.max(shape.hidden, shape.intermediate))],
    ['BN_LIST_ROOM', LIST_ROOM],
    ['BN_MARKS_AT', marksAt(plan)],
    ['BN_LIST_STEP', COLUMNS],
    ['BN_LEAST_ROWS', LEAST_ROWS],
    ['BN_TABLE_TOKENS', tableTokens(isaOf(plan.cpu.isa))],
    ['BN_TABLE_ENTRY', entryBytes(isaOf(plan.cpu.isa))],
    ['BN_MOST_SUM', MOST_SUM],
    ['BN_ATTENTION_SPAN', SPAN],
    ['BN_ATTENTION_PART', partSize(shape.heads / shape.kvHeads, shape.headSize)],
    ['BN_ATTENTION_SCRATCH', attentionScratch(shape.heads / shape.kvHeads)],
    ['BN_HEAD_TOKENS', plan.kernels.head_batch!.tile[0]!],
    ['BN_HEAD_BATCH_ROWS', plan.kernels.head_batch!.tile[1]!],
    ['BN_HEAD_ONE_ROWS', plan.kernels.head_one!.tile[1]!],
    ['BN_MOST_TOP', Math.min(MOST_TOP, shape.vocabulary)],
    ...(hasScreen(shape) ? screenNumbers(shape) : []),
    ['BN_TENSORS', layout.tensors.length],
    ...(isSparse(plan) ? deadNumbers(shape, layout) : []),
    ...outer.map((s, i): [string, number] => [constant(s.name), i]),
    ...(shape.tiedEmbedding ? [['BN_OUTPUT', 'BN_TOKEN_EMBD'] as [string, string]] : []),
    ['BN_FIRST_LAYER', outer.length],
    ['BN_SLOTS', slots.length],
    ...slots.map((s, i): [string, number] => [constant(s.name), i]),
  ];
  return `/* A model's constants on ${plan.cpu.name}, and the kernels that serve it. Generated from codegen/plan.ts. */
#ifndef BN_PLAN_H
#define BN_PLAN_H
#include <stdint.h>

enum {
${numbers.map(([name, value]) => `  ${name} = ${value},`).join('\n')}
};
#define BN_SUB_NORMS ${shape.subNorms ? 1 : 0}
#define BN_EMBEDDING_BLOCKS ${isBlocks(shape.embeddingType) ? 1 : 0}
#define BN_HEAD_BLOCKS ${isBlocks(shape.headType) ? 1 : 0}
#define BN_SCREENED ${hasScreen(shape) ? 1 : 0}
#define BN_SPARSE ${isSparse(plan) ? 1 : 0}
#define BN_APART ${APART.join(', ')}
#define BN_NORM_EPS ${decimal(shape.normEps)}
#define BN_LAYOUT "${layout.id}"
#define BN_PAUSE() ${isaOf(plan.cpu.isa).pause}

${[...programs.values()].map((program) => `${printSignature(program)};`).join('\n')}

/* The names under which forward.c calls the float kernels. */
${Object.entries(plan.kernels)
  .map(([role, spec]) => `#define bn_${role} bn_${format(spec)}`)
  .join('\n')}

#endif
`;
}

function cString(text: string): string {
  return text
    .split(/(?<=[,{])/)
    .reduce<string[]>((lines, piece) => {
      const last = lines.at(-1);
      if (last !== undefined && last.length + piece.length <= 100) lines[lines.length - 1] = last + piece;
      else lines.push(piece);
      return lines;
    }, [])
    .map((line) => `    ${JSON.stringify(line)}`)
    .join('\n');
}

function planTables(plan: Plan, layout: Layout, manifest: Manifest): string {
  const tokens = [...new Set(Object.values(plan.matrices).map((m) => m.packing))];
  const kinds = { ternary: 'BN_TERNARY', rows: 'BN_ROWS', vector: 'BN_VECTOR', int8: 'BN_INT8', int32: 'BN_INT32' };
  const typeOf = (t: Layout['tensors'][number]) =>
    t.kind === 'ternary' ? tokens.indexOf(t.type) : /^int/.test(t.kind) ? 0 : rowConstant(t.type as RowType);
  const matrices = Object.entries(plan.matrices).map(([slot, m]) => {
    const { n, k } = m.gemv.shape as { n: number; k: number };
    const isa = isaOf(plan.cpu.isa);
    const o = findOrdered(m.packing);
    const steps = m.tables && {
      offsets: m.tables.offsets,
      sums: m.tables.sums,
      results: m.tables.results,
      ...(m.tables.last ? { last_offsets: m.tables.last.offsets, last_sums: m.tables.last.sums } : {}),
    };
    const members = [
      `.${o ? (o.order === 'rows' ? 'row_dots' : 'column_sums') : 'gemv'} = bn_${format(m.gemv)}`,
      ...(m.tabulate ? [`.tabulate = bn_${format(m.tabulate)}`] : []),
      ...(m.panel ? [`.panel = bn_${format(m.panel)}`] : []),
      ...m.gemm.map((spec, i) => `.gemm[${i}] = {${spec.tile[0]}, bn_${format(spec)}}`),
      ...Object.entries(steps ?? {}).map(([name, spec]) => `.${name} = bn_${format(spec)}`),
      ...Object.entries({ ...matrixNumbers(tilesFor(m.packing), n, k, isa, m.tables), ...orderNumbers(m, isa) }).map(
        ([name, value]) => `.${name} = ${value}`,
      ),
    ];
    return `    [${constant(slot)}] = {\n        ${members.join(',\n        ')},\n    },`;
  });
  const { layout: _, ...described } = manifest;
  return `/* A model's tables on ${plan.cpu.name}. Generated from codegen/plan.ts and codegen/layout.ts. */
#include "internal.h"

const int64_t bn_file_bytes = ${layout.fileBytes};

/* name, rows, cols, offset, bytes, kind, type */
const bn_tensor bn_tensors[BN_TENSORS] = {
${layout.tensors.map((t) => `    {"${t.name}", ${t.rows}, ${t.cols}, ${t.offset}, ${t.bytes}, ${kinds[t.kind]}, ${typeOf(t)}},`).join('\n')}
};

${tokens.map(packingTables).join('\n\n')}

const bn_packing bn_packings[] = {
${tokens.map(packingEntry).join('\n')}
};

const bn_matrix bn_matrices[BN_SLOTS] = {
${matrices.join('\n')}
};

/* theta^(-2 i / ${plan.shape.headSize}), theta = ${plan.shape.ropeTheta} */
const float bn_inverse_frequencies[BN_HEAD_SIZE / 2] = {
${[...inverseFrequencies(plan.shape.ropeTheta, plan.shape.headSize)].map((f) => `    ${f.toExponential(9)}f,`).join('\n')}
};

const char *bn_describe(void) {
  return
${cString(JSON.stringify({ ...described, layout: layout.id }))};
}
`;
}

/** The C templates, by file name. */
export function templates(): Map<string, string> {
  const folder = path.join(packageRoot, 'templates');
  return new Map(
    readdirSync(folder)
      .filter((name) => /\.[ch]$/.test(name))
      .sort()
      .map((name) => [name, readFileSync(path.join(folder, name), 'utf8')]),
  );
}

/** All generated files of a plan. They do not name the model: what is compiled for a shape serves every model of that shape. */
export function emit(plan: Plan): Map<string, string> {
  const layout = layoutOf(plan);
  const manifest = manifestOf({ ...plan, shape: { ...plan.shape, name: 'model' } });
  const specs: [string, KernelSpec][] = [...kernelsOf(plan)];
  const sources = specs.map(([, spec]) => kernelSource(spec));
  const programs = new Map(sources.map((s) => [s.name, s.program]));
  return new Map([
    ['manifest.json', `${JSON.stringify(manifest, null, 2)}\n`],
    ...templates(),
    ['plan.h', planHeader(plan, layout, programs)],
    ['plan.c', planTables(plan, layout, manifest)],
    ...sources.map((s): [string, string] => [`kernels/${s.name}.c`, s.text]),
  ]);
}
