#!/bin/sh
# Compiles CUDA sources for every architecture that a release is built for, without linking, and prints what
# ptxas says of each kernel. Fails if one does not compile without a warning or spills registers.
#   NVCC=nvcc sh tools/cuda_report.sh FILE.cu ...
set -eu
cd "$(dirname "$0")/.."
[ -n "${NVCC:-}" ] || {
    echo "cuda-report: there is no nvcc here" >&2
    exit 1
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

targets=""
for architecture in 80 86 89 90 100 120; do
    targets="$targets -gencode arch=compute_$architecture,code=sm_$architecture"
done
printf '%-9s %5s %7s %6s %6s  %s\n' arch regs shared stack spills kernel
for source in "$@"; do
    # shellcheck disable=SC2086
    "$NVCC" -std=c++17 -Werror all-warnings -Xptxas -v -I. $targets -c "$source" -o "$folder/object.o" \
        2>"$folder/log" || {
        cat "$folder/log" >&2
        exit 1
    }
    cat "$folder/log"
done | awk '
    function after(word,   i) {
        for (i = 1; i < NF; i++)
            if (index($(i + 1), word) == 1)
                return $i
        return 0
    }
    /Compiling entry function/ {
        split($0, quoted, "\047")
        kernel = quoted[2]
        architecture = quoted[4]
    }
    /bytes stack frame/ {
        stack = $1
        spills = $5 + $9
        failed = failed || spills > 0
    }
    /Used [0-9]+ registers/ {
        shared = 0
        for (i = 2; i <= NF; i++)
            if (index($i, "smem") == 1)
                shared = $(i - 2)
        for (i = 1; i < NF; i++)
            if ($i == "Used")
                registers = $(i + 1)
        printf "%-9s %5d %7d %6d %6d  %s\n", architecture, registers, shared, stack, spills, kernel
    }
    END { exit failed }
' | c++filt
