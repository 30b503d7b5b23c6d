#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libsoma as those outside get it: installed to a scratch prefix, it shows the functions of its headers and nothing else, links through
# pkg-config and through find_package, and answers from C, C++ and Python as one on the same checkpoint. Prints cmocka's lines.
#
#   install.sh CMAKE SOURCE_DIR BUILD_DIR CC CXX SCRATCH_DIR
set -u
cmake=$1 source=$2 build=$3 cc=$4 cxx=$5 scratch=$6
prefix=$scratch/prefix
ok=0 bad=0 skipped=0
rm -rf "$scratch"
mkdir -p "$scratch"

case_of() { # name function
    echo "[ RUN      ] $1"
    "$2" >"$scratch/$2.log" 2>&1
    case $? in
    0) echo "[       OK ] $1"; ok=$((ok + 1)) ;;
    77) cat "$scratch/$2.log"; echo "[  SKIPPED ] $1"; skipped=$((skipped + 1)) ;;
    *) cat "$scratch/$2.log"; echo "[  FAILED  ] $1"; bad=$((bad + 1)) ;;
    esac
}

installs() {
    "$cmake" --install "$build" --prefix "$prefix" && lib=$(dirname "$(find "$prefix" -name libsoma.so)") && [ -e "$lib/libsoma.a" ]
}

# declarations begin a line of the header; what the .so defines is what nm tells
symbols() {
    cat "$prefix"/include/soma/*.h | grep -v '^ *\(//\|#\|typedef\)' | grep -oE '\bsoma_[a-z_]+\(' | tr -d '(' | sort -u >"$scratch/declared"
    nm -D --defined-only "$lib/libsoma.so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$scratch/shown"
    diff "$scratch/declared" "$scratch/shown"
}

export_path() { PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib "$@"; }

by_pkg_config() {
    flags=$(export_path pkg-config --cflags --libs soma) || return 1
    # shellcheck disable=SC2086
    "$cc" -std=c11 "$source/examples/act.c" $flags -o "$scratch/act" && export_path "$scratch/act" "$scratch/policy"
}

by_find_package() {
    mkdir -p "$scratch/outside"
    cat >"$scratch/outside/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.20)
project(outside CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(soma 0.1 REQUIRED)
add_executable(act_many $source/examples/act_many.cc)
target_link_libraries(act_many PRIVATE soma::soma)
EOF
    "$cmake" -S "$scratch/outside" -B "$scratch/outside/build" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_PREFIX_PATH="$prefix" &&
        "$cmake" --build "$scratch/outside/build" && "$scratch/outside/build/act_many" "$scratch/policy"
}

from_python() {
    python3 -c 'import numpy' 2>/dev/null || { echo "python3 with numpy is not installed"; return 77; }
    cat >"$scratch/sizes.c" <<EOF
#include <soma/soma.h>
#include <stdio.h>
int main(void) {
    printf("%zu %zu %zu %zu %zu\\n", sizeof(soma_error), sizeof(soma_policy_info), sizeof(soma_image), sizeof(soma_obs), sizeof(soma_actions));
    return 0;
}
EOF
    "$cc" "$scratch/sizes.c" -I"$prefix/include" -o "$scratch/sizes" || return 1
    PYTHONPATH=$prefix/share/soma/python export_path python3 "$source/tests/compile/binding.py" "$lib/libsoma.so" "$scratch/policy" \
        "$scratch/act" "$scratch/sizes"
}

case_of installs installs
"$build/soma" init --family pi0 --preset nano --out "$scratch/policy" >"$scratch/init.log" 2>&1 || cat "$scratch/init.log"
case_of symbols symbols
case_of pkg_config by_pkg_config
case_of find_package by_find_package
case_of python from_python
rm -rf "$scratch/policy" "$prefix"
[ $skipped = 0 ] || printf '[  SKIPPED ] %d test(s), listed below:\n[  SKIPPED ] python\n' $skipped
echo "[  PASSED  ] $ok test(s)."
[ $bad = 0 ] || printf '[  FAILED  ] %d test(s), listed below:\n' $bad
[ $bad = 0 ]
