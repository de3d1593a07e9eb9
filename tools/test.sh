#!/bin/sh
# Builds and runs every test program (build/tests/test_*) from the repository root, as many at a time as there
# are cores. The last line is the sum over all programs: `N passed, N failed, N skipped`. Fails if anything
# failed; a program that crashes, runs over its time or fails outside its tests counts as one more failure.
#   --asan      the same suite under ASan and UBSan (in build/asan)
#   NAME ...    these programs alone (test_array ...)
set -eu
cd "$(dirname "$0")/.."

build=build
sanitize=""
names=""
for argument in "$@"; do
    case $argument in
    --asan)
        build=build/asan
        sanitize=SANITIZE=1
        ;;
    -* | */*)
        echo "usage: sh tools/test.sh [--asan] [test_NAME ...]" >&2
        exit 2
        ;;
    *) names="$names $argument" ;;
    esac
done
if [ -n "$sanitize" ]; then
    export ASAN_OPTIONS="halt_on_error=1:detect_leaks=1:${ASAN_OPTIONS:-}"
    export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:${UBSAN_OPTIONS:-}"
fi
# On a busy machine threads that spin while they wait cost far more than their work (tools/main.c).
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"
limit_s=${TEST_LIMIT_S:-1800}

chosen=$names
if [ -z "$names" ]; then
    for source in tests/test_*.c; do
        name=${source#tests/}
        names="$names ${name%.c}"
    done
fi
programs=""
for name in $names; do
    programs="$programs $build/tests/$name"
done
# nothing else would tell that a bench no longer builds
[ -n "$sanitize$chosen" ] || programs="$programs benches"

sh tools/install.sh
mkdir -p "$build/tests"
log=$build/tests/build.log
echo "building ($log)"
# shellcheck disable=SC2086
if ! make -j"$(nproc)" $sanitize all $programs >"$log" 2>&1; then
    grep -v '^  CC ' "$log" | tail -n 40
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi

# "PASSED FAILED SKIPPED" of one program's output; cmocka prints a count per group of tests.
count() {
    awk '/^\[  PASSED  \] [0-9]+ test/ { passed += $4 }
         /^\[  FAILED  \] [0-9]+ test/ { failed += $4 }
         /^\[  SKIPPED \] [0-9]+ test/ { skipped += $4 }
         END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

# Runs $1 and leaves its output in $1.log, its status and its seconds in $1.ended.
rm -f "$build"/tests/*.ended
# shellcheck disable=SC2016
run='started=$(date +%s); code=0
     timeout "$0" "$1" >"$1.log" 2>&1 || code=$?
     echo "$code $(($(date +%s) - started))" >"$1.ended"'
slowest="test_replay test_cuda_solve test_solver test_cli test_networks"
for name in $slowest $names; do
    case " $names " in *" $name "*) echo "$build/tests/$name" ;; esac
done | awk '!seen[$0]++' | xargs -P "$(nproc)" -n 1 sh -c "$run" "$limit_s"

total_passed=0 total_failed=0 total_skipped=0
for name in $names; do
    output=$build/tests/$name.log
    code=1 seconds=0
    [ ! -e "$build/tests/$name.ended" ] || read -r code seconds <"$build/tests/$name.ended"
    # shellcheck disable=SC2046
    set -- $(count "$output")
    passed=$1 failed=$2 skipped=$3
    if [ "$code" != 0 ] && [ "$failed" = 0 ]; then
        failed=1
        echo "$name ended with status $code" >>"$output"
    fi
    total_passed=$((total_passed + passed))
    total_failed=$((total_failed + failed))
    total_skipped=$((total_skipped + skipped))
    verdict=ok
    [ "$failed" = 0 ] || verdict=FAILED
    echo "$verdict $name: $passed passed, $failed failed, $skipped skipped ($seconds s)"
    if [ "$failed" != 0 ]; then
        grep -v -e '^\[ RUN ' -e '^\[       OK ' "$output" | tail -n 100 | sed 's/^/    /'
    fi
    grep '^\[  SKIPPED \] [^0-9]' "$output" | sort -u | sed 's/^\[  SKIPPED \]/    skipped:/' || true
done
echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
[ "$total_failed" = 0 ]
