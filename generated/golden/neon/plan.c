/* A model's tables on neon. Generated from codegen/plan.ts and codegen/layout.ts. */
#include "internal.h"

const int64_t bn_file_bytes = 3100672;

/* name, rows, cols, offset, bytes, kind, type */
const bn_tensor bn_tensors[BN_TENSORS] = {
    {"token_embd", 4096, 256, 4096, 2097152, BN_ROWS, 30 /* BN_BF16 */},
    {"output_norm", 1, 256, 2101248, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.attn_norm", 1, 256, 2102272, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.attn_q", 256, 256, 2103296, 13312, BN_TERNARY, 0},
    {"blk.0.attn_k", 128, 256, 2116672, 6656, BN_TERNARY, 0},
    {"blk.0.attn_v", 128, 256, 2123392, 6656, BN_TERNARY, 0},
    {"blk.0.attn_sub_norm", 1, 256, 2130112, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.attn_output", 256, 256, 2131136, 13312, BN_TERNARY, 0},
    {"blk.0.ffn_norm", 1, 256, 2144512, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.ffn_gate", 768, 256, 2145536, 39936, BN_TERNARY, 0},
    {"blk.0.ffn_up", 768, 256, 2185536, 39936, BN_TERNARY, 0},
    {"blk.0.ffn_sub_norm", 1, 768, 2225536, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.ffn_down", 256, 768, 2228608, 39936, BN_TERNARY, 0},
    {"blk.1.attn_norm", 1, 256, 2268608, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.1.attn_q", 256, 256, 2269632, 13312, BN_TERNARY, 0},
    {"blk.1.attn_k", 128, 256, 2283008, 6656, BN_TERNARY, 0},
    {"blk.1.attn_v", 128, 256, 2289728, 6656, BN_TERNARY, 0},
    {"blk.1.attn_sub_norm", 1, 256, 2296448, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.1.attn_output", 256, 256, 2297472, 13312, BN_TERNARY, 0},
    {"blk.1.ffn_norm", 1, 256, 2310848, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.1.ffn_gate", 768, 256, 2311872, 39936, BN_TERNARY, 0},
    {"blk.1.ffn_up", 768, 256, 2351872, 39936, BN_TERNARY, 0},
    {"blk.1.ffn_sub_norm", 1, 768, 2391872, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.1.ffn_down", 256, 768, 2394944, 39936, BN_TERNARY, 0},
    {"blk.2.attn_norm", 1, 256, 2434944, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.2.attn_q", 256, 256, 2435968, 13312, BN_TERNARY, 0},
    {"blk.2.attn_k", 128, 256, 2449344, 6656, BN_TERNARY, 0},
    {"blk.2.attn_v", 128, 256, 2456064, 6656, BN_TERNARY, 0},
    {"blk.2.attn_sub_norm", 1, 256, 2462784, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.2.attn_output", 256, 256, 2463808, 13312, BN_TERNARY, 0},
    {"blk.2.ffn_norm", 1, 256, 2477184, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.2.ffn_gate", 768, 256, 2478208, 39936, BN_TERNARY, 0},
    {"blk.2.ffn_up", 768, 256, 2518208, 39936, BN_TERNARY, 0},
    {"blk.2.ffn_sub_norm", 1, 768, 2558208, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.2.ffn_down", 256, 768, 2561280, 39936, BN_TERNARY, 0},
    {"blk.3.attn_norm", 1, 256, 2601280, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.3.attn_q", 256, 256, 2602304, 13312, BN_TERNARY, 0},
    {"blk.3.attn_k", 128, 256, 2615680, 6656, BN_TERNARY, 0},
    {"blk.3.attn_v", 128, 256, 2622400, 6656, BN_TERNARY, 0},
    {"blk.3.attn_sub_norm", 1, 256, 2629120, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.3.attn_output", 256, 256, 2630144, 13312, BN_TERNARY, 0},
    {"blk.3.ffn_norm", 1, 256, 2643520, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.3.ffn_gate", 768, 256, 2644544, 39936, BN_TERNARY, 0},
    {"blk.3.ffn_up", 768, 256, 2684544, 39936, BN_TERNARY, 0},
    {"blk.3.ffn_sub_norm", 1, 768, 2724544, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.3.ffn_down", 256, 768, 2727616, 39936, BN_TERNARY, 0},
    {"blk.4.attn_norm", 1, 256, 2767616, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.4.attn_q", 256, 256, 2768640, 13312, BN_TERNARY, 0},
    {"blk.4.attn_k", 128, 256, 2782016, 6656, BN_TERNARY, 0},
    {"blk.4.attn_v", 128, 256, 2788736, 6656, BN_TERNARY, 0},
    {"blk.4.attn_sub_norm", 1, 256, 2795456, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.4.attn_output", 256, 256, 2796480, 13312, BN_TERNARY, 0},
    {"blk.4.ffn_norm", 1, 256, 2809856, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.4.ffn_gate", 768, 256, 2810880, 39936, BN_TERNARY, 0},
    {"blk.4.ffn_up", 768, 256, 2850880, 39936, BN_TERNARY, 0},
    {"blk.4.ffn_sub_norm", 1, 768, 2890880, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.4.ffn_down", 256, 768, 2893952, 39936, BN_TERNARY, 0},
    {"blk.5.attn_norm", 1, 256, 2933952, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.5.attn_q", 256, 256, 2934976, 13312, BN_TERNARY, 0},
    {"blk.5.attn_k", 128, 256, 2948352, 6656, BN_TERNARY, 0},
    {"blk.5.attn_v", 128, 256, 2955072, 6656, BN_TERNARY, 0},
    {"blk.5.attn_sub_norm", 1, 256, 2961792, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.5.attn_output", 256, 256, 2962816, 13312, BN_TERNARY, 0},
    {"blk.5.ffn_norm", 1, 256, 2976192, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.5.ffn_gate", 768, 256, 2977216, 39936, BN_TERNARY, 0},
    {"blk.5.ffn_up", 768, 256, 3017216, 39936, BN_TERNARY, 0},
    {"blk.5.ffn_sub_norm", 1, 768, 3057216, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.5.ffn_down", 256, 768, 3060288, 39936, BN_TERNARY, 0},
};

/* t5r8x20: byte and factor of weight (row, k), a row of the line per text line */
static const uint16_t place_0[] = {
    0,1, 1,1, 2,1, 3,1, 0,3, 1,3, 2,3, 3,3, 0,9, 1,9, 2,9, 3,9, 0,27, 1,27, 2,27, 3,27, 0,84, 1,84, 2,84, 3,84,
    4,1, 5,1, 6,1, 7,1, 4,3, 5,3, 6,3, 7,3, 4,9, 5,9, 6,9, 7,9, 4,27, 5,27, 6,27, 7,27, 4,84, 5,84, 6,84, 7,84,
    8,1, 9,1, 10,1, 11,1, 8,3, 9,3, 10,3, 11,3, 8,9, 9,9, 10,9, 11,9, 8,27, 9,27, 10,27, 11,27, 8,84, 9,84, 10,84, 11,84,
    12,1, 13,1, 14,1, 15,1, 12,3, 13,3, 14,3, 15,3, 12,9, 13,9, 14,9, 15,9, 12,27, 13,27, 14,27, 15,27, 12,84, 13,84, 14,84, 15,84,
    16,1, 17,1, 18,1, 19,1, 16,3, 17,3, 18,3, 19,3, 16,9, 17,9, 18,9, 19,9, 16,27, 17,27, 18,27, 19,27, 16,84, 17,84, 18,84, 19,84,
    20,1, 21,1, 22,1, 23,1, 20,3, 21,3, 22,3, 23,3, 20,9, 21,9, 22,9, 23,9, 20,27, 21,27, 22,27, 23,27, 20,84, 21,84, 22,84, 23,84,
    24,1, 25,1, 26,1, 27,1, 24,3, 25,3, 26,3, 27,3, 24,9, 25,9, 26,9, 27,9, 24,27, 25,27, 26,27, 27,27, 24,84, 25,84, 26,84, 27,84,
    28,1, 29,1, 30,1, 31,1, 28,3, 29,3, 30,3, 31,3, 28,9, 29,9, 30,9, 31,9, 28,27, 29,27, 30,27, 31,27, 28,84, 29,84, 30,84, 31,84,
};

const bn_packing bn_packings[] = {
    {"t5r8x20", 8, 20, 32, place_0, BN_BY_TILES, 20, 0, 0, 0},
};

const bn_matrix bn_matrices[BN_SLOTS] = {
    [BN_ATTN_Q] = {
        .gemv = bn_gemv_i8_t5r8x20_i32__n256k256__1x8x20_neon_p8192,
        .gemm[0] = {2, bn_gemm_i8_t5r8x20_i32__n256k256__2x8x20_neon_p8192},
        .gemm[1] = {4, bn_gemm_i8_t5r8x20_i32__n256k256__4x8x20_neon_p8192},
        .offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048,
        .sums = bn_sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048,
        .results = bn_results_i16_none_i32__n256__8x4x1_neon_r2048,
        .last_offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048,
        .last_sums = bn_sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048,
        .tiles = 32,
        .tile_rows = 8,
        .tile_bytes = 416,
        .lines = 13,
        .line_k = 20,
        .line_bytes = 32,
        .table_lines = 2,
        .table_rows = 2048,
        .others_at = 32768,
        .tables_at = 40960,
        .sums_at = 54592,
        .x_stride = 576,
        .y_stride = 256,
    },
    [BN_ATTN_OUTPUT] = {
        .gemv = bn_gemv_i8_t5r8x20_i32__n256k256__1x8x20_neon_p8192,
        .gemm[0] = {2, bn_gemm_i8_t5r8x20_i32__n256k256__2x8x20_neon_p8192},
        .gemm[1] = {4, bn_gemm_i8_t5r8x20_i32__n256k256__4x8x20_neon_p8192},
        .offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048,
        .sums = bn_sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048,
        .results = bn_results_i16_none_i32__n256__8x4x1_neon_r2048,
        .last_offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048,
        .last_sums = bn_sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048,
        .tiles = 32,
        .tile_rows = 8,
        .tile_bytes = 416,
        .lines = 13,
        .line_k = 20,
        .line_bytes = 32,
        .table_lines = 2,
        .table_rows = 2048,
        .others_at = 32768,
        .tables_at = 40960,
        .sums_at = 54592,
        .x_stride = 576,
        .y_stride = 256,
    },
    [BN_ATTN_K] = {
        .gemv = bn_gemv_i8_t5r8x20_i32__n128k256__1x8x20_neon_p8192,
        .gemm[0] = {2, bn_gemm_i8_t5r8x20_i32__n128k256__2x8x20_neon_p8192},
        .gemm[1] = {4, bn_gemm_i8_t5r8x20_i32__n128k256__4x8x20_neon_p8192},
        .offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048,
        .sums = bn_sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048,
        .results = bn_results_i16_none_i32__n128__8x4x1_neon_r2048,
        .last_offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048,
        .last_sums = bn_sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048,
        .tiles = 16,
        .tile_rows = 8,
        .tile_bytes = 416,
        .lines = 13,
        .line_k = 20,
        .line_bytes = 32,
        .table_lines = 2,
        .table_rows = 2048,
        .others_at = 32768,
        .tables_at = 40960,
        .sums_at = 54592,
        .x_stride = 576,
        .y_stride = 128,
    },
    [BN_ATTN_V] = {
        .gemv = bn_gemv_i8_t5r8x20_i32__n128k256__1x8x20_neon_p8192,
        .gemm[0] = {2, bn_gemm_i8_t5r8x20_i32__n128k256__2x8x20_neon_p8192},
        .gemm[1] = {4, bn_gemm_i8_t5r8x20_i32__n128k256__4x8x20_neon_p8192},
        .offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048,
        .sums = bn_sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048,
        .results = bn_results_i16_none_i32__n128__8x4x1_neon_r2048,
        .last_offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048,
        .last_sums = bn_sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048,
        .tiles = 16,
        .tile_rows = 8,
        .tile_bytes = 416,
        .lines = 13,
        .line_k = 20,
        .line_bytes = 32,
        .table_lines = 2,
        .table_rows = 2048,
        .others_at = 32768,
        .tables_at = 40960,
        .sums_at = 54592,
        .x_stride = 576,
        .y_stride = 128,
    },
    [BN_FFN_GATE] = {
        .gemv = bn_gemv_i8_t5r8x20_i32__n768k256__1x8x20_neon_p8192,
        .gemm[0] = {2, bn_gemm_i8_t5r8x20_i32__n768k256__2x8x20_neon_p8192},
        .gemm[1] = {4, bn_gemm_i8_t5r8x20_i32__n768k256__4x8x20_neon_p8192},
        .offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048,
        .sums = bn_sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048,
        .results = bn_results_i16_none_i32__n768__8x4x1_neon_r2048,
        .last_offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048,
        .last_sums = bn_sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048,
        .tiles = 96,
        .tile_rows = 8,
        .tile_bytes = 416,
        .lines = 13,
        .line_k = 20,
        .line_bytes = 32,
        .table_lines = 2,
        .table_rows = 2048,
        .others_at = 32768,
        .tables_at = 40960,
        .sums_at = 54592,
        .x_stride = 576,
        .y_stride = 768,
    },
    [BN_FFN_UP] = {
        .gemv = bn_gemv_i8_t5r8x20_i32__n768k256__1x8x20_neon_p8192,
        .gemm[0] = {2, bn_gemm_i8_t5r8x20_i32__n768k256__2x8x20_neon_p8192},
        .gemm[1] = {4, bn_gemm_i8_t5r8x20_i32__n768k256__4x8x20_neon_p8192},
        .offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048,
        .sums = bn_sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048,
        .results = bn_results_i16_none_i32__n768__8x4x1_neon_r2048,
        .last_offsets = bn_offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048,
        .last_sums = bn_sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048,
        .tiles = 96,
        .tile_rows = 8,
        .tile_bytes = 416,
        .lines = 13,
        .line_k = 20,
        .line_bytes = 32,
        .table_lines = 2,
        .table_rows = 2048,
        .others_at = 32768,
        .tables_at = 40960,
        .sums_at = 54592,
        .x_stride = 576,
        .y_stride = 768,
    },
    [BN_FFN_DOWN] = {
        .gemv = bn_gemv_i8_t5r8x20_i32__n256k768__1x8x20_neon_p8192,
        .gemm[0] = {2, bn_gemm_i8_t5r8x20_i32__n256k768__2x8x20_neon_p8192},
        .gemm[1] = {4, bn_gemm_i8_t5r8x20_i32__n256k768__4x8x20_neon_p8192},
        .offsets = bn_offsets_none_t5r8x20_u16__k768__1x8x40_neon_r2048,
        .sums = bn_sums_i8_t5r8x20_i16__k768__8x4x40_neon_r2048,
        .results = bn_results_i16_none_i32__n256__8x4x1_neon_r2048,
        .last_offsets = bn_offsets_none_t5r8x20_u16__k768__1x8x20_neon_r2048,
        .last_sums = bn_sums_i8_t5r8x20_i16__k768__8x4x20_neon_r2048,
        .tiles = 32,
        .tile_rows = 8,
        .tile_bytes = 1248,
        .lines = 39,
        .line_k = 20,
        .line_bytes = 32,
        .table_lines = 2,
        .table_rows = 2048,
        .others_at = 32768,
        .tables_at = 40960,
        .sums_at = 54592,
        .x_stride = 1088,
        .y_stride = 256,
    },
};

/* theta^(-2 i / 64), theta = 10000 */
const float bn_inverse_frequencies[BN_HEAD_SIZE / 2] = {
    1.000000000e+0f,
    7.498942018e-1f,
    5.623413324e-1f,
    4.216965139e-1f,
    3.162277639e-1f,
    2.371373624e-1f,
    1.778279394e-1f,
    1.333521456e-1f,
    1.000000015e-1f,
    7.498941571e-2f,
    5.623412877e-2f,
    4.216964915e-2f,
    3.162277862e-2f,
    2.371373586e-2f,
    1.778279431e-2f,
    1.333521493e-2f,
    9.999999776e-3f,
    7.498942316e-3f,
    5.623413250e-3f,
    4.216964822e-3f,
    3.162277862e-3f,
    2.371373819e-3f,
    1.778279431e-3f,
    1.333521446e-3f,
    1.000000047e-3f,
    7.498941850e-4f,
    5.623413017e-4f,
    4.216964880e-4f,
    3.162277862e-4f,
    2.371373848e-4f,
    1.778279402e-4f,
    1.333521504e-4f,
};

const char *bn_describe(void) {
  return
    "{\"generator\":\"0.1.0\",\"shape\":{\"name\":\"model\",\"hidden\":256,\"layers\":6,\"heads\":4,\"kvHeads\":2,"
    "\"headSize\":64,\"intermediate\":768,\"vocabulary\":4096,\"context\":256,\"activation\":\"relu2\","
    "\"subNorms\":true,\"tiedEmbedding\":true,\"embeddingType\":\"bf16\",\"headType\":\"bf16\",\"normEps\":0.00001,"
    "\"ropeTheta\":10000},\"cpu\":{\"prefetch\":{\"hint\":\"nta\"},\"name\":\"neon\",\"isa\":\"neon\","
    "\"features\":[\"asimddp\"],\"cache\":{\"l1\":65536,\"l2\":1048576,\"l3\":16777216}},\"batch\":128,\"matrices\":{"
    "\"attn_q\":{\"packing\":\"t5r8x20\",\"gemv\":\"gemv_i8_t5r8x20_i32__n256k256__1x8x20_neon_p8192\","
    "\"gemm\":[\"gemm_i8_t5r8x20_i32__n256k256__2x8x20_neon_p8192\","
    "\"gemm_i8_t5r8x20_i32__n256k256__4x8x20_neon_p8192\"],"
    "\"tables\":[\"offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048\","
    "\"sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048\",\"results_i16_none_i32__n256__8x4x1_neon_r2048\","
    "\"offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048\",\"sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048\"],"
    "\"why\":\"t5r8x20, 1.63 bit/weight: least time a weight by estimate\"},\"attn_output\":{"
    "\"packing\":\"t5r8x20\",\"gemv\":\"gemv_i8_t5r8x20_i32__n256k256__1x8x20_neon_p8192\","
    "\"gemm\":[\"gemm_i8_t5r8x20_i32__n256k256__2x8x20_neon_p8192\","
    "\"gemm_i8_t5r8x20_i32__n256k256__4x8x20_neon_p8192\"],"
    "\"tables\":[\"offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048\","
    "\"sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048\",\"results_i16_none_i32__n256__8x4x1_neon_r2048\","
    "\"offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048\",\"sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048\"],"
    "\"why\":\"t5r8x20, 1.63 bit/weight: least time a weight by estimate\"},\"attn_k\":{\"packing\":\"t5r8x20\","
    "\"gemv\":\"gemv_i8_t5r8x20_i32__n128k256__1x8x20_neon_p8192\","
    "\"gemm\":[\"gemm_i8_t5r8x20_i32__n128k256__2x8x20_neon_p8192\","
    "\"gemm_i8_t5r8x20_i32__n128k256__4x8x20_neon_p8192\"],"
    "\"tables\":[\"offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048\","
    "\"sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048\",\"results_i16_none_i32__n128__8x4x1_neon_r2048\","
    "\"offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048\",\"sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048\"],"
    "\"why\":\"t5r8x20, 1.63 bit/weight: least time a weight by estimate\"},\"attn_v\":{\"packing\":\"t5r8x20\","
    "\"gemv\":\"gemv_i8_t5r8x20_i32__n128k256__1x8x20_neon_p8192\","
    "\"gemm\":[\"gemm_i8_t5r8x20_i32__n128k256__2x8x20_neon_p8192\","
    "\"gemm_i8_t5r8x20_i32__n128k256__4x8x20_neon_p8192\"],"
    "\"tables\":[\"offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048\","
    "\"sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048\",\"results_i16_none_i32__n128__8x4x1_neon_r2048\","
    "\"offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048\",\"sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048\"],"
    "\"why\":\"t5r8x20, 1.63 bit/weight: least time a weight by estimate\"},\"ffn_gate\":{\"packing\":\"t5r8x20\","
    "\"gemv\":\"gemv_i8_t5r8x20_i32__n768k256__1x8x20_neon_p8192\","
    "\"gemm\":[\"gemm_i8_t5r8x20_i32__n768k256__2x8x20_neon_p8192\","
    "\"gemm_i8_t5r8x20_i32__n768k256__4x8x20_neon_p8192\"],"
    "\"tables\":[\"offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048\","
    "\"sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048\",\"results_i16_none_i32__n768__8x4x1_neon_r2048\","
    "\"offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048\",\"sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048\"],"
    "\"why\":\"t5r8x20, 1.63 bit/weight: least time a weight by estimate\"},\"ffn_up\":{\"packing\":\"t5r8x20\","
    "\"gemv\":\"gemv_i8_t5r8x20_i32__n768k256__1x8x20_neon_p8192\","
    "\"gemm\":[\"gemm_i8_t5r8x20_i32__n768k256__2x8x20_neon_p8192\","
    "\"gemm_i8_t5r8x20_i32__n768k256__4x8x20_neon_p8192\"],"
    "\"tables\":[\"offsets_none_t5r8x20_u16__k256__1x8x40_neon_r2048\","
    "\"sums_i8_t5r8x20_i16__k256__8x4x40_neon_r2048\",\"results_i16_none_i32__n768__8x4x1_neon_r2048\","
    "\"offsets_none_t5r8x20_u16__k256__1x8x20_neon_r2048\",\"sums_i8_t5r8x20_i16__k256__8x4x20_neon_r2048\"],"
    "\"why\":\"t5r8x20, 1.63 bit/weight: least time a weight by estimate\"},\"ffn_down\":{\"packing\":\"t5r8x20\","
    "\"gemv\":\"gemv_i8_t5r8x20_i32__n256k768__1x8x20_neon_p8192\","
    "\"gemm\":[\"gemm_i8_t5r8x20_i32__n256k768__2x8x20_neon_p8192\","
    "\"gemm_i8_t5r8x20_i32__n256k768__4x8x20_neon_p8192\"],"
    "\"tables\":[\"offsets_none_t5r8x20_u16__k768__1x8x40_neon_r2048\","
    "\"sums_i8_t5r8x20_i16__k768__8x4x40_neon_r2048\",\"results_i16_none_i32__n256__8x4x1_neon_r2048\","
    "\"offsets_none_t5r8x20_u16__k768__1x8x20_neon_r2048\",\"sums_i8_t5r8x20_i16__k768__8x4x20_neon_r2048\"],"
    "\"why\":\"t5r8x20, 1.63 bit/weight: least time a weight by estimate\"}},\"kernels\":{"
    "\"rows\":\"rows_none_bf16_f32__k256__1x1x32_neon\",\"norm_hidden\":\"norm_f32_f32_i8__k256__1x1x16_neon\","
    "\"rope\":\"rope_i32_f32_f32__d64__1x1x16_neon\",\"narrow\":\"narrow_f32_none_f16__k64__1x1x32_neon\","
    "\"scale_f16\":\"scale_i32_none_f16__k64__1x1x32_neon\","
    "\"scale_f32\":\"scale_i32_none_f32__k64__1x1x32_neon\","
    "\"quantise_i8\":\"quantise_f32_none_i8__d64__1x1x16_neon\","
    "\"quantise_u7\":\"quantise_f32_none_u7__d64__1x1x16_neon\","
    "\"attention_f16\":\"attention_f32_f16_f32__g2d64__2x32x32_neon\","
    "\"attention_f32\":\"attention_f32_f32_f32__g2d64__2x32x32_neon\","
    "\"attention_i8\":\"qattention_i8_i8_f32__g2d64__2x32x32_neon\","
    "\"combine\":\"combine_f32_none_f32__g2d64__1x1x32_neon\","
    "\"norm_mixed\":\"norm_f32_f32_i8__k256__1x1x16_neon\","
    "\"residual\":\"residual_i32_none_f32__k256__1x1x32_neon\","
    "\"activation\":\"relu2_i32_i32_f32__k768__1x1x16_neon\","
    "\"norm_inner\":\"norm_f32_f32_i8__k768__1x1x16_neon\","
    "\"norm_output\":\"norm_f32_f32_f32__k256__1x1x16_neon\","
    "\"head_one\":\"head_f32_bf16_f32__n4096k256__1x4x32_neon\","
    "\"head_batch\":\"head_f32_bf16_f32__n4096k256__4x1x32_neon\"},"
    "\"layout\":\"88adbc97fdd9ad8cbc9065c5bf288899533ca745f84764116114ce2f171d989f\"}";
}
