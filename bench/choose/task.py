"""What a network is trained on and tested with."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass
class Task:
    """Inputs are arrays that the model takes; `train` and `test` are pairs of inputs and labels from 0."""

    about: str
    model: Callable
    train: tuple
    test: tuple
    near: dict
    far: dict
    standins: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    epochs: int = 30
    batch: int = 64
    rate: float = 2e-3
    decay: float = 1e-2
    augment: Callable = staticmethod(lambda inputs, _: inputs)


def split(labels, share, seed):
    """Indices of a training and a test part, drawn by seed."""
    order = np.random.default_rng(seed).permutation(len(labels))
    cut = int(share * len(order))
    return order[:cut], order[cut:]


def known(inputs, labels, classes):
    """The rows of `classes` with labels from 0, and the other rows."""
    of = {label: place for place, label in enumerate(classes)}
    inside = np.isin(labels, classes)
    return (inputs[inside], np.array([of[label] for label in labels[inside]], dtype=np.int64)), inputs[~inside]
