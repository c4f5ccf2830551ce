"""Out-of-distribution detection for any trained classifier, with calibrated decisions.

    import dice_ood as dice
    det = dice.Detector("dice(0.9) | energy", head=(W, b), target_acceptance=0.95).fit(features, y)
    det(x).is_ood

Scores are higher = more in-distribution, everywhere. Nothing but numpy is imported: torch, pandas, polars and pyarrow only where given.
"""

from __future__ import annotations

import os

from ._arrow import ood, score_arrow
from ._choice import Outcome, diagnose, methods, tune
from ._detector import Detector, load_all
from ._errors import (
    CalibrationError,
    CalibrationWarning,
    DataTypeError,
    DiceError,
    FileError,
    FindingWarning,
    FormatError,
    InputError,
    MissingError,
    NotFiniteError,
    NotFittedError,
    ShapeError,
    SpecError,
)
from ._head import Head
from ._native import Statistics, __version__
from ._report import Report, evaluate, evaluate_scores
from ._result import Scored
from ._statistics import gather
from ._torch import extract

__all__ = [
    "CalibrationError",
    "CalibrationWarning",
    "DataTypeError",
    "Detector",
    "DiceError",
    "FileError",
    "FindingWarning",
    "FormatError",
    "Head",
    "InputError",
    "MissingError",
    "NotFiniteError",
    "NotFittedError",
    "Outcome",
    "Report",
    "Scored",
    "ShapeError",
    "SpecError",
    "Statistics",
    "__version__",
    "diagnose",
    "evaluate",
    "evaluate_scores",
    "extract",
    "gather",
    "load",
    "load_all",
    "methods",
    "ood",
    "score_arrow",
    "tune",
]


def load(path: str | os.PathLike[str], detector: str | None = None) -> Detector:
    """Reads a detector that `Detector.save` or ``dice fit`` wrote; see `Detector.load`."""
    return Detector.load(path, detector)
