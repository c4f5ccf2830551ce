"""Scoring of Arrow data: one function for every engine that speaks it. pyarrow is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _data
from ._detector import Detector, _as_ood
from ._errors import DataTypeError, InputError
from ._result import Scored


def score_arrow(batch: Any, detector: Detector, *, columns: str | Sequence[str] | None = None, non_finite: str = "raise") -> Any:
    """Scores a batch of Arrow: a struct of ``score``, ``p_value``, ``is_ood`` and ``prediction`` for each row.

    Args:
        batch: whatever has the Arrow C data interface, or ``pyarrow`` itself: a record batch, a table, or an array of lists ``[D]``. A
            column of f32 lists of fixed size is read where it is.
        detector: a fitted `Detector`.
        columns: the column of lists, or the columns that are the units, in order. Without it, the columns that the fit was of, or the only
            column of lists, or all columns of numbers where they are as many as the units.
        non_finite: ``"raise"``, or ``"ood"`` to score rows with NaN, infinity or null values as out-of-distribution.

    Returns:
        A ``pyarrow.StructArray``; p-values and decisions are null for a detector without calibration.
    """
    import pyarrow

    x = arrow_features(batch, columns, detector.n_features_in_, detector.__dict__.get("feature_names_in_"))
    if len(x) == 0:
        return pyarrow.nulls(0, struct_type())
    found = Scored(*detector._fitted().decide(_checked(x, detector), _as_ood(non_finite)))
    rows = len(found.score)
    arrays = [
        pyarrow.array(found.score),
        pyarrow.nulls(rows, pyarrow.float64()) if found.p_value is None else pyarrow.array(found.p_value),
        pyarrow.nulls(rows, pyarrow.bool_()) if found.is_ood is None else pyarrow.array(found.is_ood),
        pyarrow.array(found.prediction),
    ]
    return pyarrow.StructArray.from_arrays(arrays, ["score", "p_value", "is_ood", "prediction"])


def ood(batch: Any, detector: Detector, *, columns: str | Sequence[str] | None = None, non_finite: str = "ood") -> Any:
    """Whether the detector rejects each row of a batch: a ``pyarrow.BooleanArray``, for filters."""
    detector._offset()
    return score_arrow(batch, detector, columns=columns, non_finite=non_finite).field("is_ood")


def struct_type() -> Any:
    """The type of what `score_arrow` gives."""
    import pyarrow

    return pyarrow.struct([("score", pyarrow.float64()), ("p_value", pyarrow.float64()), ("is_ood", pyarrow.bool_()), ("prediction", pyarrow.int64())])


def _checked(x: np.ndarray, detector: Detector) -> np.ndarray:
    x = _data._matrix(x, "features")
    detector._check_width(x.shape[1])
    return x


def arrow_features(
    batch: Any, columns: str | Sequence[str] | None = None, units: int | None = None, fitted: Any = None
) -> np.ndarray:
    """The features ``[N, D]`` of a batch: of these columns, or else of those that can be meant."""
    import pyarrow

    if not isinstance(batch, (pyarrow.RecordBatch, pyarrow.Table)):
        batch = _table(batch)
    return _data._arrow(batch.select(_columns(batch, columns, units, fitted)), "features")


def _table(data: Any) -> Any:
    """A table of an array, or of what another library has: rows of a frame, or the values of a column."""
    import pyarrow

    if not isinstance(data, (pyarrow.Array, pyarrow.ChunkedArray)):
        if not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"):
            raise DataTypeError(type(data).__name__, argument="batch", expected="a batch, table or array of Arrow", kind="Argument")
        data = pyarrow.chunked_array(data) if hasattr(data, "__arrow_c_stream__") else pyarrow.array(data)
    return pyarrow.Table.from_struct_array(data) if pyarrow.types.is_struct(data.type) else pyarrow.table({"features": data})


def _columns(batch: Any, columns: str | Sequence[str] | None, units: int | None, fitted: Any) -> list[str]:
    import pyarrow

    names, types = batch.schema.names, batch.schema.types
    if columns is not None:
        wanted = [columns] if isinstance(columns, str) else list(columns)
        absent = [name for name in wanted if name not in names]
        if absent:
            raise InputError(f"{absent} among {names}", argument="columns", expected="columns of the batch", kind="Columns")
        return wanted
    if fitted is not None and set(fitted) <= set(names):
        return list(fitted)
    is_list = [name for name, kind in zip(names, types) if _holds_lists(kind)]
    numbers = [name for name, kind in zip(names, types) if pyarrow.types.is_floating(kind)]
    if len(is_list) == 1:
        return is_list
    if not is_list and numbers and units in (None, len(numbers)):
        return numbers
    raise InputError(
        f"columns {names[:10]}", argument="columns", expected=f"a column of lists [{units or 'D'}], or {units or 'D'} columns of floats", fix="columns= names them", kind="Columns"
    )


def _holds_lists(kind: Any) -> bool:
    """Whether values of an Arrow type are lists, or tensors that are stored as lists."""
    from pyarrow import types

    kind = getattr(kind, "storage_type", kind)
    return types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)
