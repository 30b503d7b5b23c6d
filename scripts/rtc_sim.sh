#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Real-time chunking in simulated time, whole: demonstrations of round_guard, a small policy with chunks of 1.2 s, then every way of executing
# chunks at delays of 0 to 400 ms (0 to 8 control steps of 50 ms), each over the same scenes.
#
#   scripts/rtc_sim.sh BUILD [--out DIR] [--scenes N] [--steps N] [--delays "0 2 4 6 8"] [--execute K] [--threads N]
#
# Leaves OUT/<method>_<delay>.json (soma eval) and OUT/table.txt: success with its Wilson 95 % interval, the difference to naive asynchronous
# execution and to the same method without delay, scene by scene with paired 95 % intervals (Agresti and Min 2005), the mean seam. What is there
# is not made again.
set -eu
build=${1:?usage: scripts/rtc_sim.sh BUILD [options]; its head lists them}
shift
soma=$(cd "$build" && pwd)/soma
out=rtc_sim scenes=100 steps=3500 delays="0 2 4 6 8" execute=4 threads=1
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2 ;;
    --scenes) scenes=$2 ;;
    --steps) steps=$2 ;;
    --delays) delays=$2 ;;
    --execute) execute=$2 ;;
    --threads) threads=$2 ;;
    *) echo "rtc_sim: $1 is not an option here" >&2 && exit 2 ;;
    esac
    shift 2
done
mkdir -p "$out"
cd "$out"

# The state says all that matters, so no pictures are looked at; sizes are those of nano in src/model/pi0/config.c where not told.
cat >model.json <<'END'
{"max_token_len": 8, "vocab_size": 32, "paligemma": {"width": 64, "mlp_dim": 128},
 "vision": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16, "patch_size": 16, "image_size": 16}}
END
[ -f data/meta/info.json ] || "$soma" record --task round_guard --episodes 1500 --image 16 --noise 0.012 --threads "$threads" --out data
[ -f policy/model.safetensors ] || "$soma" train --family pi0 --preset nano --model model.json --cameras none --data data --out policy \
    --horizon 24 --steps "$steps" --batch 64 --draws 2 --lr 1e-3 --lr-end 1e-5 --warmup 200 --beta2 0.99 --ema 0.998 --eval-every 500 \
    --save-every 2000 --threads "$threads"

methods="synchronous async ensemble guided gradient"
evaluate() { # method, delay
    case $1 in
    synchronous) set -- "$1" "$2" --chunks open ;;
    async) set -- "$1" "$2" --chunks async ;;
    ensemble) set -- "$1" "$2" --chunks ensemble ;;
    guided) set -- "$1" "$2" --chunks async --rtc guided ;;
    gradient) set -- "$1" "$2" --chunks async --rtc gradient --gradient ;;
    esac
    name=$1 delay=$2
    shift 2
    [ -f "${name}_$delay.json" ] || "$soma" eval --policy policy --task round_guard --image 16 --seeds "$scenes" --execute "$execute" \
        --delay "$delay" --threads "$threads" --label "$name" --out "${name}_$delay.json" "$@" >/dev/null
}
for delay in $delays; do
    for method in $methods; do evaluate "$method" "$delay"; done
done

# One line a result: every episode's success as 0 or 1, in the order of their seeds; the rate, its interval, the mean seam.
digest() {
    awk '/"seam": {/ { seam = 1 } seam && /"mean":/ { mean = $2 + 0; seam = 0 }
         /"success": {/ { rate = 1 } rate && /"(rate|low|high)":/ { r = r " " ($2 + 0) } /}/ { rate = 0 }
         /"success": true/ { e = e "1" } /"success": false/ { e = e "0" }
         END { print e r, mean }' "$1"
}
first=${delays%% *}
{
    echo "delay ms  method        success (95 %)             minus naive async (95 %)     minus itself at $((50 * first)) ms (95 %)    mean seam, mm"
    for delay in $delays; do
        for method in $methods; do
            { digest "${method}_$delay.json" && digest "async_$delay.json" && digest "${method}_$first.json"; } |
                awk -v ms=$((50 * delay)) -v method="$method" '
                function paired(a, b,   i, n, x, y, d, s) { # a better, b better
                    n = length(a)
                    for (i = 1; i <= n; i++) { x += substr(a, i, 1) > substr(b, i, 1); y += substr(a, i, 1) < substr(b, i, 1) }
                    d = (x - y) / (n + 2)
                    s = 1.96 * sqrt(x + y + 1 - (x - y) ^ 2 / (n + 2)) / (n + 2)
                    return sprintf("%+6.1f (%+6.1f to %+6.1f)", 100 * (x - y) / n, 100 * (d - s < -1 ? -1 : d - s), 100 * (d + s > 1 ? 1 : d + s))
                }
                NR == 1 { e = $1; rate = $2; low = $3; high = $4; seam = $5 }
                NR == 2 { naive = $1 }
                NR == 3 { itself = $1 }
                END { printf "%8d  %-12s %6.1f %% (%5.1f to %5.1f)   %s   %s   %8.2f\n", ms, method, 100 * rate, 100 * low, 100 * high,
                             paired(e, naive), paired(e, itself), 1000 * seam }'
        done
    done
} >table.txt
cat table.txt
