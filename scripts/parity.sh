#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Holds `soma trace` against the reference outputs beside the tree, error per tensor: the goldens of the families that are here. Says so and
# succeeds where there are none.
#
#   scripts/parity.sh BUILD [folder of goldens]
set -eu
build=$(cd "${1:?usage: scripts/parity.sh BUILD [GOLDENS]}" && pwd)
goldens=${2:-$(dirname "$0")/../../shared/golden}
status=0 n=0
hold() { # folder, outputs' suffix, inputs' suffix, options: one file of reference outputs, if it is there
    dir=$goldens/$1 outputs=outputs$2.safetensors inputs=inputs$3.safetensors
    [ -f "$dir/$outputs" ] || return 0
    shift 3
    echo "== ${dir##*/} $outputs $*"
    "$build/soma" trace --policy "$dir" --inputs "$dir/$inputs" --against "$dir/$outputs" "$@" || status=1
    n=$((n + 1))
}
for family in pi0_tiny pi05_tiny; do
    hold $family "" "" --time openpi
    hold $family _lerobot "" --time lerobot
    hold $family _bf16 "" --dtype bf16
done
hold pi0_fast_tiny "" ""
hold pi0_fast_tiny _openpi _openpi
echo "parity: $n files compared in $goldens"
exit $status
