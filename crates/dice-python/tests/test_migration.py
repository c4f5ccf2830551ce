"""What docs/PYTHON.md says of other libraries: equal scores."""

from __future__ import annotations

import numpy as np
import pytest

import dice_ood as dice


def test_pytorch_ood(network):
    """Their scores are higher = more out-of-distribution."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("pytorch_ood.detector")
    x, y, new = torch.from_numpy(network.x), torch.from_numpy(network.y), torch.from_numpy(network.x_test)
    weight, bias = map(torch.from_numpy, network.head)
    found = theirs.DICE(None, w=weight, b=bias, p=0.9).fit_features(x, y).predict_features(new)
    det = dice.Detector("dice(0.9, preset=pytorch-ood) | energy", head=network.head).fit(network.x, network.y)
    np.testing.assert_allclose(det.score_samples(network.x_test), -found.numpy(), rtol=2e-5, atol=2e-5)
    found = theirs.EnergyBased.score(new @ weight.T + bias)
    energy = dice.Detector("energy", head=network.head).fit(network.x)
    np.testing.assert_allclose(energy.score_samples(network.x_test), -found.numpy(), rtol=2e-5, atol=2e-5)
    # The square of the distance is what ours is.
    found = theirs.KNN(None, k=5).fit_features(x, y).predict_features(new)
    knn = dice.Detector("knn(5)", head=network.head, calibration_fraction=0).fit(network.x)
    np.testing.assert_allclose(np.sqrt(-knn.score_samples(network.x_test)), found.numpy(), rtol=1e-3, atol=1e-4)


def test_scikit_learn(network):
    neighbors = pytest.importorskip("sklearn.neighbors")

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    theirs = neighbors.NearestNeighbors(n_neighbors=5).fit(unit(network.x))
    distance = theirs.kneighbors(unit(network.x_test))[0][:, -1]
    det = dice.Detector("knn(5)", calibration_fraction=0).fit(network.x)
    np.testing.assert_allclose(np.sqrt(-det.score_samples(network.x_test)), distance, rtol=1e-3, atol=1e-4)
