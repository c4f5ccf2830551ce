"""Choosing a detector, and saying what pruning does inside a network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from . import _data, _native
from ._detector import Detector
from ._errors import InputError, MissingError
from ._head import Head


def methods(name: str | None = None) -> Any:
    """What detectors are made of: a list of mappings, or that of ``name``; methods that are known and not here say why.

    >>> import dice_ood as dice
    >>> dice.methods("knn")["role"]
    'score'
    >>> len([one for one in dice.methods() if one["role"] == "score"]) > 30
    True
    """
    listed = json.loads(_native.methods())
    if name is None:
        return listed
    for one in listed:
        if one["name"] == name:
            return one
    raise InputError(f"'{name}'", argument="name", expected="a method; methods() lists them", kind="Argument")


class Outcome(Mapping[str, Any]):
    """What a choice, a diagnosis or an evaluation came to: a mapping with the keys of the command's JSON."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[str, Any] = json.loads(text)

    def __getitem__(self, key: str) -> Any:
        return self._found[key]

    def __iter__(self) -> Any:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data of its own."""
        return json.loads(self._text)

    def to_json(self) -> str:
        """Everything, as JSON."""
        return self._text

    def __repr__(self) -> str:
        return json.dumps(self._found, indent=2)


def tune(
    X: Any,
    y: Any = None,
    *,
    head: Any,
    id: Any = None,
    ood: Mapping[str, Any] | None = None,
    stand_ins: Mapping[str, Any] | None = None,
    candidates: Iterable[str] = (),
    metric: str = "fpr95",
    classes: int = 3,
    at_tpr: float = 0.95,
    target_acceptance: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[Detector, Outcome]:
    """Chooses one of ``candidates`` on some rows, reports on others, and calibrates it on a third part.

    Args:
        X: training features ``[N, D]``, or files of them.
        y: labels ``[N]``.
        head: as `Head.of` takes it.
        id: in-distribution features that the network has not seen, or ``(features, labels)``; three tenths of X otherwise.
        ood: out-of-distribution features by name, to choose by; do not report on them.
        stand_ins: features of distorted in-distribution inputs, where there are no others. Without either, ``classes`` held-out classes
            stand for them where there are labels, else Gaussian noise.
        candidates: specs; every method with its defaults otherwise, as far as it can be fitted.
        metric: ``"fpr95"`` or ``"auroc"``.
        classes: how many classes are held out in turn.
        at_tpr: the TPR at which FPR is taken.
        target_acceptance: the promise of the threshold.
        replicates: of the bootstrap.
        seed: of the split, the noise and the bootstrap.

    Returns:
        The chosen detector, and the account of the choice: the JSON of ``dice tune``.
    """
    if metric not in ("fpr95", "auroc"):
        raise InputError(repr(metric), argument="metric", expected="'fpr95' or 'auroc'", kind="Argument")
    training = _labelled(X, y, "X")
    given = None if id is None else _labelled(*_data.pair(id), "id")
    sets = dict(ood or {}) or dict(stand_ins or {})
    labelled = given is None or given[1] is not None or given[2] is not None
    by_classes = (training[1] is not None or training[2] is not None) and labelled
    asked = {
        "specs": list(candidates),
        "validation": "sets" if ood else "stand-ins" if stand_ins else "classes" if by_classes else "noise",
        "classes": int(classes),
        "auroc": metric == "auroc",
        "at_tpr": float(at_tpr),
        "tpr": float(target_acceptance),
        "replicates": int(replicates),
        "seed": int(seed),
        "provenance": {"chosen": "by dice_ood.tune", "calibration": f"a part of the in-distribution inputs, seed {seed}"},
    }
    weights = _head(head, training[0])
    engine, outcome = _native.tune(asked, weights._engine, training, given, [(name, _data.features(one, name)) for name, one in sets.items()])
    return Detector._of_engine(engine), Outcome(outcome)


def diagnose(
    X: Any,
    y: Any = None,
    *,
    head: Any,
    spec: str = "dice(0.9) | energy",
    id: Any = None,
    ood: Mapping[str, Any] | None = None,
    stand_ins: Mapping[str, Any] | None = None,
) -> Outcome:
    """What pruning does inside a network, and whether it will help: the JSON of ``dice diagnose``.

    Args:
        X: training features ``[N, D]``, or files of them.
        y: labels ``[N]``.
        head: as `Head.of` takes it.
        spec: ``[SHAPING |] SPARSITY | energy``.
        id: in-distribution features that the network has not seen, or ``(features, labels)``.
        ood: out-of-distribution features by name; ``"near:NAME"`` and ``"far:NAME"`` take part in the forecast.
        stand_ins: features of distorted in-distribution inputs, named alike.
    """
    training = _labelled(X, y, "X")
    given = None if id is None else _labelled(*_data.pair(id), "id")

    def sets(named: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
        return [(name, _data.features(one, name)) for name, one in dict(named or {}).items()]

    return Outcome(_native.diagnose(spec, _head(head, training[0])._engine, training, given, sets(ood), sets(stand_ins)))


def _head(head: Any, x: Any) -> Head:
    if head is None:
        raise MissingError("none", argument="head", expected="the classifier's last linear layer", kind="Missing")
    return Head.of(head, None if isinstance(x, list) else x.shape[1])


def _labelled(X: Any, y: Any, what: str) -> tuple[Any, Any, str | None]:
    """Features, their labels, or the file of these."""
    x = _data.features(X, what)
    if isinstance(y, (str, os.PathLike)):
        return x, None, _data.files(y)[0]
    return x, _data.labels(y, None if isinstance(x, list) else len(x)), None
