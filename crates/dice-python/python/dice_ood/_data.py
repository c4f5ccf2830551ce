"""What data can be given as: arrays and tables of any library that can show itself as one, or files.

Nothing is imported for it: a tensor, frame or table is known by what it can do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._errors import DataTypeError, FormatError, InputError, ShapeError

_F32 = np.dtype(np.float32)
_F64 = np.dtype(np.float64)

# Features of these are pixels or masks, and nobody means them to be scored.
_PIXELS = "the inputs of the classifier's last layer, as floats; these look like pixels or a mask"


def is_file(data: Any) -> bool:
    """Whether data are files: a path, or a list of paths."""
    if isinstance(data, (str, os.PathLike)):
        return True
    return isinstance(data, (list, tuple)) and len(data) > 0 and all(isinstance(one, (str, os.PathLike)) for one in data)


def files(data: Any) -> list[str]:
    """The paths of files."""
    given = [data] if isinstance(data, (str, os.PathLike)) else data
    return [os.fsdecode(one) for one in given]


def features(data: Any, what: str = "X") -> Any:
    """Features as the engine takes them: an array [N, D] of f32 or f64, or a list of files.

    C-contiguous f32 arrays are returned as they are.
    """
    if type(data) is np.ndarray and data.ndim == 2 and data.dtype is _F32 and data.flags.c_contiguous and data.flags.aligned:
        if data.shape[0] == 0 or data.shape[1] == 0:
            raise _empty(data, what)
        return data
    if is_file(data):
        return files(data)
    return _matrix(_array(data, what), what)


def names(data: Any) -> list[str] | None:
    """The names of the columns of a frame or table, where all are text."""
    if isinstance(data, np.ndarray):
        return None
    columns = getattr(data, "column_names", None)
    if columns is None:
        columns = getattr(data, "columns", None)
    if columns is None or callable(columns) or isinstance(columns, np.ndarray):
        return None
    try:
        listed = list(columns)
    except TypeError:
        return None
    # The columns of pyarrow tables are arrays, and their names are beside.
    return listed if listed and all(isinstance(one, str) for one in listed) else None


def labels(y: Any, rows: int | None) -> np.ndarray | None:
    """Class labels [N] as whole numbers; ``None`` where there are none."""
    if y is None:
        return None
    array = np.asarray(_array(y, "y"))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ShapeError(f"shape {list(array.shape)}", tensor="y", expected="[N], a class for each row", kind="Shape")
    if rows is not None and len(array) != rows:
        raise ShapeError(f"[{len(array)}]", tensor="y", expected=f"[{rows}], one for each row of X", kind="Shape")
    whole = array.astype(np.int64, casting="unsafe") if array.dtype.kind in "biuf" else None
    if whole is None or not np.array_equal(whole, array):
        raise InputError(
            f"Unknown label type: {array.dtype}" if whole is None else "fractions, NaN or numbers beyond 64 bits",
            tensor="y",
            expected="whole numbers: the class of each row, as the head numbers them",
            fix="number the classes as the network does, for instance with np.unique(y, return_inverse=True)[1]",
            kind="Argument",
        )
    return np.ascontiguousarray(whole)


def pair(data: Any) -> tuple[Any, Any]:
    """Features and their labels, or features alone."""
    return (data[0], data[1]) if isinstance(data, tuple) and len(data) == 2 else (data, None)


def scores(data: Any, what: str) -> np.ndarray:
    """Scores [N] of any tool, as f64."""
    array = np.asarray(_array(data, what))
    if array.ndim != 1:
        raise ShapeError(f"shape {list(array.shape)}", tensor=what, expected="[N], a score for each input", kind="Shape")
    return np.ascontiguousarray(_real(array, what), dtype=np.float64)


def _array(data: Any, what: str) -> Any:
    """Data as a numpy array of whatever type."""
    if isinstance(data, np.ndarray):
        if np.any(getattr(data, "mask", False)):
            raise InputError("masked values", tensor=what, expected="a value in every place", fix="X.filled(...)", kind="NotFinite")
        return np.asarray(data)
    if hasattr(data, "detach") and hasattr(data, "device"):
        return _tensor(data, what)
    if hasattr(data, "toarray") and hasattr(data, "nnz"):
        raise DataTypeError(
            "a sparse matrix", tensor=what, expected="dense features [N, D]", fix="sparse input: use X.toarray()", kind="Argument"
        )
    if hasattr(data, "column_names") and hasattr(data, "column"):
        return _arrow(data, what)
    if hasattr(data, "__arrow_c_stream__") and not hasattr(data, "to_numpy") and not hasattr(data, "__array__"):
        import pyarrow

        return _arrow(pyarrow.table(data), what)
    try:
        if hasattr(data, "to_numpy"):
            return np.asarray(data.to_numpy())
        return np.asarray(data)
    except (ValueError, TypeError) as cause:
        raise ShapeError(
            f"{type(data).__name__}: {cause}", tensor=what, expected="an array [N, D]: as many values in every row", kind="Shape"
        ) from cause


def _tensor(data: Any, what: str) -> np.ndarray:
    """A torch tensor, which has to be on the CPU."""
    device = str(data.device)
    if not device.startswith("cpu"):
        raise InputError(
            f"a tensor on {device}", tensor=what, expected="a tensor on the CPU", fix="move it there: X.cpu()", kind="Argument"
        )
    data = data.detach()
    if str(data.dtype) == "torch.bfloat16":
        data = data.float()
    try:
        return np.asarray(data.resolve_conj().numpy())
    except (RuntimeError, TypeError) as cause:
        raise DataTypeError(str(cause), tensor=what, expected="a dense tensor of numbers", kind="Argument") from cause


def _arrow(table: Any, what: str) -> np.ndarray:
    """The columns of a table or batch of Arrow: one of lists [D], or one a unit."""
    columns = [_storage(table.column(place)) for place in range(len(table.column_names))]
    if len(columns) == 1 and hasattr(columns[0].type, "value_type"):
        return _lists(columns[0], what)
    try:
        arrays = [column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False) for column in columns]
    except Exception as cause:
        raise DataTypeError(str(cause), tensor=what, expected="columns of numbers", kind="Argument") from cause
    return np.column_stack(arrays) if arrays else np.empty((table.num_rows, 0), np.float32)


def _storage(column: Any) -> Any:
    """A column of an extension type, such as one of tensors, as what it is stored as."""
    return column.cast(column.type.storage_type) if hasattr(column.type, "storage_type") else column


def _lists(column: Any, what: str) -> np.ndarray:
    if hasattr(column, "num_chunks"):
        # Of one chunk, joining would copy.
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = getattr(column.type, "list_size", None)
    if column.null_count:
        row = column.is_null().index(True)
        raise InputError(f"no list at row {row}", tensor=what, expected="a list of numbers in every row", kind="NotFinite")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    rows = len(column)
    if rows == 0:
        return np.empty((0, width or 0), np.float32)
    if width is None:
        lengths = column.value_lengths().to_numpy()
        width, others = int(lengths[0]), np.flatnonzero(lengths != lengths[0])
        if len(others):
            found = f"{lengths[others[0]]} values at row {others[0]}, {width} in those before"
            raise ShapeError(found, tensor=what, expected="as many values in every row", kind="Shape")
    if len(flat) != rows * (width or 0):
        raise InputError("rows without a list", tensor=what, expected="a list of numbers in every row", kind="NotFinite")
    return flat.reshape(rows, width or 0)


def _real(array: np.ndarray, what: str) -> np.ndarray:
    """An array of f32 or f64, in the byte order of the machine."""
    kind = array.dtype.kind
    if kind == "c":
        raise InputError(
            f"{array.dtype}", tensor=what, expected="real numbers", fix="Complex data not supported", kind="Argument"
        )
    if kind == "b" or array.dtype == np.uint8:
        raise DataTypeError(f"{array.dtype}", tensor=what, expected=_PIXELS, fix="X.astype('float32') if they are not", kind="Argument")
    if kind in "OSU":
        array = _numbers(array, what)
    elif kind not in "iuf":
        raise DataTypeError(f"{array.dtype}", tensor=what, expected="numbers", kind="Argument")
    wanted = _F32 if array.dtype.itemsize <= 4 and array.dtype.kind == "f" else _F64
    if array.dtype != wanted or not array.dtype.isnative or not array.flags.aligned:
        array = array.astype(wanted)
    return array


def _numbers(array: np.ndarray, what: str) -> np.ndarray:
    """An array of objects that are numbers."""
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as cause:
        raise DataTypeError(
            f"{array.dtype} with something else: {cause}",
            tensor=what,
            expected="numbers (an argument must be a string or a real number)",
            kind="Argument",
        ) from cause


def _matrix(array: Any, what: str) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim == 4 and array.shape[2:] == (1, 1):
        # What a pooling leaves.
        array = array[:, :, 0, 0]
    if array.ndim != 2:
        raise ShapeError(
            f"shape {list(array.shape)}",
            tensor=what,
            expected="[N, D]",
            fix="Reshape your data: X.reshape(1, -1) for one input, X.reshape(-1, 1) for one unit",
            kind="Shape",
        )
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise _empty(array, what)
    return _real(array, what)


def _empty(array: np.ndarray, what: str) -> InputError:
    rows, units = array.shape
    found = f"0 feature(s) (shape=({rows}, {units})) while a minimum of 1 is required." if units == 0 else f"0 sample(s), shape [0, {units}]"
    return InputError(found, tensor=what, expected="at least one input and one unit", kind="Empty")


def weight_and_bias(weight: Any, bias: Any, what: str = "head") -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a head: [C, D] and [C]; a bias that is ``None`` is zero."""
    matrix = np.asarray(_array(weight, f"{what} weight"))
    if matrix.ndim != 2:
        raise ShapeError(f"shape {list(matrix.shape)}", tensor=f"{what} weight", expected="[C, D]", kind="Shape")
    matrix = np.ascontiguousarray(_real(matrix, f"{what} weight"), dtype=np.float32)
    if bias is None:
        return matrix, np.zeros(matrix.shape[0], np.float32)
    vector = np.asarray(_array(bias, f"{what} bias"))
    if vector.ndim != 1:
        raise ShapeError(f"shape {list(vector.shape)}", tensor=f"{what} bias", expected="[C]", kind="Shape")
    return matrix, np.ascontiguousarray(_real(vector, f"{what} bias"), dtype=np.float32)


def name_record(names: Sequence[str]) -> str:
    """Names of columns or classes as a detector file records them."""
    import json

    return json.dumps(list(names), ensure_ascii=False, separators=(",", ":"))


def recorded_names(provenance: Mapping[str, str], key: str, many: int) -> list[str]:
    """The names that a detector file records as ``key``; none where it records none."""
    import json

    text = provenance.get(key, "[]")
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) not in (0, many):
        raise FormatError(text[:80], tensor=key, expected=f"{many} names as JSON", kind="Malformed")
    return names
