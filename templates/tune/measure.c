/*
 * Checks and times the kernels of ternary products in a process of its own, which codegen/tune/meter.ts asks line by
 * line. Kernels are shared objects; one that crashes, hangs or writes elsewhere takes a child process with it, and not
 * this one. They are called by products.c, as in a library, for which this file stands in for what it does not need.
 *
 *     measure BYTES                        each packing gets an arena of so many bytes
 *     packing LINE FILE                    fills one with FILE, whole lines of LINE bytes, over and over
 *     kernel PACKING TOKENS SCRATCH NAME VALUE ...   a way to multiply TOKENS tokens: bytes of scratch, the numbers of
 *                                          its bn_matrix
 *     part KERNEL MEMBER NAME FILE         loads bn_NAME as a member of that bn_matrix
 *     gate KERNEL PERIOD TOKENS FILE       PERIOD tiles; of TOKENS tokens activations, their sums, products: "exact" or
 *                                          what is wrong
 *     time THREADS ROUNDS ITEM...          seconds, a line a round; items: kN: one pass of kernel N; rN: a plain read
 * of packing N's arena; d, a: an eighth of a call of the arithmetic roofs cached KERNEL BYTES                  seconds
 * of a tile, as long as so many bytes stay in the caches
 *
 * Every answer but that of `time` is one line. Timing is cold: passes go on through the arena, which is more than the
 * last-level cache holds, each thread in one contiguous stream, as the library's own copy of the weights is read
 * (arena.c).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "measure.h"
#include "peaks.h"
#include "reads.h"

enum { MOST = 4096, MOST_THREADS = 1024 };

static size_t arena_bytes;
static uint8_t *arenas[MOST];
static kernel kernels[MOST];
static int packings, count;
static _Thread_local volatile uint64_t sink;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void *or_die(void *memory) {
  if (memory) return memory;
  fprintf(stderr, "no memory; free some, or measure a smaller model\n");
  exit(1);
}

void *allocate(size_t bytes) {
  return or_die(aligned_alloc(64, (bytes + 63) / 64 * 64));
}

uint8_t *contents(const char *path, size_t *bytes) {
  FILE *f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END)) exit(2);
  *bytes = (size_t)ftell(f);
  rewind(f);
  uint8_t *all = or_die(malloc(*bytes + 1));
  if (fread(all, 1, *bytes, f) != *bytes) exit(2);
  fclose(f);
  return all;
}

static int number(void) {
  const char *text = strtok(NULL, " \n");
  return text ? atoi(text) : 0;
}

/* ---- what products.c finds in a library: a context with one layer after the other, each of the same one matrix */

bn_state state;
quantised input;
static size_t x_bytes, y_bytes;
const bn_matrix (*bn_measured)[BN_SLOTS];
size_t bn_scratch_bytes = 64;

weights_of weights;

const uint8_t *bn_arena_weights(const bn_arena *arena, int thread, int layer, int slot) {
  const bn_matrix *m = &bn_matrices[slot];
  long t0, t1;
  (void)arena;
  if (weights.all) return weights.all;
  bn_tiles(m, m->tiles, thread, bn_pool_threads(state.pool), &t0, &t1);
  const long before = weights.copies * t0 + (weights.first + layer) % weights.copies * (t1 - t0);
  /* Where tile 0 would lie: as an integer, since it may lie before the arena. */
  return (const uint8_t *)((uintptr_t)weights.arena + (uintptr_t)((before - t0) * m->tile_bytes));
}

const uint8_t *bn_tensor_data(const bn_model *model, int tensor) {
  (void)model, (void)tensor;
  return NULL; /* there is always an arena */
}

long bn_tiles_of(const bn_model *model, int layer, int slot) {
  (void)model, (void)layer;
  return bn_matrices[slot].tiles;
}

void use(const kernel *k) {
  bn_measured = (const bn_matrix(*)[BN_SLOTS])(const void *)&k->matrix;
  state.n = k->tokens;
  input.stride = k->matrix.x_stride;
}

/* ---- packings and kernels */

static void add_packing(size_t line, const char *path) {
  size_t bytes;
  uint8_t *lines = contents(path, &bytes), *arena = or_die(bn_map_huge(arena_bytes));
  for (size_t at = 0; at < arena_bytes; at += bytes / line * line)
    memcpy(arena + at, lines, at + bytes <= arena_bytes ? bytes : arena_bytes - at);
  free(lines);
#ifdef MADV_DONTFORK
  madvise(arena, arena_bytes, MADV_DONTFORK);
#endif
  arenas[packings++] = arena;
  printf("%zu\n", bn_huge_bytes(arena, arena_bytes));
}

size_t input_rows(int threads) {
  return (size_t)MAX(BN_BATCH, threads);
}

/* Buffers for the present kernels. Activations are of sizes as quantised vectors have them: sums of three. */
static void make_buffers(int threads) {
  static size_t had[3];
  const size_t x = input_rows(threads) * x_bytes, scratch = (size_t)threads * bn_scratch_bytes;
  if (x > had[0]) {
    free(input.q);
    free(input.sum);
    free(state.look_ups);
    state.look_ups = allocate(LOOK_UP_BYTES * x_bytes);
    input.q = allocate(x);
    input.sum = or_die(calloc(input_rows(threads), sizeof *input.sum));
    uint32_t bits = 1;
    for (size_t i = 0; i < x; i++) {
      int sum = 0;
      for (int part = 0; part < 3; part++) sum += (int)((bits = bits * 1664525 + 1013904223) >> 8) % 85 - 42;
      input.q[i] = (int8_t)sum;
    }
    had[0] = x;
  }
  if (y_bytes > had[1]) {
    free(state.y[0]);
    state.y[0] = allocate(had[1] = y_bytes);
  }
  if (scratch > had[2]) {
    free(state.tables);
    state.tables = allocate(had[2] = scratch);
  }
}

/* The members of a bn_matrix by name. */
#define MEMBER(name, member) {name, offsetof(bn_matrix, member)}
static const struct member {
  const char *name;
  size_t at;
} numbers[] = {MEMBER("tiles", tiles),
               MEMBER("tile_rows", tile_rows),
               MEMBER("tile_bytes", tile_bytes),
               MEMBER("lines", lines),
               MEMBER("line_k", line_k),
               MEMBER("line_bytes", line_bytes),
               MEMBER("table_lines", table_lines),
               MEMBER("table_rows", table_rows),
               MEMBER("others_at", others_at),
               MEMBER("tables_at", tables_at),
               MEMBER("sums_at", sums_at),
               MEMBER("x_stride", x_stride),
               MEMBER("y_stride", y_stride),
               MEMBER("gemm_tokens", gemm[0].tokens)},
  functions[] = {MEMBER("gemv", gemv),
                 MEMBER("tabulate", tabulate),
                 MEMBER("gemm", gemm[0].kernel),
                 MEMBER("offsets", offsets),
                 MEMBER("sums", sums),
                 MEMBER("results", results),
                 MEMBER("last_offsets", last_offsets),
                 MEMBER("last_sums", last_sums)};

static void *member_of(bn_matrix *m, const struct member *members, size_t many, const char *name) {
  for (size_t i = 0; i < many; i++)
    if (!strcmp(members[i].name, name)) return (char *)m + members[i].at;
  fprintf(stderr, "a matrix has no %s\n", name);
  exit(2);
}

static void add_kernel(void) {
  if (count == MOST) exit(2);
  kernel *k = &kernels[count++];
  k->packing = number(), k->tokens = number();
  const size_t scratch = (size_t)number();
  for (const char *name; (name = strtok(NULL, " \n"));)
    *(int *)member_of(&k->matrix, numbers, sizeof numbers / sizeof *numbers, name) = number();
  const bn_matrix *m = &k->matrix;
  x_bytes = MAX(x_bytes, (size_t)m->x_stride);
  y_bytes = MAX(y_bytes, (size_t)BN_BATCH * (size_t)m->y_stride * sizeof(int32_t));
  bn_scratch_bytes = MAX(bn_scratch_bytes, scratch);
  printf("\n");
}

static void add_part(kernel *k, const char *member, const char *name, const char *path) {
  char symbol[512];
  snprintf(symbol, sizeof symbol, "bn_%s", name);
  void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL), *function = object ? dlsym(object, symbol) : NULL;
  *(void **)member_of(&k->matrix, functions, sizeof functions / sizeof *functions, member) = function;
  printf("%s\n", function ? "" : dlerror());
}

/* ---- time */

static void multiply(void *argument, int thread, int threads) {
  const long passes = *(const long *)argument;
  (void)threads;
  for (long layer = 0; layer < passes; layer++) bn_products(&state, thread, (int)layer, 0, 1, &input);
}

/* How plain reads by the threads at hand fetch ahead. */
static read_hint hint;

static double seconds_of(bn_pool *pool, bn_job *job, void *argument) {
  const double start = now();
  bn_pool_run(pool, job, argument);
  return now() - start;
}

/* One pass over the matrix. The more tokens, the fewer passes take as long; they begin where the last ones ended. */
static double seconds_of_kernel(const kernel *k) {
  enum { FEW = 4 };
  static long next;
  use(k);
  const long copies = (long)(arena_bytes / ((size_t)k->matrix.tiles * (size_t)k->matrix.tile_bytes));
  long passes = MAX(1, copies * FEW / MAX(FEW, k->tokens));
  weights.arena = arenas[k->packing];
  weights.copies = copies;
  weights.first = next % copies;
  next += passes;
  return seconds_of(state.pool, multiply, &passes) / (double)passes;
}

static double seconds_of_item(const char *item) {
  int part = 8;
  reading whole = {NULL, arena_bytes, hint};
  switch (item[0]) {
  case 'k': return seconds_of_kernel(&kernels[atoi(item + 1)]);
  case 'r': whole.data = arenas[atoi(item + 1)]; return seconds_of(state.pool, bn_read, &whole);
  case 'd': return seconds_of(state.pool, bn_peak_dots, &part);
  case 'a': return seconds_of(state.pool, bn_peak_additions, &part);
  default: exit(2);
  }
}

/* The pool of so many threads, awake. The first time, the plain read gets the fastest of a few hints. */
static bn_pool *awake(int threads) {
  static bn_pool *pools[MOST_THREADS + 1];
  static read_hint chosen[MOST_THREADS + 1];
  if (threads < 1 || threads > MOST_THREADS) exit(2);
  if (!pools[threads]) {
    pools[threads] = or_die(bn_pool_create(threads, threads <= sysconf(_SC_NPROCESSORS_ONLN)));
    chosen[threads] = bn_fastest_read(pools[threads], arenas[0], arena_bytes);
  }
  hint = chosen[threads];
  seconds_of(pools[threads], bn_read, &(reading){arenas[0], arena_bytes, hint});
  return pools[threads];
}

static void time_items(int threads, int rounds) {
  static const char *items[MOST];
  static double seconds[MOST];
  static int turn;
  int n = 0;
  while (n < MOST && (items[n] = strtok(NULL, " \n"))) n++;
  make_buffers(threads);
  state.pool = awake(threads);
  for (int round = 0; round < rounds; round++, turn++) {
    for (int i = 0; i < n; i++) {
      const int at = (i + turn) % n;
      seconds[at] = seconds_of_item(items[at]);
    }
    for (int i = 0; i < n; i++) printf("%.9f%c", seconds[i], i + 1 < n ? ' ' : '\n');
  }
}

/* Of a kernel that is one function. */
static void time_cached(const kernel *k, long bytes) {
  const bn_matrix *m = &k->matrix;
  const long tiles = MAX(1, MIN(bytes / m->tile_bytes, m->tiles));
  bn_gemv *call = m->gemv ? m->gemv : m->gemm[0].kernel;
  double best = 1e9;
  make_buffers(1);
  const int8_t *in = m->tabulate ? state.look_ups : input.q;
  for (int trial = 0; trial < 5; trial++) {
    long done = 0;
    const double start = now();
    double end = start;
    for (; end - start < 1e-3; end = now(), done += tiles)
      call(arenas[k->packing], in, input.sum, state.y[0], 0, tiles);
    if (trial && (end - start) / (double)done < best) best = (end - start) / (double)done;
  }
  printf("%.12f\n", best);
}

int main(int argc, char **argv) {
  static char request[1 << 16];
  arena_bytes = argc == 2 ? (size_t)atoll(argv[1]) / READ_STEP * READ_STEP : 0;
  if (!arena_bytes) return 2;
  /* Ctrl-C reaches all processes of a terminal: what is known is not lost, and the one that asks ends this one. */
  signal(SIGINT, SIG_IGN);
  bn_peaks_prepare();
  state.arena = (bn_arena *)(void *)&weights;
  while (fgets(request, sizeof request, stdin)) {
    const char *what = strtok(request, " \n");
    if (!what) continue;
    if (!strcmp(what, "packing")) {
      const int bytes = number();
      add_packing((size_t)bytes, strtok(NULL, "\n"));
    } else if (!strcmp(what, "kernel")) {
      add_kernel();
    } else if (!strcmp(what, "part")) {
      kernel *k = &kernels[number()];
      const char *member = strtok(NULL, " "), *name = strtok(NULL, " ");
      add_part(k, member, name, strtok(NULL, "\n"));
    } else if (!strcmp(what, "gate")) {
      const int k = number(), period = number(), tokens = number();
      gate(&kernels[k], period, tokens, strtok(NULL, "\n"));
    } else if (!strcmp(what, "time")) {
      const int threads = number(), rounds = number();
      time_items(threads, rounds);
    } else if (!strcmp(what, "cached")) {
      const int k = number(), bytes = number();
      time_cached(&kernels[k], bytes);
    }
    fflush(stdout);
  }
  return 0;
}
