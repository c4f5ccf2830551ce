#!/usr/bin/env python3
"""What Pillow makes of real photographs, which are not part of the project: SHA-256 of pixels alone.

    pip install pillow
    python photographs.py FOLDER > photographs.txt

A line for each JPEG of FOLDER: the SHA-256 of the file, and of the pixels of `convert("RGB")`, width and height. Last run with Pillow 13.0.0
(libjpeg-turbo 3.2.0) on 100 photographs of ImageNet.
"""
import hashlib
import pathlib
import sys

from PIL import Image

for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    if path.suffix.lower() in (".jpg", ".jpeg"):
        image = Image.open(path).convert("RGB")
        print(hashlib.sha256(path.read_bytes()).hexdigest(), hashlib.sha256(image.tobytes()).hexdigest(), *image.size)
