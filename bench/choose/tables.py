"""Networks of tables: digits as 64 columns with GELU, and a synthetic table with tanh before a small head."""

import numpy as np
import torch
from sklearn import datasets
from torch import nn

import distort
from task import Task, known, split


class Layers(nn.Module):
    """A perceptron whose last layer before the head ends in `activation`."""

    def __init__(self, widths, activation, classes):
        super().__init__()
        pairs = zip(widths, widths[1:])
        self.body = nn.Sequential(*(layer for pair in pairs for layer in (nn.Linear(*pair), activation())))
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, inputs):
        return self.body(inputs)


def patches(count, generator):
    """Patches [count, 64] of the photographs that come with scikit-learn, grey, from 0 to 1."""
    rows = []
    for photograph in datasets.load_sample_images().images:
        grey = photograph.mean(2)[::4, ::4] / 255
        tops, lefts = (generator.integers(0, side - 8, count // 2) for side in grey.shape)
        rows += [grey[top : top + 8, left : left + 8].ravel() for top, left in zip(tops, lefts)]
    return np.float32(rows)


def digits(_):
    """Digits 0 to 6 of scikit-learn's 8x8 digits; 7, 8 and 9 are near."""
    data = datasets.load_digits()
    inputs = np.float32(data.data / 16)
    (inputs, labels), near = known(inputs, data.target, range(7))
    train, test = split(labels, 0.6, 0)
    generator = np.random.default_rng(1)
    shuffled = generator.permuted(inputs[test], axis=1)
    pictures = inputs[test].reshape(-1, 8, 8)
    return Task(
        about="digits 8x8 as a table, perceptron with GELU",
        model=lambda: Layers([64, 96, 48], nn.GELU, 7),
        train=(inputs[train], labels[train]),
        test=(inputs[test], labels[test]),
        near={"digits789": near},
        far={
            "noise": generator.random((400, 64), dtype=np.float32),
            "photographs": patches(400, generator),
            "shuffled": shuffled,
            "inverted": 1 - inputs[test],
        },
        standins={name: changed.reshape(-1, 64) for name, changed in distort.pictures(pictures[:300], generator).items()},
        epochs=40,
    )


def sample(count, seed, classes):
    return datasets.make_classification(
        count, 40, n_informative=16, n_redundant=8, n_classes=classes, n_clusters_per_class=2, class_sep=2.0, random_state=seed
    )


def scaled(table):
    return np.float32((table - table.mean(0)) / table.std(0))


def joined(count, generator):
    """Columns of the breast-cancer and the diabetes table side by side [count, 40], rows drawn."""
    parts = [scaled(data.data) for data in (datasets.load_breast_cancer(), datasets.load_diabetes())]
    return np.hstack([part[generator.integers(0, len(part), count)] for part in parts])


def table(_):
    """Eight of twelve classes of a table of 40 columns; the other four are near, other tables far."""
    inputs, labels = sample(16000, 3, 12)
    inputs = scaled(inputs)
    (inputs, labels), near = known(inputs, labels, range(8))
    train, test = split(labels, 0.7, 0)
    generator = np.random.default_rng(2)
    return Task(
        about="synthetic table of 40 columns, perceptron with tanh and 16 units before the head",
        model=lambda: Layers([40, 128, 64, 16], nn.Tanh, 8),
        train=(inputs[train], labels[train]),
        test=(inputs[test], labels[test]),
        near={"classes": near[:2000]},
        far={
            "another": scaled(sample(1500, 4, 12)[0]),
            "tables": joined(1000, generator),
            "normal": generator.standard_normal((1500, 40), dtype=np.float32) * 2,
            "shuffled": generator.permuted(inputs[test][:1500], axis=0),
        },
        epochs=15,
        batch=128,
    )


NETWORKS = {"digits": digits, "table": table}
