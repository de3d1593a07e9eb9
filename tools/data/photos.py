"""Photographs for training: the wallpapers of four Debian 12 packages, each split whole into one part.

    python tools/data/photos.py [--debs FOLDER] --output data/photo

photos.tsv lists every wallpaper of the packages: who made it, under which licence, to which part it belongs or
why it is left out. Writes train/ (8-bit PNG, each photograph shrunk so that its shorter side has 192, 256 and 384
pixels: sharp at every scale), held_out/ (256 pixels), test/ (128x128 crops of the latter, at the places that
photos.tsv gives) and SHA256SUMS. The packages are downloaded and unpacked into a temporary folder; nothing is
installed. Needs apt-get, dpkg-deb, numpy, pillow.
"""

import argparse
import csv
import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image

from packages import unpack, write_sums

TABLE = pathlib.Path(__file__).with_suffix(".tsv")
SHORTER = {"train": (192, 256, 384), "held_out": (256,)}
CROP = 128


def average(values, count):
    """Axis 0 averaged down to count pixels, by area."""
    sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    edges = np.arange(count + 1) * len(values)
    whole, part = edges // count, edges % count / count
    part = part.reshape(-1, *[1] * (values.ndim - 1))
    at_edges = sums[whole] + part * values[np.minimum(whole, len(values) - 1)]
    return np.diff(at_edges, axis=0) * count / len(values)


def shrink(photograph, shorter):
    """[H,W,3] bytes whose shorter side has `shorter` pixels."""
    height, width, _ = photograph.shape
    side = min(height, width)
    assert side >= shorter, "a photograph is never enlarged"
    result = np.empty((height * shorter // side, width * shorter // side, 3), np.uint8)
    for channel in range(3):
        rows = average(photograph[:, :, channel].astype(np.float64), result.shape[0])
        result[:, :, channel] = np.rint(average(rows.T, result.shape[1]).T)
    return result


def crops(small, places):
    for x, y in (map(int, place.split(",")) for place in places.split()):
        crop = small[y:y + CROP, x:x + CROP]
        assert crop.shape == (CROP, CROP, 3), "a crop lies outside of its photograph"
        yield crop


def given(package, debs):
    """The package's file in the folder; None without a folder."""
    found = sorted(debs.glob(f"{package}_*.deb")) if debs else [None]
    if not found:
        sys.exit(f"{debs}: no {package}_*.deb")
    return found[-1]


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write(row, share, output):
    """The files of one photograph."""
    if not (share / row["file"]).is_file():
        sys.exit(f"{row['package']}: no {row['file']}; photos.tsv lists Debian 12's packages")
    with Image.open(share / row["file"]) as image:
        photograph = np.asarray(image.convert("RGB"))
    for shorter in SHORTER[row["part"]]:
        small = shrink(photograph, shorter)
        yield save(output / row["part"] / f"{row['name']}_{shorter}.png", small)
    for index, crop in enumerate(crops(small, row["crops"])):
        yield save(output / "test" / f"{row['name']}_{index}.png", crop)


def main():
    parser = argparse.ArgumentParser(description="photographs for training")
    parser.add_argument("--debs", type=pathlib.Path, help="a folder that holds the packages already")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    with TABLE.open(encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE) if row["part"]]
    paths = []
    with tempfile.TemporaryDirectory() as folder:
        packages = sorted({row["package"] for row in rows})
        shares = {package: unpack(package, pathlib.Path(folder), given(package, options.debs)) for package in packages}
        for row in rows:
            paths += write(row, shares[row["package"]], options.output)
    write_sums(options.output, sorted(paths))
    counts = [sum(path.parent.name == part for path in paths) for part in ("train", "held_out", "test")]
    print(f"{options.output}: {counts[0]} pictures to learn from, {counts[1]} held out, {counts[2]} crops of those")


main()
