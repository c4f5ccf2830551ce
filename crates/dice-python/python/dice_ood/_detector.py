"""The detector: fitted, calibrated, asked."""

from __future__ import annotations

import copy
import os
import threading
import warnings
from typing import Any

import numpy as np

from . import _data, _native
from ._errors import CalibrationError, CalibrationWarning, DiceError, FindingWarning, InputError, MissingError, ShapeError, SpecError, not_fitted
from ._head import Head
from ._result import Scored

_PARAMETERS = ("spec", "head", "target_acceptance", "calibration_fraction", "seed")

# Held by the first thread that asks a detector of `partial_fit`, which is fitted then.
_FIRST = threading.Lock()

# Shares of the training features that are tried where the wanted one holds out too few for the promise.
_LARGER = (0.2, 0.3, 0.4, 0.5)


class Detector:
    """Tells inputs of a classifier that are like its training data from those that are not.

    Args:
        spec: what scores: ``[SHAPING |] [SPARSITY |] SCORE`` as in ``"react(0.99) | dice(0.9) | energy"``, a combination such as
            ``"fisher(energy, knn(50))"``, or ``"auto"``, which chooses as ``dice fit`` does unasked. `methods` lists the steps.
        head: the classifier's last linear layer, as `Head.of` takes it. Scores of distances in feature space (``knn``, ``mds``,
            ``rmds``) need none.
        target_acceptance: the probability with which a fresh in-distribution input is to be accepted. There is no
            ``contamination``: the share of outliers in the training data is not known, and the promise does not rest on it.
        calibration_fraction: share of the training features that is held out of the fit for the threshold, unless `fit` is given
            others; 0 for scores without decisions.
        seed: of the hold-out.

    Attributes:
        offset_: the threshold: inputs that score at least this are accepted.
        target_acceptance_: the promise that the fit could make.
        spec_: what was fitted.
        n_features_in_: D.
        feature_names_in_: names of the units, where X was a table.
        classes_: labels, where there is no head to number them.
        head_accuracy_: how often the head is right on the training features, where they have labels.

    >>> import numpy as np, dice_ood as dice
    >>> rng = np.random.default_rng(0)
    >>> W = rng.normal(size=(10, 32)).astype(np.float32)
    >>> y = np.arange(2000) % 10
    >>> x = np.maximum(W[y] + 0.5 * rng.normal(size=(2000, 32)), 0).astype(np.float32)
    >>> det = dice.Detector("dice(0.5) | energy", head=(W, np.zeros(10)), target_acceptance=0.9).fit(x, y)
    >>> det.predict(np.vstack([x[1:3], np.zeros((1, 32))])).tolist()
    [1, 1, -1]
    """

    offset_: float
    target_acceptance_: float | None
    spec_: str
    n_features_in_: int
    feature_names_in_: np.ndarray
    classes_: np.ndarray
    head_accuracy_: float | None

    def __init__(
        self,
        spec: str = "dice(0.9) | energy",
        *,
        head: Any = None,
        target_acceptance: float = 0.95,
        calibration_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.spec = spec
        self.head = head
        self.target_acceptance = target_acceptance
        self.calibration_fraction = calibration_fraction
        self.seed = seed

    # Fitting

    def fit(self, X: Any, y: Any = None, *, calibration: Any = None) -> Detector:
        """Fits to in-distribution training features, and sets the threshold.

        Args:
            X: features ``[N, D]``: numpy, torch (CPU), Arrow, pandas, polars, nested lists; or files of them (a path or a list of
                paths: npy, npz, safetensors, CSV, Parquet, Arrow); or `Statistics`.
            y: class labels ``[N]`` as the head numbers them, or a file of them; ``None`` where there are none. Without a head any values
                are labels, and without labels all rows are of one class.
            calibration: in-distribution features that neither the network nor the fit has seen, for the threshold; better than the
                held-out part of X that stands for them otherwise.

        Raises:
            InputError: data that cannot be used (`ShapeError`, `NotFiniteError`, `MissingError`, `CalibrationError`).
            SpecError: ``spec`` does not parse.
        """
        self._forget()
        if isinstance(X, _native.Statistics):
            return self._fit_statistics(X, calibration)
        x = _data.features(X)
        columns = _data.names(X)
        labels_file = _data.files(y)[0] if isinstance(y, (str, os.PathLike)) else None
        rows = None if isinstance(x, list) else len(x)
        if rows is None and y is not None and labels_file is None:
            raise InputError("an array", argument="y", expected="a file of labels, as X is files", kind="Argument")
        spec, takes_head = self._parsed()
        given_head = self.head is not None
        alike = rows is not None and self._is_without_labels(y)
        labels = np.zeros(rows or 0, np.int64) if alike else None if labels_file else self._labels(y, rows, takes_head)
        head = self._head(x, labels, takes_head)
        held = None if calibration is None else self._calibration(calibration)
        record = {} if columns is None else {"columns": _data.name_record(columns)}
        made, findings, accuracy, promised = self._fit_engine(spec, head, x, labels, labels_file, held, record)
        self._adopt(made, columns)
        self.target_acceptance_ = promised
        if given_head:
            self.head_accuracy_ = accuracy
            for finding in findings:
                warnings.warn(finding, FindingWarning, stacklevel=2)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Detector:
        """Adds training features to those of earlier calls. Ask for scores then, or set a threshold by `calibrate`.

        Statistics are sums: calls on parts are a fit on the whole, up to rounding in f64.
        """
        x = _data.features(X)
        if isinstance(x, list):
            raise InputError("files", argument="X", expected="an array", fix="fit reads files part by part", kind="Argument")
        if hasattr(self, "n_features_in_"):
            self._check_width(x.shape[1])
        not_auto([self.spec])
        spec, takes_head = self._parsed()
        labels = np.zeros(len(x), np.int64) if self._is_without_labels(y) else self._labels(y, len(x), takes_head)
        head = self._head(x, labels, takes_head)
        part = _native.Statistics.gather(x, labels, None, head._engine, [spec])
        before = self.__dict__.get("_statistics")
        gathered = part if before is None else before.merge([part])
        self._forget()
        self._statistics = gathered
        self._partial_head = head
        self.n_features_in_ = x.shape[1]
        return self

    def calibrate(self, X: Any) -> Detector:
        """Sets the threshold by in-distribution features that the fit has not seen, after `partial_fit`, `fit` or `load`."""
        statistics = self.__dict__.get("_statistics")
        head = self.__dict__.get("_partial_head")
        if statistics is None:
            engine = self._fitted()
            statistics, head = engine.statistics, _head_of(engine)
        return self._fit_statistics(statistics, X, head)

    def _fit_statistics(self, statistics: _native.Statistics, calibration: Any, head: Head | None = None) -> Detector:
        spec, takes_head = self._parsed()
        if head is None:
            if self.head is None and takes_head:
                raise self._no_head()
            zeros = np.zeros((1, statistics.n_units), np.float32)
            head = Head(zeros) if self.head is None else Head.of(self.head, statistics.n_units)
        held = None if calibration is None else self._calibration(calibration)
        asked = self._asked(spec, self.calibration_fraction, self.target_acceptance, head, {})
        made, findings, _ = _native.fit_statistics(asked, head._engine, statistics, held)
        self._forget()
        self._statistics, self._partial_head = statistics, head
        self._adopt(made, None)
        self.target_acceptance_ = self.target_acceptance
        if self.head is not None:
            for finding in findings:
                warnings.warn(finding, FindingWarning, stacklevel=3)
        return self

    def _fit_engine(
        self, spec: str, head: Head, x: Any, labels: Any, labels_file: str | None, held: Any, record: dict[str, str]
    ) -> tuple[_native.Fitted, list[str], float | None, float]:
        """The engine's fit, with a larger part held out or a smaller promise where there are few rows."""
        attempts = [(self.calibration_fraction, self.target_acceptance)]
        if held is None and not isinstance(x, list) and self.calibration_fraction > 0:
            attempts = self._attempts(len(x), labels)
        for last, (fraction, promise) in zip([False] * (len(attempts) - 1) + [True], attempts):
            asked = self._asked(spec, fraction, promise, head, record)
            try:
                made, findings, accuracy = _native.fit(asked, head._engine, x, labels, labels_file, held)
            except CalibrationError:
                if last:
                    raise
                continue
            except DiceError as error:
                if not isinstance(x, list) and x.shape[1] == 1:
                    error.found += " (n_features = 1)"
                raise
            if promise != self.target_acceptance or fraction != self.calibration_fraction:
                warnings.warn(
                    f"{len(x)} rows are few for a promise of {self.target_acceptance}: {fraction:.0%} of them set the threshold, and at least "
                    f"{promise:.4g} of fresh inputs are accepted. Give calibration= for more.",
                    CalibrationWarning,
                    stacklevel=3,
                )
            return made, findings, accuracy, promise
        raise AssertionError("there is always a last attempt")

    def _attempts(self, rows: int, labels: Any) -> list[tuple[float, float]]:
        """Shares to hold out, and promises, in the order in which they are tried."""
        promise = self.target_acceptance
        valid = isinstance(promise, (int, float)) and 0 < promise < 1
        needed = int(np.ceil(1 / (1 - promise + np.finfo(float).eps))) - 1 if valid else 0
        if rows * self.calibration_fraction >= 4 * needed:
            return [(self.calibration_fraction, promise)]
        if rows < 2:
            raise InputError(f"1 sample, shape {[rows]}", tensor="X", expected="two or more: one to fit to, one to set the threshold", kind="Empty")
        shares = [self.calibration_fraction, *(share for share in _LARGER if share > self.calibration_fraction)]
        tried: list[tuple[float, float]] = [(share, promise) for share in shares if rows * share >= needed]
        counts = [rows] if labels is None else np.unique(labels, return_counts=True)[1]
        least = int(sum(count // 2 for count in counts))
        tried += [(0.5, min(promise, held / (held + 1))) for held in (least, least // 2) if held > 0]
        return tried or [(0.5, promise)]

    def _asked(self, spec: str, fraction: float, promise: float, head: Head, record: dict[str, str]) -> dict[str, Any]:
        if head.classes:
            record = {**record, "classes": _data.name_record(head.classes)}
        return {"spec": spec, "tpr": float(promise), "fraction": float(fraction), "seed": int(self.seed), "provenance": record}

    def _parsed(self) -> tuple[str, bool]:
        """The spec, and whether it takes a head."""
        return ("auto", True) if self.spec == "auto" else _native.parse(self.spec)[:2]

    def _is_without_labels(self, y: Any) -> bool:
        """Whether all rows are taken as of one class, as there are neither labels nor a head to number them."""
        return y is None and self.head is None and self.spec != "auto" and _native.parse(self.spec)[1:] == (False, True)

    def _labels(self, y: Any, rows: int | None, takes_head: bool) -> np.ndarray | None:
        """Labels as the head numbers them; without a head, in the order of their values."""
        if y is None:
            return None
        if self.head is not None or takes_head:
            return _data.labels(y, rows)
        values = np.asarray(y)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1 or (rows is not None and len(values) != rows):
            raise ShapeError(f"shape {list(values.shape)}", tensor="y", expected=f"[{rows}], one for each row of X", kind="Shape")
        self.classes_, numbers = np.unique(values, return_inverse=True)
        return np.ascontiguousarray(numbers.reshape(-1), dtype=np.int64)

    def _head(self, x: Any, labels: np.ndarray | None, takes_head: bool) -> Head:
        units = None if isinstance(x, list) else x.shape[1]
        if self.head is not None:
            return Head.of(self.head, units)
        if takes_head:
            raise self._no_head()
        if units is None:
            raise MissingError("none", argument="head", expected="the head, where X is files", kind="Missing")
        # Of zeros, which no score of such a detector depends on.
        return Head(np.zeros((1 if labels is None else int(labels.max()) + 1, units), np.float32))

    def _no_head(self) -> MissingError:
        return MissingError(
            "none",
            argument="head",
            expected=f"the classifier's last linear layer, which '{self.spec}' rests on",
            fix="head=(weight, bias), a torch.nn.Linear, a fitted linear classifier or a file",
            kind="Missing",
        )

    def _calibration(self, calibration: Any) -> Any:
        return _data.features(calibration, "calibration")

    def _forget(self) -> None:
        for name in [name for name in self.__dict__ if name not in _PARAMETERS]:
            if name.endswith("_") or name in ("_engine", "_statistics", "_partial_head"):
                del self.__dict__[name]

    def _adopt(self, engine: _native.Fitted, columns: list[str] | None) -> None:
        self._engine = engine
        self.spec_ = engine.spec
        self.n_features_in_ = engine.head.n_units
        if engine.threshold is not None:
            self.offset_ = engine.threshold
        if columns is not None:
            self.feature_names_in_ = np.array(columns, dtype=object)

    def _fitted(self) -> _native.Fitted:
        engine: _native.Fitted | None = self.__dict__.get("_engine")
        if engine is not None:
            return engine
        with _FIRST:
            if "_engine" not in self.__dict__:
                if "_statistics" not in self.__dict__:
                    raise not_fitted(f"This {type(self).__name__} instance is not fitted yet", "call fit first")
                self._fit_statistics(self._statistics, None, self._partial_head)
            return self._engine

    # Asking

    def score_samples(self, X: Any) -> np.ndarray:
        """Scores ``[N]``, f64; higher = more in-distribution. A row's score does not depend on the rows beside it.

        Raises:
            ShapeError: features of another width.
            NotFiniteError: NaN or infinity, with row and column.
        """
        engine = self.__dict__.get("_engine") or self._fitted()
        return engine.score(self._inputs(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores less the threshold, ``[N]``: inputs of at least 0 are accepted."""
        offset = self._offset()
        return self.score_samples(X) - offset

    def predict(self, X: Any) -> np.ndarray:
        """+1 for inputs that are accepted, -1 for those that are not, ``[N]``, as scikit-learn's outlier detectors say it."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """`predict` for the features that it was fitted to."""
        return self.fit(X, y).predict(X)

    def p_values(self, X: Any) -> np.ndarray:
        """Conformal p-values ``[N]`` of "this input is in-distribution": a fresh one gets u or less with probability u at most."""
        values = self._fitted().p_values(self.score_samples(X))
        if values is None:
            raise self._no_calibration()
        return values

    def select(self, X: Any, fdr: float = 0.05) -> np.ndarray:
        """Which inputs of a batch are out-of-distribution, ``[N]`` bool: of those selected, at most the share ``fdr`` is not, on average.

        Benjamini-Hochberg over conformal p-values. Few discoveries among many inputs take many calibration inputs.
        """
        return _native.benjamini_hochberg(self.p_values(X), float(fdr))

    def __call__(self, X: Any, *, non_finite: str = "raise") -> Scored:
        """Scores, p-values, decisions and predicted classes of inputs.

        Args:
            X: features ``[N, D]``.
            non_finite: ``"raise"``, or ``"ood"`` to score inputs with NaN or infinity as out-of-distribution.
        """
        return Scored(*self._fitted().decide(self._inputs(X), _as_ood(non_finite)))

    def with_target_acceptance(self, target_acceptance: float) -> Detector:
        """The same detector with another promise, from the calibration scores: nothing is fitted again."""
        other = copy.copy(self)
        other.target_acceptance = target_acceptance
        other._adopt(self._fitted().with_tpr(float(target_acceptance)), None)
        other.target_acceptance_ = target_acceptance
        return other

    def acceptance_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the share of fresh in-distribution inputs that this threshold accepts lies, with this confidence."""
        interval = self._fitted().interval(level)
        if interval is None:
            raise self._no_calibration()
        return interval

    def _offset(self) -> float:
        self._fitted()
        if "offset_" not in self.__dict__:
            raise self._no_calibration()
        return self.offset_

    def _no_calibration(self) -> CalibrationError:
        return CalibrationError(
            "a detector without calibration",
            argument=f"detector '{self.spec_}'",
            expected="calibration scores, to decide by",
            fix="fit with calibration=, or calibrate",
            kind="Calibration",
        )

    def _inputs(self, X: Any) -> Any:
        names = self.__dict__.get("feature_names_in_")
        if names is not None or not isinstance(X, np.ndarray):
            self._check_names(names, _data.names(X))
        x = _data.features(X)
        if not isinstance(x, list):
            self._check_width(x.shape[1])
        return x

    def _check_width(self, units: int) -> None:
        if units != self.n_features_in_:
            raise ShapeError(
                f"X has {units} features, but {type(self).__name__} is expecting {self.n_features_in_} features as input", kind="Shape"
            )

    def _check_names(self, fitted: Any, given: list[str] | None) -> None:
        name = type(self).__name__
        if fitted is None and given is not None:
            warnings.warn(f"X has feature names, but {name} was fitted without feature names", UserWarning, stacklevel=4)
        elif fitted is not None and given is None:
            warnings.warn(f"X does not have valid feature names, but {name} was fitted with feature names", UserWarning, stacklevel=4)
        elif fitted is not None and list(fitted) != given:
            raise InputError(_other_names(list(fitted), given or []), kind="Columns")

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the detector: the file of ``dice fit``, which any tool for safetensors opens."""
        self._fitted().save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], detector: str | None = None) -> Detector:
        """Reads a detector that `save` or ``dice fit`` wrote: the one that decides, or that of this spec.

        Raises:
            FileError: the file cannot be read.
            FormatError: it is no detector, or damaged.
        """
        all_of_file = load_all(path)
        if detector is None:
            return all_of_file[0]
        wanted = _native.parse(detector)[0]
        for one in all_of_file:
            if one.spec_ == wanted:
                return one
        raise InputError(
            f"'{wanted}'", file=os.fsdecode(path), argument="detector", expected="one of " + ", ".join(one.spec_ for one in all_of_file), kind="Argument"
        )

    def to_onnx(self, path: str | os.PathLike[str], model: str | os.PathLike[str] | None = None) -> None:
        """Writes an ONNX model from features ``[N, D]`` to score, p-value, decision and class; with ``model``, that model with a score beside its outputs."""
        self._fitted().to_onnx(path, None if model is None else os.fsdecode(model))

    def wrap(self, model: Any, layer: Any = None) -> Any:
        """A PyTorch model as a ``torch.nn.Module`` that returns ``(logits, score, is_ood)``.

        The model's outputs stay what they are. Scores are computed on the CPU and moved to the device of the features; they have no
        gradient. Inputs whose features hold NaN or infinity are out-of-distribution.

        Args:
            model: a ``torch.nn.Module``.
            layer: whose input the detector was fitted to: its name, or the layer; the last linear layer otherwise.
        """
        from ._torch import wrap

        return wrap(self, model, layer)

    @classmethod
    def _of_engine(cls, engine: _native.Fitted) -> Detector:
        promise = engine.tpr
        made = cls(engine.spec, head=_head_of(engine), target_acceptance=0.95 if promise is None else promise)
        made._adopt(engine, _data.recorded_names(engine.provenance, "columns", engine.head.n_units) or None)
        made.target_acceptance_ = promise
        return made

    @property
    def statistics(self) -> _native.Statistics:
        """What was gathered from the training features: it merges, and other detectors can be fitted to it."""
        return self.__dict__.get("_statistics") or self._fitted().statistics

    @property
    def provenance(self) -> dict[str, str]:
        """Where the detector came from, by key."""
        return self._fitted().provenance

    @property
    def calibration_scores(self) -> np.ndarray:
        """Scores of the calibration inputs, ascending."""
        scores = self._fitted().calibration_scores
        if scores is None:
            raise self._no_calibration()
        return scores

    # The habits of scikit-learn

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters, by name."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> Detector:
        """Sets parameters; a fit is not changed by it."""
        for name, value in params.items():
            if name not in _PARAMETERS:
                raise InputError(f"'{name}'", argument="parameter", expected=f"one of {', '.join(_PARAMETERS)}", kind="Argument")
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return "_engine" in self.__dict__ or "_statistics" in self.__dict__

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        tags = Tags(estimator_type="outlier_detector", target_tags=TargetTags(required=False), input_tags=InputTags())
        tags.requires_fit = True
        return tags

    def __repr__(self) -> str:
        given = [repr(self.spec)]
        if self.head is not None:
            given.append(f"head={self.head!r}" if isinstance(self.head, Head) else f"head={type(self.head).__name__}")
        defaults = {"target_acceptance": 0.95, "calibration_fraction": 0.1, "seed": 0}
        given += [f"{name}={getattr(self, name)!r}" for name, default in defaults.items() if getattr(self, name) != default]
        return f"{type(self).__name__}({', '.join(given)})"


def not_auto(specs: list[str]) -> None:
    """Raises where statistics are to be gathered for a choice, which is made later."""
    if "auto" in specs:
        raise SpecError(
            "'auto'",
            argument="detector spec",
            expected="a spec, which says what is to be gathered",
            fix="name one, such as the spec_ of a fit of 'auto' to some of the rows",
            kind="Spec",
        )


def load_all(path: str | os.PathLike[str]) -> list[Detector]:
    """All detectors of a file, the one that decides first."""
    return [Detector._of_engine(engine) for engine in _native.Fitted.load(path)]


def _head_of(engine: _native.Fitted) -> Head:
    head = engine.head
    return Head._of(head, _data.recorded_names(engine.provenance, "classes", head.n_classes))


def _as_ood(non_finite: str) -> bool:
    if non_finite not in ("raise", "ood"):
        raise InputError(repr(non_finite), argument="non_finite", expected="'raise' or 'ood'", kind="Argument")
    return non_finite == "ood"


def _other_names(fitted: list[str], given: list[str]) -> str:
    """What is wrong with the names of columns, as scikit-learn says it."""
    unseen, missing = sorted(set(given) - set(fitted)), sorted(set(fitted) - set(given))

    def listed(title: str, names: list[str]) -> str:
        more = ["- ..."] if len(names) > 5 else []
        return "\n".join([title, *(f"- {name}" for name in names[:5]), *more]) + "\n"

    text = "The feature names should match those that were passed during fit.\n"
    if unseen:
        text += listed("Feature names unseen at fit time:", unseen)
    if missing:
        text += listed("Feature names seen at fit time, yet now missing:", missing)
    if not unseen and not missing:
        text += "Feature names must be in the same order as they were in fit.\n"
    return text
