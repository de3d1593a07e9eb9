#!/bin/sh
# Removes each barrier and each wait for cp.async of the tensor-core kernels in turn, in a copy of the tree, and
# runs their tests: a removal that no test notices would be of something redundant. Takes minutes.
#   sh tests/mutate_cuda.sh
set -eu
cd "$(dirname "$0")/.."

files="product.cuh convolution.cuh conv2d.cu attention_narrow.cu attention_wide.cu"
statements='__syncthreads\(\);|__syncwarp\(\);|copy_async_wait<[^;]*>\(\);|copy_async_wait_all\(\);'

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/tree"
tar cf - --exclude=./build --exclude=./.git . | tar xf - -C "$folder/tree"
cd "$folder/tree"

tests_of() {
    case $1 in
    product.cuh) echo "test_cuda_conv2d test_cuda_attention" ;;
    conv*) echo test_cuda_conv2d ;;
    *) echo test_cuda_attention ;;
    esac
}

missed=0
for file in $files; do
    source=kernels/cuda/$file
    cp "$source" "$folder/original"
    for line in $(grep -nE "$statements" "$source" | cut -d: -f1); do
        text=$(sed -n "${line}p" "$source" | sed 's/^ *//')
        sed -E "${line}s/$statements/;/" "$folder/original" >"$source"
        caught=""
        for name in $(tests_of "$file"); do
            if ! make -j2 NVCC= "build/tests/$name" >"$folder/log" 2>&1; then
                echo "$source:$line does not build without it"
                tail -n 5 "$folder/log"
                exit 1
            fi
            if ! timeout 300 "build/tests/$name" >"$folder/log" 2>&1; then
                caught=$name
                break
            fi
        done
        if [ -n "$caught" ]; then
            echo "caught by $caught: $source:$line $text"
        else
            echo "MISSED: $source:$line $text"
            missed=1
        fi
        cp "$folder/original" "$source"
    done
done
exit "$missed"
