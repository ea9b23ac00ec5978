/* What the parts of the measuring program share. */
#ifndef BN_MEASURE_H
#define BN_MEASURE_H
#include "state.h"

enum { LOOK_UP_BYTES = 16 }; /* at least, of tables for each activation (codegen/kernels/look-up-tables.ts) */

/* A way to multiply so many tokens with a matrix. */
typedef struct {
  int packing, tokens;
  bn_matrix matrix;
} kernel;

/* Where the weights are: everybody's, while kernels are checked; else a thread's part of the arena, which holds
 * `copies` layers, `first` of them on. */
typedef struct {
  const uint8_t *all, *arena;
  long copies, first;
} weights_of;

/* The context that products.c works on; its inputs. */
extern bn_state state;
extern quantised input;
extern weights_of weights;
/* The next products are by this kernel. */
void use(const kernel *);

/* Is this kernel exact? Asks a child process, and prints the answer (see measure.c). */
void gate(const kernel *, long period, int tokens, const char *path);

/* memory, or the end of the program */
void *or_die(void *memory);
void *allocate(size_t bytes);                       /* aligned as vectors want it */
uint8_t *contents(const char *path, size_t *bytes); /* the whole of a file */
size_t input_rows(int threads);                     /* tokens of a batch, or threads */

#endif
