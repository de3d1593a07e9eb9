#!/bin/sh
# Speed and memory against PyTorch (bench/compare.py; its options may follow). PyTorch comes from PyPI into
# build/bench/venv (or is taken from the Python that PYTHON names) and is needed for nothing else.
set -eu
cd "$(dirname "$0")/.."
make build/bench/engine
mkdir -p build/bench
python=${PYTHON:-build/bench/venv/bin/python}
if ! "$python" -c 'import torch, yaml' 2>/dev/null; then
    python3 -m venv build/bench/venv
    build/bench/venv/bin/pip install torch==2.13.0 pyyaml numpy
    python=build/bench/venv/bin/python
fi
exec "$python" bench/compare.py "$@"
