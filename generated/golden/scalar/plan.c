/* A model's tables on scalar. Generated from codegen/plan.ts and codegen/layout.ts. */
#include "internal.h"

const int64_t bn_file_bytes = 3321856;

/* name, rows, cols, offset, bytes, kind, type */
const bn_tensor bn_tensors[BN_TENSORS] = {
    {"token_embd", 4096, 256, 4096, 2097152, BN_ROWS, 30 /* BN_BF16 */},
    {"output_norm", 1, 256, 2101248, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.attn_norm", 1, 256, 2102272, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.attn_q", 256, 256, 2103296, 16384, BN_TERNARY, 0},
    {"blk.0.attn_k", 128, 256, 2119744, 8192, BN_TERNARY, 0},
    {"blk.0.attn_v", 128, 256, 2128000, 8192, BN_TERNARY, 0},
    {"blk.0.attn_sub_norm", 1, 256, 2136256, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.attn_output", 256, 256, 2137280, 16384, BN_TERNARY, 0},
    {"blk.0.ffn_norm", 1, 256, 2153728, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.ffn_gate", 768, 256, 2154752, 49152, BN_TERNARY, 0},
    {"blk.0.ffn_up", 768, 256, 2203968, 49152, BN_TERNARY, 0},
    {"blk.0.ffn_sub_norm", 1, 768, 2253184, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.0.ffn_down", 256, 768, 2256256, 49152, BN_TERNARY, 0},
    {"blk.1.attn_norm", 1, 256, 2305472, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.1.attn_q", 256, 256, 2306496, 16384, BN_TERNARY, 0},
    {"blk.1.attn_k", 128, 256, 2322944, 8192, BN_TERNARY, 0},
    {"blk.1.attn_v", 128, 256, 2331200, 8192, BN_TERNARY, 0},
    {"blk.1.attn_sub_norm", 1, 256, 2339456, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.1.attn_output", 256, 256, 2340480, 16384, BN_TERNARY, 0},
    {"blk.1.ffn_norm", 1, 256, 2356928, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.1.ffn_gate", 768, 256, 2357952, 49152, BN_TERNARY, 0},
    {"blk.1.ffn_up", 768, 256, 2407168, 49152, BN_TERNARY, 0},
    {"blk.1.ffn_sub_norm", 1, 768, 2456384, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.1.ffn_down", 256, 768, 2459456, 49152, BN_TERNARY, 0},
    {"blk.2.attn_norm", 1, 256, 2508672, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.2.attn_q", 256, 256, 2509696, 16384, BN_TERNARY, 0},
    {"blk.2.attn_k", 128, 256, 2526144, 8192, BN_TERNARY, 0},
    {"blk.2.attn_v", 128, 256, 2534400, 8192, BN_TERNARY, 0},
    {"blk.2.attn_sub_norm", 1, 256, 2542656, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.2.attn_output", 256, 256, 2543680, 16384, BN_TERNARY, 0},
    {"blk.2.ffn_norm", 1, 256, 2560128, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.2.ffn_gate", 768, 256, 2561152, 49152, BN_TERNARY, 0},
    {"blk.2.ffn_up", 768, 256, 2610368, 49152, BN_TERNARY, 0},
    {"blk.2.ffn_sub_norm", 1, 768, 2659584, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.2.ffn_down", 256, 768, 2662656, 49152, BN_TERNARY, 0},
    {"blk.3.attn_norm", 1, 256, 2711872, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.3.attn_q", 256, 256, 2712896, 16384, BN_TERNARY, 0},
    {"blk.3.attn_k", 128, 256, 2729344, 8192, BN_TERNARY, 0},
    {"blk.3.attn_v", 128, 256, 2737600, 8192, BN_TERNARY, 0},
    {"blk.3.attn_sub_norm", 1, 256, 2745856, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.3.attn_output", 256, 256, 2746880, 16384, BN_TERNARY, 0},
    {"blk.3.ffn_norm", 1, 256, 2763328, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.3.ffn_gate", 768, 256, 2764352, 49152, BN_TERNARY, 0},
    {"blk.3.ffn_up", 768, 256, 2813568, 49152, BN_TERNARY, 0},
    {"blk.3.ffn_sub_norm", 1, 768, 2862784, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.3.ffn_down", 256, 768, 2865856, 49152, BN_TERNARY, 0},
    {"blk.4.attn_norm", 1, 256, 2915072, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.4.attn_q", 256, 256, 2916096, 16384, BN_TERNARY, 0},
    {"blk.4.attn_k", 128, 256, 2932544, 8192, BN_TERNARY, 0},
    {"blk.4.attn_v", 128, 256, 2940800, 8192, BN_TERNARY, 0},
    {"blk.4.attn_sub_norm", 1, 256, 2949056, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.4.attn_output", 256, 256, 2950080, 16384, BN_TERNARY, 0},
    {"blk.4.ffn_norm", 1, 256, 2966528, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.4.ffn_gate", 768, 256, 2967552, 49152, BN_TERNARY, 0},
    {"blk.4.ffn_up", 768, 256, 3016768, 49152, BN_TERNARY, 0},
    {"blk.4.ffn_sub_norm", 1, 768, 3065984, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.4.ffn_down", 256, 768, 3069056, 49152, BN_TERNARY, 0},
    {"blk.5.attn_norm", 1, 256, 3118272, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.5.attn_q", 256, 256, 3119296, 16384, BN_TERNARY, 0},
    {"blk.5.attn_k", 128, 256, 3135744, 8192, BN_TERNARY, 0},
    {"blk.5.attn_v", 128, 256, 3144000, 8192, BN_TERNARY, 0},
    {"blk.5.attn_sub_norm", 1, 256, 3152256, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.5.attn_output", 256, 256, 3153280, 16384, BN_TERNARY, 0},
    {"blk.5.ffn_norm", 1, 256, 3169728, 1024, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.5.ffn_gate", 768, 256, 3170752, 49152, BN_TERNARY, 0},
    {"blk.5.ffn_up", 768, 256, 3219968, 49152, BN_TERNARY, 0},
    {"blk.5.ffn_sub_norm", 1, 768, 3269184, 3072, BN_VECTOR, 0 /* BN_F32 */},
    {"blk.5.ffn_down", 256, 768, 3272256, 49152, BN_TERNARY, 0},
};

/* p2r16x16: byte and factor of weight (row, k), a row of the line per text line */
static const uint16_t place_0[] = {
    0,1, 1,1, 2,1, 3,1, 0,4, 1,4, 2,4, 3,4, 0,16, 1,16, 2,16, 3,16, 0,64, 1,64, 2,64, 3,64,
    4,1, 5,1, 6,1, 7,1, 4,4, 5,4, 6,4, 7,4, 4,16, 5,16, 6,16, 7,16, 4,64, 5,64, 6,64, 7,64,
    8,1, 9,1, 10,1, 11,1, 8,4, 9,4, 10,4, 11,4, 8,16, 9,16, 10,16, 11,16, 8,64, 9,64, 10,64, 11,64,
    12,1, 13,1, 14,1, 15,1, 12,4, 13,4, 14,4, 15,4, 12,16, 13,16, 14,16, 15,16, 12,64, 13,64, 14,64, 15,64,
    16,1, 17,1, 18,1, 19,1, 16,4, 17,4, 18,4, 19,4, 16,16, 17,16, 18,16, 19,16, 16,64, 17,64, 18,64, 19,64,
    20,1, 21,1, 22,1, 23,1, 20,4, 21,4, 22,4, 23,4, 20,16, 21,16, 22,16, 23,16, 20,64, 21,64, 22,64, 23,64,
    24,1, 25,1, 26,1, 27,1, 24,4, 25,4, 26,4, 27,4, 24,16, 25,16, 26,16, 27,16, 24,64, 25,64, 26,64, 27,64,
    28,1, 29,1, 30,1, 31,1, 28,4, 29,4, 30,4, 31,4, 28,16, 29,16, 30,16, 31,16, 28,64, 29,64, 30,64, 31,64,
    32,1, 33,1, 34,1, 35,1, 32,4, 33,4, 34,4, 35,4, 32,16, 33,16, 34,16, 35,16, 32,64, 33,64, 34,64, 35,64,
    36,1, 37,1, 38,1, 39,1, 36,4, 37,4, 38,4, 39,4, 36,16, 37,16, 38,16, 39,16, 36,64, 37,64, 38,64, 39,64,
    40,1, 41,1, 42,1, 43,1, 40,4, 41,4, 42,4, 43,4, 40,16, 41,16, 42,16, 43,16, 40,64, 41,64, 42,64, 43,64,
    44,1, 45,1, 46,1, 47,1, 44,4, 45,4, 46,4, 47,4, 44,16, 45,16, 46,16, 47,16, 44,64, 45,64, 46,64, 47,64,
    48,1, 49,1, 50,1, 51,1, 48,4, 49,4, 50,4, 51,4, 48,16, 49,16, 50,16, 51,16, 48,64, 49,64, 50,64, 51,64,
    52,1, 53,1, 54,1, 55,1, 52,4, 53,4, 54,4, 55,4, 52,16, 53,16, 54,16, 55,16, 52,64, 53,64, 54,64, 55,64,
    56,1, 57,1, 58,1, 59,1, 56,4, 57,4, 58,4, 59,4, 56,16, 57,16, 58,16, 59,16, 56,64, 57,64, 58,64, 59,64,
    60,1, 61,1, 62,1, 63,1, 60,4, 61,4, 62,4, 63,4, 60,16, 61,16, 62,16, 63,16, 60,64, 61,64, 62,64, 63,64,
};

const bn_packing bn_packings[] = {
    {"p2r16x16", 16, 16, 64, place_0, BN_BY_TILES, 16, 0, 0, 0},
};

const bn_matrix bn_matrices[BN_SLOTS] = {
    [BN_ATTN_Q] = {
        .gemv = bn_gemv_i8_p2r16x16_i32__n256k256__1x16x64_scalar_p4096,
        .gemm[0] = {2, bn_gemm_i8_p2r16x16_i32__n256k256__2x16x16_scalar_p4096},
        .gemm[1] = {4, bn_gemm_i8_p2r16x16_i32__n256k256__4x16x16_scalar_p4096},
        .gemm[2] = {8, bn_gemm_i8_p2r16x16_i32__n256k256__8x16x16_scalar_p4096},
        .tiles = 16,
        .tile_rows = 16,
        .tile_bytes = 1024,
        .lines = 16,
        .line_k = 16,
        .line_bytes = 64,
        .table_lines = 0,
        .table_rows = 0,
        .others_at = 0,
        .tables_at = 0,
        .sums_at = 0,
        .x_stride = 576,
        .y_stride = 256,
    },
    [BN_ATTN_OUTPUT] = {
        .gemv = bn_gemv_i8_p2r16x16_i32__n256k256__1x16x64_scalar_p4096,
        .gemm[0] = {2, bn_gemm_i8_p2r16x16_i32__n256k256__2x16x16_scalar_p4096},
        .gemm[1] = {4, bn_gemm_i8_p2r16x16_i32__n256k256__4x16x16_scalar_p4096},
        .gemm[2] = {8, bn_gemm_i8_p2r16x16_i32__n256k256__8x16x16_scalar_p4096},
        .tiles = 16,
        .tile_rows = 16,
        .tile_bytes = 1024,
        .lines = 16,
        .line_k = 16,
        .line_bytes = 64,
        .table_lines = 0,
        .table_rows = 0,
        .others_at = 0,
        .tables_at = 0,
        .sums_at = 0,
        .x_stride = 576,
        .y_stride = 256,
    },
    [BN_ATTN_K] = {
        .gemv = bn_gemv_i8_p2r16x16_i32__n128k256__1x16x64_scalar_p4096,
        .gemm[0] = {2, bn_gemm_i8_p2r16x16_i32__n128k256__2x16x16_scalar_p4096},
        .gemm[1] = {4, bn_gemm_i8_p2r16x16_i32__n128k256__4x16x16_scalar_p4096},
        .gemm[2] = {8, bn_gemm_i8_p2r16x16_i32__n128k256__8x16x16_scalar_p4096},
        .tiles = 8,
        .tile_rows = 16,
        .tile_bytes = 1024,
        .lines = 16,
        .line_k = 16,
        .line_bytes = 64,
        .table_lines = 0,
        .table_rows = 0,
        .others_at = 0,
        .tables_at = 0,
        .sums_at = 0,
        .x_stride = 576,
        .y_stride = 128,
    },
    [BN_ATTN_V] = {
        .gemv = bn_gemv_i8_p2r16x16_i32__n128k256__1x16x64_scalar_p4096,
        .gemm[0] = {2, bn_gemm_i8_p2r16x16_i32__n128k256__2x16x16_scalar_p4096},
        .gemm[1] = {4, bn_gemm_i8_p2r16x16_i32__n128k256__4x16x16_scalar_p4096},
        .gemm[2] = {8, bn_gemm_i8_p2r16x16_i32__n128k256__8x16x16_scalar_p4096},
        .tiles = 8,
        .tile_rows = 16,
        .tile_bytes = 1024,
        .lines = 16,
        .line_k = 16,
        .line_bytes = 64,
        .table_lines = 0,
        .table_rows = 0,
        .others_at = 0,
        .tables_at = 0,
        .sums_at = 0,
        .x_stride = 576,
        .y_stride = 128,
    },
    [BN_FFN_GATE] = {
        .gemv = bn_gemv_i8_p2r16x16_i32__n768k256__1x16x64_scalar_p4096,
        .gemm[0] = {2, bn_gemm_i8_p2r16x16_i32__n768k256__2x16x16_scalar_p4096},
        .gemm[1] = {4, bn_gemm_i8_p2r16x16_i32__n768k256__4x16x16_scalar_p4096},
        .gemm[2] = {8, bn_gemm_i8_p2r16x16_i32__n768k256__8x16x16_scalar_p4096},
        .tiles = 48,
        .tile_rows = 16,
        .tile_bytes = 1024,
        .lines = 16,
        .line_k = 16,
        .line_bytes = 64,
        .table_lines = 0,
        .table_rows = 0,
        .others_at = 0,
        .tables_at = 0,
        .sums_at = 0,
        .x_stride = 576,
        .y_stride = 768,
    },
    [BN_FFN_UP] = {
        .gemv = bn_gemv_i8_p2r16x16_i32__n768k256__1x16x64_scalar_p4096,
        .gemm[0] = {2, bn_gemm_i8_p2r16x16_i32__n768k256__2x16x16_scalar_p4096},
        .gemm[1] = {4, bn_gemm_i8_p2r16x16_i32__n768k256__4x16x16_scalar_p4096},
        .gemm[2] = {8, bn_gemm_i8_p2r16x16_i32__n768k256__8x16x16_scalar_p4096},
        .tiles = 48,
        .tile_rows = 16,
        .tile_bytes = 1024,
        .lines = 16,
        .line_k = 16,
        .line_bytes = 64,
        .table_lines = 0,
        .table_rows = 0,
        .others_at = 0,
        .tables_at = 0,
        .sums_at = 0,
        .x_stride = 576,
        .y_stride = 768,
    },
    [BN_FFN_DOWN] = {
        .gemv = bn_gemv_i8_p2r16x16_i32__n256k768__1x16x64_scalar_p4096,
        .gemm[0] = {2, bn_gemm_i8_p2r16x16_i32__n256k768__2x16x16_scalar_p4096},
        .gemm[1] = {4, bn_gemm_i8_p2r16x16_i32__n256k768__4x16x16_scalar_p4096},
        .gemm[2] = {8, bn_gemm_i8_p2r16x16_i32__n256k768__8x16x16_scalar_p4096},
        .tiles = 16,
        .tile_rows = 16,
        .tile_bytes = 3072,
        .lines = 48,
        .line_k = 16,
        .line_bytes = 64,
        .table_lines = 0,
        .table_rows = 0,
        .others_at = 0,
        .tables_at = 0,
        .sums_at = 0,
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
    "\"ropeTheta\":10000},\"cpu\":{\"prefetch\":{\"hint\":\"nta\"},\"name\":\"scalar\",\"isa\":\"scalar\",\"features\":[],"
    "\"cache\":{\"l1\":32768,\"l2\":262144,\"l3\":4194304}},\"batch\":128,\"matrices\":{\"attn_q\":{"
    "\"packing\":\"p2r16x16\",\"gemv\":\"gemv_i8_p2r16x16_i32__n256k256__1x16x64_scalar_p4096\","
    "\"gemm\":[\"gemm_i8_p2r16x16_i32__n256k256__2x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n256k256__4x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n256k256__8x16x16_scalar_p4096\"],\"why\":\"p2r16x16,"
    " 2.00 bit/weight: least time a weight by estimate\"},\"attn_output\":{\"packing\":\"p2r16x16\","
    "\"gemv\":\"gemv_i8_p2r16x16_i32__n256k256__1x16x64_scalar_p4096\","
    "\"gemm\":[\"gemm_i8_p2r16x16_i32__n256k256__2x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n256k256__4x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n256k256__8x16x16_scalar_p4096\"],\"why\":\"p2r16x16,"
    " 2.00 bit/weight: least time a weight by estimate\"},\"attn_k\":{\"packing\":\"p2r16x16\","
    "\"gemv\":\"gemv_i8_p2r16x16_i32__n128k256__1x16x64_scalar_p4096\","
    "\"gemm\":[\"gemm_i8_p2r16x16_i32__n128k256__2x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n128k256__4x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n128k256__8x16x16_scalar_p4096\"],\"why\":\"p2r16x16,"
    " 2.00 bit/weight: least time a weight by estimate\"},\"attn_v\":{\"packing\":\"p2r16x16\","
    "\"gemv\":\"gemv_i8_p2r16x16_i32__n128k256__1x16x64_scalar_p4096\","
    "\"gemm\":[\"gemm_i8_p2r16x16_i32__n128k256__2x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n128k256__4x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n128k256__8x16x16_scalar_p4096\"],\"why\":\"p2r16x16,"
    " 2.00 bit/weight: least time a weight by estimate\"},\"ffn_gate\":{\"packing\":\"p2r16x16\","
    "\"gemv\":\"gemv_i8_p2r16x16_i32__n768k256__1x16x64_scalar_p4096\","
    "\"gemm\":[\"gemm_i8_p2r16x16_i32__n768k256__2x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n768k256__4x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n768k256__8x16x16_scalar_p4096\"],\"why\":\"p2r16x16,"
    " 2.00 bit/weight: least time a weight by estimate\"},\"ffn_up\":{\"packing\":\"p2r16x16\","
    "\"gemv\":\"gemv_i8_p2r16x16_i32__n768k256__1x16x64_scalar_p4096\","
    "\"gemm\":[\"gemm_i8_p2r16x16_i32__n768k256__2x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n768k256__4x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n768k256__8x16x16_scalar_p4096\"],\"why\":\"p2r16x16,"
    " 2.00 bit/weight: least time a weight by estimate\"},\"ffn_down\":{\"packing\":\"p2r16x16\","
    "\"gemv\":\"gemv_i8_p2r16x16_i32__n256k768__1x16x64_scalar_p4096\","
    "\"gemm\":[\"gemm_i8_p2r16x16_i32__n256k768__2x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n256k768__4x16x16_scalar_p4096\","
    "\"gemm_i8_p2r16x16_i32__n256k768__8x16x16_scalar_p4096\"],\"why\":\"p2r16x16,"
    " 2.00 bit/weight: least time a weight by estimate\"}},\"kernels\":{"
    "\"rows\":\"rows_none_bf16_f32__k256__1x1x32_scalar\","
    "\"norm_hidden\":\"norm_f32_f32_i8__k256__1x1x16_scalar\",\"rope\":\"rope_i32_f32_f32__d64__1x1x16_scalar\","
    "\"narrow\":\"narrow_f32_none_f16__k64__1x1x32_scalar\","
    "\"scale_f16\":\"scale_i32_none_f16__k64__1x1x32_scalar\","
    "\"scale_f32\":\"scale_i32_none_f32__k64__1x1x32_scalar\","
    "\"quantise_i8\":\"quantise_f32_none_i8__d64__1x1x4_scalar\","
    "\"quantise_u7\":\"quantise_f32_none_u7__d64__1x1x4_scalar\","
    "\"attention_f16\":\"attention_f32_f16_f32__g2d64__2x8x8_scalar\","
    "\"attention_f32\":\"attention_f32_f32_f32__g2d64__2x8x8_scalar\","
    "\"attention_i8\":\"qattention_i8_i8_f32__g2d64__2x8x8_scalar\","
    "\"combine\":\"combine_f32_none_f32__g2d64__1x1x8_scalar\","
    "\"norm_mixed\":\"norm_f32_f32_i8__k256__1x1x16_scalar\","
    "\"residual\":\"residual_i32_none_f32__k256__1x1x32_scalar\","
    "\"activation\":\"relu2_i32_i32_f32__k768__1x1x16_scalar\","
    "\"norm_inner\":\"norm_f32_f32_i8__k768__1x1x16_scalar\","
    "\"norm_output\":\"norm_f32_f32_f32__k256__1x1x16_scalar\","
    "\"head_one\":\"head_f32_bf16_f32__n4096k256__1x2x32_scalar\","
    "\"head_batch\":\"head_f32_bf16_f32__n4096k256__4x1x32_scalar\"},"
    "\"layout\":\"b17635d4c64ffaf4f98ae55f772a339fca174c1deb8626d8fbf95cd8cc2d32e4\"}";
}
