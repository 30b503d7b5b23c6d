#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of a build folder for some seconds on a copy of its corpus, as many at a time as there are processors; stops at the
# first crash and keeps the input that caused it.
#
#   scripts/fuzz.sh BUILD [SECONDS [TARGET]]
set -eu
cd "$(dirname "$0")/.."
build=${1:?usage: scripts/fuzz.sh BUILD [SECONDS [TARGET]]}
seconds=${2:-30}
export LSAN_OPTIONS="suppressions=$PWD/scripts/lsan.supp:print_suppressions=0" # leaks inside foreign libraries
if [ $# -ge 3 ]; then
    parser=${3##*/fuzz_}
    found=$build/corpus/$parser
    log=$build/fuzz-$parser.log
    mkdir -p "$found"
    "$3" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -artifact_prefix="$build/crash-$parser-" \
        "$found" "tests/fuzz/corpus/$parser" >"$log" 2>&1 ||
        { tail -40 "$log"; echo "fuzz: $parser failed; the input is $build/crash-$parser-*"; exit 255; } # 255: xargs starts no others
    echo "fuzz: $parser: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, $(sed -n 's/^stat::new_units_added: *//p' "$log") of them new"
    exit 0
fi
# Debian's libhdf5 1.10 is itself not clean on damaged files (overlapping copies within minutes): its target is run by name
targets=$(find "$build" -maxdepth 1 -name 'fuzz_*' ! -name fuzz_hdf5 -type f -perm -u+x | sort)
n=$(printf '%s\n' "$targets" | grep -c .)
echo "fuzz: $n targets for $seconds s each"
printf '%s\n' "$targets" | xargs -P "$(nproc)" -I{} "$0" "$build" "$seconds" {}
echo "fuzz: $n targets, no crash"
