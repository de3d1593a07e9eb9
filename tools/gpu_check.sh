#!/bin/sh
# On a machine with an NVIDIA card: builds the CUDA backend for it, runs every kernel's tests and the solves
# of tests/test_cuda_*.c on the card beside the CPU, the kernels under compute-sanitizer, and the demo's solve
# on both. Then, at LDM-VQ4's size: the time of each convolution (bench/card), beside PyTorch's where the
# Python that PYTHON names (python3) has it, and the memory of a solve (tools/card_memory.sh). The last line
# is `N passed, N failed, N skipped` over the tests. Without a card: status 2.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }
if ! command -v nvidia-smi >/dev/null || ! card=$(nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader); then
    say "gpu-check: no NVIDIA card: nvidia-smi is missing or finds none" >&2
    exit 2
fi
if ! command -v "${NVCC:-nvcc}" >/dev/null; then
    say "gpu-check: no nvcc (CUDA Toolkit 12.4 or later)" >&2
    exit 2
fi
card=$(say "$card" | head -n 1)
architecture=$(say "$card" | awk -F', ' '{ gsub(/\./, "", $3); print $3 }')
say "card: $card"
sh tools/install.sh
build=build/card-$architecture
make -j"$(nproc)" BUILD="$build" CUDA_ARCHITECTURES="$architecture" all cuda card-tests "$build/bench/random_weights"

passed=0 failed=0 skipped=0
run() {
    name=$1
    shift
    code=0
    "$@" >"$build/$name.log" 2>&1 || code=$?
    counts=$(awk '/^\[  PASSED  \] [0-9]+ test/ { p += $4 } /^\[  FAILED  \] [0-9]+ test/ { f += $4 }
                  /^\[  SKIPPED \] [0-9]+ test/ { s += $4 } END { print p + 0, f + 0, s + 0 }' "$build/$name.log")
    # shellcheck disable=SC2086
    set -- $counts
    [ "$code" = 0 ] || [ "$2" != 0 ] || set -- "$1" 1 "$3"
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    say "$name: $1 passed, $2 failed, $3 skipped"
    [ "$2" = 0 ] || tail -n 40 "$build/$name.log" | sed 's/^/    /'
}
for program in "$build"/card/test_cuda_*; do
    [ -x "$program" ] && run "$(basename "$program")" "$program"
done
if command -v compute-sanitizer >/dev/null; then
    run sanitized compute-sanitizer --error-exitcode 1 "$build/card/test_cuda_kernels"
else
    say "skipped: compute-sanitizer is not installed"
fi

for device in cpu cuda; do
    "$build/resample" solve --model models/ct-128 --task_config examples/ct/ct_25_views.yaml \
        --input examples/ct/head_43.png --seed 0 --device "$device" --save_dir "$build/solve-$device" \
        >"$build/solve-$device.log" || failed=$((failed + 1))
    sed "s/^/$device: /" "$build/solve-$device.log"
done

ldm=models/ldm-vq4-256/ldm-vq4-256.yaml
python=${PYTHON:-python3}
pytorch=""
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    pytorch=$build/pytorch.txt
    "$build/card/convolutions" "$ldm" 256 list >"$build/convolutions.txt"
    "$python" bench/card/pytorch.py <"$build/convolutions.txt" >"$pytorch"
else
    say "skipped: PyTorch's times: $python has no torch that finds the card"
fi
# shellcheck disable=SC2086
"$build/card/convolutions" "$ldm" 256 20 $pytorch || failed=$((failed + 1))

"$build/bench/random_weights" "$ldm" "$build/random.safetensors"
sh tools/card_memory.sh "$build/resample" "$ldm" "$build/random.safetensors" tests/data/tasks/gaussian_deblur.yaml \
    256 32 || failed=$((failed + 1))
rm "$build/random.safetensors"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
