"""Networks of images: eight classes of CIFAR-10 by a plain CNN with ReLU, and by a transformer that ends in LayerNorm."""

import numpy as np
import torch
from PIL import Image
from torch import nn

import distort
from task import Task, known

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HELD_OUT = {"dog", "truck"}


def read(path, crop=None):
    image = Image.open(path).convert("RGB")
    if crop:
        image = image.crop(crop(image.size))
    return np.float32(image.resize((32, 32), Image.BILINEAR)) / 255


def folder(path, pattern="*"):
    return np.stack([read(file) for file in sorted(path.glob(pattern)) if file.suffix.lower() in (".png", ".jpg", ".jpeg")])


def crops(path, each, generator):
    """Squares of a third to the whole of the shorter side, `each` of every image."""

    def crop(size):
        side = int(min(size) * generator.uniform(0.33, 1))
        left, top = (int(generator.integers(0, length - side + 1)) for length in size)
        return left, top, left + side, top + side

    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in (".png", ".jpg", ".jpeg")]
    return np.stack([read(file, crop) for file in files for _ in range(each)])


def labelled(images):
    """Training and test images of all ten classes."""
    parts = [folder(images / "cifar10_train" / name) for name in CLASSES]
    train = np.concatenate(parts), np.repeat(np.arange(10), [len(part) for part in parts])
    parts = [folder(images / "cifar10", f"test_{name}_*") for name in CLASSES]
    return train, (np.concatenate(parts), np.repeat(np.arange(10), [len(part) for part in parts]))


def planes(images):
    """[N, 32, 32, 3] from 0 to 1 as [N, 3, 32, 32] around 0."""
    return np.ascontiguousarray((images - 0.47).transpose(0, 3, 1, 2) / 0.25, dtype=np.float32)


def flipped(inputs, generator):
    """Mirrored at random, and moved by up to four pixels."""
    inputs = torch.where(torch.rand(len(inputs), 1, 1, 1, generator=generator) < 0.5, inputs.flip(3), inputs)
    top, left = torch.randint(0, 9, (2,), generator=generator).tolist()
    return nn.functional.pad(inputs, (4, 4, 4, 4), mode="reflect")[:, :, top : top + 32, left : left + 32]


class Convolutions(nn.Module):
    def __init__(self, classes):
        super().__init__()
        layers, inputs = [], 3
        for outputs in (24, 48, 96, 128):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(128, classes)

    def forward(self, inputs):
        return self.body(inputs)


class Transformer(nn.Module):
    """Sixteen patches of eight pixels, three layers, LayerNorm of the mean token."""

    def __init__(self, classes, width=64):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, inputs):
        tokens = self.patches(inputs).flatten(2).transpose(1, 2) + self.places
        return self.norm(self.body(tokens).mean(1))


def task(images, **settings):
    generator = np.random.default_rng(11)
    train, test = labelled(images)
    classes = [place for place, name in enumerate(CLASSES) if name not in HELD_OUT]
    train, near = known(*train, classes)
    test, more = known(*test, classes)
    far = {name: planes(folder(images / name)) for name in ("svhn", "mnist", "omniglot")}
    far["textures"] = planes(crops(images / "textures", 10, generator))
    some = test[0][generator.permutation(len(test[0]))[:400]]
    return Task(
        train=(planes(train[0]), train[1]),
        test=(planes(test[0]), test[1]),
        near={"held_out": planes(np.concatenate([near, more])), "imagenet": planes(crops(images / "imagenet", 4, generator))},
        far=far,
        standins={name: planes(changed) for name, changed in distort.pictures(some, generator).items()},
        augment=flipped,
        **settings,
    )


def plain(images):
    return task(images, about="eight classes of CIFAR-10, CNN with ReLU", model=lambda: Convolutions(8), epochs=50)


def transformer(images):
    return task(images, about="eight classes of CIFAR-10, transformer with LayerNorm", model=lambda: Transformer(8), epochs=30, rate=1e-3)


NETWORKS = {"plain": plain, "transformer": transformer}
