"""Writes the folder that `dice paper` takes: features in front of a model's last linear layer, and that layer.

python paper_features.py --model model.pt --layer fc --out features/net --id-train train --id-test test --ood svhn=svhn/test

MODEL is a whole module saved by torch.save, and is run: load only files that you trust. Folders are those of
torchvision.datasets.ImageFolder; labels of out-of-distribution sets are left out.
"""

import argparse
import pathlib

import numpy
import torch
from torchvision import datasets, transforms


def features(model, layer, folder, transform, batch, device):
    """Penultimate features [N, D] and labels [N] of the images in a folder, in its order."""
    rows, labels = [], []
    hook = layer.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].float().cpu().numpy()))
    images = datasets.ImageFolder(folder, transform)
    with torch.inference_mode():
        for pixels, classes in torch.utils.data.DataLoader(images, batch_size=batch, num_workers=2):
            model(pixels.to(device))
            labels.append(classes.numpy())
    hook.remove()
    return numpy.concatenate(rows), numpy.concatenate(labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--layer", default="fc", help="the name of the last linear layer")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--id-train", required=True)
    parser.add_argument("--id-test", required=True)
    parser.add_argument("--id-val", help="further in-distribution images, on which thresholds rest")
    parser.add_argument("--ood", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    parser.add_argument("--mean", type=float, nargs=3, default=[0.4914, 0.4822, 0.4465])
    parser.add_argument("--std", type=float, nargs=3, default=[0.2023, 0.1994, 0.2010])
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch.load(given.model, map_location=device, weights_only=False).eval()
    layer = model.get_submodule(given.layer)
    steps = [transforms.Resize(given.size), transforms.CenterCrop(given.size), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(given.mean, given.std)])
    given.out.mkdir(parents=True, exist_ok=True)
    bias = layer.bias if layer.bias is not None else torch.zeros(layer.out_features)
    head = {"weight": layer.weight.detach().cpu().numpy(), "bias": bias.detach().cpu().numpy()}
    numpy.savez(given.out / "head.npz", **head)
    sets = [("id_train", given.id_train), ("id_test", given.id_test), ("id_val", given.id_val)]
    for name, folder in ((name, folder) for name, folder in sets if folder is not None):
        rows, labels = features(model, layer, folder, transform, given.batch, device)
        numpy.savez(given.out / f"{name}.npz", features=rows, labels=labels)
    for name, folder in (pair.split("=", 1) for pair in given.ood):
        rows, _ = features(model, layer, folder, transform, given.batch, device)
        numpy.savez(given.out / f"{name}.npz", features=rows)


if __name__ == "__main__":
    main()
