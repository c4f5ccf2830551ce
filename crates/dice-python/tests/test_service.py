"""The service of the examples answers as the detector does, and says what is wrong with a request."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import dice_ood as dice
from conftest import ROOT

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def detector(network, tmp_path_factory):
    det = dice.Detector("dice(0.7) | energy", head=network.head).fit(network.x, network.y, calibration=network.calibration)
    file = tmp_path_factory.mktemp("service") / "detector.safetensors"
    det.save(file)
    return det, file


@pytest.fixture(scope="module")
def client(detector):
    from fastapi.testclient import TestClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTOR", str(detector[1]))
        spec = importlib.util.spec_from_file_location("serve", ROOT / "examples" / "serve.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return TestClient(module.app)


def test_answers(client, detector, network):
    expected = detector[0](network.x_test)
    of_json = client.post("/score", json={"features": network.x_test.tolist()})
    of_bytes = client.post("/score", content=network.x_test.astype("<f4").tobytes(), headers=BYTES)
    for answer in (of_json, of_bytes):
        assert answer.status_code == 200 and list(answer.json()) == list(expected._fields)
        for name, values in expected.to_dict().items():
            np.testing.assert_array_equal(answer.json()[name], values)


@pytest.mark.parametrize(
    "features",
    [[], [[]], [[1.0] * 23], [[1.0] * 24, [1.0]], "text", "detector.safetensors", ["detector.safetensors"], None, {"a": 1}, [[float("1e300")] * 24], [["a"] * 24]],
)
def test_what_is_refused(client, detector, features, monkeypatch):
    # Where a name of a file would find one.
    monkeypatch.chdir(detector[1].parent)
    answer = client.post("/score", json={"features": features})
    assert answer.status_code == 422 and answer.json()["detail"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"x": 1}'])
def test_no_request(client, content):
    assert client.post("/score", content=content).status_code == 422
    assert client.post("/score", content=content, headers=BYTES).status_code == 422
