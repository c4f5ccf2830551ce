#!/usr/bin/env python3
"""Golden outputs of scores of logits, on small made-up data.

    pip install numpy scipy torch pytorch-ood safetensors
    python logit_scores.py        # rewrites logit_scores.safetensors and logit_scores_test.safetensors

GEN, OpenMax, KL-matching and LTS are pytorch-ood's, GradNorm is torch's own gradient, the temperature is scipy's minimum of torch's
cross entropy, DOCTOR is its formula. Last run with numpy 2.4.6, scipy 1.17.1, torch 2.15.0, pytorch-ood 0.4.0.
"""
import pathlib

import numpy as np
import torch
from pytorch_ood.detector import GEN, LTS, KLMatching, OpenMax
from safetensors.numpy import save_file
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy, log_softmax

HERE = pathlib.Path(__file__).parent
CLASSES, UNITS = 6, 24


def made(rng, rows, weight):
    """Rectified features that the head mostly tells apart."""
    labels = np.arange(rows) % CLASSES
    noise = rng.normal(0, 0.6, (rows, UNITS))
    return np.maximum(0.8 * weight[labels] + noise, 0).astype(np.float32), labels


def gradnorm(feature, weight, bias):
    weight = weight.clone().requires_grad_(True)
    log_softmax(weight @ feature + bias, 0).sum().neg().backward()
    return weight.grad.abs().sum()


def main():
    rng = np.random.default_rng(7)
    # Of one length and at right angles, so that every class is predicted.
    weight = np.ascontiguousarray(3 * np.linalg.qr(rng.normal(0, 1, (UNITS, CLASSES)))[0].T, dtype=np.float32)
    bias = rng.normal(0, 0.1, CLASSES).astype(np.float32)
    training, labels = made(rng, 600, weight)
    test, _ = made(rng, 40, weight)
    test[30:] = np.maximum(rng.normal(0.2, 0.8, (10, UNITS)), 0)

    def logits(features):
        return torch.from_numpy(features.astype(np.float64) @ weight.T.astype(np.float64) + bias)

    fitted, scored, classes = logits(training), logits(test), torch.from_numpy(labels)
    right = fitted.argmax(1) == classes
    assert all((right & (classes == c)).sum() >= 30 for c in range(CLASSES))
    openmax = OpenMax(None, tailsize=20, alpha=3)
    openmax.fit_logits(fitted[right], classes[right])
    matching = KLMatching(None)
    matching.fit_logits(fitted)
    best = minimize_scalar(lambda log_t: cross_entropy(fitted / np.exp(log_t), classes).item(), (-1, 1), tol=1e-12)
    features = torch.from_numpy(test.astype(np.float64))
    weight64, bias64 = torch.from_numpy(weight.astype(np.float64)), torch.from_numpy(bias.astype(np.float64))
    head = torch.nn.Linear(UNITS, CLASSES, dtype=torch.float64)
    head.weight.data, head.bias.data = weight64, bias64
    save_file({"features": test}, HERE / "logit_scores_test.safetensors")
    save_file(
        {
            "features": training,
            "labels": labels.astype(np.int64),
            "fc.weight": weight,
            "fc.bias": bias,
            # Its mean over classes, as a sum, and higher = more in-distribution.
            "gen": -CLASSES * GEN(None).predict_logits(scored).numpy(),
            "openmax": openmax.predict_logits(scored).numpy(),
            "kl-matching": -matching.predict_logits(scored).detach().numpy(),
            "gradnorm": np.array([gradnorm(row, weight64, bias64).item() for row in features]),
            "temperature": np.array([np.exp(best.x)]),
            "temp-scale": (scored / np.exp(best.x)).softmax(1).max(1).values.numpy(),
            "lts": -LTS(None, head, p=0.1).predict_features(features).numpy(),
            "doctor": (1 - 1 / scored.softmax(1).square().sum(1)).numpy(),
        },
        HERE / "logit_scores.safetensors",
    )


if __name__ == "__main__":
    main()
