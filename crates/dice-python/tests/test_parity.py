"""Results equal those of the command, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest

import dice_ood as dice

SPECS = ["dice(0.9) | energy", "react(0.99) | dice(0.7) | energy", "knn(5)", "evidence(lts, mds)"]


def tensors(path):
    """All tensors of a safetensors file."""
    types = {"F32": np.float32, "F64": np.float64, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "U32": np.uint32, "U64": np.uint64}
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    start = 8 + length
    return {
        name: np.frombuffer(data[start + one["data_offsets"][0] : start + one["data_offsets"][1]], types[one["dtype"]]).reshape(one["shape"])
        for name, one in header.items()
    }


def check(command, tmp_path, train, head, calibration, test, ood, specs=SPECS):
    """Fits, scores and evaluates by both; the features are files for one and arrays for the other."""
    file = tmp_path / "d.safetensors"
    wanted = [part for spec in specs for part in ("-d", spec)]
    command("fit", "--features", train, "--head", head, *(["--calibration", calibration] if calibration else []), *wanted, "-o", file)
    data, held, weights = tensors(train), tensors(calibration)["features"] if calibration else None, dice.Head.load(head)
    detectors = []
    for loaded, spec in zip(dice.load_all(file), specs):
        det = dice.Detector(spec, head=weights).fit(data["features"], data["labels"], calibration=held)
        assert det.offset_ == loaded.offset_, spec
        np.testing.assert_array_equal(det.calibration_scores, loaded.calibration_scores)
        features = tensors(test)["features"]
        found = det(features)
        np.testing.assert_array_equal(found.score, loaded.score_samples(features))
        command("score", file, test, "-d", spec, "-o", tmp_path / "scores.csv")
        lines = (tmp_path / "scores.csv").read_text().splitlines()
        column = lines[0].split(",").index("score")
        np.testing.assert_array_equal(found.score, [float(line.split(",")[column]) for line in lines[1:]])
        detectors.append(det)
    theirs = command.json("eval", file, "--id", test, *(part for name, path in ood.items() for part in ("--ood", f"{name}={path}")))
    theirs.pop("advice_commands", None)
    of_files = dice.evaluate(detectors, test, ood)
    labelled = tensors(test)
    of_arrays = dice.evaluate(
        detectors, (labelled["features"], labelled["labels"]), {name: tensors(path)["features"] for name, path in ood.items()}
    )
    assert of_files.to_dict() == of_arrays.to_dict() == theirs
    return of_arrays


def test_the_demo(dice_command, demo, tmp_path):
    names = {name: demo / f"{name}.safetensors" for name in ("letters", "photos")}
    report = check(
        dice_command,
        tmp_path,
        demo / "train.safetensors",
        demo / "head.safetensors",
        demo / "calibration.safetensors",
        demo / "test.safetensors",
        names,
    )
    shown = report._repr_mimebundle_()["text/html"]
    assert "AUROC" in repr(report) and "<table>" in shown and shown.count("<circle") == 2 * len(SPECS)
    pandas = pytest.importorskip("pandas")
    frame = report.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 2 * len(SPECS)
    assert frame.auroc.tolist() == [one["auroc"] for detector in report["detectors"] for one in detector["sets"]]


def test_a_held_out_part_is_the_same(dice_command, demo, tmp_path):
    ood = {"letters": demo / "letters.safetensors"}
    check(dice_command, tmp_path, demo / "train.safetensors", demo / "head.safetensors", None, demo / "test.safetensors", ood)


def test_the_papers_network(dice_command, cifar10, tmp_path):
    """FPR and AUROC of the authors' code, to their digits."""
    ood = {"svhn": cifar10 / "svhn.safetensors", "textures": cifar10 / "textures.safetensors"}
    report = check(dice_command, tmp_path, cifar10 / "id_train.safetensors", cifar10 / "head.safetensors", None, cifar10 / "id_test.safetensors", ood, SPECS[:2])
    rows = {(row["detector"], row["ood"]): row for row in report.rows()}
    data = tensors(cifar10 / "id_train.safetensors")
    official = dice.Detector("dice(0.9, preset=official) | energy", head=dice.Head.load(cifar10 / "head.safetensors"), calibration_fraction=0)
    official.fit(data["features"])
    given = tensors(cifar10 / "official.safetensors")
    for name, file in (("id_test", "id_test"), ("svhn", "svhn")):
        scores = official.score_samples(tensors(cifar10 / f"{file}.safetensors")["features"])
        np.testing.assert_allclose(scores, given[f"p90.{name}"], rtol=2e-5, atol=2e-5)
    assert 0.9 < rows["dice(0.9) | energy", "svhn"]["auroc"] < 1
