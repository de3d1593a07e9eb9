#!/bin/sh
# The memory of a solve on a card, as nvidia-smi shows it five times a second, beside the plan and table 4
# of the paper. PROGRAM solves TASK with the official preset twice: for pictures of SIDE pixels, and of
# SMALLEST pixels, which take little beside the networks: "model only". The pictures are gray. What counts
# is the most that nvidia-smi showed for the process; where it shows no processes (in most containers),
# the most of the whole card, less what was in use before.
#   sh tools/card_memory.sh PROGRAM CONFIG.yaml WEIGHTS TASK.yaml SIDE SMALLEST
# CARD_MEMORY_ITERATIONS (100): iterations of each of the solve's optimisations.
set -eu
if [ $# != 6 ]; then
    echo "usage: sh tools/card_memory.sh PROGRAM CONFIG.yaml WEIGHTS TASK.yaml SIDE SMALLEST" >&2
    exit 2
fi
program=$1 config=$2 weights=$3 task=$4 side=$5 smallest=$6
iterations=${CARD_MEMORY_ITERATIONS:-100}
export CUDA_DEVICE_ORDER=PCI_BUS_ID # the first card is nvidia-smi's first

folder=$(mktemp -d)
solve=""
trap '[ -z "$solve" ] || kill "$solve" 2>/dev/null || true; rm -rf "$folder"' EXIT

fail() {
    echo "card_memory: $1" >&2
    exit "${2:-2}"
}

query() {
    nvidia-smi "--query-$1" --format=csv,noheader,nounits >"$folder/answer" 2>&1 ||
        fail "nvidia-smi --query-$1 failed: $(head -n 1 "$folder/answer")"
}

# MiB of a process; nothing where nvidia-smi does not say.
process_mib() {
    query compute-apps=pid,used_memory
    awk -F', *' -v pid="$1" '$1 == pid && $2 ~ /^[0-9]+$/ { sum += $2; known = 1 }
                             END { if (known) print sum }' "$folder/answer"
}

card_mib() {
    query gpu=memory.used
    awk 'NR == 1 && /^[0-9]+$/ { print; known = 1 } END { exit !known }' "$folder/answer" ||
        fail "nvidia-smi does not say how much memory is in use: $(head -n 1 "$folder/answer")"
}

larger() {
    if [ "$1" -gt "$2" ]; then echo "$1"; else echo "$2"; fi
}

# A gray picture of $1 x $1 pixels.
picture() {
    printf '\223NUMPY\001\000\166\000%-117s\n' \
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, $1, $1), }"
    head -c $((3 * 4 * $1 * $1)) /dev/zero
}

# Solves for pictures of $1 pixels: sets `most` (MiB) and `samples`, and `source`, "process" or "card".
watch_solve() {
    picture "$1" >"$folder/picture.npy"
    before=$(card_mib)
    "$program" solve --ldm_config "$config" --diffusion_config "$weights" --task_config "$task" \
        --input "$folder/picture.npy" --device cuda --preset official --ddim_steps 2 --resample-every 1 \
        --pixel-iterations "$iterations" --latent-iterations "$iterations" --save_dir "$folder/out" \
        >"$folder/log" 2>&1 &
    solve=$!
    of_process=0 of_card=$before samples=0
    while kill -0 "$solve" 2>/dev/null; do
        now=$(process_mib "$solve")
        of_process=$(larger "${now:-0}" "$of_process")
        now=$(card_mib)
        of_card=$(larger "$now" "$of_card")
        samples=$((samples + 1))
        sleep 0.2
    done
    code=0
    wait "$solve" || code=$?
    solve=""
    [ "$code" = 0 ] || fail "the solve of $1 x $1 pixels ended with status $code: $(tail -n 1 "$folder/log")" 1
    source=process most=$of_process
    if [ "$of_process" = 0 ]; then
        source=card most=$((of_card - before))
    fi
}

# MiB that are planned for pictures of $1 pixels, the assumed context included.
planned_mib() {
    "$program" memory --ldm_config "$config" --task_config "$task" --device cuda --preset official --size "$1" \
        --json >"$folder/plan" 2>"$folder/log" || fail "no plan: $(tail -n 1 "$folder/log")" 1
    awk '/"total_bytes"|"assumed_context_bytes"/ { sub(/,/, ""); bytes += $2 }
         END { printf "%.0f\n", bytes / 1048576 }' "$folder/plan"
}

plan_model=$(planned_mib "$smallest")
plan_total=$(planned_mib "$side")
watch_solve "$smallest"
model=$most model_samples=$samples model_source=$source
watch_solve "$side"
[ "$source" = "$model_source" ] || fail "nvidia-smi showed the process in one solve and not in the other" 1

row() {
    printf '%-44s %14s %8s %8s\n' "$@"
}
row "memory of a solve, MiB" "measured here" plan paper
row "model only (here: pictures of $smallest x $smallest)" "$model" "$plan_model" 3969
row "increment ($side x $side)" "$(printf %+d $((most - model)))" "$(printf %+d $((plan_total - plan_model)))" +1040
row total "$most" "$plan_total" 5009
if [ "$source" = process ]; then
    echo "measured: the most of the process's memory in $model_samples and $samples samples of nvidia-smi"
else
    echo "measured: the most of the card's memory in $model_samples and $samples samples of nvidia-smi, less what was in use before"
fi
echo "plan: resample memory, with the context that it assumes; paper: table 4, ReSample with LDM-VQ4, Gaussian deblurring at 256 x 256"
