#!/bin/sh
# Speed and memory against PyTorch: `sh bench/run.sh` the networks (bench/compare.py), `sh bench/run.sh kernels`
# the kernels one by one (bench/kernels.py), `sh bench/run.sh train` steps of training (bench/train.py); options of theirs may follow. PyTorch comes from PyPI into
# build/bench/venv (or is taken from the Python that PYTHON names) and is needed for nothing else.
set -eu
cd "$(dirname "$0")/.."
script=compare
case ${1:-} in
kernels | train)
    script=$1
    shift
    ;;
esac
make build/bench/engine build/bench/kernels build/bench/train
mkdir -p build/bench
python=${PYTHON:-build/bench/venv/bin/python}
if ! "$python" -c 'import torch, yaml' 2>/dev/null; then
    python3 -m venv build/bench/venv
    build/bench/venv/bin/pip install torch==2.13.0 pyyaml numpy
    python=build/bench/venv/bin/python
fi
exec "$python" "bench/$script.py" "$@"
