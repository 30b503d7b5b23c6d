#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# FAST's claim at our scale: does a policy that writes its chunks as tokens learn better with FAST than with bins, and how does it stand
# beside the flow? One-second chunks of touch_color at 10 and 50 Hz, the same demonstrations, seeds and steps for all three; every look at
# the held-out episodes is evaluated in unseen scenes. All start from one vision-language model (pi0's first phase on the demo's task at
# 20 Hz), as pi0 and pi0-FAST started from PaliGemma: from nothing the token policies learn no prompt in 190,000 observations.
#
#   scripts/fast_claim.sh BUILD [--out DIR] [--rates "10 50"] [--kinds "fast bins flow"] [--seeds "0 1 2"] [--steps N] [--looks N]
#                         [--scenes N] [--threads N]
#
# Leaves OUT/table.txt and OUT/<kind><rate>_<seed>.curve (step, success, its 95 % interval, ms per chunk). What is there is not made again.
set -eu
build=${1:?usage: scripts/fast_claim.sh BUILD [options]; its head lists them}
shift
soma=$(cd "$build" && pwd)/soma
out=fast_claim rates="10 50" kinds="fast bins flow" seeds="0 1 2" steps=2000 looks=250 scenes=100 threads=0 episodes=1500 vlm_steps=2500
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2 ;;
    --rates) rates=$2 ;;
    --kinds) kinds=$2 ;;
    --seeds) seeds=$2 ;;
    --steps) steps=$2 ;;
    --looks) looks=$2 ;;
    --scenes) scenes=$2 ;;
    --threads) threads=$2 ;;
    *) echo "fast_claim: $1 is not an option here" >&2 && exit 2 ;;
    esac
    shift 2
done
mkdir -p "$out"
cd "$out"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
recipe="--preset nano --batch 32 --lr 1e-3 --lr-end 1e-5 --warmup 200 --beta2 0.99 --ema 0.998 --threads $threads"

record() { # rate
    [ -f "data$1/meta/info.json" ] ||
        "$soma" record --task touch_color --episodes "$episodes" --image 64 --scatter 0.8 --rate "$1" --threads "$threads" --out "data$1"
}

# Words and state bins of all policies: a vocabulary of pi0-FAST's, made by a training of no steps.
vision_language_model() {
    record 20
    [ -f words/vocab.json ] || "$soma" train --family pi0_fast --preset nano --action-tokenizer bins --data data20 --out words --steps 0
    echo '{"vocab_size": 2048}' >flow.json
    [ -f vlm/model.safetensors ] || "$soma" train --family pi0 --model flow.json --text-tokenizer words --data data20 --out vlm \
        --steps "$vlm_steps" --mean-steps "$vlm_steps" $recipe --lr-end 1e-4
}

tokenizer() { # rate: one second of it
    [ -f "fast$1/tokenizer.json" ] ||
        "$soma" fast fit --data "data$1" --horizon "$1" --scale 10 --vocab 1024 --threads "$threads" --out "fast$1"
}

look() { # run, rate, step: the weights of the last look, in unseen scenes
    rm -rf "$1.look"
    cp -r "$1" "$1.look"
    "$soma" eval --policy "$1.look" --task touch_color --rate "$2" --image 64 --execute $(($2 / 2)) --seeds "$scenes" \
        --threads "$threads" --out "$1.$3.json" >/dev/null 2>&1
    # "rate" of the first object, success; act_ms
    sed -n '/"success": {/,/}/s/^ *"\(rate\|low\|high\)": \([0-9.e-]*\),*$/\2/p;/"act_ms"/s/.*: \([0-9.e-]*\),*$/\1/p' "$1.$3.json" |
        sed -n '1,4p' | tr '\n' ' ' | sed "s/^/$3 /;s/ \$/\n/" >>"$1.curve"
    rm -rf "$1.look"
}

train() { # kind, rate, seed
    local run=$1$2_$3 tokens kind rate seed trainer looked step
    [ -f "$run.done" ] && return 0
    rm -rf "$run" "$run.curve"
    case $1 in
    flow) set -- "$@" --family pi0 --model flow.json --draws 2 ;;
    fast) tokens=$((2 * $2 / 5 + 28)) && set -- "$@" --family pi0_fast --action-tokenizer "fast$2" ;;
    bins) tokens=$((7 * $2 + 10)) && set -- "$@" --family pi0_fast --action-tokenizer bins ;;
    esac
    kind=$1 rate=$2 seed=$3
    shift 3
    if [ "$kind" != flow ]; then
        echo "{\"max_decoding_steps\": $tokens, \"max_token_len\": 36}" >"$kind$rate.json"
        set -- "$@" --model "$kind$rate.json"
    fi
    echo "== $run"
    "$soma" train "$@" $recipe --data "data$rate" --vlm vlm --horizon "$rate" --normalise openpi_quantile --out "$run" --seed "$seed" \
        --steps "$steps" --eval-every "$looks" --save-every "$steps" --keep last >"$run.log" 2>&1 &
    trainer=$!
    looked=0
    while kill -0 $trainer 2>/dev/null || [ "$looked" -lt "$steps" ]; do
        step=$(grep eval_loss "$run/metrics.jsonl" 2>/dev/null | tail -1 | sed 's/.*"step": \([0-9]*\).*/\1/')
        if [ "${step:-0}" -gt "$looked" ]; then
            look "$run" "$rate" "$step"
            looked=$step
            tail -1 "$run.curve"
        elif ! kill -0 $trainer 2>/dev/null; then
            break # it failed
        fi
        sleep 1
    done
    wait $trainer || { tail -2 "$run.log" >&2 && exit 1; }
    touch "$run.done"
}

# One line a run: what it was given, when it reached 60 %, where it ended.
table() {
    local run hz tokens flops
    echo "run          tokens/chunk  GFLOP/sample  steps to 60 %  TFLOP to 60 %  steps  TFLOP  success (95 %)           ms per chunk"
    for run in $(ls -- *.done 2>/dev/null | sed 's/\.done$//'); do
        case $run in
        flow*) tokens=- ;;
        bins*) hz=${run#bins} && tokens=$((7 * ${hz%_*})) ;;
        fast*) hz=${run#fast} && tokens=$(sed -n 's/^tokens //p' "fast${hz%_*}.stats") ;;
        esac
        flops=$(tr '\r' '\n' <"$run.log" | sed -n 's/.*, \([0-9.]*\) GFLOP per sample.*/\1/p' | tail -1)
        awk -v run="$run" -v tokens="$tokens" -v flops="$flops" '
            $2 >= 0.6 && !reached { reached = $1 }
            { step = $1; rate = $2; low = $3; high = $4; ms = $5 }
            END {
                per = flops * 32 / 1000
                printf "%-12s %12s %13.3f %14s %14s %6d %6.1f  %5.1f %% (%.1f to %.1f) %14.1f\n", run, tokens, flops, reached ? reached : "-",
                    reached ? sprintf("%.1f", reached * per) : "-", step, step * per, 100 * rate, 100 * low, 100 * high, ms
            }' "$run.curve"
    done
}

vision_language_model
for rate in $rates; do
    record "$rate"
    tokenizer "$rate"
    "$soma" fast stats --data "data$rate" --tokenizer "fast$rate" --no-curve --json >"fast$rate.json.part"
    sed -n 's/.*"mean": \([0-9.]*\).*/tokens \1/p' "fast$rate.json.part" | head -1 >"fast$rate.stats"
    rm "fast$rate.json.part"
done
for seed in $seeds; do
    for rate in $rates; do
        for kind in $kinds; do
            train "$kind" "$rate" "$seed"
            table >table.txt
        done
    done
done
cat table.txt
