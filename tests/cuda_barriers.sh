#!/bin/sh
# Removes each barrier and each wait for cp.async of CUDA sources, one at a time, in a copy of this tree, and
# runs a test there: it must fail, or nothing needs the barrier. Minutes long, so no part of the suite.
#   sh tests/cuda_barriers.sh TEST FILE ...       sh tests/cuda_barriers.sh test_cuda_kernels kernels/cuda/*.cu*
set -eu
cd "$(dirname "$0")/.."
test=$1
shift
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
make "build/tests/$test" NVCC= >/dev/null
cp -a . "$copy"

pattern='(__syncthreads|__syncwarp|copy_async_wait[_a-z]*(<[^>]*>)?)\(\);'
survivors=0
for place in $(grep -nE "$pattern" /dev/null "$@" | cut -d: -f1,2); do
    file=${place%:*}
    line=${place#*:}
    sed -i -E "${line}s/($pattern)/;/" "$copy/$file"
    make -C "$copy" "build/tests/$test" NVCC= >/dev/null
    if "$copy/build/tests/$test" >"$copy/log" 2>&1; then
        echo "not missed: $place: $(sed -n "${line}p" "$file")"
        survivors=$((survivors + 1))
    else
        echo "missed:     $place: $(grep '^\[  FAILED  \] [a-z]' "$copy/log" | sort -u | cut -c14- | tr '\n' ' ')"
    fi
    cp "$file" "$copy/$file"
done
[ "$survivors" = 0 ]
