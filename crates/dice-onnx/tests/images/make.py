"""Writes the images of this folder, and what Pillow makes of them.

    python make.py

Made with Pillow 13.0.0 (libjpeg-turbo 3.2.0, libwebp 1.6.0, libtiff 4.7.2), numpy 2.4.6, torch 2.15.0 and torchvision
0.29.2. All content is synthetic: gradients, edges and noise of a seeded generator; no photograph, no data set.

`expected.bin` holds the bytes of Pillow's `convert("RGB")` and then `convert("L")` of one image after the other, turned by
`ImageOps.exif_transpose`; `expected.txt` says which: name, mode, width, height. `resize/` holds sources and what `Image.resize` makes of them, as
FILTER_SOURCE_WIDTHxHEIGHT.png; `tensor-FILTER_...` is torchvision's antialiased resize of a uint8 tensor. `shard.tgz`
and `table.parquet` (pyarrow 26.0.1) hold three of the images each as WebDataset and Hugging Face's datasets write them.
"""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

here = Path(__file__).parent
random = np.random.default_rng(20240607)


def scene(width, height):
    """A gradient in each colour, a hard edge, and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    blue = np.where(x + y > (width + height) / 2, 220, 30)
    pixels = np.stack([red, green, blue], axis=2) + random.integers(-12, 13, (height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


small, large = scene(12, 8), scene(24, 16)
grey, alpha = small[..., 0], random.integers(0, 256, (8, 12), dtype=np.uint8)
rgb = Image.fromarray(small)
names, pixels = [], []


def save(name, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    (here / name).write_bytes(buffer.getvalue())
    expect(name)


def expect(name):
    image = Image.open(here / name)
    turned = ImageOps.exif_transpose(image)
    names.append(f"{name} {image.mode} {turned.width} {turned.height}")
    pixels.extend([turned.convert("RGB").tobytes(), turned.convert("L").tobytes()])


def png(name, width, height, depth, colour, rows):
    """A PNG that Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    (here / name).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    expect(name)


# PNG
save("rgb8.png", rgb, format="PNG")
save("grey8.png", Image.fromarray(grey), format="PNG")
save("grey1.png", Image.fromarray(grey > 128), format="PNG")
save("grey-alpha8.png", Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), format="PNG")
rgba = Image.merge("RGBA", [*rgb.split(), Image.fromarray(alpha)])
save("rgba8.png", rgba, format="PNG")
palette = rgb.quantize(16)
save("palette.png", palette, format="PNG")
save("palette-transparent.png", palette, format="PNG", transparency=bytes([0, 90, 255, 30] * 4))
deep = (small.astype(np.uint16) << 8) | random.integers(0, 256, small.shape, dtype=np.uint16)
png("grey16.png", 12, 8, 16, 0, [row.astype(">u2").tobytes() for row in deep[..., 0]])
png("grey-alpha16.png", 12, 8, 16, 4, [row.astype(">u2").tobytes() for row in deep[..., :2]])
png("rgb16.png", 12, 8, 16, 2, [row.astype(">u2").tobytes() for row in deep])
png("rgba16.png", 12, 8, 16, 6, [np.dstack([deep, deep[..., 0]])[y].astype(">u2").tobytes() for y in range(8)])
save("turned.png", rgb, format="PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0")

# GIF
save("palette.gif", palette, format="GIF")
save("transparent.gif", palette, format="GIF", transparency=3)
frames = [Image.fromarray(np.roll(small, step, axis=1)).quantize(16) for step in (0, 3, 6)]
save("animated.gif", frames[0], format="GIF", save_all=True, append_images=frames[1:], duration=50)

# BMP
save("rgb.bmp", rgb, format="BMP")
save("palette.bmp", palette, format="BMP")
save("grey.bmp", Image.fromarray(grey), format="BMP")
save("grey1.bmp", Image.fromarray(grey > 128), format="BMP")

# TIFF
save("rgb.tiff", rgb, format="TIFF")
save("rgb-lzw.tiff", rgb, format="TIFF", compression="tiff_lzw")
save("rgb-deflate.tiff", rgb, format="TIFF", compression="tiff_adobe_deflate")
save("grey.tiff", Image.fromarray(grey), format="TIFF")
save("grey16.tiff", Image.fromarray(deep[..., 0]), format="TIFF")
save("cmyk.tiff", rgb.convert("CMYK"), format="TIFF")
save("palette.tiff", palette, format="TIFF")
save("turned.tiff", rgb, format="TIFF", tiffinfo={274: 6})


# JPEG, of smooth content: what is lost in coding is not the matter here.
smooth = Image.fromarray(large).resize((6, 4), Image.Resampling.BOX).resize((24, 16), Image.Resampling.BICUBIC)
save("444.jpg", smooth, format="JPEG", quality=90, subsampling=0)
save("422.jpg", smooth, format="JPEG", quality=90, subsampling=1)
save("420.jpg", smooth, format="JPEG", quality=90, subsampling=2)
save("edges-444.jpg", Image.fromarray(large), format="JPEG", quality=90, subsampling=0)
save("edges-420.jpg", Image.fromarray(large), format="JPEG", quality=90, subsampling=2)
save("odd-420.jpg", smooth.crop((0, 0, 21, 13)), format="JPEG", quality=90, subsampling=2)
save("progressive.jpg", smooth, format="JPEG", quality=90, progressive=True)
save("grey.jpg", smooth.convert("L"), format="JPEG", quality=90)
# As Adobe writes it, inverted; what Pillow writes has that marker too.
save("cmyk.jpg", smooth.convert("CMYK"), format="JPEG", quality=90)
coloured = Image.merge("CMYK", [*smooth.split(), smooth.convert("L").point(lambda value: value // 3)])
save("cmyk-black.jpg", coloured, format="JPEG", quality=90)
for turn in range(1, 9):
    exif = Image.Exif()
    exif[274] = turn
    save(f"turned{turn}.jpg", smooth.crop((0, 0, 12, 8)), format="JPEG", quality=90, subsampling=0, exif=exif)


def ycck():
    """The CMYK file with its transform said to be YCCK: the same bytes mean Y, Cb, Cr and K."""
    data = bytearray((here / "cmyk-black.jpg").read_bytes())
    adobe = data.index(b"Adobe")
    data[adobe + 11] = 2
    (here / "ycck.jpg").write_bytes(data)
    expect("ycck.jpg")


ycck()

# WebP
save("lossless.webp", rgb, format="WEBP", lossless=True)
save("lossless-alpha.webp", rgba, format="WEBP", lossless=True, exact=True)
save("lossy.webp", smooth, format="WEBP", quality=90)
save("edges.webp", Image.fromarray(large), format="WEBP", quality=90)

(here / "expected.txt").write_text("\n".join(names) + "\n")
(here / "expected.bin").write_bytes(b"".join(pixels))

# Resizing.
folder = here / "resize"
folder.mkdir(exist_ok=True)
noise = random.integers(0, 256, (23, 29, 3), dtype=np.uint8)
noise[random.random((23, 29)) < 0.3] = 0
noise[random.random((23, 29)) < 0.3] = 255
sources = {"noise": noise, "column": noise[:13, :1], "row": noise[:1, :19]}
sizes = {
    "noise": [(16, 16), (11, 8), (30, 24), (10, 23), (3, 2), (1, 1)],
    "column": [(4, 7), (1, 5), (3, 20)],
    "row": [(7, 3), (40, 1), (5, 1)],
}
filters = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
tensors = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
for source, colours in sources.items():
    image = Image.fromarray(colours)
    image.save(folder / f"{source}.png", optimize=True)
    for width, height in sizes[source]:
        for name, code in filters.items():
            resized = image.resize((width, height), code)
            resized.save(folder / f"{name}_{source}_{width}x{height}.png", optimize=True)
    for width, height in sizes[source][:1]:
        for name, mode in tensors.items():
            tensor = torch.from_numpy(colours).permute(2, 0, 1).contiguous()
            resized = functional.resize_image(tensor, [height, width], interpolation=mode, antialias=True)
            Image.fromarray(resized.permute(1, 2, 0).contiguous().numpy()).save(
                folder / f"tensor-{name}_{source}_{width}x{height}.png", optimize=True
            )

# A shard: names beyond 100 characters are in extended headers, and what is no image or label is passed over.
deep_folder = "a-folder-with-a-long-name/" * 5
samples = [("train/000", "rgb8.png"), ("train/001", "444.jpg"), (deep_folder + "002", "lossless.webp")]
with (
    gzip.GzipFile(here / "shard.tgz", "wb", mtime=0) as packed,
    tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as shard,
):

    def member(name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        shard.addfile(info, io.BytesIO(data))

    for label, (key, name) in enumerate(samples):
        member(f"{key}.json", json.dumps({"label": label, "caption": "synthetic"}).encode())
        member(f"{key}.{name.split('.')[1]}", (here / name).read_bytes())
        member(f"{key}.txt", b"synthetic")

# A table: its columns are described as the `datasets` library describes them.
described = {
    "info": {
        "features": {
            "image": {"_type": "Image"},
            "label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"},
        }
    }
}
rows = [
    {"bytes": (here / name).read_bytes(), "path": f"{key.split('/')[-1]}.{name.split('.')[1]}"} for key, name in samples
]
image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
table = pyarrow.table({"image": pyarrow.array(rows, image_type), "label": pyarrow.array([2, 0, 1], pyarrow.int64())})
table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
pyarrow.parquet.write_table(table, here / "table.parquet", row_group_size=2, use_dictionary=False, write_statistics=False)
