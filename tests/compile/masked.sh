#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A processor that lacks an instruction set never executes it. First by reading: no object of the libraries holds an instruction of a set that
# its name does not say. Then by running: the op table and the kernels' tests on processors that lack AVX-512, and AVX (qemu; one instruction
# too many is an illegal one). Exits 77, "skipped", on other processors than x86-64; says so where qemu is absent.
#
#   masked.sh BUILD_DIR
set -eu
build=$1
[ "$(uname -m)" = x86_64 ] || { echo "skipped: these are x86-64's instruction sets"; exit 77; }

# ---- reading: what an instruction needs, against what the object's name allows (peak_loops: the function's name, since one file holds a
# loop for each set, entered only where cpu_multiply_here says so)
cat >"$build/masked.awk" <<'AWK'
function allowed(name) {
    return name ~ /_amx|^tile_/ ? 5 : name ~ /_avx512bf16|^dot_bf16|^vnni_/ ? 4 : name ~ /_avx512/ ? 3 : name ~ /_avx2/ ? 2 : 1
}
function needed(word, line) {
    if (line ~ /%tmm|tilecfg|tilerelease/) return 5
    if (word ~ /bf16|^vpdp/) return 4
    if (line ~ /%zmm|%[xy]mm(1[6-9]|2[0-9]|3[01])|%k[0-7]/) return 3
    return word ~ /^v/ && word !~ /^ver[rw]$/ || line ~ /%ymm/ ? 2 : 1
}
/file format/ { object = $1; sub(/:$/, "", object); level = allowed(object); objects++ }
/^[0-9a-f]+ <.*>:$/ && object ~ /^peak_loops/ { name = $2; gsub(/[<>:]/, "", name); level = allowed(name) }
/^ *[0-9a-f]+:\t/ {
    word = $2
    need = needed(word, $0)
    if (need > most[level]) most[level] = need
    if (need > level) { print object ": " $0; bad++ }
}
END {
    for (l = 2; l <= 5; l++)
        if (most[l] != l) { print "no instruction of kind " l " where it belongs: this reading does not see"; bad++ }
    printf "%d objects read, %d instructions where they do not belong\n", objects, bad
    exit bad > 0 || objects < 100
}
AWK
objdump -d --no-show-raw-insn "$build"/libsoma_*.a | awk -f "$build/masked.awk"

# ---- running
command -v qemu-x86_64 >/dev/null 2>&1 || { echo "not run on other processors: qemu-x86_64 is not installed (scripts/deps.sh)"; exit 0; }
cd "$build"
run() { # processor, the set it is to run as, tests
    processor=$1 isa=$2
    shift 2
    for test in "$@"; do
        qemu-x86_64 -cpu "$processor" "./$test" >masked.out 2>&1 || { cat masked.out; echo "$test failed on a $processor"; exit 1; }
        [ "$test" != test_isa ] || grep -q "this machine: $isa$" masked.out || { cat masked.out; exit 1; }
    done
    echo "a $processor runs as $isa"
}
run Nehalem plain test_isa test_ops                               # SSE 4.2
run Haswell avx2 test_isa test_fast_quant test_fast_norm test_ops # AVX2 and FMA
