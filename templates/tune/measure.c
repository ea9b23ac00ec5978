/*
 * Checks and times decode kernels in a process of its own, which codegen/tune/meter.ts asks line by line. Kernels are
 * shared objects; one that crashes, hangs or writes elsewhere takes a child process with it, and not this one.
 *
 *     measure BYTES                       each packing gets an arena of so many bytes
 *     packing LINE FILE                   fills one with FILE, whole lines of LINE bytes, over and over
 *     kernel PACKING TILES TILE ROWS X NAME FILE   loads bn_NAME: row tiles, bytes and rows of one, bytes of
 * activations gate KERNEL SUM PERIOD FILE         PERIOD tiles, activations, their products: "exact" or what is wrong
 *     time THREADS ROUNDS ITEM...         seconds, a line a round; an item is a kernel, or -1 - PACKING: a plain read
 *     cached KERNEL BYTES                 seconds of a tile, as long as so many bytes stay in the caches
 *
 * Every answer but that of `time` is one line. Timing is cold: a pass reads the whole arena, more than the
 * last-level cache holds, each thread one contiguous stream, as the library's own copy of the weights is read
 * (arena.c).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

enum { MOST = 4096, MOST_THREADS = 1024, STEP = 256, CANARY = 0x5a, GUARD = 64, GROUP_ROWS = 16, HANG_SECONDS = 20 };

typedef struct {
  int packing;
  long tiles, tile, rows, x; /* row tiles, bytes and rows of one, bytes of activations */
  bn_gemv *call;
} kernel;

static size_t arena_bytes;
static uint8_t *arenas[MOST];
static kernel kernels[MOST];
static int packings, count;
static int8_t *x;
static int32_t *y;
static size_t x_bytes, y_count;
static _Thread_local volatile uint64_t sink;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *or_die(void *memory) {
  if (memory) return memory;
  fprintf(stderr, "no memory; free some, or measure a smaller model\n");
  exit(1);
}

/* The whole of a file. */
static uint8_t *contents(const char *path, size_t *bytes) {
  FILE *f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END)) exit(2);
  *bytes = (size_t)ftell(f);
  rewind(f);
  uint8_t *all = or_die(malloc(*bytes + 1));
  if (fread(all, 1, *bytes, f) != *bytes) exit(2);
  fclose(f);
  return all;
}

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

static void add_kernel(kernel k, const char *name, const char *path) {
  char symbol[512];
  snprintf(symbol, sizeof symbol, "bn_%s", name);
  void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  *(void **)&k.call = object ? dlsym(object, symbol) : NULL;
  if (!k.call || count == MOST) {
    printf("%s\n", k.call ? "there are too many kernels" : dlerror());
    return;
  }
  if ((size_t)k.x > x_bytes) {
    x = or_die(realloc(x, x_bytes = (size_t)k.x));
    for (size_t i = 0; i < x_bytes; i++) x[i] = (int8_t)(i * 41 % 255 - 127);
  }
  if ((size_t)(k.tiles * k.rows) > y_count) y = or_die(realloc(y, (y_count = (size_t)(k.tiles * k.rows)) * sizeof *y));
  kernels[count++] = k;
  printf("\n");
}

/* ---- exactness */

/* In two calls, as two threads would make them, between guards. */
static void compare(const kernel *k, int32_t sum, long period, const uint8_t *data) {
  const size_t rows = (size_t)(k->tiles * k->rows), bytes = (size_t)k->tile;
  const uint8_t *in = data + (size_t)period * bytes;
  const int32_t *expected = (const int32_t *)(const void *)(in + k->x);
  uint8_t *w = or_die(aligned_alloc(64, ((size_t)k->tiles * bytes + 63) / 64 * 64));
  int8_t *activations = or_die(aligned_alloc(64, ((size_t)k->x + 63) / 64 * 64));
  int32_t *out = or_die(malloc((rows + 2 * GUARD) * sizeof *out));
  for (long t = 0; t < k->tiles; t++) memcpy(w + (size_t)t * bytes, data + (size_t)(t % period) * bytes, bytes);
  memcpy(activations, in, (size_t)k->x);
  memset(out, CANARY, (rows + 2 * GUARD) * sizeof *out);
  k->call(w, activations, &sum, out + GUARD, 0, k->tiles / 3);
  k->call(w, activations, &sum, out + GUARD, k->tiles / 3, k->tiles);
  for (size_t i = 0; i < rows + 2 * GUARD; i++) {
    const int inside = i >= GUARD && i < GUARD + rows;
    const int32_t right = inside ? expected[(i - GUARD) % (size_t)(period * k->rows)] : 0x01010101 * CANARY;
    if (out[i] == right) continue;
    if (inside)
      printf("row %zu is %d instead of %d\n", i - GUARD, out[i], right);
    else
      printf("it writes outside the result\n");
    return;
  }
  printf("exact\n");
}

static void gate(const kernel *k, int32_t sum, long period, const char *path) {
  size_t bytes;
  uint8_t *data = contents(path, &bytes);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(HANG_SECONDS);
    compare(k, sum, period, data);
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

/* ---- time */

/* Row tiles of a thread: whole groups of 16 rows, as in arena.c. */
static void tiles_of(const kernel *k, int thread, int threads, long *t0, long *t1) {
  const long group = k->rows < GROUP_ROWS ? GROUP_ROWS / k->rows : 1;
  bn_span((k->tiles + group - 1) / group, thread, threads, t0, t1);
  *t0 *= group;
  *t1 = *t1 * group < k->tiles ? *t1 * group : k->tiles;
}

static long copies_of(const kernel *k) {
  return (long)(arena_bytes / ((size_t)k->tiles * (size_t)k->tile));
}

static void call(const kernel *k, const uint8_t *stream, const int8_t *in, long t0, long t1) {
  static const int32_t sum;
  /* Where tile 0 would lie: as an integer, since it may lie before the arena. */
  k->call((const uint8_t *)((uintptr_t)stream - (uintptr_t)(t0 * k->tile)), in, &sum, y, t0, t1);
}

static void multiply(void *argument, int thread, int threads) {
  const kernel *k = argument;
  const long copies = copies_of(k);
  long t0, t1;
  tiles_of(k, thread, threads, &t0, &t1);
  const uint8_t *stream = arenas[k->packing] + copies * t0 * k->tile;
  if (t0 == t1) return;
  for (long c = 0; c < copies; c++, stream += (t1 - t0) * k->tile) call(k, stream, x, t0, t1);
}

/* 64 bytes as the compiler's own vector type: the target's widest registers, one or several. */
typedef uint64_t line __attribute__((vector_size(64)));

static size_t distance;

static inline __attribute__((always_inline)) line sum_of(const uint8_t *p, const uint8_t *end, size_t ahead) {
  line a = {0}, b = {0}, c = {0}, d = {0};
  for (; p < end; p += STEP) {
    const line *l = (const line *)(const void *)p;
    if (ahead)
      for (int i = 0; i < STEP; i += 64) __builtin_prefetch(p + ahead + i, 0, 0);
    a += l[0], b += l[1], c += l[2], d += l[3];
  }
  return (a + b) + (c + d);
}

/* A plain read of an arena, one contiguous part a thread: the bandwidth roof. */
static void read_plain(void *argument, int thread, int threads) {
  long first, end;
  bn_span((long)(arena_bytes / STEP), thread, threads, &first, &end);
  const uint8_t *arena = argument, *from = arena + first * STEP, *to = arena + end * STEP;
  const line s = distance ? sum_of(from, to, distance) : sum_of(from, to, 0);
  sink = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

static double seconds_of(bn_pool *pool, bn_job *job, void *argument) {
  const double start = now();
  bn_pool_run(pool, job, argument);
  return now() - start;
}

/* The pool of so many threads, awake. The first time, the plain read gets the fastest of a few prefetch distances. */
static bn_pool *awake(int threads) {
  static const size_t distances[] = {0, 2048, 4096, 8192, 16384};
  static bn_pool *pools[MOST_THREADS + 1];
  static size_t chosen[MOST_THREADS + 1];
  if (threads < 1 || threads > MOST_THREADS) exit(2);
  if (!pools[threads]) {
    pools[threads] = or_die(bn_pool_create(threads, threads <= sysconf(_SC_NPROCESSORS_ONLN)));
    double shortest = 1e9;
    for (int trial = 0; trial < 4; trial++)
      for (size_t i = 0; i < sizeof distances / sizeof *distances; i++) {
        distance = distances[i];
        const double seconds = seconds_of(pools[threads], read_plain, arenas[0]);
        if (trial && seconds < shortest) shortest = seconds, chosen[threads] = distance;
      }
  }
  distance = chosen[threads];
  seconds_of(pools[threads], read_plain, arenas[0]);
  return pools[threads];
}

static int number(void) {
  const char *text = strtok(NULL, " \n");
  return text ? atoi(text) : 0;
}

static void time_items(int threads, int rounds) {
  static int items[MOST], turn;
  int n = 0;
  for (const char *text; n < MOST && (text = strtok(NULL, " \n"));) items[n++] = atoi(text);
  static double seconds[MOST];
  bn_pool *pool = awake(threads);
  for (int round = 0; round < rounds; round++, turn++) {
    for (int i = 0; i < n; i++) {
      const int at = (i + turn) % n, item = items[at];
      seconds[at] = item < 0 ? seconds_of(pool, read_plain, arenas[-1 - item])
                             : seconds_of(pool, multiply, &kernels[item]) / (double)copies_of(&kernels[item]);
    }
    for (int i = 0; i < n; i++) printf("%.9f%c", seconds[i], i + 1 < n ? ' ' : '\n');
  }
}

static void time_cached(const kernel *k, long bytes) {
  const long tiles = bytes / k->tile < 1 ? 1 : bytes / k->tile < k->tiles ? bytes / k->tile : k->tiles;
  double best = 1e9;
  for (int trial = 0; trial < 5; trial++) {
    long done = 0;
    const double start = now();
    double end = start;
    for (; end - start < 1e-3; end = now(), done += tiles) call(k, arenas[k->packing], x, 0, tiles);
    if (trial && (end - start) / (double)done < best) best = (end - start) / (double)done;
  }
  printf("%.12f\n", best);
}

int main(int argc, char **argv) {
  static char request[1 << 16];
  arena_bytes = argc == 2 ? (size_t)atoll(argv[1]) / STEP * STEP : 0;
  if (!arena_bytes) return 2;
  /* Ctrl-C reaches all processes of a terminal: what is known is not lost, and the one that asks ends this one. */
  signal(SIGINT, SIG_IGN);
  while (fgets(request, sizeof request, stdin)) {
    const char *what = strtok(request, " \n");
    if (!what) continue;
    if (!strcmp(what, "packing")) {
      const int bytes = number();
      add_packing((size_t)bytes, strtok(NULL, "\n"));
    } else if (!strcmp(what, "kernel")) {
      kernel k = {.packing = number()};
      k.tiles = number(), k.tile = number(), k.rows = number(), k.x = number();
      const char *name = strtok(NULL, " ");
      add_kernel(k, name, strtok(NULL, "\n"));
    } else if (!strcmp(what, "gate")) {
      const int k = number(), sum = number(), period = number();
      gate(&kernels[k], sum, period, strtok(NULL, "\n"));
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
