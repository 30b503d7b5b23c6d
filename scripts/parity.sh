#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One table of every comparison with the reference outputs beside the tree: the tests that hold something against ../shared/golden and
# ../shared/golden-families print a row for each tensor, here they are run and their rows collected. Then, for each tensor of those files that
# has no row, why: what is not explained counts as a failure. Says so and succeeds where there are no goldens.
#
#   scripts/parity.sh BUILD [--json]
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "${1:?usage: scripts/parity.sh BUILD [--json]}" && pwd) || exit 1
json=${2:-}
goldens=$root/../shared/golden
if [ ! -d "$goldens" ]; then
    echo "parity: there are no goldens at $goldens: nothing was compared"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

broken=
for source in $(cd "$root" && grep -lE '"golden/(golden|traced|generator|families)\.h"' tests/*/test_*.c); do
    test=$(basename "$source" .c)
    "$build/$test" >"$work/out" 2>&1 || broken="$broken $test"
    sed -n 's/^parity //p' "$work/out" >>"$work/rows"
done

# What has no row: "file tensor", and why.
(cd "$goldens" && find . ../golden-families -name '*.safetensors' ! -path './fast/*' | sed 's,^\./,,' | sort) | while read -r file; do
    "$build/soma" inspect "$goldens/$file" --json | sed -n "s,^ *\"name\": \"\(.*\)\".*,$file \1,p"
done | awk -v rows="$work/rows" '
BEGIN { while ((getline line < rows) > 0) { split(line, f); seen[f[1] " " f[2]] = 1 } }
$0 in seen { next }
$1 ~ /\/(model|inputs[a-z_]*)\.safetensors$/ { why = "weights and inputs: fed" }
$1 ~ /^(policy_e2e|preprocess)\// && $2 ~ /(^|\.)(in|short_in|un_in|stats|obs)\.|^(noise|state|input_f32|gripper\.lin|batch[0-9])$|\.input$|model_actions$/ { why = "inputs and statistics: fed" }
$1 ~ /^preprocess\/delta/ && $2 ~ /\.(state|actions)(32)?$/ { why = "inputs and statistics: fed" }
$1 ~ /^lora\// && $2 ~ /(\.w|lora_[ab]|^x|^encoded|\.linear|\.gating_einsum)$/ { why = "weights and inputs: fed" }
$1 ~ /^gemma_block/ && $2 ~ /^(position_ids|(att|pad)_masks)$/ { why = "weights and inputs: fed" }
$2 ~ /^(toy\.|rtc\.prev_chunk|rtc\.train_prefix_mask$)|^case[0-9]\.prev$/ { why = "inputs: fed" }
$1 ~ /\/schedulers\.safetensors$/ && $2 ~ /^(x|model_output|variance_noise)$/ { why = "inputs: fed" }
$1 ~ /\/schedulers\.safetensors$/ && $2 ~ /\.v_prediction\.|_eta1$/ { why = "no setting of LeRobot: it predicts epsilon or sample, and steps DDIM with eta 0" }
$1 ~ /\/diffusion_tiny\/outputs/ && $2 ~ /^infer\.step[0-9]+\.t$/ { why = "the steps of schedulers.safetensors, which has rows" }
$1 ~ /\/smolvla_tiny\/outputs/ && $2 ~ /^prep\.(images|masks)$/ { why = "what the network is fed" }
$1 ~ /\/smolvla_tiny\/outputs/ && $2 == "vision_position_ids" { why = "a whole picture has all places in order; embeddings have rows" }
{ if (why == "") why = "NOT COMPARED: " $2; n[$1 "\t" why]++; why = "" }
END { for (k in n) print n[k] "\t" k }' | sort -k 2 >"$work/rest"

awk -v json="$json" -v broken="$broken" -v rest="$work/rest" '
function number(x) { return x ~ /^[0-9]/ ? x : "null" } # JSON has no nan
BEGIN {
    if (json) printf "{\"rows\": ["
    else printf "%-38s %-50s %-6s %8s %8s %8s\n", "file", "tensor", "by", "largest", "rel. L2", "allowed"
}
{
    n++
    bad += $8 != "ok"
    if (json)
        printf("%s\n{\"file\": \"%s\", \"tensor\": \"%s\", \"by\": \"%s\", \"max_abs\": %s, \"relative_l2\": %s, \"allowed\": %s, \"of\": \"%s\", \"ok\": %s}",
            (n > 1 ? "," : ""), $1, $2, $3, number($4), number($5), $6, $7, ($8 == "ok" ? "true" : "false"))
    else print
    files[$1]++
}
END {
    for (name in files) m++
    if (json) printf "\n], \"not_compared\": ["
    else print ""
    while ((getline line < rest) > 0) {
        split(line, f, "\t")
        lost = f[3] ~ /^NOT COMPARED/
        n_lost += lost
        if (json)
            printf("%s\n{\"file\": \"%s\", \"tensors\": %d, \"why\": \"%s\"}", (n_rest++ ? "," : ""), f[2], f[1], f[3])
        else printf "no row: %-38s %3d tensors  %s\n", f[2], f[1], f[3]
    }
    if (json)
        printf "\n], \"compared\": %d, \"files\": %d, \"failed\": %d, \"unexplained\": %d, \"broken_tests\": \"%s\"}\n", n, m, bad, n_lost, broken
    else {
        if (broken) print "these tests stopped at their first FAIL or for another reason; what they had yet to compare is missing above:" broken
        printf "parity: %d comparisons in %d files, %d within tolerance, %d not; %d tensors without a row and without a reason\n", n, m, n - bad, bad, n_lost
    }
    exit bad || n_lost || broken != "" || n == 0
}' "$work/rows"
