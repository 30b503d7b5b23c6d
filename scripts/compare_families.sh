#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What families of policies learn from the same demonstrations in the same wall-clock time, one thread each: touch_color from nothing, then
# pick_place from that policy. How many steps fit into the time is measured with the recipe itself, in small, before.
#
#   scripts/compare_families.sh BUILD [--out DIR] [--families "pi0 act diffusion"] [--seeds "0 1 2"] [--touch S] [--pick S] [--scenes N]
#                               [--train-only]
#
# --touch, --pick: seconds of training. Leaves OUT/<family>_<task>_<seed> (policies), .json beside it (soma eval) and OUT/table.txt: success with
# its Wilson 95 % interval for each training seed, and `acted`: some cube was touched, or put into the bowl, whichever the prompt named; ACT and
# Diffusion Policy read no prompt, so that one of three is right by chance. What is there is not made again. It needs a core of its own.
set -eu
build=${1:?usage: scripts/compare_families.sh BUILD [options]; its head lists them}
shift
soma=$(cd "$build" && pwd)/soma
out=compare families="pi0 act diffusion" seeds="0 1 2" touch=300 pick=360 scenes=100 evaluate=yes
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2 ;;
    --families) families=$2 ;;
    --seeds) seeds=$2 ;;
    --touch) touch=$2 ;;
    --pick) pick=$2 ;;
    --scenes) scenes=$2 ;;
    --train-only) evaluate= && shift && continue ;;
    *) echo "compare_families: $1 is not an option here" >&2 && exit 2 ;;
    esac
    shift 2
done
mkdir -p "$out"
cd "$out"
[ -f touch_color/meta/info.json ] || "$soma" record --task touch_color --episodes 1500 --image 64 --scatter 0.8 --out touch_color
[ -f pick_place/meta/info.json ] || "$soma" record --task pick_place --episodes 3000 --image 64 --scatter 0.5 --out pick_place

# name of the run, steps, options: batch and schedule are the same for all
train() {
    run=$1 steps=$2
    shift 2
    "$soma" train --preset nano --out "$run" --steps "$steps" --batch 32 --lr 1e-3 --lr-end 1e-5 --warmup 200 --beta2 0.99 --ema 0.995 \
        --eval-every 500 --save-every 2000 --threads 1 "$@" >"$run.log" 2>&1
}
recipe() { # family, steps, from nothing or from a policy: the mean first finds what to look at sooner; draws share what was seen
    case $1 in
    pi0) echo "--draws 2 --mean-steps $([ "$3" = nothing ] && echo $(($2 / 3)) || echo 0)" ;;
    diffusion) echo "--draws 4" ;;
    esac
    [ "$3" != nothing ] && echo "--init $3" || echo "--family $1"
}
fitting() { # family, task, seconds, start: steps that fit, from the speed of 60, in a file that says so
    speed=$1_$2.speed
    if [ ! -f "$speed" ]; then
        # shellcheck disable=SC2046
        train measure 60 --data "$2" $(recipe "$1" 60 "$4")
        tail -1 measure/metrics.jsonl | sed 's/.*"samples_per_second": *\([0-9.]*\).*/\1/' >"$speed"
        rm -r measure measure.log
    fi
    awk -v s="$3" '{ printf "%d\n", s * $1 / 32 }' "$speed"
}
for family in $families; do
    for seed in $seeds; do
        first=${family}_touch_color_$seed second=${family}_pick_place_$seed
        if [ ! -f "$first/train_done" ]; then
            steps=$(fitting "$family" touch_color "$touch" nothing)
            # shellcheck disable=SC2046
            train "$first" "$steps" --data touch_color --seed "$seed" $(recipe "$family" "$steps" nothing)
            tail -1 "$first.log" >"$first/train_done"
        fi
        if [ ! -f "$second/train_done" ]; then
            steps=$(fitting "$family" pick_place "$pick" "$first")
            # shellcheck disable=SC2046
            train "$second" "$steps" --data pick_place --seed "$seed" $(recipe "$family" "$steps" "$first")
            tail -1 "$second.log" >"$second/train_done"
        fi
    done
done
[ -n "$evaluate" ] || exit 0

for family in $families; do
    for seed in $seeds; do
        for task in touch_color pick_place; do
            run=${family}_${task}_$seed
            [ -f "$run.json" ] || "$soma" eval --policy "$run" --task "$task" --image 64 --execute 8 --seeds "$scenes" --threads 1 \
                --label "$family" --out "$run.json" >/dev/null 2>&1
        done
    done
done

rate() { # result file, measure
    sed -n "/^  \"$2\": {/,/^  }/p" "$1" | awk '/"rate"/ { r = $2 + 0 } /"low"/ { l = $2 + 0 } /"high"/ { h = $2 + 0 }
        END { printf "%5.1f (%4.1f to %5.1f)", 100 * r, 100 * l, 100 * h }'
}
{
    printf '%-11s  %-10s  %4s  %-22s  %-22s  %s\n' task family seed "success % (95 %)" "acted % (95 %)" "training"
    for task in touch_color pick_place; do
        for family in $families; do
            for seed in $seeds; do
                run=${family}_${task}_$seed
                printf '%-11s  %-10s  %4s  %-22s  %-22s  %s\n' "$task" "$family" "$seed" "$(rate "$run.json" success)" "$(rate "$run.json" acted)" \
                    "$(sed 's/^[^:]*: //; s/, loss.*//' "$run/train_done")"
            done
        done
    done
} >table.txt
cat table.txt
