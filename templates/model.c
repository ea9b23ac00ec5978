/* Errors, the weights file and open models. The file is mapped, not read: several processes share one copy in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "internal.h"

static _Thread_local char message[1024];

int32_t bn_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return -1;
}

const char *bn_error(void) {
  return message;
}

int32_t bn_abi(void) {
  return BN_ABI;
}

/* Four independent lanes of multiply and rotate, folded at the end: detects damage, not malice. */
static const uint64_t prime = 0x9e3779b97f4a7c15u;

void bn_sum_add(bn_sum *sum, const void *data, size_t bytes) {
  uint64_t lane[4];
  memcpy(lane, sum->lane, sizeof lane);
  const uint8_t *p = data;
  size_t i = 0;
  for (; i + 32 <= bytes; i += 32)
    for (int l = 0; l < 4; l++) {
      uint64_t word;
      memcpy(&word, p + i + 8 * l, 8);
      lane[l] = (lane[l] ^ word) * prime;
      lane[l] = lane[l] << 29 | lane[l] >> 35;
    }
  for (; i < bytes; i++) lane[i % 4] = (lane[i % 4] ^ p[i]) * prime;
  memcpy(sum->lane, lane, sizeof lane);
  sum->bytes += bytes;
}

uint64_t bn_sum_result(const bn_sum *sum) {
  uint64_t h = sum->bytes;
  for (int l = 0; l < 4; l++) h = ((h ^ sum->lane[l]) * prime) ^ (sum->lane[l] >> 32);
  return h;
}

uint64_t bn_checksum(const void *data, size_t bytes) {
  bn_sum sum = BN_SUM;
  bn_sum_add(&sum, data, bytes);
  return bn_sum_result(&sum);
}

size_t bn_sample_offset(int i) {
  const size_t blocks = (size_t)(bn_file_bytes - BN_HEADER_BYTES) / BN_SAMPLE_BYTES;
  return BN_HEADER_BYTES + (blocks - 1) * (size_t)i / (BN_SAMPLES - 1) * BN_SAMPLE_BYTES;
}

struct bn_model {
  const uint8_t *data;
  int fd;           /* of the file */
  bn_arena *arenas; /* guarded by arena.c */
  bn_sum verified;  /* of the bytes after the header, as far as bn_verify has come */
};

/* What a token reads whole: the head's screen and the layers. They are the end of the file. */
#if BN_SCREENED
enum { FIRST_READ = BN_OUTPUT_SCREEN };
#else
enum { FIRST_READ = BN_FIRST_LAYER };
#endif

static size_t bytes_read(void) {
  return (size_t)(bn_file_bytes - bn_tensors[FIRST_READ].offset);
}

/* Small files are checked whole, large ones by samples: to read all of them would cost more than the mapping saves. */
#ifndef BN_CHECKED_BYTES
#define BN_CHECKED_BYTES (64 << 20)
#endif
enum { VERIFIED_AT_ONCE = 64 << 20 };

/* Samples are read, not looked at in the mapping, which would fetch what lies around them from a disk. */
static int samples_are_right(const bn_header *h, int fd) {
  uint8_t block[BN_SAMPLE_BYTES];
  for (int i = 0; i < BN_SAMPLES; i++) {
    if (pread(fd, block, sizeof block, (off_t)bn_sample_offset(i)) != (ssize_t)sizeof block) return 0;
    if (h->samples[i] != bn_checksum(block, sizeof block)) return 0;
  }
  return 1;
}

static const char *damage(const uint8_t *data, int64_t size, int fd) {
  bn_header h;
  if (size < BN_HEADER_BYTES) return "it is too short";
  memcpy(&h, data, sizeof h);
  if (memcmp(h.magic, "BNPACK2", 8)) return "it is not a packed weights file of this version";
  if (h.header != bn_checksum(&h, offsetof(bn_header, header))) return "its header is damaged";
  if (memcmp(h.layout, BN_LAYOUT, sizeof h.layout)) return "it was packed for another model or layout";
  if (h.size != (uint64_t)size || size != bn_file_bytes) return "its size is wrong";
#if BN_SPARSE
  if (!bn_neurons_are_sane(data)) return "its list of dead neurons is damaged";
#endif
  if (size <= BN_CHECKED_BYTES ? h.data != bn_checksum(data + BN_HEADER_BYTES, (size_t)(size - BN_HEADER_BYTES))
                               : !samples_are_right(&h, fd))
    return "its data is damaged";
  return NULL;
}

static void unmap(const uint8_t *data, size_t bytes, int fd) {
  munmap((void *)data, bytes);
  close(fd);
}

static void destroy(void *model) {
  const bn_model *m = model;
  unmap(m->data, (size_t)bn_file_bytes, m->fd);
  free(model);
}

/* Contexts are their users. */
static bn_handles models = {"open model", destroy, PTHREAD_MUTEX_INITIALIZER, {{0}}};

int32_t bn_open(const char *path) {
  struct stat s;
  /* A named pipe would wait for a writer. */
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 || fstat(fd, &s)) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return bn_fail("cannot open weights '%s': %s", path, strerror(error));
  }
  if (!S_ISREG(s.st_mode) || !s.st_size) {
    close(fd);
    bn_fail("cannot use weights '%s': %s", path, S_ISREG(s.st_mode) ? "it is empty" : "it is not a file");
    return BN_DAMAGED;
  }
  uint8_t *data = bn_map_file(fd, (size_t)s.st_size, PROT_READ);
  if (data == MAP_FAILED) {
    close(fd);
    return bn_fail("cannot map weights '%s' (%lld bytes)", path, (long long)s.st_size);
  }
  const char *reason = damage(data, s.st_size, fd);
  if (reason) {
    unmap(data, (size_t)s.st_size, fd);
    bn_fail("cannot use weights '%s': %s", path, reason);
    return BN_DAMAGED;
  }
  bn_advise_huge(data + bn_tensors[FIRST_READ].offset, bytes_read());
  bn_model *m = malloc(sizeof *m);
  if (m) *m = (bn_model){data, fd, NULL, BN_SUM};
  const int32_t model = m ? bn_handle_new(&models, m) : -1;
  if (model >= 0) return model;
  free(m);
  unmap(data, (size_t)s.st_size, fd);
  return m ? bn_fail("%d models are open already; close one first", BN_HANDLES) : bn_fail("out of memory");
}

int32_t bn_close(int32_t model) {
  const int32_t contexts = bn_handle_close(&models, model);
  return contexts > 0 ? bn_fail("model %d is in use by %d contexts; release them first", model, contexts) : contexts;
}

bn_model *bn_model_acquire(int32_t model) {
  return bn_handle_use(&models, model, 0);
}

void bn_model_release(bn_model *m) {
  bn_handle_done(&models, m);
}

void bn_models_leave(uint64_t owner) {
  bn_handles_leave(&models, owner);
}

int32_t bn_verify(int32_t model) {
  bn_model *m = bn_model_acquire(model);
  if (!m) return -1;
  const size_t all = (size_t)(bn_file_bytes - BN_HEADER_BYTES), left = all - (size_t)m->verified.bytes,
               now = left < VERIFIED_AT_ONCE ? left : VERIFIED_AT_ONCE;
  bn_sum_add(&m->verified, m->data + BN_HEADER_BYTES + m->verified.bytes, now);
  int32_t result = (int32_t)((left - now + 999999) / 1000000);
  if (!result) {
    bn_header h;
    memcpy(&h, m->data, sizeof h);
    if (h.data != bn_sum_result(&m->verified)) {
      bn_fail("cannot use these weights: their data is damaged");
      result = BN_DAMAGED;
    }
    m->verified = BN_SUM;
  }
  bn_model_release(m);
  return result;
}

const uint8_t *bn_tensor_data(const bn_model *m, int tensor) {
  return m->data + bn_tensors[tensor].offset;
}

size_t bn_model_huge_bytes(const bn_model *m) {
  return bn_huge_bytes(bn_tensor_data(m, FIRST_READ), bytes_read());
}

int bn_model_is_huge(const bn_model *m) {
  return bn_model_huge_bytes(m) > bytes_read() / 8 * 7;
}

bn_arena **bn_model_arenas(bn_model *m) {
  return &m->arenas;
}

void bn_tensor_read(const bn_model *m, int tensor, size_t first, size_t bytes, uint8_t *out) {
  const size_t offset = (size_t)bn_tensors[tensor].offset + first;
  size_t done = 0;
  for (ssize_t got = 1; got > 0 && done < bytes; done += got > 0 ? (size_t)got : 0)
    got = pread(m->fd, out + done, bytes - done, (off_t)(offset + done));
  memcpy(out + done, m->data + offset + done, bytes - done);
}

float bn_tensor_scale(const bn_model *m, int tensor) {
  float scale;
  memcpy(&scale, bn_tensor_data(m, tensor) + bn_tensors[tensor].bytes, sizeof scale);
  return scale;
}
