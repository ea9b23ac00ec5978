/*
 * Rows of embedding and head as float32. The kernels read plain floats where they lie in the file; rows of blocks
 * (Q4_0, Q8_0, Q6_K) are decoded before, to exactly the numbers that they stand for, so the logits are those of float32
 * rows.
 */
#include "decode.h"
#include "state.h"

BN_SHARED void decode(const bn_model *m, int tensor, long row, float *out) {
  const bn_tensor *t = &bn_tensors[tensor];
  const bn_source source = {bn_tensor_data(m, tensor), t->bytes, t->type, t->rows, t->cols};
  bn_decode_floats(&source, row, out); /* the layout has the sizes that it checks */
}

void bn_embed(const bn_state *s, int32_t token, float *x) {
#if BN_EMBEDDING_BLOCKS
  decode(s->model, BN_TOKEN_EMBD, token, x);
#else
  const size_t bytes = (size_t)bn_tensors[BN_TOKEN_EMBD].bytes / BN_VOCABULARY;
  bn_rows((const void *)(bn_tensor_data(s->model, BN_TOKEN_EMBD) + (size_t)token * bytes), x);
#endif
}

const void *bn_head_rows(const bn_state *s, int thread, long r0, long r1) {
#if BN_HEAD_BLOCKS
  float *rows = s->head_rows + (size_t)thread * HEAD_ROWS * PADDED(BN_HIDDEN);
  for (long r = r0; r < r1; r++) decode(s->model, BN_OUTPUT, r, rows + (r - r0) * PADDED(BN_HIDDEN));
  /* As an integer: the address of row 0 may lie before the buffer. */
  return (const void *)((uintptr_t)rows - (size_t)r0 * PADDED(BN_HIDDEN) * sizeof *rows);
#else
  (void)thread, (void)r0, (void)r1;
  return bn_tensor_data(s->model, BN_OUTPUT);
#endif
}
