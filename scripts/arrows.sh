#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Who may include whom: reads every `#include "folder/..."` in src/ and fails on an arrow that the table does not allow, with the line.
# Families, tasks and dataset formats (model/, env/, data/) never include one another; public headers include public headers only.
#
#   scripts/arrows.sh [ROOT]
set -eu
cd "${1:-$(dirname "$0")/..}"

# A folder may include itself and what stands behind the colon. cmd may include all.
table='
base:
graph: base
device: base graph
nn: base graph
text: base
format: base
transform: base
model: base graph nn text format transform
policy: base graph nn text format transform model device
data: base text format transform
env: base
mpi: base
train: base graph nn text format transform model device policy data env
rl: base graph nn text format transform model device policy data env train
eval: base graph nn text format transform model device policy data env train
serve: base text format transform policy data train
cmd: *
'

find src include -type f \( -name '*.c' -o -name '*.h' -o -name '*.cc' \) | sort | xargs grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]' /dev/null |
    awk -v table="$table" '
    BEGIN {
        rows = split(table, line, "\n")
        for (i = 1; i <= rows; i++) {
            if (split(line[i], half, ":") < 1) continue
            known[half[1]] = 1
            n = split(half[2], to, " ")
            for (j = 1; j <= n; j++) allowed[half[1], to[j]] = 1
        }
    }
    {
        split($0, at, ":")
        file = at[1]
        target = $0
        quoted = target ~ /include[ \t]*"/
        sub(/.*include[ \t]*["<]/, "", target)
        sub(/[">].*/, "", target)
        n = split(file, from, "/")
        m = split(target, to, "/")
        arrows++
    }
    from[1] == "include" {
        if (quoted || (m > 1 && to[1] != "soma") || (m == 1 && target !~ /^(std[a-z]+|math|float|limits|string)\.h$/)) wrong("a public header includes public headers and the C library only")
        next
    }
    !quoted { if (to[1] in known) wrong("our own headers are included in quotes"); next }
    m < 2 { wrong("name the folder: \"" from[2] "/" target "\""); next }
    !(from[2] in known) { wrong("the folder src/" from[2] " is not in the table of scripts/arrows.sh"); next }
    to[1] == "bench" && from[2] == "cmd" { next }
    !(to[1] in known) { wrong("there is no folder src/" to[1]); next }
    to[1] != from[2] && !((from[2], to[1]) in allowed) && !((from[2], "*") in allowed) { wrong(from[2] " must not include " to[1]); next }
    # model/pi0/x.c may include model/family.h and model/pi0/y.h, not model/act/y.h
    to[1] ~ /^(model|env|data)$/ && to[1] == from[2] && m > 2 && (n < 4 || from[3] != to[2]) { wrong("families do not include each other: move what is shared") }
    function wrong(why) { print file ":" at[2] ": #include " target ": " why; bad++ }
    END { printf "%d includes, %d forbidden\n", arrows, bad; exit bad > 0 }
'
