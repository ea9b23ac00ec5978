/* The last steps of the forward pass: final norm and logits. */
#include "state.h"

/* The last sum and the final norm of the tokens from `first` on; by tokens. */
void bn_leave(bn_state *s, int thread, int first) {
  long t0, t1;
  bn_time(BN_TIME_REST);
  bn_span(s->n - first, thread, bn_pool_threads(s->pool), &t0, &t1);
  for (long t = first + t0; t < first + t1; t++) {
    bn_add_residual(s, t, t, BN_LAYERS - 1, BN_FFN_DOWN, &s->inner);
    bn_norm_output(s->x + (size_t)t * PADDED(BN_HIDDEN), (const float *)bn_tensor_data(s->model, BN_OUTPUT_NORM),
                   BN_NORM_EPS, s->normed + (size_t)(t - first) * PADDED(BN_HIDDEN));
  }
}

/* Logits of `count` hidden states; by rows of the head. */
void bn_project(bn_state *s, int thread, const float *states, int count) {
  long r0, r1;
  bn_time(BN_TIME_HEAD);
  bn_span((BN_VOCABULARY + HEAD_ROWS - 1) / HEAD_ROWS, thread, bn_pool_threads(s->pool), &r0, &r1);
  for (long r = r0 * HEAD_ROWS; r < r1 * HEAD_ROWS && r < BN_VOCABULARY; r += HEAD_ROWS) {
    const long end = r + HEAD_ROWS < BN_VOCABULARY ? r + HEAD_ROWS : BN_VOCABULARY;
    const void *w = bn_head_rows(s, thread, r, end);
    int t = 0;
    for (; t + BN_HEAD_TOKENS <= count; t += BN_HEAD_TOKENS)
      bn_head_batch(w, states + (size_t)t * PADDED(BN_HIDDEN), s->logits + (size_t)t * BN_VOCABULARY, r,
                    r + (end - r) / BN_HEAD_BATCH_ROWS * BN_HEAD_BATCH_ROWS, end);
    for (; t < count; t++)
      bn_head_one(w, states + (size_t)t * PADDED(BN_HIDDEN), s->logits + (size_t)t * BN_VOCABULARY, r,
                  r + (end - r) / BN_HEAD_ONE_ROWS * BN_HEAD_ONE_ROWS, end);
    for (t = 0; t < count; t++) bn_check_logits(s, t, s->logits + (size_t)t * BN_VOCABULARY + r, end - r);
  }
}
