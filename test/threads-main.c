/*
 * Many threads in one library: each opens models and contexts of its own, evaluates, closes, and makes mistakes; all of
 * them fight for one context; some leave what they opened, which ends with them. Meant for the thread sanitizer.
 *
 *     threads-main WEIGHTS FOLDER
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bitnet.h"
#include "plan.h"

enum { THREADS = 6, ROUNDS = 8, SLOTS = 64 };

static const char *weights, *folder;
static int32_t shared; /* a context */
static float expected[BN_VOCABULARY];

static void complain(const char *what) {
  fprintf(stderr, "threads-main: %s: %s\n", what, bn_error());
  exit(1);
}

static void check(int holds, const char *what) {
  if (!holds) complain(what);
}

static int32_t context_of(int32_t model, int threads) {
  const int32_t context = bn_context(model, 8, threads, 8, 0, BN_PAGES_MAPPED, 0, BN_HEAD_EXACT);
  check(context >= 0, "a context");
  return context;
}

static void evaluate(int32_t context, float *logits) {
  static const int32_t tokens[] = {1, 2, 3};
  check(bn_rewind(context, 0) == 0 && bn_eval(context, tokens, 3, BN_WANT_LAST, logits) == 3, "an evaluation");
  check(!memcmp(logits, expected, sizeof expected), "other logits");
}

static void *work(void *argument) {
  const int number = (int)(intptr_t)argument;
  float *logits = malloc(sizeof expected);
  char path[4096], message[64];
  if (!logits) exit(1);
  /* Odd ones tidy up. */
  if (number % 2 == 0) check(bn_end_with_thread() == 0, "an end with the thread");
  for (int round = 0; round < ROUNDS; round++) {
    const int32_t model = bn_open(weights);
    check(model >= 0, "a model");
    const int32_t context = context_of(model, 1 + number % 3);
    evaluate(context, logits);
    /* Every thread has messages of its own. */
    const int32_t none = -1 - number;
    snprintf(message, sizeof message, "there is no context %d", none);
    check(bn_rewind(none, 0) == -1, "a context of no such number");
    check(bn_close(model) == -1, "a model in use was closed");
    check(strstr(bn_error(), "is in use by 1 contexts") != NULL, "the message of a model in use");
    check(bn_rewind(none, 0) == -1 && !strcmp(bn_error(), message), "the message of no such context");
    /* The one that all want: it serves one call at a time, and says so. */
    for (int i = 0; i < 20; i++) {
      const int32_t first = 1, filled = i % 2 ? bn_eval(shared, &first, 1, BN_WANT_NONE, NULL) : bn_rewind(shared, 0);
      check(filled >= 0 || strstr(bn_error(), "another call uses context") || strstr(bn_error(), "do not fit"),
            "a shared context");
    }
    if (round == ROUNDS - 1 && number % 2 == 0) break;
    check(bn_release(context) == 0 && bn_rewind(context, 0) == -1, "a released context");
    check(bn_close(model) == 0 && bn_close(model) == -1, "a closed model");
    snprintf(path, sizeof path, "%s/%d", folder, number);
    check(bn_pack_begin(path, 2) == 0 && bn_pack_end(0) == 0, "a packing");
  }
  snprintf(path, sizeof path, "%s/left-%d", folder, number);
  if (number % 2 == 0) check(bn_pack_begin(path, 2) == 0, "a packing that is left");
  free(logits);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  weights = argv[1], folder = argv[2];
  const int32_t model = bn_open(weights);
  check(model >= 0, "the first model");
  shared = context_of(model, 2);
  static const int32_t tokens[] = {1, 2, 3};
  check(bn_eval(shared, tokens, 3, BN_WANT_LAST, expected) == 3, "the first evaluation");
  pthread_t threads[THREADS];
  for (intptr_t t = 0; t < THREADS; t++) check(!pthread_create(&threads[t], NULL, work, (void *)t), "a thread");
  for (int t = 0; t < THREADS; t++) pthread_join(threads[t], NULL);
  check(bn_release(shared) == 0 && bn_close(model) == 0, "the end");
  /* Nobody left anything: all slots are free, and the old numbers are nobody's. */
  int32_t models[SLOTS], contexts[SLOTS];
  for (int i = 0; i < SLOTS; i++) models[i] = bn_open(weights);
  for (int i = 0; i < SLOTS; i++) contexts[i] = context_of(models[i], 1);
  check(bn_open(weights) == -1 && strstr(bn_error(), "64 models are open already") != NULL, "one model more");
  for (int i = 0; i < SLOTS; i++) {
    check(models[i] != model && contexts[i] != shared, "an old number");
    check(bn_release(contexts[i]) == 0 && bn_close(models[i]) == 0, "the end of all");
  }
  check(bn_rewind(shared, 0) == -1 && bn_close(model) == -1, "what was closed");
  return 0;
}
