#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libsoma's C sources pass another architecture's compiler (syntax only: no foreign libraries are needed). Exits 77, "skipped", where no
# cross compiler is installed.
#
#   cross.sh SOURCE_DIR
set -eu
cd "$1"
cc=aarch64-linux-gnu-gcc
command -v $cc >/dev/null 2>&1 || { echo "skipped: $cc is not installed"; exit 77; }
# jansson's two headers are the same on every architecture; they are shown to the cross compiler alone, without the rest of /usr/include
headers=$(mktemp -d)
trap 'rm -rf "$headers"' EXIT
for dir in $(pkg-config --variable=includedir jansson) /usr/include/*-linux-gnu; do
    cp "$dir"/jansson*.h "$headers" 2>/dev/null || true
done
find src/base src/graph src/device/*.c src/device/cpu src/nn src/text src/transform src/model src/policy src/format/safetensors.c src/format/npy.c -name '*.c' 2>/dev/null |
    grep -vE '_(avx[a-z0-9]*|amx)\.c$' |
    xargs $cc -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-parameter -Werror -fsyntax-only -Iinclude -Isrc -idirafter "$headers"
echo "libsoma's sources are valid for $($cc -dumpmachine)"
