"""PyTorch: what a layer reads, and networks beside detectors."""

from __future__ import annotations

import numpy as np
import pytest

import dice_ood as dice

torch = pytest.importorskip("torch")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.ReLU(), torch.nn.Dropout(0.5))
        self.fc = torch.nn.Linear(24, 10)

    def forward(self, x):
        return self.fc(self.body(x))


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    model = Net().train()
    model.body[2].eval()
    x, y = torch.randn(1000, 6), torch.arange(1000) % 10
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64)
    return model, x, y, loader


def test_features_are_what_the_layer_reads(case):
    model, x, y, loader = case
    modes = [module.training for module in model.modules()]
    features, labels = dice.extract(model, loader, layer="fc", progress=False)
    assert [module.training for module in model.modules()] == modes and not model.fc._forward_pre_hooks
    with torch.no_grad():
        expected = torch.relu(model.body[0](x)).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-6)
    assert features.dtype == np.float32 and labels.tolist() == y.tolist()
    for layer in (None, model.fc):
        np.testing.assert_array_equal(dice.extract(model, loader, layer, progress=False)[0], features)
    seen = []
    unlabelled, none = dice.extract(model, [x[:10], x[10:20]], progress=seen.append)
    assert none is None and len(unlabelled) == 20 and seen == [10, 20]
    by_name, found = dice.extract(model, [{"x": x[:5], "label": y[:5]}], progress=False)
    assert len(by_name) == 5 and found.tolist() == y[:5].tolist()


def test_other_types_and_what_is_refused(case):
    model, x, y, loader = case
    halved, _ = dice.extract(Net().bfloat16(), [x[:8].bfloat16()], progress=False)
    assert halved.dtype == np.float32
    with pytest.raises(dice.InputError, match="expected a layer of the model: body.0, fc"):
        dice.extract(model, loader, "head")
    with pytest.raises(dice.InputError, match="at least one"):
        dice.extract(model, [])
    with pytest.raises(dice.InputError, match="calls of it"):
        dice.extract(torch.nn.Sequential(model.body[1], model.body[0], torch.nn.Linear(24, 6), model.body[0]), loader, model.body[0])
    assert model.training


def test_a_network_beside_a_detector(case):
    model, x, _, loader = case
    features, labels = dice.extract(model, loader, progress=False)
    det = dice.Detector("dice(0.5) | energy", head=model.fc).fit(features[:800], labels[:800], calibration=features[800:])
    net = det.wrap(model.eval())
    logits, score, is_ood = net(x)
    with torch.no_grad():
        np.testing.assert_array_equal(logits.detach(), model(x))
    np.testing.assert_allclose(score, det.score_samples(features), rtol=1e-6)
    np.testing.assert_array_equal(is_ood, det(features).is_ood)
    _, _, rejected = net(torch.full((2, 6), float("nan")))
    assert rejected.all() and score.dtype == torch.float64
    assert det.head is model.fc and dice.Head.of(model) == dice.Head.of(model.fc)
    with pytest.raises(dice.CalibrationError):
        dice.Detector("energy", head=model.fc, calibration_fraction=0).fit(features).wrap(model)
