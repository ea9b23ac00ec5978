/*
 * Huge pages, and how much memory the system has in them: for the mapped weights, for their copy and for bench/read.c.
 *
 * Linux keeps files in large pieces too, on some file systems (ext4 since 6.16, xfs since 5.18), where a mapping allows
 * it when they are first read or written: such a mapping needs no copy.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

enum { HUGE_PAGE = 2 << 20 };

static size_t whole(size_t bytes, size_t page) {
  return (bytes + page - 1) / page * page;
}

static size_t whole_pages(size_t bytes) {
  return whole(bytes, HUGE_PAGE);
}

/* mmap, but the mapping begins at a huge page: cut out of a reservation that is one huge page longer. */
static void *map_aligned(size_t bytes, int protection, int flags, int fd) {
  const size_t size = whole(bytes, (size_t)sysconf(_SC_PAGESIZE));
  uint8_t *p = mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return MAP_FAILED;
  const size_t before = whole_pages((uintptr_t)p) - (uintptr_t)p;
  void *mapped = mmap(p + before, size, protection, flags | MAP_FIXED, fd, 0);
  if (mapped == MAP_FAILED) {
    const int error = errno;
    munmap(p, size + HUGE_PAGE);
    errno = error;
    return MAP_FAILED;
  }
  if (before) munmap(p, before);
  munmap(p + before + size, HUGE_PAGE - before);
  return mapped;
}

void bn_advise_huge(const void *memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)memory / page * page;
  madvise((void *)first, (uintptr_t)memory + bytes - first, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

void *bn_map_file(int fd, size_t bytes, int protection) {
  return map_aligned(bytes, protection, MAP_SHARED, fd);
}

void *bn_map_huge(size_t bytes) {
  const size_t size = whole_pages(bytes);
  void *p = map_aligned(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  if (p == MAP_FAILED) return NULL;
  bn_advise_huge(p, size);
  return p;
}

void bn_unmap_huge(void *memory, size_t bytes) {
  munmap(memory, whole_pages(bytes));
}

/* From the kernel's own account of the mapping, which may have grown together with others. */
size_t bn_huge_bytes(const void *memory, size_t bytes) {
  FILE *f = fopen("/proc/self/smaps", "r");
  if (!f) return 0;
  const uintptr_t first = (uintptr_t)memory, last = first + bytes;
  /* Of a file only what was touched is mapped. */
  for (uintptr_t p = first; p < last; p += HUGE_PAGE) *(volatile const uint8_t *)p;
  char line[512];
  size_t huge = 0, start, end, kilobytes;
  int inside = 0;
  while (fgets(line, sizeof line, f)) {
    if (sscanf(line, "%zx-%zx ", &start, &end) == 2)
      inside = start < last && end > first;
    else if (inside && (sscanf(line, "AnonHugePages: %zu kB", &kilobytes) == 1 ||
                        sscanf(line, "FilePmdMapped: %zu kB", &kilobytes) == 1))
      huge += kilobytes << 10;
  }
  fclose(f);
  return huge < bytes ? huge : bytes;
}
