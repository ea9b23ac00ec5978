#!/bin/sh
# A compiler command for tests: cc-cache.sh COMPILER ARGUMENT... runs the compiler, but keeps the objects it makes and hands
# them out again for equal arguments, sources and headers: models in the tests share most of their kernels.
# BITNET_TEST_OBJECTS names the folder of objects; without it nothing is kept.
object=''
source=''
previous=''
for argument; do
  case $previous in
    -c) source=$argument ;;
    -o) object=$argument ;;
  esac
  previous=$argument
done
if [ -z "$BITNET_TEST_OBJECTS" ] || [ -z "$source" ] || [ -z "$object" ]; then exec "$@"; fi

# Kernels stand alone; the other files include the generated headers.
case $source in
  */kernels/*) headers='' ;;
  *) headers=$(echo src/*.h) ;;
esac
# Size and time of the program stand for its version: asking it takes ten times as long.
compiler=$(command -v "$1") && compiler=$(ls -lL "$compiler")
# shellcheck disable=SC2086
key=$({ echo "$compiler" "$@"; cat "$source" $headers; } | sha256sum | cut -c1-40)
kept=$BITNET_TEST_OBJECTS/$key.o
if [ ! -e "$kept" ]; then
  "$@" || exit
  # Two processes may come here at once: each renames a whole file.
  cp "$object" "$kept.$$" && mv "$kept.$$" "$kept"
  exit
fi
cp "$kept" "$object"
