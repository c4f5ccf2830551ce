"""What an evaluation found."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _data, _figure, _native
from ._choice import Outcome
from ._detector import Detector, _as_ood
from ._errors import DataTypeError, InputError

_SHOWN = (("fpr_at_tpr", "FPR"), ("auroc", "AUROC"), ("aupr_in", "AUPR in"), ("aupr_out", "AUPR out"))


class Report(Outcome):
    """What an evaluation found: a mapping with the keys of ``dice eval --format json``. Rates are fractions.

    In a notebook it shows itself as a table and a figure; `to_pandas` gives a row for each detector and set.
    """

    def rows(self) -> list[dict[str, Any]]:
        """A row for each detector and out-of-distribution set: names, every metric, and the ends of its 95 % interval."""
        rows = []
        for detector in self["detectors"]:
            decision = detector["decision"] or {}
            for found in detector["sets"]:
                row = {"detector": detector["detector"], "accuracy": detector["accuracy"], "id_accepted": decision.get("id_accepted")}
                intervals = found.get("intervals") or {}
                row.update({key: value for key, value in found.items() if key != "intervals"})
                for name, interval in intervals.items():
                    row[f"{name}_low"], row[f"{name}_high"] = interval["low"], interval["high"]
                rows.append(row)
        return rows

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` of `rows`."""
        import pandas

        return pandas.DataFrame(self.rows())

    def _table(self) -> tuple[list[str], list[list[str]]]:
        heads = ["detector", "set", *(f"{name} %" for _, name in _SHOWN), "accepted %"]

        def percent(value: Any) -> str:
            return "" if value is None else f"{100 * value:.2f}"

        rows = [
            [row["detector"], row["ood"], *(percent(row[key]) for key, _ in _SHOWN), percent(row["accepted"])] for row in self.rows()
        ]
        return heads, rows

    def __repr__(self) -> str:
        heads, rows = self._table()
        widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [heads, *rows]]
        accuracy = self["dense_accuracy"]
        about = f"{self['id_inputs']} in-distribution inputs" + ("" if accuracy is None else f", accuracy {100 * accuracy:.2f} %")
        return "\n".join([about, *lines])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """What notebooks show. JSON is left to `to_json`: JupyterLab would show a tree of it in place of the table."""
        heads, rows = self._table()

        def cells(row: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

        body = "".join(cells(row, "td") for row in rows)
        table = f"<table><thead>{cells(heads, 'th')}</thead><tbody>{body}</tbody></table>"
        title = f"FPR at {100 * self['at_tpr']:g} % TPR, with 95 % intervals: the lower, the better"
        figure = _figure.intervals(self.rows(), "fpr_at_tpr", title) if rows else ""
        return {"text/plain": repr(self), "text/html": table + figure}


def evaluate(
    detectors: Any,
    id: Any,
    ood: Mapping[str, Any] | None = None,
    *,
    at_tpr: float = 0.95,
    bootstrap: int = 200,
    seed: int = 0,
    non_finite: str = "raise",
    advise: bool = True,
) -> Report:
    """How well detectors tell data sets apart, by every convention, and what their thresholds do.

    Args:
        detectors: a fitted `Detector`, or several of one head.
        id: in-distribution test features ``[N, D]``, a file of them, or a pair ``(X, y)`` with labels for accuracies.
        ood: out-of-distribution features by name; ``"near:NAME"`` and ``"far:NAME"`` get averages of their own.
        at_tpr: the share of in-distribution inputs accepted where FPR is taken.
        bootstrap: replicates for the 95 % intervals; 0 for none.
        seed: of the bootstrap.
        non_finite: ``"raise"``, or ``"ood"`` to score inputs with NaN or infinity as out-of-distribution.
        advise: whether to say which detector to take, by a paired bootstrap.

    >>> import numpy as np, dice_ood as dice
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(1000, 8))
    >>> det = dice.Detector("mds").fit(x[:600])
    >>> report = dice.evaluate(det, x[600:], {"shifted": rng.normal(size=(300, 8)) + 3}, bootstrap=0)
    >>> report["detectors"][0]["sets"][0]["auroc"] > 0.99
    True
    """
    given = [detectors] if isinstance(detectors, Detector) else list(detectors)
    for one in given:
        if not isinstance(one, Detector):
            raise DataTypeError(type(one).__name__, argument="detectors", expected="fitted Detectors", kind="Argument")
    features, labels = _data.pair(id)
    x = _data.features(features, "id")
    labels_file = _data.files(labels)[0] if labels is not None and _data.is_file(labels) else None
    y = None if labels_file else _data.labels(labels, None if isinstance(x, list) else len(x))
    sets = [(name, _data.features(one, name)) for name, one in dict(ood or {}).items()]
    asked = _asked(at_tpr, bootstrap, seed, non_finite, advise)
    return Report(_native.evaluate(asked, [one._fitted() for one in given], x, y, labels_file, sets))


def evaluate_scores(
    id: Any,
    ood: Mapping[str, Any],
    *,
    name: str = "scores",
    at_tpr: float = 0.95,
    bootstrap: int = 200,
    seed: int = 0,
) -> Report:
    """The same for scores ``[N]`` of any tool, higher = more in-distribution.

    >>> import dice_ood as dice
    >>> dice.evaluate_scores([3.0, 2.0, 1.0], {"far": [0.5, 0.0]}, bootstrap=0)["detectors"][0]["sets"][0]["auroc"]
    1.0
    """
    sets = [(label, _data.scores(one, label)) for label, one in ood.items()]
    return Report(_native.evaluate_scores(_asked(at_tpr, bootstrap, seed, "raise", False), name, _data.scores(id, "id"), sets))


def _asked(at_tpr: float, bootstrap: int, seed: int, non_finite: str, advise: bool) -> dict[str, Any]:
    if not isinstance(bootstrap, (int, np.integer)) or not 0 <= bootstrap <= 100_000:
        raise InputError(repr(bootstrap), argument="bootstrap", expected="a whole number from 0 to 100000", kind="Argument")
    return {
        "at_tpr": float(at_tpr),
        "bootstrap": int(bootstrap),
        "seed": int(seed),
        "non_finite_as_ood": _as_ood(non_finite),
        "advise": bool(advise),
    }
