"""What tests share: a small network's features, the command, and real data where they are."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("DICE_DATA", ROOT.parent / "shared" / "data"))


class Network:
    """Rectified features of ten classes that a head tells apart, and inputs of none of them."""

    def __init__(self, units: int = 24, rows: int = 2000) -> None:
        rng = np.random.default_rng(7)
        self.weight = rng.normal(size=(10, units)).astype(np.float32)
        self.bias = rng.normal(size=10).astype(np.float32) / 10
        self.y = np.arange(rows) % 10
        self.x = self.draw(rng, self.y)
        self.y_test = np.arange(500) % 10
        self.x_test = self.draw(rng, self.y_test)
        self.calibration = self.draw(rng, np.arange(600) % 10)
        self.far = np.maximum(rng.normal(size=(300, units)), 0).astype(np.float32)

    def draw(self, rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
        return np.maximum(3 * self.weight[y] + rng.normal(size=(len(y), self.weight.shape[1])), 0).astype(np.float32)

    @property
    def head(self) -> tuple[np.ndarray, np.ndarray]:
        return self.weight, self.bias


@pytest.fixture(scope="session")
def network() -> Network:
    return Network()


class Command:
    """The command `dice`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, *arguments: object) -> str:
        done = subprocess.run([self.path, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: object) -> object:
        return json.loads(self(*arguments, "--format", "json"))


@pytest.fixture(scope="session")
def dice_command() -> Command:
    """The command that DICE names."""
    path = os.environ.get("DICE")
    if not path:
        pytest.skip("the environment variable DICE names no command")
    return Command(path)


@pytest.fixture(scope="session")
def demo(dice_command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data, as files."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    dice_command("demo", "--extract", folder)
    return folder


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The features of the paper's own network."""
    folder = DATA / "cifar10-densenet101"
    if not folder.is_dir():
        pytest.skip(f"no real features in {folder}")
    return folder
