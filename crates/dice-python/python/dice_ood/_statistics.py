"""Statistics of training features, gathered in parts and merged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from . import _data, _native
from ._head import Head


def gather(X: Any, y: Any = None, *, head: Any = None, detectors: Iterable[str] = ("dice(0.9) | energy",)) -> _native.Statistics:
    """What fits of ``detectors`` rest on, of the rows of X: `Statistics`, which merge, pickle and become bytes.

    Args:
        X: features ``[N, D]``, or files of them.
        y: class labels ``[N]`` as the head numbers them, or a file of them.
        head: the head, as `Head.of` takes it, for statistics by predicted class.
        detectors: specs.

    >>> import numpy as np, dice_ood as dice
    >>> x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    >>> parts = [dice.gather(part, detectors=["knn"]) for part in (x[:30], x[30:])]
    >>> parts[0].merge(parts[1:]).n_rows
    100
    """
    x = _data.features(X)
    units = None if isinstance(x, list) else x.shape[1]
    labels_file = _data.files(y)[0] if isinstance(y, (str, os.PathLike)) else None
    labels = None if labels_file else _data.labels(y, None if units is None else len(x))
    engine = None if head is None else Head.of(head, units)._engine
    return _native.Statistics.gather(x, labels, labels_file, engine, list(detectors))
