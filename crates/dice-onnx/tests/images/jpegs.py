#!/usr/bin/env python3
"""JPEGs of every kind, and what Pillow makes of them.

    pip install pillow numpy
    python jpegs.py        # rewrites jpegs.tar.gz and jpegs.txt

Small pictures of noise, edges and gradients by a fixed seed. Pillow writes all but 4:4:0, whose header alone is changed, and YCCK, whose
marker is. Of some, bytes within the data are overwritten; they stay where Pillow still makes an image of them. `jpegs.txt` has, a line for
each file, the SHA-256 of the pixels of `convert("RGB")`, width and height. Last run with Pillow 13.0.0 (libjpeg-turbo 3.2.0), numpy 2.4.6.
"""
import gzip
import hashlib
import io
import itertools
import pathlib
import tarfile
import warnings

import numpy as np
from PIL import Image, ImageFile

here = pathlib.Path(__file__).parent
random = np.random.default_rng(20)
warnings.simplefilter("ignore")
ImageFile.LOAD_TRUNCATED_IMAGES = False
files = {}


def picture(width, height, kind):
    y, x = np.mgrid[0:height, 0:width]
    if kind == 0:
        levels = random.integers(0, 256, (height, width, 3))
    elif kind == 1:
        levels = np.stack([(x // 5 + y // 3) % 2 * 255, (x + y) % 7 * 36, (x * y) % 256], axis=2)
    else:
        levels = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), 255 - (x + y) * 3 % 256], axis=2)
    return Image.fromarray(levels.astype(np.uint8))


def encoded(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", optimize=True, **options)
    return out.getvalue()


def sampling(data):
    """The first component's sampling factors, and where they and the size are."""
    at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
    return data[at + 11], at


def upright(data):
    """4:2:2 as 4:4:0: the same blocks in another order, in an image on its side."""
    data = bytearray(data)
    factors, at = sampling(data)
    assert factors == 0x21
    data[at + 11] = 0x12
    data[at + 5 : at + 9] = data[at + 7 : at + 9] + data[at + 5 : at + 7]
    return bytes(data)


def ycck(data):
    """CMYK said to be YCCK."""
    data = bytearray(data)
    at = data.index(b"Adobe")
    data[at + 11] = 2
    return bytes(data)


sizes = [(1, 1), (2, 3), (7, 9), (8, 8), (15, 17), (16, 16), (17, 31), (33, 20), (40, 41)]
for number, ((width, height), subsampling, progressive, kind) in enumerate(
    itertools.product(sizes, [0, 1, 2], [False, True], [0, 1, 2])
):
    image, options = picture(width, height, kind), {"subsampling": subsampling, "progressive": progressive}
    quality = [30, 75, 95][number % 3]
    name = f"{['444', '422', '420'][subsampling]}-{width}x{height}-{kind}{'-progressive' if progressive else ''}"
    data = encoded(image, quality=quality, **options)
    files[f"{name}.jpg"] = data
    if subsampling == 1:
        files[f"{name.replace('422', '440')}.jpg"] = upright(data)
    if kind == 1 and not progressive:
        files[f"{name}-restart.jpg"] = encoded(image, quality=quality, restart_marker_blocks=1 + number % 3, **options)
for (width, height), progressive in itertools.product(sizes, [False, True]):
    end = f"{width}x{height}{'-progressive' if progressive else ''}.jpg"
    image = picture(width, height, 2)
    files[f"grey-{end}"] = encoded(image.convert("L"), quality=80, progressive=progressive)
    files[f"kept-rgb-{end}"] = encoded(image, quality=80, progressive=progressive, keep_rgb=True)
    inks = np.asarray(image.convert("CMYK")).copy()
    inks[..., 3] = np.arange(inks.shape[1]) * 6
    for subsampling in [0, 2]:
        data = encoded(Image.fromarray(inks, "CMYK"), quality=80, progressive=progressive, subsampling=subsampling)
        files[f"cmyk{subsampling}-{end}"] = data
        files[f"ycck{subsampling}-{end}"] = ycck(data)
for name in [name for name in files if "40x41" in name or "33x20" in name]:
    data = bytearray(files[name])
    start = data.index(b"\xff\xda") + 14
    for place in random.integers(start, len(data) - 2, 2):
        data[place] = random.integers(0, 255)
    if data.count(b"\xff\xd9") == 1:
        files[f"damaged-{name}"] = bytes(data)

lines, archive = [], io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    for name, data in files.items():
        try:
            image = Image.open(io.BytesIO(data)).convert("RGB")
        except (OSError, SyntaxError):
            assert name.startswith("damaged"), name
            continue
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
        lines.append(f"{name} {hashlib.sha256(image.tobytes()).hexdigest()} {image.width} {image.height}\n")
(here / "jpegs.tar.gz").write_bytes(gzip.compress(archive.getvalue(), mtime=0))
(here / "jpegs.txt").write_text("".join(lines))
print(len(lines), "files")
