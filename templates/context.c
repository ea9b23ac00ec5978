/* Contexts by number: checks of what the caller asks for, then the forward pass. */
#include <stdio.h>
#include "internal.h"

static void destroy(void *state) {
  bn_state_destroy(state);
}

static bn_handles contexts = {"context", destroy, PTHREAD_MUTEX_INITIALIZER, {{0}}};

int32_t bn_context(int32_t model, int32_t positions, int32_t threads, int32_t kv, int32_t spin, int32_t pages,
                   double spare, int32_t head) {
  if (positions < 1 || positions > 1 << 20)
    return bn_fail("context of %d positions: must be 1 to %d", positions, 1 << 20);
  if (threads < 1 || threads > 1024) return bn_fail("%d threads: must be 1 to 1024", threads);
  if (pages < BN_PAGES_MAPPED || pages > BN_PAGES_HUGE) return bn_fail("unknown choice of pages %d", pages);
  if (head < BN_HEAD_EXACT || head > BN_HEAD_FAST) return bn_fail("unknown choice of head %d", head);
  if (kv != 8 && kv != 16 && kv != 32) return bn_fail("key-value cache of %d bits: must be 8, 16 or 32", kv);
  bn_model *m = bn_model_acquire(model);
  if (!m) return -1;
  bn_state *state = bn_state_create(m, positions, threads, kv, spin, pages, spare, head);
  if (!state) {
    bn_model_release(m);
    return -1;
  }
  const int32_t context = bn_handle_new(&contexts, state);
  if (context >= 0) return context;
  bn_state_destroy(state);
  return bn_fail("%d contexts exist already; release one first", BN_HANDLES);
}

int32_t bn_release(int32_t context) {
  const int32_t calls = bn_handle_close(&contexts, context);
  return calls > 0 ? bn_fail("another call uses context %d; wait for its end", context) : calls;
}

void bn_contexts_leave(uint64_t owner) {
  bn_handles_leave(&contexts, owner);
}

/* A context for one call, which ends with done(). NULL and an error when there is no such context, or it is in use. */
static bn_state *use(int32_t context) {
  return bn_handle_use(&contexts, context, 1);
}

static int32_t done(const bn_state *state, int32_t result) {
  bn_handle_done(&contexts, state);
  return result;
}

/* Do n tokens fit, and are they all in the vocabulary? */
static int32_t check_tokens(const bn_state *state, const int32_t *tokens, int32_t n) {
  const int position = bn_state_position(state), capacity = bn_state_capacity(state);
  if (n > capacity - position)
    return bn_fail("%d tokens do not fit: %d of %d positions are filled", n, position, capacity);
  for (int i = 0; i < n; i++)
    if (tokens[i] < 0 || tokens[i] >= BN_VOCABULARY)
      return bn_fail("token %d at index %d is not in the vocabulary of %d", tokens[i], i, BN_VOCABULARY);
  return 0;
}

static int32_t fail_at(const char *token, int position) {
  return bn_fail("%s at position %d gives numbers that are not finite (NaN or infinity): the weights, or their packed "
                 "copy, are damaged; remove the copy (bitnet-run --cache clear), and if that does not help download "
                 "the model again",
                 token, position);
}

/* The same for a token that was to be evaluated, after which the context is as it was. */
static int32_t undo(bn_state *state, int before, const int32_t *tokens, int index) {
  char token[32];
  snprintf(token, sizeof token, "token %d", tokens[index]);
  bn_state_rewind(state, before);
  return fail_at(token, before + index);
}

static int32_t eval(bn_state *state, const int32_t *tokens, int32_t n, int32_t want, float *logits) {
  if (n < 1) return bn_fail("%d tokens to evaluate: must be at least 1", n);
  if (want < BN_WANT_NONE || want > BN_WANT_ALL) return bn_fail("unknown choice of logits %d", want);
  if (want != BN_WANT_NONE && !logits) return bn_fail("logits are wanted, but there is no buffer for them");
  if (check_tokens(state, tokens, n)) return -1;
  const int before = bn_state_position(state), sound = bn_forward(state, tokens, n, want, logits);
  return sound == n ? bn_state_position(state) : undo(state, before, tokens, sound);
}

static int32_t top(bn_state *state, const int32_t *tokens, int32_t n, int32_t k, int32_t want, int32_t *ids,
                   float *logits) {
  if (want != BN_WANT_LAST && want != BN_WANT_ALL) return bn_fail("unknown choice of logits %d", want);
  const int32_t least = want == BN_WANT_ALL;
  if (n < least) return bn_fail("%d tokens to evaluate: must be at least %d", n, least);
  if (k < 1 || k > BN_MOST_TOP)
    return bn_fail("the %d largest logits of %d: must be 1 to %d", k, BN_VOCABULARY, BN_MOST_TOP);
  if (!ids || !logits) return bn_fail("logits are wanted, but there is no buffer for them");
  if (!n && !bn_state_has_hidden(state)) return bn_fail("no tokens to evaluate, and none was evaluated last");
  if (check_tokens(state, tokens, n)) return -1;
  const int before = bn_state_position(state);
  if (want == BN_WANT_LAST) {
    const int sound = n ? bn_forward(state, tokens, n, BN_WANT_NONE, NULL) : 0;
    if (sound < n) return undo(state, before, tokens, sound);
    if (bn_largest(state, 1, k, ids, logits) < 1)
      return n ? undo(state, before, tokens, n - 1) : fail_at("the last token", before - 1);
  } else {
    for (int32_t first = 0, count; first < n; first += count) {
      count = n - first < BN_BATCH ? n - first : BN_BATCH;
      int sound = bn_forward(state, tokens + first, count, BN_WANT_ALL, NULL);
      if (sound == count)
        sound = bn_largest(state, count, k, ids + (size_t)first * (size_t)k, logits + (size_t)first * (size_t)k);
      if (sound < count) return undo(state, before, tokens, first + sound);
    }
  }
  return bn_state_position(state);
}

static int32_t rewind_to(bn_state *state, int32_t position) {
  if (position < 0 || position > bn_state_position(state))
    return bn_fail("cannot rewind to position %d: %d are filled", position, bn_state_position(state));
  bn_state_rewind(state, position);
  return position;
}

int32_t bn_eval(int32_t context, const int32_t *tokens, int32_t n, int32_t want, float *logits) {
  bn_state *state = use(context);
  return state ? done(state, eval(state, tokens, n, want, logits)) : -1;
}

int32_t bn_top(int32_t context, const int32_t *tokens, int32_t n, int32_t k, int32_t want, int32_t *ids,
               float *logits) {
  bn_state *state = use(context);
  return state ? done(state, top(state, tokens, n, k, want, ids, logits)) : -1;
}

int32_t bn_rewind(int32_t context, int32_t position) {
  bn_state *state = use(context);
  return state ? done(state, rewind_to(state, position)) : -1;
}

int32_t bn_huge_pages(int32_t context) {
  bn_state *state = use(context);
  return state ? done(state, (int32_t)(bn_state_huge_bytes(state) >> 20)) : -1;
}

int32_t bn_profile(int32_t context, int32_t on, float *seconds) {
  bn_state *state = use(context);
  return state ? done(state, bn_state_profile(state, on, seconds)) : -1;
}

int32_t bn_live(int32_t context, int32_t on, float *shares) {
  bn_state *state = use(context);
  return state ? done(state, bn_state_live(state, on, shares)) : -1;
}

int32_t bn_dead(int32_t context, float *counts) {
  bn_state *state = use(context);
  return state ? done(state, bn_state_dead(state, counts)) : -1;
}
