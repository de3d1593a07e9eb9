"""Writes tests/data/files: small pictures and NPY files, and what PIL and numpy read from them.

    python tests/reference/make_files.py

Needs numpy and pillow; only for making the data, never for building or testing. NAME.npy beside a
picture holds its values in [-1,1] as [1,C,H,W], NAME.luma.npy those of its luma. Pictures that PIL
cannot write (interlaced, 16-bit colour) are encoded here.
"""

import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

FILES = pathlib.Path(__file__).resolve().parent.parent / "data" / "files"
HEIGHT, WIDTH = 11, 13


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encode_png(samples, interlaced):
    """[H,W,C] of uint8 or uint16; rows are unfiltered, the seven passes as the standard lists them."""
    height, width, channels = samples.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    data = b""
    for y, x, dy, dx in passes if interlaced else [(0, 0, 1, 1)]:
        part = samples[y::dy, x::dx]
        if part.size:
            data += b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in part)
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, color, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def to_range(samples, largest):
    u = samples.astype(np.float32) / np.float32(largest)
    return (u - np.float32(0.5)) / np.float32(0.5)


def expect(name, samples, luma=None):
    largest = 255 if samples.dtype == np.uint8 else 65535
    samples = samples[..., None] if samples.ndim == 2 else samples
    np.save(FILES / f"{name}.npy", to_range(samples.transpose(2, 0, 1)[None], largest))
    if luma is not None:
        np.save(FILES / f"{name}.luma.npy", to_range(luma[None, None], largest))


def with_pil(name, picture, **options):
    """Saves and reads back; the expected values are what PIL reads."""
    path = FILES / name
    picture.save(path, **options)
    read = Image.open(path)
    if read.mode == "I;16":
        expect(path.stem, np.asarray(read).astype(np.uint16))
    elif read.mode in ("1", "L", "LA"):
        expect(path.stem, np.asarray(read.convert("L")))
    else:
        color = read.convert("RGB")
        expect(path.stem, np.asarray(color), np.asarray(color.convert("L")))


def pictures(random):
    color = random.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    grey = color[..., 0]
    y, x = np.mgrid[0 : 2 * HEIGHT, 0 : 2 * WIDTH]
    smooth = np.stack([9 * x, 11 * y, 5 * (x + y)], -1).astype(np.uint8)
    with_pil("grey8.png", Image.fromarray(grey))
    with_pil("grey1.png", Image.fromarray(grey > 127))
    with_pil("grey16.png", Image.fromarray(random.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)))
    with_pil("grey_alpha.png", Image.fromarray(color[..., :2], "LA"))
    with_pil("rgb8.png", Image.fromarray(color[..., :3]))
    with_pil("rgb_alpha.png", Image.fromarray(color))
    palette = Image.fromarray(color[..., :3]).quantize(16)
    with_pil("palette.png", palette)
    with_pil("palette_transparent.png", palette, transparency=bytes(range(0, 256, 16)))
    with_pil("grey.jpg", Image.fromarray(smooth[..., 0]), quality=90)
    with_pil("color_420.jpg", Image.fromarray(smooth), quality=90, subsampling=2)
    with_pil("color_444_progressive.jpg", Image.fromarray(smooth), quality=90, subsampling=0, progressive=True)
    Image.fromarray(color, "CMYK").save(FILES / "cmyk.jpg")

    (FILES / "interlaced.png").write_bytes(encode_png(color[..., :3], True))
    read = Image.open(FILES / "interlaced.png")
    assert (np.asarray(read) == color[..., :3]).all()
    expect("interlaced", np.asarray(read), np.asarray(read.convert("L")))
    deep = random.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    (FILES / "rgb16.png").write_bytes(encode_png(deep, False))
    expect("rgb16", deep)
    luma = (deep.astype(np.float64) @ [0.299, 0.587, 0.114]).astype(np.float32)
    np.save(FILES / "rgb16.luma.npy", to_range(luma[None, None], 65535))


def arrays(random):
    values = random.standard_normal((2, 3, 4)).astype(np.float32)
    np.save(FILES / "c_order_f4.npy", values)
    np.save(FILES / "fortran_order_f8.npy", np.asfortranarray(values.astype(np.float64)))
    np.save(FILES / "fortran_order_f4.npy", np.asfortranarray(values))
    for major in (2, 3):
        with open(FILES / f"version_{major}.npy", "wb") as file:
            np.lib.format.write_array(file, values, version=(major, 0))
    np.save(FILES / "scalar.npy", np.float32(2.5))
    np.save(FILES / "empty.npy", np.zeros((0, 3), np.float32))
    np.save(FILES / "vector.npy", values.ravel())
    np.save(FILES / "big_endian.npy", values.astype(">f4"))
    np.save(FILES / "integers.npy", np.arange(4, dtype=np.int32))


if __name__ == "__main__":
    FILES.mkdir(exist_ok=True)
    generator = np.random.default_rng(20261124)
    pictures(generator)
    arrays(generator)
