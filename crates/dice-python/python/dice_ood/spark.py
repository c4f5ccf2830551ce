"""Spark: scores and statistics are computed where the rows are. pyspark is imported when these are called.

    import dice_ood as dice, dice_ood.spark
    statistics = dice.spark.gather(train, head=head, detectors=["dice(0.9) | energy"], columns="features")
    det = dice.Detector("dice(0.9) | energy", head=head).fit(statistics, calibration=held_out)
    dice.spark.score(frame, det, columns="features").filter("ood.is_ood")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import _native
from ._arrow import score_arrow
from ._detector import Detector
from ._errors import DiceError
from ._head import Head
from ._statistics import merged, of_batch

_SCORED = "score double, p_value double, is_ood boolean, prediction bigint"


def score(
    frame: Any, detector: Detector, *, columns: str | Sequence[str] | None = None, name: str = "ood", non_finite: str = "raise"
) -> Any:
    """The frame with one more column ``name``: a struct of score, p_value, is_ood and prediction for each row.

    ``mapInArrow`` over partitions: every other column is kept as it is. The detector travels once for an executor, as its file. An
    error names partition and row, and the file where the rows come from files as they are read: not behind a shuffle or a join.
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

    return _with_files(frame).mapInArrow(part, schema)


def udf(detector: Detector) -> Any:
    """A function of a column of lists ``[D]`` for SQL and expressions: register it by ``spark.udf.register("ood", udf(detector))``.

    It sees Arrow from Spark 4.1 on, and pandas before.
    """
    from pyspark.sql import functions

    if not hasattr(functions, "arrow_udf"):
        return _pandas_udf(detector)
    import pyarrow

    def scored(features: Any) -> Any:
        return score_arrow(features, detector)

    scored.__annotations__ = {"features": pyarrow.Array, "return": pyarrow.Array}
    # Annotated above; the overloads of pyspark do not know a function of which they see no types.
    made: Any = functions.arrow_udf
    return made(scored, _SCORED)


def _pandas_udf(detector: Detector) -> Any:
    import pandas
    from pyspark.sql import functions

    def scored(features: Any) -> Any:
        import pyarrow

        lists = pyarrow.array(features) if len(features) else pyarrow.array([], pyarrow.list_(pyarrow.float64()))
        found = score_arrow(lists, detector)
        return pandas.DataFrame({name: found.field(name).to_numpy(zero_copy_only=False) for name in ("score", "p_value", "is_ood", "prediction")})

    scored.__annotations__ = {"features": pandas.Series, "return": pandas.DataFrame}
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
                more = of_batch(batch, weights, wanted, columns, label)
            gathered = more if gathered is None else gathered.merge([more])
        if gathered is not None:
            yield pyarrow.RecordBatch.from_pydict({"statistics": pyarrow.array([gathered.to_bytes()], pyarrow.binary())})

    rows = _with_files(frame).mapInArrow(part, "statistics binary").collect()
    return merged([_native.Statistics.from_bytes(bytes(row[0])) for row in rows])


def _shared(frame: Any, detector: Detector) -> Any:
    """A function that gives the detector on an executor: broadcast where there is a context, else sent along."""
    try:
        broadcast = frame.sparkSession.sparkContext.broadcast(detector)
    except Exception:  # Spark Connect has no context: whatever it says, the detector goes with the function.
        return lambda: detector
    return lambda: broadcast.value


# The column that says which file a row is of, between Spark and the functions here.
_FILE = "__dice_ood_file"


def _with_files(frame: Any) -> Any:
    """The frame with the file of each row in one more column, where Spark can say that: not for rows of several sources."""
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions

    try:
        named = frame.withColumn(_FILE, functions.input_file_name())
        # Spark Connect looks at the column only when it is asked for the schema.
        return named if named.schema is not None else frame
    except AnalysisException:
        return frame


class _Place:
    """Names file, partition and row in errors; rows of a batch become those of the partition, from 0."""

    def __init__(self, partition: int, first: int, files: Any) -> None:
        self.partition = partition
        self.first = first
        self.files = files

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if not isinstance(error, DiceError) or error.file is not None:
            return
        row = re.search(r"\brow (\d+)", error.found)
        file = self.files[int(row[1]) if row else 0].as_py() if self.files else None
        error.file = f"{file}, partition {self.partition}" if file else f"partition {self.partition}"
        if row:
            error.found = f"{error.found[: row.start()]}row {self.first + int(row[1])} of the partition{error.found[row.end() :]}"
        else:
            error.file += f", batch from row {self.first}"
        error.args = (str(error),)


def _located(batches: Iterator[Any]) -> Iterator[tuple[_Place, Any]]:
    """Batches without the column of files, each with its place."""
    from pyspark import TaskContext

    context = TaskContext.get()
    partition = -1 if context is None else context.partitionId()
    first = 0
    for batch in batches:
        files = batch.column(_FILE) if _FILE in batch.schema.names else None
        yield _Place(partition, first, files), batch if files is None else batch.drop_columns([_FILE])
        first += batch.num_rows
