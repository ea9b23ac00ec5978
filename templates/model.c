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
uint64_t bn_checksum(const void *data, size_t bytes) {
  const uint64_t prime = 0x9e3779b97f4a7c15u;
  uint64_t lane[4] = {1, 2, 3, 4};
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
  uint64_t h = bytes;
  for (int l = 0; l < 4; l++) h = ((h ^ lane[l]) * prime) ^ (lane[l] >> 32);
  return h;
}

struct bn_model {
  const uint8_t *data;
  int fd;           /* of the file */
  bn_arena *arenas; /* guarded by arena.c */
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

/* Small files are checked whole; the checksum of a large one would cost more than the mapping saves. */
enum { CHECKED_BYTES = 64 << 20 };

static const char *damage(const uint8_t *data, int64_t size) {
  bn_header h;
  if (size < BN_HEADER_BYTES) return "it is too short";
  memcpy(&h, data, sizeof h);
  if (memcmp(h.magic, "BNPACK1", 8)) return "it is not a packed weights file";
  if (h.header != bn_checksum(&h, offsetof(bn_header, header))) return "its header is damaged";
  if (memcmp(h.layout, BN_LAYOUT, sizeof h.layout)) return "it was packed for another model or layout";
  if (h.size != (uint64_t)size || size != bn_file_bytes) return "its size is wrong";
#if BN_SPARSE
  if (!bn_neurons_are_sane(data)) return "its list of dead neurons is damaged";
#endif
  if (size <= CHECKED_BYTES && h.data != bn_checksum(data + BN_HEADER_BYTES, (size_t)(size - BN_HEADER_BYTES)))
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
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &s)) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return bn_fail("cannot open weights '%s': %s", path, strerror(error));
  }
  uint8_t *data = s.st_size > 0 ? bn_map_file(fd, (size_t)s.st_size, PROT_READ) : MAP_FAILED;
  if (data == MAP_FAILED) {
    close(fd);
    return bn_fail("cannot map weights '%s' (%lld bytes)", path, (long long)s.st_size);
  }
  const char *reason = damage(data, s.st_size);
  if (reason) {
    unmap(data, (size_t)s.st_size, fd);
    return bn_fail("cannot use weights '%s': %s", path, reason);
  }
  bn_advise_huge(data + bn_tensors[FIRST_READ].offset, bytes_read());
  bn_model *m = malloc(sizeof *m);
  if (m) *m = (bn_model){data, fd, NULL};
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
