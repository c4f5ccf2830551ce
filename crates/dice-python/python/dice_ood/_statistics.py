"""Statistics of training features, gathered in parts and merged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from . import _data, _native
from ._arrow import arrow_features
from ._detector import not_auto
from ._errors import DiceError
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
    specs = list(detectors)
    not_auto(specs)
    x = _data.features(X)
    units = None if isinstance(x, list) else x.shape[1]
    labels_file = _data.files(y)[0] if isinstance(y, (str, os.PathLike)) else None
    labels = None if labels_file else _data.labels(y, None if units is None else len(x))
    engine = None if head is None else Head.of(head, units)._engine
    return _native.Statistics.gather(x, labels, labels_file, engine, specs)


def of_batch(
    batch: Any, head: Head | None, detectors: Sequence[str], columns: str | Sequence[str] | None, label: str | None
) -> _native.Statistics:
    """Statistics of the rows of an Arrow batch, whose column ``label`` holds class labels."""
    features = batch.drop_columns([label]) if columns is None and label is not None else batch
    x = _data._matrix(arrow_features(features, columns), "features")
    y = None if label is None else _data._array(batch.select([label]), "labels")
    return gather(x, y, head=head, detectors=detectors)


def merged(parts: Sequence[_native.Statistics]) -> _native.Statistics:
    """Statistics of the rows of all parts, merged in pairs."""
    if not parts:
        raise DiceError("no statistics: there are no rows", kind="Empty")
    parts = list(parts)
    while len(parts) > 1:
        parts = [parts[place].merge(parts[place + 1 : place + 2]) for place in range(0, len(parts), 2)]
    return parts[0]
