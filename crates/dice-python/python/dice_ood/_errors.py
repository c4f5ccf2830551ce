"""What can go wrong, as exceptions of one hierarchy."""

from __future__ import annotations

import sys
from typing import Any


class DiceError(Exception):
    """Something that dice_ood cannot do, part by part.

    Attributes:
        kind: which class of failure it is, such as ``"Shape"`` or ``"NotFinite"``.
        file: the file, or the input, that is wrong; ``None`` where no file is.
        tensor: the tensor or column in it.
        argument: the argument that is wrong, where that is no tensor.
        expected: what would have been right.
        found: what was found, or what happened.
        fix: what can be done.
    """

    kind: str = "Error"

    def __init__(
        self,
        found: str = "",
        *,
        file: str | None = None,
        tensor: str | None = None,
        argument: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
        kind: str | None = None,
    ) -> None:
        self.found = found
        self.file = file
        self.tensor = tensor
        self.argument = argument
        self.expected = expected
        self.fix = fix
        if kind is not None:
            self.kind = kind
        super().__init__(str(self))

    def __str__(self) -> str:
        text = "".join(f"{place}: " for place in (self.file, self.argument, self.tensor) if place)
        text += f"expected {self.expected}, found {self.found}" if self.expected else self.found
        return f"{text}; {self.fix}" if self.fix else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.__dict__.copy())


def _restored(kind: type[DiceError], parts: dict[str, Any]) -> DiceError:
    error = kind.__new__(kind)
    error.__dict__.update(parts)
    error.args = (str(error),)
    return error


class InputError(DiceError, ValueError):
    """Data or an argument that cannot be used as given."""


class ShapeError(InputError):
    """Arrays or tensors whose shapes do not fit each other."""


class NotFiniteError(InputError):
    """NaN or infinity, with the row and column that it stands in."""


class SpecError(InputError):
    """A detector that does not parse; the message points at the character."""


class CalibrationError(InputError):
    """A promise that the calibration inputs cannot support, or a detector without calibration."""


class MissingError(InputError):
    """Something that is needed and was not given: labels, a head, calibration inputs, a statistic."""


class DataTypeError(DiceError, TypeError):
    """Values of a type that cannot be features, labels or scores."""


class FileError(DiceError, OSError):
    """A file that cannot be opened, read or written."""


class FormatError(DiceError, ValueError):
    """A file whose bytes are not what they should be, or of a kind that is not read."""


class NotFittedError(DiceError, ValueError, AttributeError):
    """A detector that was asked before it was fitted."""

    def __reduce__(self) -> tuple[Any, ...]:
        # That of scikit-learn is made where it is raised, and cannot be found by name.
        return _restored, (NotFittedError, self.__dict__.copy())


class CalibrationWarning(UserWarning):
    """A fit had too few rows for the promise that was asked for, and made a smaller one."""


class FindingWarning(UserWarning):
    """Features, head, labels or calibration inputs probably do not belong together; the message says why."""


_KINDS: dict[str, type[DiceError]] = {
    "Io": FileError,
    "Malformed": FormatError,
    "Unsupported": FormatError,
    "Shape": ShapeError,
    "Missing": MissingError,
    "Ambiguous": InputError,
    "Columns": InputError,
    "Empty": InputError,
    "NotFinite": NotFiniteError,
    "Spec": SpecError,
    "Calibration": CalibrationError,
    "Argument": InputError,
}

# How what the library asks for is given in Python.
_REMEDIES = {
    "AcceptNonFinite": "non_finite='ood'",
    "FitToModel": "Detector.fit on features of that very model",
}
_MISSING = {
    "Labels": "y=",
    "Head": "head=",
    "Reference": "calibration=",
    "Statistic": "fit on features, not on statistics",
}
_ARGUMENTS = {
    "TPR": "target_acceptance",
    "calibration fraction": "calibration_fraction",
    "false discovery rate": "fdr",
    "TPR at which FPR is taken": "at_tpr",
}


def of_parts(
    kind: str,
    missing: str,
    remedy: str,
    *,
    file: str | None,
    tensor: str | None,
    argument: str | None,
    expected: str | None,
    found: str,
    fix: str | None,
) -> DiceError:
    """The exception for an error of the library."""
    more = _REMEDIES.get(remedy) or _MISSING.get(missing.split("(")[0])
    if more:
        fix = f"{fix} ({more})" if fix else more
    if kind == "NotFinite":
        # The words that other tools look for.
        expected = "finite values, neither NaN nor infinity" if expected == "finite values" else expected
    argument = _ARGUMENTS.get(argument or "", argument)
    of_kind = _KINDS.get(kind, DiceError)
    return of_kind(found, file=file, tensor=tensor, argument=argument, expected=expected, fix=fix, kind=kind)


def not_fitted(what: str, fix: str) -> DiceError:
    """The error of asking ``what`` too early; one of scikit-learn's too, where that is loaded."""
    base: type[DiceError] = NotFittedError
    sklearn = sys.modules.get("sklearn.exceptions")
    if sklearn is not None:
        base = type("NotFittedError", (NotFittedError, sklearn.NotFittedError), {"__module__": __name__})
    return base(what, fix=fix, kind="NotFitted")
