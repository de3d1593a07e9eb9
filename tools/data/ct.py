"""CT slices for training: two public series as [1,128,128] float32 in [-1,1], one NPY file a slice.

    python tools/data/ct.py [--head DEB] --chest FOLDER --output data/ct

The head comes from Debian's package invesalius-examples, which is downloaded unless its file is given, and unpacked
into a temporary folder; nothing is installed. The chest is a folder of DICOM files, patient C3N-00247 of CPTAC-LSCC
(The Cancer Imaging Archive), which the repository deep-learning-with-pytorch/dlwpt-code carries as
data/p1ch4/volumetric-dicom/. Writes train/ and held_out/, a folder for each series, and SHA256SUMS. A held-out block's
two neighbours on each side are in neither, as adjacent slices look alike. Needs numpy, pydicom, apt-get, dpkg-deb.
"""

import argparse
import pathlib
import sys
import tarfile
import tempfile

import numpy as np

from packages import unpack, write_sums

HELD_OUT = {"head": [(38, 49), (78, 87)], "chest": [(30, 39), (60, 69)]}
LOW, HIGH, GAP, SIDE = -1000, 1500, 2, 256
PROJECT = "doc/invesalius-examples/examples/Cranium.inv3"


def halve(slices):
    """Means of 2x2 pixels."""
    count, side, _ = slices.shape
    return slices.reshape(count, side // 2, 2, side // 2, 2).mean(axis=(2, 4))


def read_head(deb):
    """Hounsfield units [108,256,256] of an InVesalius project: a tar file whose matrix.dat is int16."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(unpack("invesalius-examples", pathlib.Path(folder), deb) / PROJECT) as project:
            name = next(name for name in project.getnames() if name.endswith("/matrix.dat"))
            return np.frombuffer(project.extractfile(name).read(), "<i2").reshape(-1, SIDE, SIDE)


def read_chest(folder):
    """Hounsfield units [99,256,256], from the feet up; whole numbers, as the scanner's are."""
    import pydicom

    files = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    if not files:
        sys.exit(f"{folder}: no *.dcm")
    files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
    hu = [file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept) for file in files]
    return np.rint(halve(np.stack(hu)))


def pictures(hu):
    x = (np.clip(hu.astype(np.float64), LOW, HIGH) - LOW) / ((HIGH - LOW) / 2) - 1
    return halve(x).astype("<f4")[:, None]


def part_of(series, index):
    """The folder of a slice; None for a neighbour of a held-out block."""
    for first, last in HELD_OUT[series]:
        if first <= index <= last:
            return "held_out"
        if first - GAP <= index <= last + GAP:
            return None
    return "train"


def main():
    parser = argparse.ArgumentParser(description="CT slices for training")
    parser.add_argument("--head", type=pathlib.Path, help="the package's file, where it is here already")
    parser.add_argument("--chest", type=pathlib.Path, required=True, help="the folder of DICOM files")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    paths = []
    for series, hu in (("head", read_head(options.head)), ("chest", read_chest(options.chest))):
        for index, picture in enumerate(pictures(hu)):
            part = part_of(series, index)
            if not part:
                continue
            path = options.output / part / series / f"{index:03d}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, picture)
            paths.append(path)
    write_sums(options.output, paths)
    counts = [sum(path.parent.parent.name == part for path in paths) for part in ("train", "held_out")]
    print(f"{options.output}: {counts[0]} slices to learn from, {counts[1]} held out")


main()
