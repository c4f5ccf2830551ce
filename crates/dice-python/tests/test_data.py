"""What data can be given as, and what is refused."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

import dice_ood as dice


@pytest.fixture(scope="module")
def det(network):
    return dice.Detector("dice(0.7) | energy", head=network.head).fit(network.x, network.y, calibration=network.calibration)


@pytest.fixture(scope="module")
def expected(det, network):
    return det.score_samples(network.x_test)


def test_any_layout_and_float(det, network, expected):
    x = network.x_test
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.zeros((500, 48), np.float32)
    wide[:, ::2] = x
    raw = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(np.float32).reshape(x.shape) if False else np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    same = [read_only, np.asfortranarray(x), wide[:, ::2], x[::-1][::-1], misaligned, x.astype(np.float64), x.astype(">f4"), x.astype(">f8"), x.tolist()]
    for given in same:
        np.testing.assert_array_equal(det.score_samples(given), expected)
    np.testing.assert_array_equal(det.score_samples(x[::-1]), expected[::-1])
    np.testing.assert_array_equal(det.score_samples(x[:, :, None, None]), expected)
    half = x.astype(np.float16)
    np.testing.assert_array_equal(det.score_samples(half), det.score_samples(half.astype(np.float32)))
    whole = np.round(x)
    np.testing.assert_array_equal(det.score_samples(whole.astype(np.int64)), det.score_samples(whole))
    one = np.broadcast_to(x[0], (5, 24))
    np.testing.assert_array_equal(det.score_samples(one), np.repeat(expected[0], 5))


def test_fits_do_not_depend_on_the_float(network):
    fits = [dice.Detector("react(0.9) | dice(0.7) | energy", head=network.head).fit(x, network.y) for x in (network.x, network.x.astype(np.float64), np.asfortranarray(network.x))]
    scores = [fit.score_samples(network.x_test) for fit in fits]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert fits[0].offset_ == fits[1].offset_ == fits[2].offset_


def test_frames_and_tables(det, network, expected):
    names = [f"unit{place}" for place in range(24)]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(network.x, columns=names)
    fitted = dice.Detector("dice(0.7) | energy", head=network.head).fit(frame, pandas.Series(network.y), calibration=network.calibration)
    assert fitted.feature_names_in_.tolist() == names
    test = pandas.DataFrame(network.x_test, columns=names)
    np.testing.assert_array_equal(fitted.score_samples(test), expected)
    with pytest.raises(dice.InputError, match="same order"):
        fitted.score_samples(test[names[::-1]])
    with pytest.warns(UserWarning, match="valid feature names"):
        fitted.score_samples(network.x_test)
    assert det(network.x_test).to_pandas().columns.tolist() == ["score", "p_value", "is_ood", "prediction"]
    assert pickle.loads(pickle.dumps(fitted)).feature_names_in_.tolist() == names


def test_names_are_kept_in_files(network, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(network.x, columns=[f"u{place}" for place in range(24)])
    dice.Detector("energy", head=network.head).fit(frame).save(tmp_path / "d.safetensors")
    assert dice.load(tmp_path / "d.safetensors").feature_names_in_.tolist() == list(frame.columns)


@pytest.mark.filterwarnings("ignore:X has feature names")
def test_arrow_and_polars(det, network, expected):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({f"u{place}": network.x_test[:, place] for place in range(24)})
    np.testing.assert_array_equal(det.score_samples(table), expected)
    np.testing.assert_array_equal(det.score_samples(table.to_batches()[0]), expected)
    lists = arrow.FixedSizeListArray.from_arrays(arrow.array(network.x_test.reshape(-1)), 24)
    np.testing.assert_array_equal(det.score_samples(arrow.table({"features": lists})), expected)
    np.testing.assert_array_equal(det.score_samples(arrow.table({"features": arrow.array(list(network.x_test))})), expected)
    ragged = arrow.table({"features": arrow.array([[1.0], [1.0, 2.0]])})
    with pytest.raises(dice.ShapeError, match="2 values at row 1, 1 in those before"):
        det.score_samples(ragged)
    assert det(network.x_test).to_arrow().num_rows == 500
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(det.score_samples(polars.from_arrow(table)), expected)


def test_torch(det, network, expected):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(network.x_test.copy())
    for given in (tensor, tensor.clone().requires_grad_(), tensor.double(), torch.nn.Parameter(tensor.clone()), tensor.t().contiguous().t()):
        np.testing.assert_array_equal(det.score_samples(given), expected)
    halves = tensor.bfloat16()
    np.testing.assert_array_equal(det.score_samples(halves), det.score_samples(halves.float()))
    with pytest.raises(dice.InputError, match=r"tensor on meta.*X.cpu\(\)"):
        det.score_samples(tensor.to("meta"))


def test_files(network, tmp_path):
    np.savez(tmp_path / "train.npz", features=network.x, labels=network.y)
    np.save(tmp_path / "y.npy", network.y)
    np.save(tmp_path / "x.npy", network.x)
    np.save(tmp_path / "test.npy", network.x_test)
    np.savez(tmp_path / "head.npz", weight=network.weight, bias=network.bias)
    from_array = dice.Detector("mds", head=network.head).fit(network.x, network.y)
    for x, y in ((tmp_path / "train.npz", None), ([str(tmp_path / "x.npy")], tmp_path / "y.npy")):
        from_file = dice.Detector("mds", head=tmp_path / "head.npz").fit(x, y)
        assert from_file.offset_ == from_array.offset_
        np.testing.assert_array_equal(from_file.score_samples(tmp_path / "test.npy"), from_array.score_samples(network.x_test))
    with pytest.raises(dice.FileError) as caught:
        from_array.score_samples(tmp_path / "none.npy")
    assert caught.value.file.endswith("none.npy")


BAD = {
    "objects": (np.array([[{}] * 24]), dice.DataTypeError, "argument must be a string"),
    "ragged": ([[1.0], [1.0, 2.0]], dice.ShapeError, "as many values in every row"),
    "text": ([["a"] * 24], dice.DataTypeError, "expected numbers"),
    "width": (np.zeros((3, 23), np.float32), dice.ShapeError, "expecting 24 features"),
    "one row": (np.zeros(24, np.float32), dice.ShapeError, "Reshape your data"),
    "cube": (np.zeros((2, 24, 3), np.float32), dice.ShapeError, "Reshape your data"),
    "no rows": (np.zeros((0, 24), np.float32), dice.InputError, "0 sample"),
    "no units": (np.zeros((3, 0), np.float32), dice.InputError, "minimum of 1 is required"),
    "nan": (np.full((3, 24), np.nan, np.float32), dice.NotFiniteError, "NaN at row 0, column 0"),
    "infinity": (np.full((3, 24), np.inf), dice.NotFiniteError, "inf at row 0"),
    "beyond f32": (np.full((3, 24), 1e300), dice.NotFiniteError, "inf at row 0"),
    "complex": (np.zeros((3, 24), complex), dice.InputError, "Complex data not supported"),
    "masked": (np.ma.masked_array(np.zeros((3, 24)), mask=np.eye(3, 24)), dice.InputError, "masked values"),
    "pixels": (np.zeros((3, 24), np.uint8), dice.DataTypeError, "pixels"),
    "mask": (np.zeros((3, 24), bool), dice.DataTypeError, "pixels or a mask"),
    "dates": (np.zeros((3, 24), "datetime64[s]"), dice.DataTypeError, "expected numbers"),
    "records": (np.zeros((3, 24), [("a", "f4")]), dice.DataTypeError, "expected numbers"),
    "nothing": (None, dice.DiceError, "X"),
    "a number": (3.0, dice.ShapeError, "Reshape your data"),
    "a function": (print, dice.DiceError, "X"),
    "a closed file": (io.BytesIO(), dice.DiceError, "X"),
}
BAD["a closed file"][0].close()


@pytest.mark.parametrize("name", BAD)
def test_bad_features(det, network, name):
    given, kind, text = BAD[name]
    for ask in (det.score_samples, det.predict, det, lambda x: dice.Detector("energy", head=network.head).fit(x)):
        if name == "width" and ask not in (det.score_samples, det.predict, det):
            continue
        with pytest.raises(kind, match=text) as caught:
            ask(given)
        error = caught.value
        assert isinstance(error, dice.DiceError) and error.found and "--" not in str(error)
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) and again.fix == error.fix


def test_the_parts_of_an_error(det, network):
    x = network.x_test.copy()
    x[7, 3] = np.nan
    with pytest.raises(dice.NotFiniteError) as caught:
        det.score_samples(x)
    error = caught.value
    assert (error.kind, error.tensor, error.found, error.file) == ("NotFinite", "features", "NaN at row 7, column 3", None)
    assert "non_finite='ood'" in error.fix and "NaN nor infinity" in error.expected
    result = det(x, non_finite="ood")
    assert result.score[7] == -np.inf and result.is_ood[7] and result.prediction[7] == -1
    np.testing.assert_array_equal(np.delete(result.score, 7), np.delete(det.score_samples(network.x_test), 7))
    with pytest.raises(dice.InputError, match="'raise' or 'ood'"):
        det(x, non_finite="drop")


def test_rows_are_named_beyond_a_part(det, network):
    """Large arrays are scored in parts; errors count rows of the whole."""
    rows = (1 << 24) // 24 + 10
    x = np.ones((rows, 24), np.float32)
    x[rows - 2, 5] = np.inf
    for given in (x, x[:, ::-1]):
        with pytest.raises(dice.NotFiniteError, match=f"at row {rows - 2}, "):
            det.score_samples(given)


@pytest.mark.parametrize(
    ("y", "text"),
    [([0.5] * 2000, "whole numbers"), ([0] * 1999, "one for each row"), (["a"] * 2000, "whole numbers"), ([[0, 1]] * 2000, r"\[N\]"), ([None] * 2000, "whole numbers")],
)
def test_bad_labels(network, y, text):
    with pytest.raises(dice.DiceError, match=text):
        dice.Detector("energy", head=network.head).fit(network.x, y)


def test_bad_arguments(network):
    for spec in ("dcie(0.9) | energy", "", "energy |", 3):
        with pytest.raises((dice.SpecError, TypeError)):
            dice.Detector(spec, head=network.head).fit(network.x)
    with pytest.raises(dice.SpecError, match="did you mean `dice`"):
        dice.Detector("dcie(0.9) | energy", head=network.head).fit(network.x)
    for promise in (0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(dice.CalibrationError, match="target_acceptance"):
            dice.Detector("energy", head=network.head, target_acceptance=promise).fit(network.x)
    with pytest.raises(dice.InputError, match="calibration_fraction"):
        dice.Detector("energy", head=network.head, calibration_fraction=2.0).fit(network.x)
    with pytest.raises(dice.ShapeError, match="transpose|Transpose"):
        dice.Head(network.weight.T, network.bias)
    with pytest.raises(dice.NotFittedError, match="call fit first"):
        dice.Detector("energy").predict(network.x)
    with pytest.raises(dice.FormatError):
        dice.Statistics.from_bytes(b"nothing")
    with pytest.raises(dice.FileError) as caught:
        dice.load("/no/such/file")
    assert isinstance(caught.value, OSError) and caught.value.file == "/no/such/file"


def test_no_leak(det, network):
    """Calls, good and bad, leave nothing behind."""
    resource = pytest.importorskip("resource")
    x = network.x_test[:4]
    bad = [
        np.full((4, 24), np.nan, np.float32),
        np.zeros((4, 23), np.float32),
        np.full((4, 24), None, dtype=object),
        np.zeros((4, 24), complex),
        np.zeros((4, 24), np.uint8),
        np.zeros((0, 24), np.float32),
        [[1.0] * 24, [1.0]],
        "no such file",
    ]

    def calls(count):
        for place in range(count):
            det.score_samples(x)
            det(x)
            with pytest.raises(dice.DiceError):
                det.score_samples(bad[place % len(bad)])

    calls(4_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calls(34_000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 4_000, f"{grown} KiB more after 102,000 calls"


def test_nothing_else_is_imported():
    code = "import sys, dice_ood; print(sorted({'torch', 'pandas', 'polars', 'pyarrow', 'sklearn'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
