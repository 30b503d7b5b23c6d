#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of a build folder for some seconds on a copy of its corpus; stops at the first crash and keeps the input that caused it.
#
#   scripts/fuzz.sh BUILD [SECONDS]
set -eu
cd "$(dirname "$0")/.."
build=${1:?usage: scripts/fuzz.sh BUILD [SECONDS]}
seconds=${2:-30}
n=0
for target in "$build"/fuzz_*; do
    [ -x "$target" ] && [ ! -d "$target" ] || continue
    parser=${target##*/fuzz_}
    found=$build/corpus/$parser
    mkdir -p "$found"
    echo "fuzz: $parser for $seconds s"
    "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -artifact_prefix="$build/crash-$parser-" \
        "$found" "tests/fuzz/corpus/$parser" >"$build/fuzz-$parser.log" 2>&1 ||
        { tail -40 "$build/fuzz-$parser.log"; echo "fuzz: $parser failed; the input is $build/crash-$parser-*"; exit 1; }
    grep -E 'number_of_executed_units|new_units_added' "$build/fuzz-$parser.log"
    n=$((n + 1))
done
echo "fuzz: $n targets, no crash"
[ $n -gt 0 ]
