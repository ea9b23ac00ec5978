/*
 * Packs a weights file with a generated library outside Node, for sanitizers.test.ts:
 *
 *     pack-main OUTPUT THREADS < lines of "tensor offset bytes encoding rows cols scale factor heads file"
 */
#include <stdio.h>
#include <stdlib.h>
#include "bitnet.h"

static int complain(void) {
  fprintf(stderr, "pack-main: %s\n", bn_error());
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 3 || bn_pack_begin(argv[1], atoi(argv[2]))) return complain();
  int tensor, encoding, rows, cols, heads;
  double offset, bytes, scale, factor;
  char file[4096];
  while (scanf("%d %lf %lf %d %d %d %lf %lf %d %4095s", &tensor, &offset, &bytes, &encoding, &rows, &cols, &scale,
               &factor, &heads, file) == 10)
    if (bn_pack_tensor(tensor, file, offset, bytes, encoding, rows, cols, scale, factor, heads)) return complain();
  if (bn_pack_end(1)) return complain();
  /* Opened and given back, by a second packing that is given up too. */
  const int32_t model = bn_open(argv[1]);
  if (model < 0 || bn_close(model)) return complain();
  snprintf(file, sizeof file, "%s.second", argv[1]);
  if (bn_pack_begin(file, 2) || bn_pack_end(0)) return complain();
  return 0;
}
