/* Memory in huge pages, and how much of it the system has granted: for the copy of the weights and for bench/read.c. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include "internal.h"

enum { HUGE_PAGE = 2 << 20 };

static size_t whole_pages(size_t bytes) {
  return (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

void *bn_map_huge(size_t bytes) {
  const size_t size = whole_pages(bytes);
  /* A huge page more, so that the memory can begin at one. */
  uint8_t *p = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
  const size_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
  if (before) munmap(p, before);
  munmap(p + before + size, HUGE_PAGE - before);
#ifdef MADV_HUGEPAGE
  madvise(p + before, size, MADV_HUGEPAGE);
#endif
  return p + before;
}

void bn_unmap_huge(void *memory, size_t bytes) {
  munmap(memory, whole_pages(bytes));
}

/* From the kernel's own account of the mapping, which may have grown together with others. */
size_t bn_huge_bytes(const void *memory, size_t bytes) {
  FILE *f = fopen("/proc/self/smaps", "r");
  if (!f) return 0;
  const uintptr_t first = (uintptr_t)memory, last = first + bytes;
  char line[512];
  size_t huge = 0, start, end, kilobytes;
  int inside = 0;
  while (fgets(line, sizeof line, f)) {
    if (sscanf(line, "%zx-%zx ", &start, &end) == 2)
      inside = start < last && end > first;
    else if (inside && sscanf(line, "AnonHugePages: %zu kB", &kilobytes) == 1)
      huge += kilobytes << 10;
  }
  fclose(f);
  return huge < bytes ? huge : bytes;
}
