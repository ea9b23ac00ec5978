/* A model's constants on avx2, and the kernels that serve it. Generated from codegen/plan.ts. */
#ifndef BN_PLAN_H
#define BN_PLAN_H
#include <stdint.h>

enum {
  BN_HIDDEN = 256,
  BN_LAYERS = 6,
  BN_HEADS = 4,
  BN_KV_HEADS = 2,
  BN_HEAD_SIZE = 64,
  BN_INTERMEDIATE = 768,
  BN_VOCABULARY = 4096,
  BN_BATCH = 128,
  BN_SCRATCH_BYTES = 300288,
  BN_LOOK_UP_BYTES = 0,
  BN_GEMMS = 2,
  BN_DOWN_SUMS = 0,
  BN_FIELDS = 5,
  BN_DOWN_TOKENS = 8,
  BN_MOST_LIVE = 90,
  BN_MOST_LIVE_OF_BATCH = 70,
  BN_MOST_LIVE_OF_PROMPT = 40,
  BN_LIST_BYTES = 1664,
  BN_LIST_ROOM = 64,
  BN_MARKS_AT = 2496,
  BN_LIST_STEP = 16,
  BN_LEAST_ROWS = 512,
  BN_TABLE_TOKENS = 16,
  BN_TABLE_ENTRY = 32,
  BN_MOST_SUM = 32767,
  BN_ATTENTION_SPAN = 128,
  BN_ATTENTION_PART = 160,
  BN_ATTENTION_SCRATCH = 576,
  BN_HEAD_TOKENS = 4,
  BN_HEAD_BATCH_ROWS = 1,
  BN_HEAD_ONE_ROWS = 4,
  BN_MOST_TOP = 1024,
  BN_TENSORS = 68,
  BN_TOKEN_EMBD = 0,
  BN_OUTPUT_NORM = 1,
  BN_OUTPUT = BN_TOKEN_EMBD,
  BN_FIRST_LAYER = 2,
  BN_SLOTS = 11,
  BN_ATTN_NORM = 0,
  BN_ATTN_Q = 1,
  BN_ATTN_K = 2,
  BN_ATTN_V = 3,
  BN_ATTN_SUB_NORM = 4,
  BN_ATTN_OUTPUT = 5,
  BN_FFN_NORM = 6,
  BN_FFN_GATE = 7,
  BN_FFN_UP = 8,
  BN_FFN_SUB_NORM = 9,
  BN_FFN_DOWN = 10,
};
#define BN_SUB_NORMS 1
#define BN_EMBEDDING_BLOCKS 0
#define BN_HEAD_BLOCKS 0
#define BN_SCREENED 0
#define BN_SPARSE 0
#define BN_APART 5, 2, 7, 0, 3, 6, 1, 4
#define BN_NORM_EPS 0.00001f
#define BN_LAYOUT "b17635d4c64ffaf4f98ae55f772a339fca174c1deb8626d8fbf95cd8cc2d32e4"
#define BN_PAUSE() __builtin_ia32_pause()

void bn_gemv_i8_p2r16x16_i32__n256k256__1x16x64_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_gemm_i8_p2r16x16_i32__n256k256__2x16x16_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_gemm_i8_p2r16x16_i32__n256k256__4x16x16_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_offsets_none_p2r16x16_u16__k256__1x16x32_avx2_r1024(const uint8_t *restrict w, uint8_t *restrict quads,
    uint8_t *restrict others, long tiles);
void bn_sums_i8_p2r16x16_i16__k256__16x4x32_avx2_r1024(const int8_t *restrict x, const uint8_t *restrict quads,
    const uint8_t *restrict others, uint8_t *restrict sums, uint8_t *restrict scratch, long tokens, long rows);
void bn_results_i16_none_i32__n256__16x8x1_avx2_r1024(uint8_t *restrict sums, int32_t *restrict y, long tokens,
    long rows);
void bn_gemv_i8_p2r16x16_i32__n128k256__1x16x64_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_gemm_i8_p2r16x16_i32__n128k256__2x16x16_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_gemm_i8_p2r16x16_i32__n128k256__4x16x16_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_results_i16_none_i32__n128__16x8x1_avx2_r1024(uint8_t *restrict sums, int32_t *restrict y, long tokens,
    long rows);
void bn_gemv_i8_p2r16x16_i32__n768k256__1x16x64_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_gemm_i8_p2r16x16_i32__n768k256__2x16x16_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_gemm_i8_p2r16x16_i32__n768k256__4x16x16_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_results_i16_none_i32__n768__16x8x1_avx2_r1024(uint8_t *restrict sums, int32_t *restrict y, long tokens,
    long rows);
void bn_gemv_i8_p2r16x16_i32__n256k768__1x16x64_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_gemm_i8_p2r16x16_i32__n256k768__2x16x16_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_gemm_i8_p2r16x16_i32__n256k768__4x16x16_avx2_p12288l2(const uint8_t *restrict w, const int8_t *restrict x,
    const int32_t *restrict sums, int32_t *restrict y, long t0, long t1);
void bn_offsets_none_p2r16x16_u16__k768__1x16x32_avx2_r1024(const uint8_t *restrict w, uint8_t *restrict quads,
    uint8_t *restrict others, long tiles);
void bn_sums_i8_p2r16x16_i16__k768__16x4x32_avx2_r1024(const int8_t *restrict x, const uint8_t *restrict quads,
    const uint8_t *restrict others, uint8_t *restrict sums, uint8_t *restrict scratch, long tokens, long rows);
void bn_rows_none_bf16_f32__k256__1x1x32_avx2(const uint16_t *restrict row, float *restrict o);
void bn_norm_f32_f32_i8__k256__1x1x16_avx2(const float *restrict x, const float *restrict w, float eps,
    float *restrict h, int8_t *restrict q, float *restrict inverse, int32_t *restrict sum);
void bn_rope_i32_f32_f32__d64__1x1x16_avx2(const int32_t *restrict y, float f, const float *restrict cosine,
    const float *restrict sine, float *restrict o);
void bn_narrow_f32_none_f16__k64__1x1x32_avx2(const float *restrict x, uint16_t *restrict o);
void bn_scale_i32_none_f16__k64__1x1x32_avx2(const int32_t *restrict y, float f, uint16_t *restrict o);
void bn_scale_i32_none_f32__k64__1x1x32_avx2(const int32_t *restrict y, float f, float *restrict o);
void bn_quantise_f32_none_i8__d64__1x1x32_avx2(float *restrict x, int8_t *restrict q, float *restrict scale,
    int32_t *restrict sum);
void bn_quantise_f32_none_u7__d64__1x1x32_avx2(float *restrict x, int8_t *restrict q, float *restrict scale);
void bn_attention_f32_f16_f32__g2d64__2x32x32_avx2(const float *restrict q, const uint16_t *restrict keys,
    const uint16_t *restrict values, float *restrict part, float *restrict scratch, long whole, long blocks,
    long rest, float scale);
void bn_attention_f32_f32_f32__g2d64__2x32x32_avx2(const float *restrict q, const float *restrict keys,
    const float *restrict values, float *restrict part, float *restrict scratch, long whole, long blocks, long rest,
    float scale);
void bn_qattention_i8_i8_f32__g2d64__2x32x32_avx2(const int8_t *restrict q, const float *restrict query_scales,
    const int32_t *restrict offsets, const uint8_t *restrict keys, const float *restrict key_scales,
    const int8_t *restrict values, const float *restrict value_scales, float *restrict part, float *restrict scratch,
    long whole, long blocks, long rest, int8_t *restrict codes);
void bn_combine_f32_none_f32__g2d64__1x1x64_avx2(const float *restrict sums, const float *restrict state,
    float *restrict o, long spans);
void bn_residual_i32_none_f32__k256__1x1x32_avx2(const int32_t *restrict y, float f, float *restrict x);
void bn_relu2_i32_i32_f32__k768__1x1x16_avx2(const int32_t *restrict g, const int32_t *restrict u, float f, float e,
    float *restrict o, long i0, long i1);
void bn_norm_f32_f32_i8__k768__1x1x16_avx2(const float *restrict x, const float *restrict w, float eps,
    float *restrict h, int8_t *restrict q, float *restrict inverse, int32_t *restrict sum);
void bn_norm_f32_f32_f32__k256__1x1x16_avx2(const float *restrict x, const float *restrict w, float eps,
    float *restrict h);
void bn_head_f32_bf16_f32__n4096k256__1x4x32_avx2(const uint16_t *restrict w, const float *restrict x,
    float *restrict y, long r0, long whole, long r1);
void bn_head_f32_bf16_f32__n4096k256__4x1x32_avx2(const uint16_t *restrict w, const float *restrict x,
    float *restrict y, long r0, long whole, long r1);

/* The names under which forward.c calls the float kernels. */
#define bn_rows bn_rows_none_bf16_f32__k256__1x1x32_avx2
#define bn_norm_hidden bn_norm_f32_f32_i8__k256__1x1x16_avx2
#define bn_rope bn_rope_i32_f32_f32__d64__1x1x16_avx2
#define bn_narrow bn_narrow_f32_none_f16__k64__1x1x32_avx2
#define bn_scale_f16 bn_scale_i32_none_f16__k64__1x1x32_avx2
#define bn_scale_f32 bn_scale_i32_none_f32__k64__1x1x32_avx2
#define bn_quantise_i8 bn_quantise_f32_none_i8__d64__1x1x32_avx2
#define bn_quantise_u7 bn_quantise_f32_none_u7__d64__1x1x32_avx2
#define bn_attention_f16 bn_attention_f32_f16_f32__g2d64__2x32x32_avx2
#define bn_attention_f32 bn_attention_f32_f32_f32__g2d64__2x32x32_avx2
#define bn_attention_i8 bn_qattention_i8_i8_f32__g2d64__2x32x32_avx2
#define bn_combine bn_combine_f32_none_f32__g2d64__1x1x64_avx2
#define bn_norm_mixed bn_norm_f32_f32_i8__k256__1x1x16_avx2
#define bn_residual bn_residual_i32_none_f32__k256__1x1x32_avx2
#define bn_activation bn_relu2_i32_i32_f32__k768__1x1x16_avx2
#define bn_norm_inner bn_norm_f32_f32_i8__k768__1x1x16_avx2
#define bn_norm_output bn_norm_f32_f32_f32__k256__1x1x16_avx2
#define bn_head_one bn_head_f32_bf16_f32__n4096k256__1x4x32_avx2
#define bn_head_batch bn_head_f32_bf16_f32__n4096k256__4x1x32_avx2

#endif
