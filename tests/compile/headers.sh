#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every public header alone, as strict C11 and as C++17, without a warning. Prints cmocka's lines, so that headers are counted as cases.
#
#   headers.sh CC CXX INCLUDE_DIR
set -u
cc=$1 cxx=$2 include=$3
ok=0 bad=0

check() { # name compiler options...
    name=$1
    shift
    if printf '#include <soma/%s>\n' "$header" | "$@" -Wall -Wextra -Werror -pedantic-errors -fsyntax-only -I"$include" -; then
        echo "[       OK ] $name"
        ok=$((ok + 1))
    else
        bad=$((bad + 1))
        failed="${failed:-}[  FAILED  ] $name
"
    fi
}

for path in "$include"/soma/*.h; do
    header=${path##*/}
    check "$header as C11" "$cc" -std=c11 -x c
    check "$header as C++17" "$cxx" -std=c++17 -x c++
done
echo "[  PASSED  ] $ok test(s)."
[ $bad = 0 ] && exit 0
printf '[  FAILED  ] %d test(s), listed below:\n%s' $bad "$failed"
exit 1
