/*
 * Packing: tensors in a model file's encoding -> the packed weights file of this library's layout, in threads, row tile
 * by row tile. The space is reserved before anything is written, so a full disk is an error here and not a signal
 * later.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "decode-internal.h"
#include "internal.h"
#include "screen.h"

enum { MOST_INDICES = 8, MOST_ROWS = 128 }; /* of a packing with drafts */

/* Of this thread. */
static _Thread_local struct {
  char path[4096];
  uint8_t *out; /* the mapped file; NULL: no packing in progress */
  bn_pool *pool;
} packing;

int32_t bn_pack_begin(const char *path, int32_t threads) {
  if (packing.out) return bn_fail("another packing is in progress");
  if (strlen(path) >= sizeof packing.path) return bn_fail("path of %zu characters is too long", strlen(path));
  if (threads < 1 || threads > 1024) return bn_fail("%d threads: must be 1 to 1024", threads);
  const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return bn_fail("cannot create '%s': %s", path, strerror(errno));
  int error = posix_fallocate(fd, 0, bn_file_bytes);
  void *out = MAP_FAILED;
  if (!error) {
    out = bn_map_file(fd, (size_t)bn_file_bytes, PROT_READ | PROT_WRITE);
    if (out == MAP_FAILED)
      error = errno;
    else
      bn_advise_huge(out, (size_t)bn_file_bytes);
  }
  close(fd);
  bn_pool *pool = error ? NULL : bn_pool_create(threads, 0);
  if (!pool) {
    if (out != MAP_FAILED) munmap(out, (size_t)bn_file_bytes);
    unlink(path);
    if (error)
      return bn_fail("cannot reserve %lld bytes for '%s': %s", (long long)bn_file_bytes, path, strerror(error));
    return bn_fail("cannot start %d threads", threads);
  }
  strcpy(packing.path, path);
  packing.out = out;
  packing.pool = pool;
  return 0;
}

/* One tensor on its way. */
typedef struct {
  const bn_tensor *tensor;
  bn_source source;
  bn_ternary rule;
  atomic_int result; /* the first decoding error of any thread */
  atomic_int seen;   /* bits 0, 1, 2: there is a digit -1, 0, 1; of rows of floats 1: some are not zero */
  int heads;
  int8_t *trits; /* [threads][packing rows][cols] */
  float *row;    /* [threads][cols] */
  uint8_t *out;
} work;

/* Row of the source that holds output row r: Llama GGUFs store row h d + j d/2 + i of a head at h d + 2 i + j. */
static int64_t source_row(const work *w, int64_t r) {
  if (!w->heads) return r;
  const int64_t d = w->source.rows / w->heads, half = d / 2, within = r % d;
  return r - within + 2 * (within % half) + within / half;
}

/* The numbers of a draft -> their codes in the line. */
static void encode(const bn_packing *p, const uint8_t *draft, uint8_t *line) {
  for (const bn_parts *to = p->parts; to < p->parts + p->indices; to++)
    for (int r = 0; r < p->rows; r++) {
      const int code = p->codes[*draft++];
      uint8_t *low = line + to->low_column * p->rows + r, *high = line + to->high_column * p->rows + r;
      *low = (uint8_t)(*low | (code & 15) << to->low_shift);
      *high = (uint8_t)(*high | code >> 4 << to->high_shift);
    }
}

/* Trits of row r, zeros beyond the last one. -> what went wrong, or 0 */
static int decode_row(work *w, int64_t r, int8_t *trits) {
  if (r >= w->source.rows) {
    memset(trits, 0, (size_t)w->source.cols);
    return 0;
  }
  const int64_t from = source_row(w, r);
  const int result = bn_decode_trits(&w->source, &w->rule, from, from + 1, trits);
  if (result) {
    atomic_store(&w->result, result);
    return result;
  }
  const int seen = atomic_load_explicit(&w->seen, memory_order_relaxed);
  if ((seen & (seen - 1)) == 0) { /* not yet two kinds: in a sound matrix, not beyond the first row */
    int here = 0;
    for (int64_t k = 0; k < w->source.cols; k++) here |= 1 << (trits[k] + 1);
    atomic_fetch_or(&w->seen, here);
  }
  return 0;
}

static void pack_tiles(void *argument, int thread, int threads) {
  work *w = argument;
  const bn_packing *p = &bn_packings[w->tensor->type];
  const int64_t rows = w->source.rows, cols = w->source.cols;
  const long lines = (cols + p->line_k - 1) / p->line_k, tiles = (rows + p->rows - 1) / p->rows;
  int8_t *trits = w->trits + (size_t)thread * (size_t)(p->rows * cols);
  long t0, t1;
  bn_span(tiles, thread, threads, &t0, &t1);
  for (long tile = t0; tile < t1; tile++) {
    for (int r = 0; r < p->rows; r++)
      if (decode_row(w, tile * p->rows + r, trits + r * cols)) return;
    uint8_t *line = w->out + (size_t)tile * (size_t)lines * (size_t)p->line_bytes;
    for (long l = 0; l < lines; l++, line += p->line_bytes) {
      const int64_t k0 = l * p->line_k;
      const uint16_t *place = p->place;
      uint8_t draft[MOST_INDICES * MOST_ROWS] = {0}, *to = p->indices ? draft : line;
      memset(line, 0, (size_t)p->line_bytes);
      for (int r = 0; r < p->rows; r++)
        for (int64_t k = k0; k < k0 + p->line_k; k++, place += 2)
          to[place[0]] = (uint8_t)(to[place[0]] + place[1] * ((k < cols ? trits[r * cols + k] : 0) + 1));
      if (p->indices) encode(p, draft, line);
    }
  }
}

static long padded(const work *w) {
  const long k = bn_packings[w->tensor->type].panel_k;
  return (w->source.cols + k - 1) / k * k;
}

/* Row r: four bytes for the k of each line. */
static void pack_by_rows(void *argument, int thread, int threads) {
  work *w = argument;
  const bn_packing *p = &bn_packings[w->tensor->type];
  const long cols = (long)w->source.cols, run = padded(w) / p->line_k * 4;
  int8_t *trits = w->trits + (size_t)thread * (size_t)cols;
  long r0, r1;
  bn_span(w->tensor->bytes / run, thread, threads, &r0, &r1);
  for (long r = r0; r < r1; r++) {
    if (decode_row(w, r, trits)) return;
    uint8_t *out = w->out + r * run;
    memset(out, 0, (size_t)run);
    for (long k = 0; k < padded(w); k++) {
      const uint16_t *place = p->place + 2 * (k % p->line_k);
      uint8_t *byte = out + k / p->line_k * 4 + place[0];
      *byte = (uint8_t)(*byte + place[1] * ((k < cols ? trits[k] : 0) + 1));
    }
  }
}

/* 16 bytes of every column at a time: byte i holds rows i, run + i, 2 run + i, ... */
enum { BYTES_AT_ONCE = 16 };
static void pack_by_columns(void *argument, int thread, int threads) {
  work *w = argument;
  const bn_packing *p = &bn_packings[w->tensor->type];
  const long cols = (long)w->source.cols, run = w->tensor->bytes / padded(w), fields = p->line_k / 4;
  int8_t *trits = w->trits + (size_t)thread * (size_t)cols;
  long b0, b1;
  bn_span(run / BYTES_AT_ONCE, thread, threads, &b0, &b1);
  for (long first = b0 * BYTES_AT_ONCE; first < b1 * BYTES_AT_ONCE; first += BYTES_AT_ONCE) {
    for (long k = 0; k < padded(w); k++) memset(w->out + k * run + first, 0, BYTES_AT_ONCE);
    for (long i = first; i < first + BYTES_AT_ONCE; i++)
      for (long f = 0; f < fields; f++) {
        if (decode_row(w, f * run + i, trits)) return;
        const int factor = p->place[2 * 4 * f + 1];
        uint8_t *out = w->out + i;
        for (long k = 0; k < cols; k++, out += run) *out = (uint8_t)(*out + factor * (trits[k] + 1));
        for (long k = cols; k < padded(w); k++, out += run) *out = (uint8_t)(*out + factor);
      }
  }
}

static int type_of(const bn_tensor *t) {
  return t->kind == BN_VECTOR ? BN_F32 : t->type;
}

static void pack_rows(void *argument, int thread, int threads) {
  work *w = argument;
  const int type = type_of(w->tensor);
  const bn_block block = bn_decode_block(type), from = bn_decode_block(w->source.encoding);
  const int64_t cols = w->source.cols, bytes = cols / from.elements * from.bytes,
                stride = (cols + 15) / 16 * 16 / block.elements * block.bytes;
  uint32_t largest = 0;
  long r0, r1;
  bn_span(w->source.rows, thread, threads, &r0, &r1);
  for (long r = r0; r < r1; r++) {
    const uint8_t *row = w->source.data + r * bytes;
    uint8_t *out = w->out + r * stride;
    if (w->source.encoding == type)
      memcpy(out, row, (size_t)bytes);
    else if (bn_decode_floats(&w->source, r, (float *)(void *)out))
      atomic_store(&w->result, BN_DECODE_ENCODING);
    const uint32_t here = bn_decode_largest(w->source.encoding, row, cols);
    largest = here > largest ? here : largest;
  }
  if (largest > BN_LARGEST_BITS) atomic_store(&w->result, BN_DECODE_VALUE);
  if (largest) atomic_store(&w->seen, 1);
}

#if BN_SCREENED
/* The head's rows -> int8 rows, starts and factors of the screen (codegen/kernels/screen.ts); the rest stays zero. */
static void pack_screen(void *argument, int thread, int threads) {
  work *w = argument;
  const long cols = (long)w->source.cols;
  float *row = w->row + (size_t)thread * (size_t)cols;
  int32_t *starts = (int32_t *)(void *)(w->out + BN_SCREEN_STARTS);
  float *factors = (float *)(void *)(w->out + BN_SCREEN_FACTORS);
  long r0, r1;
  bn_span(w->source.rows, thread, threads, &r0, &r1);
  for (long r = r0; r < r1; r++) {
    const int result = bn_decode_floats(&w->source, r, row);
    if (result) {
      atomic_store(&w->result, result);
      return;
    }
    const long tile = r / 16, lane = r % 16;
    const bn_screened_row s = bn_screen_row(row, cols, (int8_t *)w->out + tile * 16 * BN_SCREEN_STRIDE + 4 * lane);
    starts[r] = -64 * s.sum;
    float *f = factors + tile * 3 * 16 + lane;
    f[0] = s.scale, f[16] = s.error, f[32] = s.norm;
  }
}
#endif

static int32_t refuse(const work *w, int result) {
  char why[256];
  return bn_fail("tensor '%s' cannot be packed: %s", w->tensor->name,
                 bn_decode_why(&w->source, result, why, sizeof why));
}

static int32_t out_of_memory(const work *w) {
  return bn_fail("out of memory while packing '%s'", w->tensor->name);
}

/*
 * Are the data nothing but zeros, as a download that broke off leaves them? As two-bit codes these are digits of -1: a
 * matrix of codes for 0 was written so. Masters may round to 0.
 */
static int is_empty(work *w) {
  const int seen = atomic_load(&w->seen), encoding = w->source.encoding;
  if (w->tensor->kind != BN_TERNARY) return !seen;
  if (encoding == BN_HF_U8 || encoding == BN_I2_S) return seen == 1 << 0;
  return seen == 1 << 1 && !w->rule.masters;
}

static int32_t pack_ternary(work *w, double scale, double factor) {
  const size_t tile = (size_t)(bn_packings[w->tensor->type].rows * w->source.cols);
  const int result = bn_decode_scale(&w->source, &w->rule);
  if (result) return refuse(w, result);
  if (!(w->trits = malloc((size_t)bn_pool_threads(packing.pool) * tile))) return out_of_memory(w);
  static bn_job *const jobs[] = {pack_tiles, pack_by_rows, pack_by_columns};
  bn_pool_run(packing.pool, jobs[bn_packings[w->tensor->type].order], w);
  free(w->trits);
  if (atomic_load(&w->result) || is_empty(w)) return 0; /* refused below */
  const float product = (float)((scale != 0 ? scale : (double)w->rule.scale) * factor);
  if (!(product >= BN_LEAST_SCALE && product <= BN_LARGEST))
    return bn_fail("tensor '%s' cannot be packed: its scale is %g, not between 2^-40 and 2^20; the file is damaged, "
                   "download it again",
                   w->tensor->name, (double)product);
  memcpy(w->out + w->tensor->bytes, &product, sizeof product);
  return 0;
}

#if BN_SCREENED
/* Of rows that are packed, and checked, as they are, too. */
static int32_t pack_int8(work *w) {
  const size_t row = (size_t)w->source.cols * sizeof *w->row;
  if (!(w->row = malloc((size_t)bn_pool_threads(packing.pool) * row))) return out_of_memory(w);
  bn_pool_run(packing.pool, pack_screen, w);
  free(w->row);
  return atomic_load(&w->result) ? refuse(w, atomic_load(&w->result)) : 0;
}
#endif

static int32_t pack(work *w, double scale, double factor) {
#if BN_SCREENED
  if (w->tensor->kind == BN_INT8) return pack_int8(w);
#endif
  /* Rows of the right type are copied, not decoded, so nothing else looks at their size. */
  const int checked = bn_decode_check(&w->source);
  if (checked) return refuse(w, checked);
  if (w->tensor->kind == BN_TERNARY) {
    if (pack_ternary(w, scale, factor)) return -1;
  } else if (!bn_decode_block(w->source.encoding).elements) {
    return refuse(w, BN_DECODE_ENCODING);
  } else {
    bn_pool_run(packing.pool, pack_rows, w);
  }
  const int result = atomic_load(&w->result);
  return result ? refuse(w, result) : is_empty(w) ? refuse(w, BN_DECODE_EMPTY) : 0;
}

int32_t bn_pack_tensor(int32_t tensor, const char *file, double offset, double bytes, int32_t encoding, int32_t rows,
                       int32_t cols, double scale, double factor, int32_t heads) {
  if (!packing.out) return bn_fail("no packing in progress");
  if (tensor < 0 || tensor >= BN_TENSORS) return bn_fail("there is no tensor %d", tensor);
  const bn_tensor *t = &bn_tensors[tensor];
  if (t->kind == BN_INT32) return bn_fail("tensor '%s' is made of others, when packing ends", t->name);
  if (rows != t->rows || cols != t->cols)
    return bn_fail("tensor '%s' is %d x %d, but the library was generated for %lld x %lld", t->name, rows, cols,
                   (long long)t->rows, (long long)t->cols);
  if (t->kind == BN_ROWS && t->type != BN_F32 && t->type != encoding)
    return bn_fail("tensor '%s' has encoding %d, but the library was generated for %d", t->name, encoding, t->type);
  if (heads < 0 || (heads && rows % (2 * (int64_t)heads)))
    return bn_fail("tensor '%s' has %d rows: they are not the interleaved halves of %d heads", t->name, rows, heads);
  /* The signs of products are those of integers (sparse.c). */
  if (!(scale >= 0) || !(factor > 0))
    return bn_fail("tensor '%s' has scale %g and factor %g: must not be negative", t->name, scale, factor);
  struct stat s;
  const int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return bn_fail("cannot open '%s': %s", file, strerror(errno));
  if (fstat(fd, &s) || !S_ISREG(s.st_mode) || !(offset >= 0 && bytes >= 1 && offset + bytes <= (double)s.st_size)) {
    close(fd);
    return bn_fail("tensor '%s' does not lie within '%s'", t->name, file);
  }
  const int64_t page = sysconf(_SC_PAGESIZE), start = (int64_t)offset / page * page;
  const size_t length = (size_t)((int64_t)offset - start + (int64_t)bytes);
  uint8_t *data = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, start);
  close(fd);
  if (data == MAP_FAILED) return bn_fail("cannot map '%s': %s", file, strerror(errno));
  work w = {
      .tensor = t,
      .source = {.data = data + ((int64_t)offset - start),
                 .bytes = (int64_t)bytes,
                 .encoding = encoding,
                 .rows = rows,
                 .cols = cols},
      .heads = heads,
      .out = packing.out + t->offset,
  };
  const int32_t result = pack(&w, scale, factor);
  munmap(data, length);
  return result;
}

int32_t bn_pack_end(int32_t keep) {
  if (!packing.out) return bn_fail("no packing in progress");
  int32_t result = 0;
  if (keep) {
#if BN_SPARSE
    bn_pool_run(packing.pool, bn_drop_dead, packing.out);
#endif
    bn_header h = {.magic = "BNPACK2", .size = (uint64_t)bn_file_bytes};
    memcpy(h.layout, BN_LAYOUT, sizeof h.layout);
    h.data = bn_checksum(packing.out + BN_HEADER_BYTES, (size_t)(bn_file_bytes - BN_HEADER_BYTES));
    for (int i = 0; i < BN_SAMPLES; i++) h.samples[i] = bn_checksum(packing.out + bn_sample_offset(i), BN_SAMPLE_BYTES);
    h.header = bn_checksum(&h, offsetof(bn_header, header));
    memcpy(packing.out, &h, sizeof h);
    if (msync(packing.out, (size_t)bn_file_bytes, MS_SYNC))
      result = bn_fail("cannot write '%s': %s", packing.path, strerror(errno));
  }
  munmap(packing.out, (size_t)bn_file_bytes);
  if (!keep || result) unlink(packing.path);
  bn_pool_destroy(packing.pool);
  packing.out = NULL;
  packing.pool = NULL;
  return result;
}
