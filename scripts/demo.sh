#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The whole way once: record demonstrations, train a policy on them, serve it, drive unseen scenes through the server, report.
# Leaves report.html, rollout.mp4 and result.json in the output folder. Fails only when a stage fails, not when a policy is bad.
#
#   scripts/demo.sh BUILD [--out DIR] [--task NAME] [--episodes N] [--image N] [--scatter S] [--steps N] [--seed N] [--seeds N] [--execute K]
#                         [-- options of soma train]
#
# --episodes demonstrations with pictures of --image pixels, a share S of them not from home; --steps of training from --seed; --seeds scenes,
# --execute actions of each chunk. A second task starts from the first one's policy, which already looks at what is named:
#
#   scripts/demo.sh BUILD --out pick --task pick_place --episodes 3000 --scatter 0.5 --steps 6000 -- --init demo/policy --mean-steps 0
set -eu
build=${1:?usage: scripts/demo.sh BUILD [options]; its head lists them}
shift
out=demo task=touch_color episodes=1500 image=64 scatter=0.8 steps=7500 seed=0 seeds=100 execute=10
# the shapes of nano in src/model/pi0/config.c; 0.24 million observations, each with two draws of noise and time after the first 2500 steps
recipe="--batch 32 --draws 2 --mean-steps 2500 --lr 1e-3 --lr-end 1e-5 --warmup 200 --beta2 0.99 --ema 0.998 --eval-every 500 --save-every 2000"
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2 ;;
    --task) task=$2 ;;
    --episodes) episodes=$2 ;;
    --image) image=$2 ;;
    --scatter) scatter=$2 ;;
    --steps) steps=$2 ;;
    --seeds) seeds=$2 ;;
    --seed) seed=$2 ;;
    --execute) execute=$2 ;;
    --) shift && break ;;
    *) echo "demo: $1 is not an option here" >&2 && exit 2 ;;
    esac
    shift 2
done
soma=$build/soma

# Only what this script makes is removed: the folder may be the user's.
mkdir -p "$out"
rm -rf "$out/data" "$out/policy" "$out/untrained"
rm -f "$out"/report.html "$out"/rollout.mp4 "$out"/result.json "$out"/untrained.json "$out"/trained.json "$out"/wrong_prompt.json

server=
stop_server() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    server=
}
trap stop_server EXIT
trap 'exit 130' INT TERM

stages=
began=$(date +%s)
stage() { # name, command...: runs it and notes its seconds
    name=$1
    shift
    echo "== $name"
    start=$(date +%s)
    "$@" || { echo "demo: the stage \"$name\" failed" >&2 && exit 1; }
    stages="$stages \"$name\": $(($(date +%s) - start)),"
}

start_server() { # policy: on a free port; sets $address
    "$soma" serve --policy "$1" --port 0 >"$out/server.log" 2>&1 &
    server=$!
    address=
    for _ in $(seq 600); do
        address=$(sed -n 's/^listening on //p' "$out/server.log")
        [ -z "$address" ] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$out/server.log" >&2
    return 1
}

evaluate() { # label, result file, options...
    label=$1 file=$2
    shift 2
    "$soma" eval --server "$address" --task "$task" --seeds "$seeds" --image "$image" --execute "$execute" --label "$label" \
        --out "$out/$file.json" "$@"
}

stage record "$soma" record --task "$task" --episodes "$episodes" --image "$image" --scatter "$scatter" --seed 0 --out "$out/data"
stage train "$soma" train --family pi0 --preset nano --data "$out/data" --out "$out/policy" --steps "$steps" --seed "$seed" $recipe "$@"
stage initialise "$soma" train --family pi0 --preset nano --data "$out/data" --out "$out/untrained" --steps 0 --seed "$seed" "$@" --steps 0

stage serve_untrained start_server "$out/untrained"
stage eval_untrained evaluate untrained untrained
stop_server
stage serve start_server "$out/policy"
stage eval_wrong_prompt evaluate "trained, wrong prompt" wrong_prompt --wrong-prompt
stage eval evaluate trained trained --report "$out/report.html" --video "$out/rollout.mp4" --films 6 --curves "$out/policy" \
    --compare "$out/wrong_prompt.json,$out/untrained.json"
stop_server

measure() { # key, result file, measure within it
    printf '  "%s": {' "$1"
    sed -n "/^  \"$3\": {/,/^  }/p" "$out/$2.json" | sed '1d;$d' | tr -s ' \n' ' '
    echo '},'
}
{
    echo '{'
    measure success_policy trained success
    measure success_untrained untrained success
    measure success_wrong_prompt wrong_prompt success
    measure touched_prompted wrong_prompt prompted
    echo "  \"seconds\": {$stages \"total\": $(($(date +%s) - began))}"
    echo '}'
} >"$out/result.json.part"
mv "$out/result.json.part" "$out/result.json"

echo
awk '/"rate"/ {
    match($0, /"[a-z_]+"/)
    name = substr($0, RSTART + 1, RLENGTH - 2)
    gsub(/[^0-9.e+ -]/, " ")
    n = split($0, v, " ")
    printf "%-22s %6.1f %%   95 %%: %5.1f to %5.1f %%   n = %d\n", name, 100 * v[n - 3], 100 * v[n - 2], 100 * v[n - 1], v[n]
}' "$out/result.json"
echo "seconds:$stages total $(($(date +%s) - began))" | tr -d '",'
echo "$out/report.html  $out/rollout.mp4  $out/result.json"
