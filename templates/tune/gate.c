/* The exactness gate of the measuring program: a kernel's products, in a child process, against known ones. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "measure.h"

enum { CANARY = 0x5a, GUARD = 64, HANG_SECONDS = 20 };

static void multiply_once(void *argument, int thread, int threads) {
  (void)argument, (void)threads;
  bn_products(&state, thread, 0, 0, 1, &input);
}

/* By two threads, where each has rows enough for whatever the kernel is; results lie between guards. */
static void compare(const kernel *k, long period, int tokens, const uint8_t *data) {
  const bn_matrix *m = &k->matrix;
  const size_t rows = (size_t)m->tiles * (size_t)m->tile_rows, bytes = (size_t)m->tile_bytes, x = (size_t)m->x_stride,
               y = (size_t)k->tokens * (size_t)m->y_stride, repeated = (size_t)(period * m->tile_rows);
  const int8_t *in = (const int8_t *)data + (size_t)period * bytes;
  const int32_t *sums = (const int32_t *)(const void *)(in + (size_t)tokens * x), *expected = sums + tokens;
  const int threads = m->sums && rows < 2 * BN_LEAST_ROWS ? 1 : 2;
  uint8_t *w = allocate((size_t)m->tiles * bytes);
  for (long t = 0; t < m->tiles; t++) memcpy(w + (size_t)t * bytes, data + (size_t)(t % period) * bytes, bytes);
  int32_t *out = or_die(malloc((y + 2 * GUARD) * sizeof *out));
  memset(out, CANARY, (y + 2 * GUARD) * sizeof *out);
  input.q = allocate(input_rows(threads) * x);
  input.sum = or_die(malloc(input_rows(threads) * sizeof *input.sum));
  for (size_t r = 0; r < input_rows(threads); r++) {
    /* Of one token every thread has its own copy. */
    const size_t token = k->tokens == 1 ? 0 : r % (size_t)tokens;
    memcpy(input.q + r * x, in + token * x, x);
    input.sum[r] = sums[token];
  }
  use(k);
  weights.all = w;
  state.pool = or_die(bn_pool_create(threads, 0));
  state.y[0] = out + GUARD;
  state.look_ups = allocate(LOOK_UP_BYTES * x);
  state.tables = allocate((size_t)threads * bn_scratch_bytes);
  memset(state.tables, CANARY, (size_t)threads * bn_scratch_bytes);
  bn_pool_run(state.pool, multiply_once, NULL);
  for (size_t i = 0; i < y + 2 * GUARD; i++) {
    const size_t place = i - GUARD, token = place / (size_t)m->y_stride, row = place % (size_t)m->y_stride;
    const int inside = i >= GUARD && i < GUARD + y && row < rows;
    const int32_t right = inside ? expected[token % (size_t)tokens * repeated + row % repeated] : 0x01010101 * CANARY;
    if (out[i] == right) continue;
    if (!inside)
      printf("it writes outside the result\n");
    else if (k->tokens == 1)
      printf("row %zu is %d instead of %d\n", row, out[i], right);
    else
      printf("row %zu of token %zu is %d instead of %d\n", row, token, out[i], right);
    return;
  }
  printf("exact\n");
}

void gate(const kernel *k, long period, int tokens, const char *path) {
  size_t bytes;
  uint8_t *data = contents(path, &bytes);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(HANG_SECONDS);
    compare(k, period, tokens, data);
    fflush(stdout);
    _exit(0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) < 0) exit(3);
  if (WIFSIGNALED(status))
    printf("%s\n", WTERMSIG(status) == SIGALRM ? "it does not end" : strsignal(WTERMSIG(status)));
  else if (WEXITSTATUS(status))
    printf("it ends the program with %d\n", WEXITSTATUS(status));
  free(data);
}
