"""The linear head of a classifier."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import _data, _native
from ._errors import DataTypeError, InputError, ShapeError


class Head:
    """The last linear layer of a classifier: weight ``[C, D]`` and bias ``[C]``, in the order of ``torch.nn.Linear``.

    Args:
        weight: an array or tensor ``[C, D]``.
        bias: an array or tensor ``[C]``; zero where there is none.
        classes: names of the C classes, where they have some.

    Raises:
        ShapeError: weight and bias disagree.
        NotFiniteError: a value is NaN or infinity.

    >>> import dice_ood as dice
    >>> head = dice.Head([[1.0, -0.2, 0.0], [-0.1, 1.5, 0.0]], [0.0, 0.1])
    >>> head
    Head(2 classes, 3 units)
    >>> head.weight[1]
    array([-0.1,  1.5,  0. ], dtype=float32)
    """

    __slots__ = ("_classes", "_engine")
    _classes: tuple[str, ...]
    _engine: _native.Head

    def __init__(self, weight: Any, bias: Any = None, classes: Iterable[str] = ()) -> None:
        engine = _native.Head(*_data.weight_and_bias(weight, bias))
        names = tuple(map(str, classes))
        if names and len(names) != engine.n_classes:
            raise ShapeError(f"{len(names)} names", argument="classes", expected=f"[{engine.n_classes}], one for each class of the head", kind="Shape")
        object.__setattr__(self, "_engine", engine)
        object.__setattr__(self, "_classes", names)

    @classmethod
    def load(cls, file: str | os.PathLike[str], units: int | None = None) -> Head:
        """Finds the head in a file: ``.safetensors``, ``.npz``, a PyTorch checkpoint (read without running it), ``.onnx``, or a folder of
        Hugging Face, timm or OpenCLIP, whose names of classes it then has.

        ``FILE#NAME`` names a tensor, or in a model the operator. ``units``, D of the features, rules out matrices of another width.

        Raises:
            FileError: the file cannot be read.
            MissingError: it has no head; the message lists its tensors.
            InputError: it has several that could be one.
        """
        return cls._of(*_native.Head.load(os.fsdecode(file), units))

    @classmethod
    def of(cls, given: Any, units: int | None = None) -> Head:
        """The head that ``given`` stands for.

        That is a head, a file (see `load`), a pair of weight and bias, a layer with ``weight`` and ``bias`` as ``torch.nn.Linear`` has
        them, a fitted linear classifier with ``coef_`` and ``intercept_`` as scikit-learn has them, a module or mapping with a single
        such layer called as heads are (``fc``, ``classifier``, ``head``), or a function of ``units`` that gives one of these.

        >>> import dice_ood as dice, numpy as np
        >>> dice.Head.of((np.eye(3), np.zeros(3)))
        Head(3 classes, 3 units)
        """
        if isinstance(given, Head):
            return given
        if isinstance(given, (str, os.PathLike)):
            return cls.load(given, units)
        if isinstance(given, tuple) and len(given) == 2:
            return cls(*given)
        if hasattr(given, "coef_"):
            return cls._of_sklearn(given)
        for layer in (given, *(getattr(given, name, None) for name in ("fc", "classifier", "head", "linear", "last_linear"))):
            weight = getattr(layer, "weight", None)
            if getattr(weight, "ndim", 0) == 2:
                return cls(weight, getattr(layer, "bias", None))
        if callable(given) and not hasattr(given, "parameters") and units is not None:
            return cls.of(given(units))
        raise DataTypeError(
            type(given).__name__,
            argument="head",
            expected="a Head, a file, (weight, bias), a linear layer or a fitted linear classifier",
            kind="Argument",
        )

    @classmethod
    def _of_sklearn(cls, classifier: Any) -> Head:
        weight = np.atleast_2d(np.asarray(classifier.coef_))
        bias = np.broadcast_to(np.asarray(classifier.intercept_), weight.shape[:1])
        if len(weight) == 1 and len(getattr(classifier, "classes_", (0, 1))) == 2:
            # The softmax of (0, s) is the sigmoid of s.
            weight = np.vstack([np.zeros_like(weight), weight])
            bias = np.concatenate([np.zeros_like(bias), bias])
        if len(weight) < 2:
            raise InputError(
                f"{type(classifier).__name__} with one output", argument="head", expected="a classifier of two or more classes", kind="Argument"
            )
        names = np.asarray(getattr(classifier, "classes_", ()))
        return cls(weight, bias, names if names.dtype.kind in "OSU" and len(names) == len(weight) else ())

    @classmethod
    def _of(cls, engine: _native.Head, classes: Iterable[str] = ()) -> Head:
        head = cls.__new__(cls)
        object.__setattr__(head, "_engine", engine)
        object.__setattr__(head, "_classes", tuple(classes))
        return head

    @property
    def weight(self) -> np.ndarray:
        """The weight ``[C, D]``, f32."""
        return self._engine.weight

    @property
    def bias(self) -> np.ndarray:
        """The bias ``[C]``, f32."""
        return self._engine.bias

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes ``[C]``; empty where they are not known."""
        return self._classes

    @property
    def n_classes(self) -> int:
        """Number of classes, C."""
        return self._engine.n_classes

    @property
    def n_units(self) -> int:
        """Number of units that it reads, D."""
        return self._engine.n_units

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Head cannot be changed: {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Head, (self.weight, self.bias, self.classes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and self._engine == other._engine

    def __hash__(self) -> int:
        return hash((self.weight.tobytes(), self.bias.tobytes()))

    def __repr__(self) -> str:
        return f"Head({self.n_classes} classes, {self.n_units} units)"
