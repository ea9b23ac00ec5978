/*
 * The library as a program, for machines where Node cannot load it (emulators) and for sanitizers:
 *
 *     driver WEIGHTS TOKENS LOGITS [threads=1] [kv=8] [chunk=all] [top=0] [pages=0] [head=0]
 *
 * TOKENS holds int32 token ids; LOGITS receives float32 [tokens][vocabulary]; the text is evaluated in chunks of
 * `chunk` tokens. With top = k > 0, LOGITS receives the k largest logits of every token instead, by chunk: ids (int32)
 * [tokens][k], then logits [tokens][k].
 */
#include <stdio.h>
#include <stdlib.h>
#include "bitnet.h"
#include "plan.h"

static int complain(const char *what) {
  fprintf(stderr, "driver: %s\n", what);
  return 1;
}

/* Evaluates the text in chunks; writes the largest logits of their tokens. */
static int write_top(int32_t context, const int32_t *tokens, int n, int chunk, int top, FILE *out) {
  int32_t *ids = malloc((size_t)chunk * (size_t)top * sizeof *ids);
  float *logits = malloc((size_t)chunk * (size_t)top * sizeof *logits);
  if (!ids || !logits) return complain("out of memory");
  for (int done = 0; done < n; done += chunk) {
    const int count = n - done < chunk ? n - done : chunk;
    const size_t found = (size_t)count * (size_t)top;
    if (bn_top(context, tokens + done, count, top, BN_WANT_ALL, ids, logits) < 0) return complain(bn_error());
    if (!out || fwrite(ids, sizeof *ids, found, out) != found || fwrite(logits, sizeof *logits, found, out) != found)
      return complain("cannot write the logits");
  }
  free(ids);
  free(logits);
  return fclose(out) ? complain("cannot write the logits") : 0;
}

int main(int argc, char **argv) {
  if (argc < 4) return complain("usage: driver WEIGHTS TOKENS LOGITS [threads] [kv] [chunk] [top] [pages] [head]");
  const int threads = argc > 4 ? atoi(argv[4]) : 1, kv = argc > 5 ? atoi(argv[5]) : 8;
  FILE *in = fopen(argv[2], "rb");
  if (!in) return complain("cannot open the tokens");
  static int32_t tokens[1 << 16];
  const int n = (int)fread(tokens, sizeof *tokens, sizeof tokens / sizeof *tokens, in);
  fclose(in);
  if (n < 1) return complain("there are no tokens");
  const int chunk = argc > 6 && atoi(argv[6]) > 0 ? atoi(argv[6]) : n;
  const int pages = argc > 8 ? atoi(argv[8]) : BN_PAGES_MAPPED;
  const int32_t model = bn_open(argv[1]);
  if (model < 0) return complain(bn_error());
  const int32_t context = bn_context(model, n, threads, kv, 0, pages, 0, argc > 9 ? atoi(argv[9]) : BN_HEAD_EXACT);
  if (context < 0) return complain(bn_error());
  const int top = argc > 7 ? atoi(argv[7]) : 0;
  if (top > 0) {
    if (write_top(context, tokens, n, chunk, top, fopen(argv[3], "wb"))) return 1;
    return bn_release(context) || bn_close(model) ? complain(bn_error()) : 0;
  }
  float *logits = malloc((size_t)n * BN_VOCABULARY * sizeof *logits);
  if (!logits) return complain("out of memory");
  for (int done = 0; done < n; done += chunk) {
    const int count = n - done < chunk ? n - done : chunk;
    if (bn_eval(context, tokens + done, count, BN_WANT_ALL, logits + (size_t)done * BN_VOCABULARY) < 0)
      return complain(bn_error());
  }
  FILE *out = fopen(argv[3], "wb");
  if (!out || fwrite(logits, BN_VOCABULARY * sizeof *logits, (size_t)n, out) != (size_t)n || fclose(out))
    return complain("cannot write the logits");
  free(logits);
  if (bn_release(context) || bn_close(model)) return complain(bn_error());
  return 0;
}
