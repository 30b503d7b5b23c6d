#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every test of a build folder and ends with one line, "N passed, N failed, N skipped", that counts cases, not programs.
# A cmocka program counts each of its cases; any other test, and a program that ends without its summary, counts as one.
#
#   scripts/test.sh BUILD [ctest options]
set -eu
build=${1:?usage: scripts/test.sh BUILD [ctest options]}
shift
log=$build/test.log

# leaks that the sanitizers see inside foreign libraries, which we cannot mend
export LSAN_OPTIONS="suppressions=$(cd "$(dirname "$0")" && pwd)/lsan.supp:print_suppressions=0"
export ASAN_OPTIONS="allocator_may_return_null=1" # as malloc does: a lying size gets NULL, and the code must live with it
export TSAN_OPTIONS="suppressions=$(cd "$(dirname "$0")" && pwd)/tsan.supp"

status=0
ctest --test-dir "$build" --verbose --parallel "$(nproc)" --no-tests=error "$@" >"$log" 2>&1 || status=$?

awk '
    # "3: text" is a line of test 3; " 3/10 Test  #3: name ....   Passed  0.01 sec" is what CTest makes of it
    /^[0-9]+: / {
        id = $1 + 0
        text[id] = text[id] "    " substr($0, length($1) + 2) "\n"
        if (/\[       OK \]/) ok[id]++
        if (match($0, /\[  SKIPPED \] [0-9]+ test\(s\)/)) { skip[id] = number($0); ended[id] = 1 }
        if (match($0, /\[  FAILED  \] [0-9]+ test\(s\)/)) { bad[id] = number($0); ended[id] = 1 }
        if (/\[  PASSED  \] [0-9]+ test\(s\)/) ended[id] = 1
        if (/\[  SKIPPED \] [^0-9]/ && !index(names[id] " ", " " $NF " ")) names[id] = names[id] " " $NF
    }
    /^ *[0-9]+\/[0-9]+ Test +#[0-9]+:/ {
        match($0, /#[0-9]+:/)
        id = substr($0, RSTART + 1, RLENGTH - 2) + 0
        good = / Passed +[0-9.]+ sec/
        absent = /\*\*\*Skipped|\*\*\*Not Run/ && !/Failed/
        if (/\*\*\*Not Run \(Disabled\)/) good = absent = 0
        if (ended[id]) {
            passed += ok[id]; skipped += skip[id]; failed += bad[id]
            if (!good && !bad[id]) failed++   # all cases passed, but the program failed: a leak, a race, a time limit
        } else if (absent && !/Not Run/) skipped++
        else if (good) passed++
        else { passed += ok[id]; failed++ }
        print
        if (!good && !(absent && !/Not Run/)) printf "%s", text[id]
        if (names[id] != "") print "      skipped:" names[id]
    }
    /^Total Test time/ { print }
    function number(line) { sub(/.*\] /, "", line); return line + 0 }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped; exit failed > 0 || passed == 0 }
' "$log" || status=1
exit "$status"
