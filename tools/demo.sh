#!/bin/sh
# From a bare Debian machine to a reconstruction of a CT slice that the model has not seen: installs
# what is missing, builds, solves, and says where the picture is. Arguments go to `resample solve`.
set -eu
cd "$(dirname "$0")/.."
sh tools/install.sh
make -j"$(nproc)"
build/resample solve --model models/ct-128 --task_config examples/ct/ct_25_views.yaml \
    --input examples/ct/head_43.png --seed 0 --save_dir out/demo "$@"
echo "look at out/demo/comparison.png"
