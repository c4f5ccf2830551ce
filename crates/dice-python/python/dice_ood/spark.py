"""Spark: scores and statistics are computed where the rows are. pyspark is imported when these are called.

    import dice_ood as dice, dice_ood.spark
    statistics = dice.spark.gather(train, head=head, detectors=["dice(0.9) | energy"], columns="features")
    det = dice.Detector("dice(0.9) | energy", head=head).fit(statistics, calibration=held_out)
    dice.spark.score(frame, det, columns="features").filter("ood.is_ood")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import _data, _native
from ._arrow import arrow_features, score_arrow
from ._detector import Detector
from ._errors import DiceError
from ._head import Head
from ._statistics import gather as gather_here

_SCORED = "score double, p_value double, is_ood boolean, prediction bigint"


def score(
    frame: Any, detector: Detector, *, columns: str | Sequence[str] | None = None, name: str = "ood", non_finite: str = "raise"
) -> Any:
    """The frame with one more column ``name``: a struct of score, p_value, is_ood and prediction for each row.

    ``mapInArrow`` over partitions: every other column is kept as it is. The detector travels once for an executor, as its file. An
    error names partition and row.
    """
    from pyspark.sql.types import BooleanType, DoubleType, LongType, StructField, StructType

    kinds = {"score": DoubleType(), "p_value": DoubleType(), "is_ood": BooleanType(), "prediction": LongType()}
    scored = StructType([StructField(key, kind) for key, kind in kinds.items()])
    schema = StructType([*frame.schema.fields, StructField(name, scored)])
    held = _shared(frame, detector)

    def part(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow

        of_executor = held()
        for place, batch in _located(batches):
            with place:
                found = score_arrow(batch, of_executor, columns=columns, non_finite=non_finite)
            yield pyarrow.RecordBatch.from_arrays([*batch.columns, found], names=[*batch.schema.names, name])

    return frame.mapInArrow(part, schema)


def udf(detector: Detector) -> Any:
    """A function of a column of lists ``[D]`` for SQL and expressions: register it by ``spark.udf.register("ood", udf(detector))``."""
    from pyspark.sql import functions

    payload = detector

    def scored(features: Any) -> Any:
        import numpy
        import pandas

        rows = numpy.stack(features.to_numpy()) if len(features) else numpy.empty((0, payload.n_features_in_))
        if len(rows) == 0:
            return pandas.DataFrame({"score": [], "p_value": [], "is_ood": [], "prediction": []})
        return payload(rows).to_pandas()

    import pandas

    scored.__annotations__ = {"features": pandas.Series, "return": pandas.DataFrame}
    # Annotated above; the overloads of pyspark do not know a function of which they see no types.
    made: Any = functions.pandas_udf
    return made(scored, _SCORED)


def gather(
    frame: Any,
    *,
    head: Any = None,
    detectors: Iterable[str] = ("dice(0.9) | energy",),
    columns: str | Sequence[str] | None = None,
    label: str | None = None,
) -> _native.Statistics:
    """What fits of ``detectors`` rest on, of the rows of a frame: each partition becomes `Statistics`, which the driver merges in pairs.

    Bytes of statistics travel, not features. ``label`` names the column of class labels.
    """
    wanted = list(detectors)
    weights = None if head is None else Head.of(head)

    def part(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow

        gathered = None
        for place, batch in _located(batches):
            if batch.num_rows == 0:
                continue
            with place:
                features = batch.drop_columns([label]) if columns is None and label is not None else batch
                x = arrow_features(features, columns)
                y = None if label is None else batch.column(label).to_numpy(zero_copy_only=False)
                more = gather_here(_data._matrix(x, "features"), y, head=weights, detectors=wanted)
            gathered = more if gathered is None else gathered.merge([more])
        if gathered is not None:
            yield pyarrow.RecordBatch.from_pydict({"statistics": pyarrow.array([gathered.to_bytes()], pyarrow.binary())})

    rows = frame.mapInArrow(part, "statistics binary").collect()
    return merged([_native.Statistics.from_bytes(bytes(row[0])) for row in rows])


def merged(parts: Sequence[_native.Statistics]) -> _native.Statistics:
    """Statistics of the rows of all parts, merged in pairs."""
    if not parts:
        raise DiceError("no statistics: the frame has no rows", kind="Empty")
    parts = list(parts)
    while len(parts) > 1:
        parts = [parts[place].merge(parts[place + 1 : place + 2]) for place in range(0, len(parts), 2)]
    return parts[0]


def _shared(frame: Any, detector: Detector) -> Any:
    """A function that gives the detector on an executor: broadcast where there is a context, else sent along."""
    try:
        broadcast = frame.sparkSession.sparkContext.broadcast(detector)
    except Exception:  # Spark Connect has no context: whatever it says, the detector goes with the function.
        return lambda: detector
    return lambda: broadcast.value


class _Place:
    """Names the partition and the row in errors."""

    def __init__(self, partition: int, first: int) -> None:
        self.text = f"partition {partition}, batch from row {first}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, DiceError) and error.file is None:
            error.file = self.text
            error.args = (str(error),)


def _located(batches: Iterator[Any]) -> Iterator[tuple[_Place, Any]]:
    from pyspark import TaskContext

    context = TaskContext.get()
    partition = -1 if context is None else context.partitionId()
    first = 0
    for batch in batches:
        yield _Place(partition, first), batch
        first += batch.num_rows
