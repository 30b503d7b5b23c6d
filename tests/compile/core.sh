#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libsoma builds alone (SOMA_CORE=ON: jansson, SentencePiece and utf8proc are all it may find), and a program that knows only soma.h links with it.
#
#   core.sh CMAKE SOURCE_DIR SCRATCH_DIR
set -eu
cmake=$1 source=$2 scratch=$3
"$cmake" -S "$source" -B "$scratch" -G Ninja -DSOMA_CORE=ON -DCMAKE_BUILD_TYPE=Debug >"$scratch.log" 2>&1 || { cat "$scratch.log"; exit 1; }
ninja -C "$scratch"
# what it needs from outside is the C library, libm, pthreads, jansson, utf8proc and the C++ runtime under SentencePiece
for name in duckdb_ mj_ av_ avcodec_ lws_ msgpack_ cairo_ png_ MPI_; do
    if nm --undefined-only "$scratch/libsoma.a" 2>/dev/null | grep -q " U $name"; then
        echo "libsoma.a wants a symbol that starts with $name: it does not stand alone"
        exit 1
    fi
done
