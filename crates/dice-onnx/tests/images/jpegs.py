#!/usr/bin/env python3
"""JPEGs of every kind, and what Pillow makes of them.

    pip install pillow numpy
    python jpegs.py        # rewrites jpegs.tar.gz and jpegs.txt

Small pictures of noise, edges and gradients by a fixed seed. Pillow writes all; of 4:4:0, 4:1:1, YCCK, tables
of 16 bits and other markers or names of components the headers are then changed. Of some, bytes within the data are overwritten; they stay where Pillow still makes an image of them. `jpegs.txt` has, a line for
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



def segments(data):
    """Marker, place and length of what stands before the first scan."""
    at = 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at, length
        at += 2 + length


def fat_tables(data):
    """Quantisation tables of 16 bits a value, in the frame that allows them."""
    out, end = bytearray(data[:2]), 2
    for marker, at, length in segments(data):
        end = at + 2 + length
        body = data[at + 4 : end]
        if marker == 0xDB:
            tables = [body[i : i + 65] for i in range(0, len(body), 65)]
            body = b"".join(bytes([0x10 | table[0]]) + b"".join(bytes([0, value]) for value in table[1:]) for table in tables)
        out += bytes([0xFF, 0xC1 if marker == 0xC0 else marker]) + (len(body) + 2).to_bytes(2, "big") + body
    return bytes(out) + data[end:]


def renamed(data):
    """Components called R, G, B, which without any other marker are no luminance and chrominance."""
    data = bytearray(data)
    for marker, at, length in segments(bytes(data)):
        if marker in (0xC0, 0xC2):
            for component, letter in enumerate(b"RGB"):
                data[at + 10 + 3 * component] = letter
        end = at + 2 + length
    for component, letter in enumerate(b"RGB"):
        data[end + 5 + 2 * component] = letter
    return bytes(data)


def without(data, unwanted):
    """Without the segments of a marker."""
    out, end = bytearray(data[:2]), 2
    for marker, at, length in segments(data):
        end = at + 2 + length
        if marker != unwanted:
            out += data[at:end]
    return bytes(out) + data[end:]


def adobe(data, transform):
    """With Adobe's marker, which says whether the components are red, green, blue (0) or YCbCr (1)."""
    return data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform]) + without(data, 0xE0)[2:]


def narrow(data):
    """4:2:0 as 4:1:1: the same blocks in another order, in an image of as many units of 32 x 8 pixels."""
    data = bytearray(data)
    factors, at = sampling(data)
    assert factors == 0x22
    data[at + 11] = 0x41
    height, width = (int.from_bytes(data[at + place : at + place + 2], "big") for place in (5, 7))
    rows, columns = -(-height // 16), -(-width // 16)
    data[at + 5 : at + 9] = (rows * 8 - height % 3).to_bytes(2, "big") + (columns * 32 - width % 5).to_bytes(2, "big")
    return bytes(data)


random = np.random.default_rng(21)
for width in range(1, 18):
    height = 18 - width if width % 2 else 1 + width * 5 % 17
    image = picture(width, height, width % 3)
    end = f"{width}x{height}"
    for subsampling, progressive in itertools.product([0, 2], [False, True]):
        kind = f"odd-{['444', '', '420'][subsampling]}-{end}{'-progressive' if progressive else ''}"
        files[f"{kind}.jpg"] = encoded(image, quality=85, subsampling=subsampling, progressive=progressive)
for number, (width, height) in enumerate([(32, 24), (17, 31), (40, 41), (64, 9)]):
    image, end = picture(width, height, 1 + number % 2), f"{width}x{height}"
    for quality in [1, 100]:
        for progressive in [False, True]:
            name = f"quality{quality}-{end}{'-progressive' if progressive else ''}.jpg"
            files[name] = encoded(image, quality=quality, subsampling=2 * (number % 2), progressive=progressive)
    for rows in [1, 2]:
        files[f"restart-rows{rows}-{end}.jpg"] = encoded(image, quality=80, subsampling=2, restart_marker_rows=rows)
    for blocks in [4, 7, 300]:
        files[f"restart-blocks{blocks}-{end}-progressive.jpg"] = encoded(
            image, quality=80, subsampling=1, restart_marker_blocks=blocks, progressive=True
        )
    plain = io.BytesIO()
    image.save(plain, "JPEG", quality=80)
    files[f"usual-huffman-{end}.jpg"] = plain.getvalue()
    files[f"tables16-{end}.jpg"] = fat_tables(plain.getvalue())
    files[f"411-{end}.jpg"] = narrow(encoded(image, quality=80, subsampling=2))
    files[f"411-{end}-progressive.jpg"] = narrow(encoded(image, quality=80, subsampling=2, progressive=True))
    for progressive in [False, True]:
        data = encoded(image, quality=80, subsampling=0, progressive=progressive)
        end_of = f"{end}{'-progressive' if progressive else ''}.jpg"
        files[f"adobe-rgb-{end_of}"] = adobe(data, 0)
        files[f"adobe-ycc-{end_of}"] = adobe(data, 1)
        if not progressive:
            files[f"named-rgb-{end_of}"] = renamed(without(data, 0xE0))
        files[f"no-marker-{end_of}"] = without(data, 0xE0)
    exif = Image.Exif()
    exif[0x0112] = 3 + number
    files[f"exif{3 + number}-{end}.jpg"] = encoded(image, quality=80, exif=exif)

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
