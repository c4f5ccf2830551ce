"""Trains small networks of many kinds, and writes their features as `compare.py` reads them.

    python -m venv .venv && .venv/bin/pip install -r bench/choose/requirements.txt
    .venv/bin/python bench/choose/train.py OUT [--images DIR] [--only NAME ...]

Their data are made here, come with scikit-learn and Django, or are the images of DIR (`cifar10_train/CLASS/`, `cifar10/`, `svhn/`,
`mnist/`, `omniglot/`, `textures/`, `imagenet/`); networks of images are left out without it. One thread and fixed seeds: the same
bytes on the same machine. Each network gets a folder: `head.safetensors`, `id_train`, `id_test` and one file an out-of-distribution set
(`features` f32 [N, D], `labels` i64 [N] of in-distribution rows), `standin_*` (distorted test inputs), and `network.json`, which says
what is near and what is far.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

import pictures
import tables
import texts
import waves

NETWORKS = {**tables.NETWORKS, **waves.NETWORKS, **texts.NETWORKS, **pictures.NETWORKS}


def batches(rows, size, generator):
    return torch.randperm(rows, generator=generator).split(size)


def fit(model, task):
    """Cross-entropy by AdamW with one cycle of the learning rate; `task.augment` changes each batch."""
    inputs, labels = (torch.as_tensor(part) for part in task.train)
    generator = torch.Generator().manual_seed(task.seed)
    steps = task.epochs * -(-len(inputs) // task.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.rate, weight_decay=task.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.rate, total_steps=steps)
    model.train()
    for _ in range(task.epochs):
        for rows in batches(len(inputs), task.batch, generator):
            logits = model.fc(model(task.augment(inputs[rows], generator)))
            loss = torch.nn.functional.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def features(model, inputs):
    return torch.cat([model(part) for part in torch.as_tensor(inputs).split(500)]).numpy()


def write(folder, model, task):
    folder.mkdir(parents=True, exist_ok=True)
    head = {"fc.weight": model.fc.weight, "fc.bias": model.fc.bias}
    save_file({name: value.detach().numpy().copy() for name, value in head.items()}, folder / "head.safetensors")
    for name, (inputs, labels) in {"id_train": task.train, "id_test": task.test}.items():
        save_file({"features": features(model, inputs), "labels": labels.astype(np.int64)}, folder / f"{name}.safetensors")
    sets = {**task.near, **task.far, **{f"standin_{name}": inputs for name, inputs in task.standins.items()}}
    for name, inputs in sets.items():
        save_file({"features": features(model, inputs)}, folder / f"{name}.safetensors")


def accuracy(model, inputs, labels):
    with torch.no_grad():
        predicted = model.fc(torch.as_tensor(features(model, inputs))).argmax(1).numpy()
    return float((predicted == labels).mean())


def train(name, out, images):
    task = NETWORKS[name](images)
    torch.manual_seed(task.seed)
    model = task.model()
    fit(model, task)
    folder = out / name
    write(folder, model, task)
    about = {
        "about": task.about,
        "near": sorted(task.near),
        "far": sorted(task.far),
        "accuracy": accuracy(model, *task.test),
        "accuracy_train": accuracy(model, *task.train),
        "negative": float((features(model, task.test[0]) < 0).mean()),
        "shape": list(model.fc.weight.shape),
        "rows": {part: len(getattr(task, part)[1]) for part in ("train", "test")},
    }
    (folder / "network.json").write_text(json.dumps(about, indent=1) + "\n")
    print(name, about, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--images", type=pathlib.Path, help="folder of image sets")
    parser.add_argument("--only", nargs="*", choices=sorted(NETWORKS), help="these networks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only or NETWORKS:
        if name in pictures.NETWORKS and options.images is None:
            print(f"{name}: left out, as --images is not given")
            continue
        train(name, options.out, options.images)


if __name__ == "__main__":
    main()
