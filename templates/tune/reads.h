/* Plain reads: the bandwidth roof of benches and of the tuner. */
#ifndef BN_READS_H
#define BN_READS_H
#include "internal.h"

enum { READ_STEP = 256 }; /* bytes of a round; parts of a read are whole rounds */

/* How a read fetches ahead: so many bytes, 0 for not at all; as __builtin_prefetch's locality: 0 past the second-level
 * cache, 2 into it. */
typedef struct {
  size_t ahead;
  int level;
} read_hint;

typedef struct {
  const uint8_t *data;
  size_t bytes;
  read_hint hint;
} reading;

/* A job of a pool: each thread reads one contiguous part of a `reading`, by the widest vectors of the target. */
void bn_read(void *reading, int thread, int threads);
/* The fastest hint and distance of those that kernels are given, all tried in turn. */
read_hint bn_fastest_read(bn_pool *, const uint8_t *data, size_t bytes);

#endif
