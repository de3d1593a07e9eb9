"""CT slices for training: Hounsfield units to [1,128,128] float32 in [-1,1], one NPY file a slice.

    python tools/data/ct.py SOURCE data/ct

SOURCE holds head_hu.npz and chest_hu.npz: array `hu` [slices,256,256] int16 (weights.md says
which series they are and where they come from). Writes train/ and held_out/, a folder for each series, and
SHA256SUMS. A held-out block's two neighbours on each side are in neither, as adjacent slices look alike. Needs numpy.
"""

import hashlib
import pathlib
import sys

import numpy as np

HELD_OUT = {"head": [(38, 49), (78, 87)], "chest": [(30, 39), (60, 69)]}
LOW, HIGH, GAP = -1000, 1500, 2


def picture(hu):
    x = (np.clip(hu.astype(np.float64), LOW, HIGH) - LOW) / ((HIGH - LOW) / 2) - 1
    return x.reshape(128, 2, 128, 2).mean(axis=(1, 3)).astype("<f4")[None]


def part_of(series, index):
    """The folder of a slice; None for a neighbour of a held-out block."""
    for first, last in HELD_OUT[series]:
        if first <= index <= last:
            return "held_out"
        if first - GAP <= index <= last + GAP:
            return None
    return "train"


def main():
    source, target = map(pathlib.Path, sys.argv[1:])
    sums = []
    for series in HELD_OUT:
        for index, hu in enumerate(np.load(source / f"{series}_hu.npz")["hu"]):
            part = part_of(series, index)
            if not part:
                continue
            path = target / part / series / f"{index:03d}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, picture(hu))
            sums.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(target)}\n")
    (target / "SHA256SUMS").write_text("".join(sums))
    print(f"{target}: {sum('train' in line for line in sums)} slices to learn from, {sum('held_out' in line for line in sums)} held out")


main()
