#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The include rule holds in this tree, and scripts/arrows.sh does see what it forbids: each bad arrow below, planted alone, must fail.
#
#   arrows.sh SOURCE_DIR
set -u
source=$1
plant=$(mktemp -d)
trap 'rm -rf "$plant"' EXIT
mkdir -p "$plant/src/nn" "$plant/src/model/pi0" "$plant/src/model/act" "$plant/src/env/touch" "$plant/include/soma"

status=0
"$source/scripts/arrows.sh" "$source" || status=1

refuses() { # file line
    printf '%s\n' "$2" >"$plant/$1"
    if "$source/scripts/arrows.sh" "$plant" >/dev/null; then
        echo "not refused: $2 in $1"
        status=1
    fi
    rm "$plant/$1"
}
refuses src/nn/linear.c '#include "device/device.h"'
refuses src/model/pi0/model.c '#include "model/act/model.h"'
refuses src/env/touch/task.c '#include "format/png.h"'
refuses src/nn/linear.c '#include <graph/graph.h>'
refuses src/nn/linear.c '#include "linear.h"'
refuses include/soma/soma.h '#include "base/base.h"'
refuses include/soma/soma.h '#include <jansson.h>'
printf '#include "graph/graph.h"\n#include <soma/base.h>\n#include <math.h>\n' >"$plant/src/nn/linear.c"
"$source/scripts/arrows.sh" "$plant" >/dev/null || { echo "an allowed arrow was refused"; status=1; }
exit $status
