#!/bin/sh
# What the real compiler makes of every .cu file: no warnings, no spills, and tensor-core instructions in
# every kernel that multiplies. Prints registers and shared memory per kernel with -v.
#   sh tests/check_cuda_code.sh [-v] [ARCHITECTURE ...]      (80 86 89 90 100 120)
# Needs nvcc; the disassembly cuobjdump too (CUOBJDUMP=PATH). What is missing is said and skipped.
set -eu
cd "$(dirname "$0")/.."

verbose=""
if [ "${1:-}" = -v ]; then
    verbose=1
    shift
fi
architectures=${*:-80 86 89 90 100 120}
nvcc=${NVCC:-nvcc}
cuobjdump=${CUOBJDUMP:-cuobjdump}
# kernels whose products must not fall back to fmaf
multiplying='convolve<|correlate<|multiply_matrices|attend'

if ! command -v "$nvcc" >/dev/null; then
    echo "skipped: no nvcc"
    exit 0
fi
disassemble=1
if ! command -v "$cuobjdump" >/dev/null; then
    echo "skipped: no cuobjdump, so the machine code is not looked at"
    disassemble=""
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

# "KERNEL: N" tensor instructions of each kernel in an object file
tensor_instructions() {
    "$cuobjdump" -sass "$1" | c++filt |
        awk '/Function :/ { sub(/.*Function : /, ""); name = $0; count[name] = 0 }
             /HMMA/ { count[name]++ }
             END { for (name in count) print name ": " count[name] }'
}

for source in kernels/cuda/*.cu runtime/cuda/*.cu; do
    for architecture in $architectures; do
        object=$folder/object.o
        log=$folder/log
        if ! "$nvcc" -std=c++17 -arch="sm_$architecture" -I. -Werror all-warnings -Xptxas -v -c "$source" \
            -o "$object" >"$log" 2>&1; then
            echo "FAILED $source, sm_$architecture"
            cat "$log"
            failed=1
            continue
        fi
        c++filt <"$log" | awk -v source="$source" -v architecture="$architecture" -v verbose="$verbose" '
            /Compiling entry function/ { sub(/.*function ./, ""); sub(/. for .*/, ""); kernel = $0 }
            /bytes spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ {
                print "SPILLS " source ", sm_" architecture ", " kernel ": " $0
            }
            /Used [0-9]+ registers/ && verbose {
                sub(/.*Used/, "")
                print "sm_" architecture " " kernel ":" $0
            }' >"$folder/report"
        cat "$folder/report"
        if grep -q SPILLS "$folder/report"; then
            failed=1
        fi
        [ -n "$disassemble" ] || continue
        tensor_instructions "$object" | grep -E "$multiplying" >"$folder/report" || true
        if grep ': 0$' "$folder/report"; then
            echo "FAILED $source, sm_$architecture: kernels without tensor-core instructions"
            failed=1
        fi
        [ -z "$verbose" ] || sed "s/^/sm_$architecture tensor instructions: /" "$folder/report"
    done
    echo "looked at $source"
done
exit "$failed"
