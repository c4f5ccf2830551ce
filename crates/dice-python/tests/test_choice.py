"""Choosing and diagnosing are those of the command."""

from __future__ import annotations

import numpy as np
import pytest

import dice_ood as dice
from test_parity import tensors


def test_methods_are_those_of_the_command(dice_command):
    assert dice.methods() == dice_command.json("methods")
    with pytest.raises(dice.InputError, match="'none'"):
        dice.methods("none")


def test_a_choice_is_that_of_the_command(dice_command, demo):
    names = ["train", "test", "letters"]
    files = {name: demo / f"{name}.safetensors" for name in names}
    candidates = ["energy", "msp", "dice(0.9) | energy", "mds"]
    wanted = [part for spec in candidates for part in ("-d", spec)]
    head = demo / "head.safetensors"
    theirs = dice_command.json(
        "tune", "--features", files["train"], "--head", head, "--id", files["test"], "--ood", f"letters={files['letters']}", *wanted, "--bootstrap", 50
    )
    data = {name: tensors(path) for name, path in files.items()}
    det, ours = dice.tune(
        data["train"]["features"],
        data["train"]["labels"],
        head=head,
        id=(data["test"]["features"], data["test"]["labels"]),
        ood={"letters": data["letters"]["features"]},
        candidates=candidates,
        replicates=50,
    )
    assert ours.to_dict() == theirs and det.spec_ == ours["chosen"]
    assert np.isfinite(det.score_samples(data["letters"]["features"])).all()
    with pytest.raises(dice.InputError, match="metric"):
        dice.tune(data["train"]["features"], head=head, metric="f1")


def test_a_diagnosis_is_that_of_the_command(dice_command, demo):
    train, head = demo / "train.safetensors", demo / "head.safetensors"
    theirs = dice_command.json("diagnose", train, "--head", head, "--ood", f"near:letters={demo / 'letters.safetensors'}")
    data = tensors(train)
    ours = dice.diagnose(data["features"], data["labels"], head=head, ood={"near:letters": tensors(demo / "letters.safetensors")["features"]})
    assert ours.to_dict() == theirs
