#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The CPU device on 64-bit Arm: base, graph and device are built by CMake with the cross compiler, and the op table and the kernels' tests
# run under qemu, with all instruction sets and masked to fewer (a kernel of a set that is masked would be an illegal instruction). Says what
# is right, nothing about speed. Exits 77, "skipped", where compiler or qemu is absent (scripts/deps.sh).
#
#   neon.sh CMAKE SOURCE_DIR SCRATCH_DIR [COMPILER_LAUNCHER]
set -eu
cmake=$1 source=$2 scratch=$3 launcher=${4:-}
cc=aarch64-linux-gnu-gcc
for program in $cc qemu-aarch64; do
    command -v $program >/dev/null 2>&1 || { echo "skipped: $program is not installed (scripts/deps.sh)"; exit 77; }
done

# jansson is not linked (nothing here reads JSON): its two headers, the same on every architecture, are enough
rm -rf "$scratch/headers"
mkdir -p "$scratch/headers"
for dir in $(pkg-config --variable=includedir jansson) /usr/include/*-linux-gnu; do
    cp "$dir"/jansson*.h "$scratch/headers" 2>/dev/null || true
done
printf 'Name: jansson\nDescription: its headers\nVersion: 2\nCflags: -I%s\n' "$scratch/headers" >"$scratch/headers/jansson.pc"

PKG_CONFIG_LIBDIR="$scratch/headers" "$cmake" -S "$source" -B "$scratch" -G Ninja -DSOMA_CORE=ON -DCMAKE_C_FLAGS=-Werror \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=$cc -DCMAKE_C_COMPILER_LAUNCHER="$launcher" \
    -DCMAKE_CXX_COMPILER=$cc -DCMAKE_CXX_COMPILER_FORCED=ON >"$scratch/cmake.log" 2>&1 || { cat "$scratch/cmake.log"; exit 1; }
ninja -C "$scratch" soma_base soma_graph soma_device

cd "$scratch"
for test in ops/test_ops device/test_isa device/test_fast_attention device/test_fast_elementwise \
    device/test_fast_norm device/test_fast_other device/test_fast_packed device/test_fast_quant; do
    $cc -std=gnu11 -D_GNU_SOURCE -DSOMA_EMULATED -O2 -ffp-contract=off -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Werror -static \
        -I"$source/tests" -I"$source/tests/compile/cmocka" -I"$source/include" -I"$source/src" -o "${test##*/}" "$source/tests/$test.c" \
        -L. -lsoma_device -lsoma_graph -lsoma_base -lpthread -lm
    echo "max ${test##*/}"
    case $test in *_isa | *_quant) echo "cortex-a76 ${test##*/}"; echo "cortex-a53 ${test##*/}" ;; esac # dotprod, no bf16; neither
done >runs
rm -f ./*.out
xargs -P "$(nproc)" -L 1 sh -c 'qemu-aarch64 -cpu "$0" "./$1" >"$1.$0.out" 2>&1 || echo "$1 on $0 ended with $?" >>failed.out' <runs
for said in test_*.out; do
    echo "$said"
    cat "$said"
done
[ ! -e failed.out ] || { cat failed.out; exit 1; }
for isa in cortex-a53:neon cortex-a76:neondot max:neonbf16; do
    grep -q "this machine: ${isa#*:}$" "test_isa.${isa%:*}.out" || { echo "${isa%:*} is not seen as ${isa#*:}"; exit 1; }
done
