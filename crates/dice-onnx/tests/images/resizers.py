"""Writes what each resizer makes of some images: SHA-256 of the bytes, as `FILTER SOURCE WIDTHxHEIGHT HASH`.

    python resizers.py

`pillow-12.txt` where the Pillow at hand is of release 12 or older (made with 10.4.0); `pillow-13.txt` and, where torch is there,
`torchvision.txt` where it is newer (made with Pillow 13.0.0, torch 2.15.0 and torchvision 0.29.2, which resizes uint8 tensors).
Sources lie in `resize/`; `tall.png` is written here, from seeded noise.
"""

import hashlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

folder = Path(__file__).parent / "resize"
noise = np.random.default_rng(7).integers(0, 256, (97, 13, 3), dtype=np.uint8)
noise[::3] = np.where(noise[::3] < 128, 0, 255)
Image.fromarray(noise).save(folder / "tall.png", optimize=True)
sources = {name: np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in ["tall", "noise", "column", "row"]}
random = np.random.default_rng(8)
sizes = {name: [tuple(map(int, random.integers(1, 40, 2))) for _ in range(12)] for name in sources}
sizes["tall"] += [(9, 88), (9, 89), (9, 90), (13, 40), (20, 97), (12, 94), (12, 95), (12, 96)]
filters = ["nearest", "bilinear", "bicubic", "lanczos"]


def write(resizer, filters, resize):
    lines = [
        f"{name} {source} {width}x{height} {hashlib.sha256(resize(pixels, width, height, name).tobytes()).hexdigest()}"
        for source, pixels in sources.items()
        for width, height in sizes[source]
        for name in filters
    ]
    (folder / f"{resizer}.txt").write_text("\n".join(lines) + "\n")


def pillow(pixels, width, height, name):
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling[name.upper()]))


def tensor(pixels, width, height, name):
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
    resized = functional.resize_image(planes, [height, width], interpolation=InterpolationMode(name), antialias=True)
    return resized.permute(1, 2, 0).contiguous().numpy()


if int(PIL.__version__.split(".")[0]) < 13:
    write("pillow-12", filters, pillow)
else:
    write("pillow-13", filters, pillow)
    write("torchvision", filters[:3], tensor)
