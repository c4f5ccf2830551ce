"""The code of the documentation runs, and what it asserts holds."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import dice_ood as dice
from conftest import ROOT
from pages import Section, sections

DOCS = ROOT / "docs"


def of(page):
    """The sections of a page, as parameters."""
    found = sections(page)
    return pytest.mark.parametrize("section", found, ids=[section.name for section in found])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """What the code writes goes to a folder of its own; Spark starts this very Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)


@of(DOCS / "MIGRATE.md")
def test_migration(section: Section):
    section.run()


@of(DOCS / "ENGINES.md")
def test_engines(section: Section):
    section.run()


@pytest.fixture
def given(network):
    """What the reader has: features, labels and a head, and what they would be called."""
    np.savez("model.npz", weight=network.weight, bias=network.bias)
    halves = [(network.x[rows], network.y[rows]) for rows in (slice(0, 1000), slice(1000, None))]
    (x1, y1), (x2, y2) = halves
    more = dict(x_test=network.x_test, y_test=network.y_test, c100=network.far, svhn=network.far)
    parts = dict(x1=x1, y1=y1, x2=x2, y2=y2, shards=halves, spec="dice(0.9) | energy", head=network.head)
    return dict(features=network.x, y=network.y, x=network.x_test, val=network.calibration, W=network.weight, b=network.bias, dice=dice, **more, **parts)


@of(DOCS / "PYTHON.md")
def test_python(section: Section, given):
    if section.name == "PyTorch":
        given |= of_torch(given)
    if section.name == "Parts, clusters and Arrow":
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"features": list(given["x"])})
        given |= dict(table=table, batch=table, det=dice.Detector(given["spec"], head=given["head"]))
    section.run(given)


def of_torch(given):
    """A network whose last layer is that head, over a body that lets features pass."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential()
    model.body, model.fc = torch.nn.ReLU(), torch.nn.Linear(24, 10)
    model.fc.load_state_dict({"weight": torch.from_numpy(given["W"]), "bias": torch.from_numpy(given["b"])})
    data = torch.utils.data.TensorDataset(torch.from_numpy(given["features"]), torch.from_numpy(given["y"]))
    return dict(model=model, loader=torch.utils.data.DataLoader(data, batch_size=64), images=torch.from_numpy(given["x"]))


def test_readme(given):
    section = next(section for section in sections(ROOT / "README.md") if section.name == "Python")
    left = section.run(given)
    assert left["is_ood"].shape == (500,) and dice.load("detector.safetensors").spec_ == "dice(0.9) | energy"
