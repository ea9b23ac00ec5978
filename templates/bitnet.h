/*
 * The interface of a generated library: one model shape on one CPU. Models and contexts are integers, so that a foreign
 * function interface needs only numbers, strings and buffers; the number of one that was closed names no other. Every
 * call that can fail returns a negative number and leaves a message in bn_error(); nothing aborts.
 *
 * Any thread may call. A context serves one call at a time, and refuses another meanwhile; different contexts are
 * independent.
 */
#ifndef BITNET_H
#define BITNET_H
#include <stdint.h>

#define BN_API __attribute__((visibility("default")))
enum { BN_ABI = 7 };

/* Where decoding reads the weights: in the mapped file, in a copy in huge pages, or there if it is worth it: the file
 * is not in huge pages itself. */
enum { BN_PAGES_MAPPED = 0, BN_PAGES_AUTO = 1, BN_PAGES_HUGE = 2 };

/* How bn_top finds the largest logits: certainly, or with a screen of half the bytes that may, seldom, miss some. */
enum { BN_HEAD_EXACT = 0, BN_HEAD_FAST = 1 };

/* Which logits bn_eval and bn_top return: none (bn_eval only), of the last token, of every token. */
enum { BN_WANT_NONE = 0, BN_WANT_LAST = 1, BN_WANT_ALL = 2 };

/* What bn_profile tells apart. Tables: of one token's activations, for ternary products by look-up. Rest: norms,
 * activation function, rotary embedding, quantisation, residual sums. Wait: at barriers, for threads with more to do.
 */
enum { BN_TIME_TERNARY, BN_TIME_TABLES, BN_TIME_HEAD, BN_TIME_ATTENTION, BN_TIME_REST, BN_TIME_WAIT, BN_TIMES };

/* What bn_live tells of each layer: neurons whose gate is open, those of them that were open for the token before, and
 * inputs of `down` that are not zero; shares of all neurons. Where zeros are skipped, dead neurons (bn_dead) count as
 * closed, and inputs of zero columns as zero. Then the rows of `up` and the columns of `down` that were read. */
enum { BN_LIVE_OPEN, BN_LIVE_AGAIN, BN_LIVE_INPUTS, BN_LIVE_ROWS, BN_LIVE_COLUMNS, BN_LIVE };

/* What bn_dead tells of each layer: rows of the gate, rows of `up`, weights of the norm before `down` and columns of
 * `down` that are zero. Whatever the input, such a neuron adds nothing, except that with one of the last two it still
 * takes part in the norm. Then how many rows of the gate are not there: those of the first two kinds, rounded down to
 * whole tiles. */
enum { BN_DEAD_GATE, BN_DEAD_UP, BN_DEAD_NORM, BN_DEAD_DOWN, BN_DEAD_DROPPED, BN_DEAD };

/* BN_ABI of the library. */
BN_API int32_t bn_abi(void);
/* Model, target, kernels and layout as JSON text; never freed. */
BN_API const char *bn_describe(void);
/* The message of the calling thread's last failed call. */
BN_API const char *bn_error(void);

/* Maps a packed weights file. -> model, or BN_DAMAGED if the file is not what this library packed */
enum { BN_DAMAGED = -2 };
BN_API int32_t bn_open(const char *path);
/*
 * Checks the next part of a model's weights against the checksum: all that bn_open does not look at in a large file.
 * Called by one thread until nothing is left. -> megabytes left, or BN_DAMAGED
 */
BN_API int32_t bn_verify(int32_t model);
/* Unmaps it. Fails while contexts use it. -> 0 */
BN_API int32_t bn_close(int32_t model);

/*
 * Everything that changes while a text is evaluated: key-value cache for `positions` tokens (kv: 8, 16 or 32 bits an
 * element), work buffers, and `threads` threads, the caller's included; with spin = 0 they sleep instead of spinning.
 * pages: where the weights are read; spare: bytes of memory that the process can still take, for BN_PAGES_AUTO; head:
 * how bn_top works. -> context
 */
BN_API int32_t bn_context(int32_t model, int32_t positions, int32_t threads, int32_t kv, int32_t spin, int32_t pages,
                          double spare, int32_t head);
/* Megabytes of weights that the context reads from huge pages. */
BN_API int32_t bn_huge_pages(int32_t context);
/* Frees it and ends its threads. -> 0 */
BN_API int32_t bn_release(int32_t context);
/*
 * Evaluates n tokens after those already evaluated. logits: float32 [vocabulary] (BN_WANT_LAST), [n][vocabulary]
 * (BN_WANT_ALL) or ignored. Fails where activations or logits are not finite; the context is then
 * as it was before the call. -> the number of positions now filled
 */
BN_API int32_t bn_eval(int32_t context, const int32_t *tokens, int32_t n, int32_t want, float *logits);
/*
 * Evaluates n tokens as bn_eval does, and finds the k tokens with the largest logits of the last one (BN_WANT_LAST: ids
 * and logits are [k]) or of every one (BN_WANT_ALL: [n][k]): the largest first, equal logits by rising token, the same
 * bits as bn_eval's, and as unforgiving; with BN_HEAD_FAST a larger one may be missing. k: 1 to the vocabulary, at most
 * 1024. n = 0, with BN_WANT_LAST: of the token evaluated last.
 * -> the number of positions now filled
 */
BN_API int32_t bn_top(int32_t context, const int32_t *tokens, int32_t n, int32_t k, int32_t want, int32_t *ids,
                      float *logits);
/* Forgets all positions from `position` on. -> position */
BN_API int32_t bn_rewind(int32_t context, int32_t position);

/*
 * Takes the time of evaluations by operation. seconds: float32 [BN_TIMES], what was spent since the last call, averaged
 * over the threads, zero if it was off; may be NULL. on: go on (or begin), or stop. -> 0
 */
BN_API int32_t bn_profile(int32_t context, int32_t on, float *seconds);

/*
 * What single tokens left of the MLP, by layer. shares: float32 [layers][BN_LIVE], means over the tokens that were
 * evaluated one at a time since the last call, zero if it was off or there were none; may be NULL. on: go on (or
 * begin), or stop. -> how many tokens these are
 */
BN_API int32_t bn_live(int32_t context, int32_t on, float *shares);
/*
 * Neurons by layer that weights of zero alone make zero. counts: float32 [layers][BN_DEAD]. -> 1, or 0 unless the
 * library skips zeros in `up` and `down`: nothing is told
 */
BN_API int32_t bn_dead(int32_t context, float *counts);

/*
 * From now on, what the calling thread opens ends with it: models, contexts and their threads, and a packing. For a
 * thread that may be terminated. The library is not unloaded any more. -> 0
 */
BN_API int32_t bn_end_with_thread(void);

/* Starts a packed weights file at `path`, which must not exist; its space is reserved at once. One at a time in a
 * thread. -> 0 */
BN_API int32_t bn_pack_begin(const char *path, int32_t threads);
/*
 * Packs tensor number `tensor` of the library's table from `bytes` bytes at `offset` of `file`, a [rows, cols] matrix
 * in one of the encodings of decode.h. scale: w = scale * t, or 0 when the data itself tells; factor: multiplies the
 * scale; neither may be negative; heads: rows lie in the interleaved rotary order of this many heads, or 0. Fails where
 * the data are damaged (decode.h), and says where. -> 0
 */
BN_API int32_t bn_pack_tensor(int32_t tensor, const char *file, double offset, double bytes, int32_t encoding,
                              int32_t rows, int32_t cols, double scale, double factor, int32_t heads);
/* Writes checksum and header; with keep = 0 removes the file. -> 0 */
BN_API int32_t bn_pack_end(int32_t keep);

#endif
