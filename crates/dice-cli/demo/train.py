#!/usr/bin/env python3
"""Train the demo classifier of dice-ood and export its features and its head.

    pip install torch scikit-learn safetensors pillow matplotlib
    python train.py --seed 0 --out .        # about a minute on one CPU core

Nothing is downloaded: all data come with the Python packages above.

  digits   in-distribution: 1,797 8x8 digits, values 0..16 (sklearn.datasets.load_digits),
           UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), CC BY 4.0
  letters  OOD: 26 letters that do not look like a digit, in the 12 DejaVu text fonts that
           the matplotlib wheel carries (free licence of Bitstream Vera / DejaVu), passed
           through the digits' own pipeline: 32x32 bitmap, ink counted in 4x4 blocks
  photos   OOD: grey 8x8 patches of china.jpg (danielbuechele) and flower.jpg (vultilion)
           (sklearn.datasets.load_sample_images), both CC BY 2.0, stretched to 0..16

The network is a small DenseNet with BN-ReLU and global average pooling before one linear
head, trained in the ordinary way. It writes, as safetensors: head (fc.weight [C, D],
fc.bias [C]; f32), train / calibration / test (features [N, D] f16, labels [N] i64) and
letters / photos (features f16); features are those of the images as they are (eval mode,
no augmentation). Then it prints the accuracy and how well MSP, energy, ReAct and DICE tell
the test digits from each OOD set.
"""
import argparse
import pathlib

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import save_file
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from torch import nn

CLASSES, FEATURES = 10, 256
GROWTH, BLOCKS = 16, (5, 8)  # new maps of a layer, layers of each dense block
EPOCHS, BATCH, RATE, DECAY = 40, 64, 0.1, 1e-3


def digits(seed):
    """1,100 training images; the other 697 in two halves."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8).astype(np.float32)
    x, rest, y, rest_y = train_test_split(x, y, train_size=1100, stratify=y, random_state=seed)
    c, t, cy, ty = train_test_split(rest, rest_y, test_size=0.5, stratify=rest_y, random_state=seed)
    return {"train": (x, y), "calibration": (c, cy), "test": (t, ty)}


def letters():
    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    styles = ["", "-Bold", "-Oblique", "-BoldOblique"]
    names = [f"{kind}{style}" for kind in ("Sans", "SansMono", "Serif") for style in styles]
    names = [n.replace("Oblique", "Italic") if n.startswith("Serif") else n for n in names]
    out = []
    for name in names:
        font = ImageFont.truetype(str(folder / f"DejaVu{name}.ttf"), 120)
        for letter in "ACEFHJKLMNPRTUVWXYadehkmnr":  # not B b c D G g I i l O o Q q S s Z z ...
            image = Image.new("L", (240, 240))
            ImageDraw.Draw(image).text((50, 50), letter, font=font, fill=255)
            image = image.crop(image.getbbox())
            width = min(32, round(image.width * 32 / image.height))
            bitmap, left = np.zeros((32, 32)), (32 - width) // 2
            bitmap[:, left:left + width] = np.asarray(image.resize((width, 32), Image.BILINEAR)) > 127
            out.append(bitmap.reshape(8, 4, 8, 4).sum((1, 3)))
    return np.stack(out).astype(np.float32)


def photos(count=300):
    """Random squares of 32..128 pixels, the same for every seed; flat ones are left out."""
    rng, out = np.random.default_rng(0), []
    grey = [np.asarray(Image.fromarray(i).convert("L")) for i in load_sample_images().images]
    while len(out) < count:
        image, side = grey[len(out) % 2], int(rng.integers(32, 129))
        y, x = (int(rng.integers(0, n - side)) for n in image.shape)
        patch = Image.fromarray(image[y:y + side, x:x + side])
        patch = np.asarray(patch.resize((8, 8), Image.BOX), np.float32)
        low, high = patch.min(), patch.max()
        if high - low >= 16:
            out.append(np.round((patch - low) / (high - low) * 16))
    return np.stack(out)


def to_input(images):
    return (torch.as_tensor(images)[:, None] / 16 - 0.3) / 0.38


def augment(x):
    """Small random rotation, scale, shear, shift and noise."""
    def draw(a):
        return (torch.rand(len(x)) * 2 - 1) * a
    turn, scale, shear = draw(0.2), 1 + draw(0.15), draw(0.2)
    rows = [torch.stack([scale * turn.cos(), shear - turn.sin(), draw(0.15)], 1),
            torch.stack([turn.sin(), scale * turn.cos(), draw(0.15)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), x.shape, align_corners=False)
    low = x.min()  # so that what comes in from outside is background
    return F.grid_sample(x - low, grid, align_corners=False) + low + 0.1 * torch.randn(x.shape)


def conv(inputs, outputs, size):
    return [nn.BatchNorm2d(inputs), nn.ReLU(),
            nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)]


class Dense(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.new = nn.Sequential(*conv(inputs, 2 * GROWTH, 1), *conv(2 * GROWTH, GROWTH, 3))

    def forward(self, x):
        return torch.cat([x, self.new(x)], 1)


def densenet():
    width = 2 * GROWTH
    middle = FEATURES - BLOCKS[1] * GROWTH
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        *[Dense(width + i * GROWTH) for i in range(BLOCKS[0])],
        *conv(width + BLOCKS[0] * GROWTH, middle, 1), nn.AvgPool2d(2),
        *[Dense(middle + i * GROWTH) for i in range(BLOCKS[1])],
        nn.BatchNorm2d(FEATURES), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def train(images, labels, seed):
    torch.manual_seed(seed)
    body, head = densenet(), nn.Linear(FEATURES, CLASSES)
    x, y, steps = to_input(images), torch.as_tensor(labels), len(images) // BATCH
    weights = [*body.parameters(), *head.parameters()]
    sgd = torch.optim.SGD(weights, RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
    plan = torch.optim.lr_scheduler.OneCycleLR(sgd, RATE, EPOCHS * steps, pct_start=0.1)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x))[:steps * BATCH].split(BATCH):
            loss = F.cross_entropy(head(body(augment(x[batch]))), y[batch])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            plan.step()
    return body.eval(), head


def energy(logits):
    top = logits.max(1)
    return top + np.log(np.exp(logits - top[:, None]).sum(1))


def measure(sets, labels, w, b):
    mean = sets["train"].mean(0)
    contribution = w * mean
    order = np.sort(contribution, axis=None)

    def dice(p):  # the share p with the smallest contributions is dropped
        return w * (contribution >= order[round(p * order.size)])
    scores = {"MSP": lambda h: (h @ w.T + b).max(1) - energy(h @ w.T + b), "energy": lambda h: energy(h @ w.T + b)}
    for p in (0.1, 0.3, 0.5, 0.7, 0.9):
        scores[f"DICE p={p}"] = lambda h, v=dice(p): energy(h @ v.T + b)
    for q, p in ((0.9, 0.7), (0.99, 0.9)):  # clipped at this quantile of all training activations
        scores[f"ReAct({q})+DICE({p})"] = lambda h, c=np.quantile(sets["train"], q), v=dice(p): (
            energy(np.minimum(h, c) @ v.T + b))
    for part in ("calibration", "test"):
        right = ((sets[part] @ w.T + b).argmax(1) == labels[part]).mean()
        print(f"{part} accuracy {100 * right:.2f} %")
    print(f"near-silent units {100 * (mean < 0.01 * mean.max()).mean():.1f} %, without a weight "
          f"at p=0.9 {100 * (dice(0.9) == 0).all(0).mean():.1f} %, median mean activation "
          f"{np.median(mean):.4f}, largest {mean.max():.3f}")
    for name, score in scores.items():
        known, cells = score(sets["test"]), []
        for ood in ("letters", "photos"):
            other = score(sets[ood])
            truth = np.r_[np.ones(len(known)), np.zeros(len(other))]
            area = roc_auc_score(truth, np.r_[known, other])
            false = (other >= np.quantile(known, 0.05, method="lower")).mean()
            cells.append(f"{ood} AUROC {100 * area:6.2f} FPR95 {100 * false:6.2f}")
        print(f"{name:22}", *cells, sep="  ")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    args = args.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    parts = digits(args.seed)
    body, head = train(*parts["train"], args.seed)
    images = {name: x for name, (x, _) in parts.items()} | {"letters": letters(), "photos": photos()}
    labels = {name: y.astype(np.int64) for name, (_, y) in parts.items()}
    with torch.no_grad():
        sets = {name: body(to_input(x)).numpy().astype(np.float16) for name, x in images.items()}
    w, b = head.weight.detach().numpy(), head.bias.detach().numpy()
    args.out.mkdir(parents=True, exist_ok=True)
    save_file({"fc.weight": w, "fc.bias": b}, args.out / "head.safetensors")
    for name, features in sets.items():
        assert np.isfinite(features).all() and (features >= 0).all()
        arrays = {"features": features} | ({"labels": labels[name]} if name in labels else {})
        save_file(arrays, args.out / f"{name}.safetensors")
    measure({name: x.astype(np.float32) for name, x in sets.items()}, labels, w, b)


if __name__ == "__main__":
    main()
