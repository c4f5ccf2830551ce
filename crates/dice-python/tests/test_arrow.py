"""Arrow: one function for every engine."""

from __future__ import annotations

import numpy as np
import pytest

import dice_ood as dice

pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def det(network):
    return dice.Detector("dice(0.7) | energy", head=network.head).fit(network.x, network.y, calibration=network.calibration)


class Stream:
    """A column, or a frame, of a library that is not pyarrow."""

    def __init__(self, chunks):
        self.chunks = chunks

    def __arrow_c_stream__(self, requested_schema=None):
        return self.chunks.__arrow_c_stream__(requested_schema)


class Capsules:
    """A batch of a library that is not pyarrow."""

    def __init__(self, batch):
        self.batch = batch

    def __arrow_c_array__(self, requested_schema=None):
        return self.batch.__arrow_c_array__(requested_schema)


def test_structs_of_any_batch(det, network):
    x = network.x_test
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.reshape(-1)), 24)
    batch = pyarrow.RecordBatch.from_pydict({"id": pyarrow.array(range(500)), "features": lists})
    units = pyarrow.table({f"u{place}": x[:, place] for place in range(24)})
    expected = det(x)
    for given in (batch, pyarrow.table(batch), lists, units, Capsules(batch), Capsules(lists), Stream(pyarrow.table(batch)), Stream(pyarrow.chunked_array([lists])), batch.slice(0, 500)):
        found = dice.score_arrow(given, det)
        assert pyarrow.types.is_struct(found.type)
        for name in ("score", "p_value", "is_ood", "prediction"):
            np.testing.assert_array_equal(found.field(name).to_numpy(zero_copy_only=False), getattr(expected, name))
    np.testing.assert_array_equal(dice.score_arrow(batch.slice(100, 50), det).field("score"), expected.score[100:150])
    np.testing.assert_array_equal(dice.ood(batch, det).to_numpy(zero_copy_only=False), expected.is_ood)
    assert len(pyarrow.table(batch).filter(dice.ood(batch, det))) == expected.is_ood.sum()
    by_name = dice.score_arrow(units.append_column("more", pyarrow.array(x[:, 0])), det, columns=[f"u{place}" for place in range(24)])
    np.testing.assert_array_equal(by_name.field("score"), expected.score)


def test_what_is_refused(det, network):
    numbers = pyarrow.table({f"u{place}": network.x_test[:, place] for place in range(23)})
    with pytest.raises(dice.InputError, match="columns= names them"):
        dice.score_arrow(numbers, det)
    with pytest.raises(dice.InputError, match="'none'"):
        dice.score_arrow(numbers, det, columns="none")
    with pytest.raises(dice.DiceError):
        dice.score_arrow(pyarrow.table({"text": ["a"]}), det, columns="text")
    for given in (3, [1.0], {"features": 1}, network.x_test):
        with pytest.raises(dice.DataTypeError, match="batch: expected a batch"):
            dice.score_arrow(given, det)
    with_null = pyarrow.table({"features": pyarrow.array([[1.0] * 24, None])})
    with pytest.raises(dice.InputError, match="a list of numbers in every row"):
        dice.score_arrow(with_null, det)


def test_without_calibration(network):
    det = dice.Detector("energy", head=network.head, calibration_fraction=0).fit(network.x)
    found = dice.score_arrow(pyarrow.array(list(network.x_test[:3])), det)
    assert found.field("is_ood").null_count == found.field("p_value").null_count == 3
    with pytest.raises(dice.CalibrationError):
        dice.ood(pyarrow.array(list(network.x_test[:3])), det)
