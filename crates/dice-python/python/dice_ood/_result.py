"""What a detector makes of some inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Scored(NamedTuple):
    """What a detector makes of some inputs; arrays ``[N]``, row by row.

    ``p_value`` and ``is_ood`` are ``None`` for a detector without calibration.
    """

    score: np.ndarray
    """f64; higher = more in-distribution."""
    p_value: np.ndarray | None
    """f64; the conformal p-value of "this input is in-distribution"."""
    is_ood: np.ndarray | None
    """bool; whether the detector rejects the input."""
    prediction: np.ndarray
    """i64; the predicted class, by the detector's own head; -1 for an input that could not be scored."""

    def to_dict(self) -> dict[str, np.ndarray]:
        """The arrays that there are, by name."""
        return {name: values for name, values in self._asdict().items() if values is not None}

    def to_pandas(self, index: Any = None) -> Any:
        """A ``pandas.DataFrame`` of the arrays that there are."""
        import pandas

        return pandas.DataFrame(self.to_dict(), index=index)

    def to_arrow(self) -> Any:
        """A ``pyarrow.RecordBatch`` of the arrays that there are."""
        import pyarrow

        return pyarrow.RecordBatch.from_pydict({name: pyarrow.array(values) for name, values in self.to_dict().items()})
