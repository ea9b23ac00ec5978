/* What the library's own files share: the weights file, the tables that the generator prints (plan.c), pool and errors.
 */
#ifndef BN_INTERNAL_H
#define BN_INTERNAL_H
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include "bitnet.h"
#include "plan.h"

/* --- errors: stores the message and returns -1 */
int32_t bn_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- weights file: this header, padded to BN_HEADER_BYTES, then the tensors at the offsets of bn_tensors */
enum { BN_HEADER_BYTES = 4096, BN_SAMPLES = 256, BN_SAMPLE_BYTES = 4096 };
typedef struct {
  char magic[8];                /* "BNPACK2" */
  char layout[64];              /* BN_LAYOUT of the library that wrote it */
  uint64_t size;                /* of the file, bytes */
  uint64_t data;                /* checksum of everything after BN_HEADER_BYTES */
  uint64_t samples[BN_SAMPLES]; /* checksums of parts of it: all that is read of a large file when it is opened */
  uint64_t header;              /* checksum of the fields above */
} bn_header;
/* A checksum in the making; begins as BN_SUM. Every part but the last is a multiple of 32 bytes. */
typedef struct {
  uint64_t lane[4], bytes;
} bn_sum;
#define BN_SUM ((bn_sum){{1, 2, 3, 4}, 0})
void bn_sum_add(bn_sum *sum, const void *data, size_t bytes);
uint64_t bn_sum_result(const bn_sum *sum);
uint64_t bn_checksum(const void *data, size_t bytes);
/* Where sample i lies in the file: at even distances, the first and the last block among them. */
size_t bn_sample_offset(int i);

/* --- tables of the plan */
enum { BN_TERNARY, BN_ROWS, BN_VECTOR, BN_INT8, BN_INT32 };
typedef struct {
  const char *name;
  int64_t rows, cols;
  int64_t offset; /* from the start of the file, a multiple of 64 */
  int64_t bytes;  /* ternary: packed bytes, followed by the float scale in a 64-byte line of its own */
  int kind;
  int type; /* ternary: index in bn_packings; rows: their encoding (decode.h); vector: float32; int8, int32: none */
} bn_tensor;
extern const bn_tensor bn_tensors[BN_TENSORS];
extern const int64_t bn_file_bytes;

/* Of an index in a line of columns, where the low four bits of its code and the others go: column, from which bit on.
 */
typedef struct {
  uint8_t low_column, low_shift, high_column, high_shift;
} bn_parts;
/* The order of packed bytes: row tiles, or runs of rows or of columns (codegen/packings/orders.ts). */
typedef enum { BN_BY_TILES, BN_BY_ROWS, BN_BY_COLUMNS } bn_order;
/* Where weight (row, k) of a line goes: byte place[2 * (row * line_k + k)], grown by factor place[... + 1] times w + 1.
 * In another order the same bytes lie elsewhere; k is padded to whole panels. With indices, these are bytes of a draft
 * [indices][rows]: numbers, for which the line has their codes. */
typedef struct {
  const char *token;
  int rows, line_k, line_bytes;
  const uint16_t *place;
  bn_order order;
  int panel_k;
  int indices; /* 0: the line is no draft's */
  const uint8_t *codes;
  const bn_parts *parts;
} bn_packing;
extern const bn_packing bn_packings[];

/* One token or several, as many as the kernel is made for; row tiles [t0, t1). */
typedef void bn_gemv(const uint8_t *w, const int8_t *x, const int32_t *sums, int32_t *y, long t0, long t1);
/* Tables of one token's activations, for lines [l0, l1), for a bn_gemv that looks up: it takes them in place of x. */
typedef void bn_tabulate(const int8_t *x, int8_t *tables, long l0, long l1);
/* The steps of products by tables (codegen/kernels/tables.ts). */
typedef void bn_offsets(const uint8_t *w, uint8_t *quads, uint8_t *others, long tiles);
typedef void bn_sums(const int8_t *x, const uint8_t *quads, const uint8_t *others, uint8_t *sums, uint8_t *scratch,
                     long tokens, long rows);
typedef void bn_results(uint8_t *sums, int32_t *y, long tokens, long rows);
/* Some k of a matrix in an order of its own, from w on, as row tiles (codegen/kernels/panels.ts). */
typedef void bn_panel(const uint8_t *w, uint8_t *panel, long first, long end);
/* Entries [first, end) of a list: rows, or columns and their elements (codegen/kernels/sparse-*.ts). */
typedef void bn_row_dots(const uint8_t *w, const int8_t *x, const int32_t *sums, const uint8_t *list, int32_t *y,
                         long first, long end);
typedef void bn_column_sums(const uint8_t *w, const int8_t *x, const uint8_t *list, int32_t *y, long first, long end);
/* One kind of ternary matrix: its kernels and the sizes they are specialised to. Indexed by slot: BN_ATTN_Q ...
 * BN_FFN_DOWN. */
typedef struct {
  bn_gemv *gemv;               /* one token */
  bn_tabulate *tabulate;       /* makes tables for it; NULL: it takes activations */
  bn_row_dots *row_dots;       /* instead of it, by rows */
  bn_column_sums *column_sums; /* by columns */
  bn_panel *panel;             /* makes the row tiles that the other kernels read, where the matrix is not in tiles */
  struct {
    int tokens;
    bn_gemv *kernel;
  } gemm[BN_GEMMS];    /* several tokens, by rising number; 0: there is none */
  bn_offsets *offsets; /* whole vectors of tokens, by tables; NULL: there are none */
  bn_sums *sums;
  bn_results *results;
  bn_offsets *last_offsets; /* for the lines that whole blocks leave over */
  bn_sums *last_sums;
  int table_lines, table_rows;       /* lines of a block; most rows that are summed in one pass */
  int tiles;                         /* row tiles */
  int tile_rows, tile_bytes;         /* rows and bytes of one */
  int lines, line_k, line_bytes;     /* lines of a tile; k and bytes of one */
  int others_at, tables_at, sums_at; /* in a thread's scratch: offsets of fields beyond four, tables, sums, */
  int panel_at;                      /* a panel */
  int x_stride;                      /* bytes from token to token */
  int y_stride;                      /* int32 from token to token */
  bn_order order;
  /* in an order of its own: bytes of a row or column, weights of a byte, lines and rows of a panel, k of a row's four
   * bytes */
  int run, fields, panel_lines, panel_rows, field_k;
  int shifts[BN_FIELDS], inverses[BN_FIELDS]; /* divide the sums of a field by its scale */
} bn_matrix;
extern const bn_matrix bn_matrices[BN_SLOTS]; /* tiles = 0 where the slot is a vector */
/* Of so many row tiles those that a thread computes, [*t0, *t1): whole groups of 16 rows, with which element-wise steps
 * can go on. */
void bn_tiles(const bn_matrix *, long tiles, int thread, int threads, long *t0, long *t1);
extern const float bn_inverse_frequencies[BN_HEAD_SIZE / 2];

/* --- profile: for which operation a thread's time counts */
typedef struct {
  _Alignas(64) double since; /* when the present operation began, seconds */
  int operation;             /* BN_TIME_ */
  double seconds[BN_TIMES];
} bn_stopwatch;
/* From now on this thread's time counts for `operation`. -> the operation until now */
int bn_time(int operation);
/* The stopwatch of this thread, or NULL while no time is taken. */
void bn_watch_with(bn_stopwatch *);
/* Before a job and after it: all threads wait, until they say otherwise. */
void bn_watches_start(bn_stopwatch *watches, int threads);
void bn_watches_stop(bn_stopwatch *watches, int threads);
/* seconds [BN_TIMES], averaged over the threads; the watches go back to zero. */
void bn_watches_read(bn_stopwatch *watches, int threads, float *seconds);

/* --- thread pool */
typedef struct bn_pool bn_pool;
typedef void bn_job(void *argument, int thread, int threads);
bn_pool *bn_pool_create(int threads, int spin); /* NULL when a thread cannot be started */
void bn_pool_destroy(bn_pool *);
void bn_pool_run(bn_pool *, bn_job *, void *argument); /* on all threads; returns when all are done */
void bn_pool_barrier(bn_pool *);                       /* inside a job: waits for all threads */
int bn_pool_threads(const bn_pool *);
/* Between jobs: see bn_profile. -> 0, or -1 without memory */
int bn_pool_profile(bn_pool *, int on, float *seconds);
/* Part [*first, *end) of n items for one thread: contiguous, balanced, possibly empty. */
void bn_span(long n, int thread, int threads, long *first, long *end);

/* --- objects by number: see handles.c */
enum { BN_HANDLES = 64 };
typedef struct {
  void *object;        /* NULL: the slot is free */
  uint32_t generation; /* of the number that it has, or the next one will have */
  int users;           /* calls and other objects that use it */
  int closed;          /* nobody finds it any more, and its last user destroys it */
  uint64_t owner;      /* the thread with which it ends, or 0 */
} bn_slot;
typedef struct {
  const char *what; /* for messages */
  void (*destroy)(void *object);
  pthread_mutex_t lock;
  bn_slot slots[BN_HANDLES];
} bn_handles;
/* -> its number, or -1 when all slots are taken; it then still belongs to the caller */
int32_t bn_handle_new(bn_handles *, void *object);
/* An object, until bn_handle_done. alone: nobody else may use it at the same time. NULL: an error */
void *bn_handle_use(bn_handles *, int32_t number, int alone);
void bn_handle_done(bn_handles *, const void *object);
/* -> 0: it is destroyed; how many use it: it stays; or -1 and an error when there is no such object */
int32_t bn_handle_close(bn_handles *, int32_t number);
/* Closes what belongs to an owner. */
void bn_handles_leave(bn_handles *, uint64_t owner);

/* --- ends of threads: see thread-end.c */
uint64_t bn_thread_owner(void); /* the calling thread as an owner; 0: what it opens does not end with it */
void bn_contexts_leave(uint64_t owner);
void bn_models_leave(uint64_t owner);

/* --- model */
typedef struct bn_model bn_model;
bn_model *bn_model_acquire(int32_t model); /* NULL and an error when there is no such model */
void bn_model_release(bn_model *);
const uint8_t *bn_tensor_data(const bn_model *, int tensor);
float bn_tensor_scale(const bn_model *, int tensor);
/* Bytes of a tensor's data, read past the mapping, so that they do not count as this process's memory twice. */
void bn_tensor_read(const bn_model *, int tensor, size_t first, size_t bytes, uint8_t *out);
/* What of the mapped screen and layers is in huge pages: how many bytes, and is it nearly all? */
size_t bn_model_huge_bytes(const bn_model *);
int bn_model_is_huge(const bn_model *);

/* --- neurons of the MLP that weights of zero alone make zero (dead.c), where zeros are skipped */
typedef struct {
  int32_t counts[BN_DEAD];       /* as bn_dead tells */
  int32_t tiles;                 /* row tiles of the gate that are there */
  int32_t zeros;                 /* columns of `down` that are not read, */
  int32_t zero[BN_INTERMEDIATE]; /* [zeros] which */
  int32_t from[BN_INTERMEDIATE]; /* of a neuron behind those tiles: the row that its gate has, or -1 for none */
} bn_neurons;
const bn_neurons *bn_neurons_of(const bn_model *, int layer);
/* Row tiles that a matrix has in a layer. */
long bn_tiles_of(const bn_model *, int layer, int slot);
/* Do the numbers of a mapped file point into it? */
int bn_neurons_are_sane(const uint8_t *file);
/* A job on packed tensors, the mapped file: finds what is dead, and drops it. */
void bn_drop_dead(void *file, int thread, int threads);

/* --- memory in huge pages, where the system grants them */
void *bn_map_huge(size_t bytes); /* zeroed; NULL when there is not so much */
void bn_unmap_huge(void *memory, size_t bytes);
void *bn_map_file(int fd, size_t bytes, int protection); /* from its beginning; MAP_FAILED and errno on failure */
void bn_advise_huge(const void *memory, size_t bytes);   /* before it is touched: it is meant for huge pages */
size_t bn_huge_bytes(const void *memory, size_t bytes);  /* how many of them are in huge pages */

/* --- a copy of the ternary weights and the screen in huge pages, one stream a thread; the fast head's 4-bit rows */
typedef struct bn_arena bn_arena;
bn_arena **bn_model_arenas(bn_model *); /* the first of a list */
/* fast: with 4-bit rows, and without a copy of the weights if pages say so; spare: see bn_context. NULL: the mapped
 * file is to be read */
bn_arena *bn_arena_acquire(bn_model *, bn_pool *, int pages, double spare, int fast);
void bn_arena_release(bn_model *, bn_arena *);
/* Where tile 0 of a matrix would lie; only the thread's own tiles are there. */
const uint8_t *bn_arena_weights(const bn_arena *, int thread, int layer, int slot);
const uint8_t *bn_arena_screen(const bn_arena *, int thread);
const float *bn_arena_factors(const bn_arena *, int thread); /* of 4-bit rows */
size_t bn_arena_huge_bytes(const bn_arena *);                /* that the system has granted */

/* --- forward pass */
typedef struct bn_state bn_state;
bn_state *bn_state_create(bn_model *, int positions, int threads, int kv, int spin, int pages, double spare,
                          int head); /* NULL: error */
void bn_state_destroy(bn_state *);
int bn_state_position(const bn_state *);
void bn_state_rewind(bn_state *, int position);
int bn_state_capacity(const bn_state *);
size_t bn_state_huge_bytes(const bn_state *);
int bn_state_has_hidden(const bn_state *);                /* is the last token's hidden state there? */
int bn_state_profile(bn_state *, int on, float *seconds); /* as bn_pool_profile */
int bn_state_live(bn_state *, int on, float *shares);     /* as bn_live */
int bn_state_dead(const bn_state *, float *counts);       /* as bn_dead */
/* Without logits (NULL) the last batch's hidden states stay for bn_largest: of the last token, or of all that are
 * wanted. -> how many tokens are sound: n, or fewer where one has activations or logits that are not finite */
int bn_forward(bn_state *, const int32_t *tokens, int n, int want, float *logits);
/* The k <= BN_MOST_TOP largest logits of each of the last `count` hidden states, the largest first, equal ones by
 * rising id; with the fast head very likely the largest. ids, logits: [count][k]. -> how many states are sound */
int bn_largest(bn_state *, int count, int k, int32_t *ids, float *logits);

#endif
