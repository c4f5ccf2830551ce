"""Ray Data: scores and statistics are computed where the blocks are.

    import dice_ood as dice, dice_ood.ray, ray.data
    statistics = dice.ray.gather(train, head=head, detectors=["dice(0.9) | energy"], columns="features")
    det = dice.Detector("dice(0.9) | energy", head=head).fit(statistics, calibration=held_out)
    pool = ray.data.ActorPoolStrategy(size=2)
    dataset.map_batches(dice.ray.Score, fn_constructor_args=[det], batch_format="pyarrow", zero_copy_batch=True, compute=pool)

Nothing of Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import _native
from ._arrow import score_arrow
from ._detector import Detector
from ._head import Head
from ._statistics import merged, of_batch


class Score:
    """What ``map_batches`` makes once for an actor and calls with Arrow batches: each gets one more column ``name``, a struct of score,
    p_value, is_ood and prediction.

    A column of f32 tensors or lists of fixed size is read in the object store, where it lies. The detector travels once for an actor, as its file.
    """

    def __init__(
        self, detector: Detector, columns: str | Sequence[str] | None = None, name: str = "ood", non_finite: str = "raise"
    ) -> None:
        self.detector = detector
        self.columns = columns
        self.name = name
        self.non_finite = non_finite

    def __call__(self, batch: Any) -> Any:
        """The Arrow table ``batch`` with its scores."""
        return batch.append_column(self.name, score_arrow(batch, self.detector, columns=self.columns, non_finite=self.non_finite))


def gather(
    dataset: Any,
    *,
    head: Any = None,
    detectors: Iterable[str] = ("dice(0.9) | energy",),
    columns: str | Sequence[str] | None = None,
    label: str | None = None,
) -> _native.Statistics:
    """What fits of ``detectors`` rest on, of the rows of a dataset: each block becomes `Statistics`, which are merged in pairs where this is called.

    Bytes of statistics travel, not features. ``label`` names the column of class labels.
    """
    wanted = list(detectors)
    weights = None if head is None else Head.of(head)

    def part(batch: Any) -> Any:
        import pyarrow

        found = [of_batch(batch, weights, wanted, columns, label).to_bytes()] if batch.num_rows else []
        return pyarrow.table({"statistics": pyarrow.array(found, pyarrow.binary())})

    parts = dataset.map_batches(part, batch_format="pyarrow", batch_size=None, zero_copy_batch=True).take_all()
    return merged([_native.Statistics.from_bytes(row["statistics"]) for row in parts])
