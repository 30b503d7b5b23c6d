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
for dir in "$goldens"/pi0_tiny "$goldens"/pi05_tiny; do
    [ -f "$dir/outputs.safetensors" ] || continue
    echo "== ${dir##*/}"
    "$build/soma" trace --policy "$dir" --inputs "$dir/inputs.safetensors" --against "$dir/outputs.safetensors" || status=1
    if [ -f "$dir/outputs_bf16.safetensors" ]; then
        echo "== ${dir##*/}, bf16 products"
        "$build/soma" trace --policy "$dir" --dtype bf16 --inputs "$dir/inputs.safetensors" --against "$dir/outputs_bf16.safetensors" || status=1
    fi
    n=$((n + 1))
done
echo "parity: $n goldens compared in $goldens"
exit $status
