#!/usr/bin/env python3
"""Golden outputs of the peers that dice-ood copies, on small made-up data.

    pip install numpy torch scikit-learn safetensors
    python make.py        # rewrites the files beside this one

Masks follow the published formulas (authors, OpenOOD, pytorch-ood), evaluated by numpy and torch themselves;
metrics are scikit-learn's. Last run with numpy 2.4.6, torch 2.15.0, scikit-learn 1.9.
"""
import json
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

HERE = pathlib.Path(__file__).parent
PERCENTS = (0, 1, 10, 25, 50, 70, 90, 99)


def presets():
    rng = np.random.default_rng(0)
    # Sparse non-negative features with dead units and repeated weights: ties, and values near the cut.
    features = np.maximum(rng.normal(-0.3, 1.0, (1500, 24)), 0).astype(np.float32)
    features[:, 20:] = 0
    weight = np.round(rng.normal(0, 1, (6, 24)), 2).astype(np.float32)
    bias = rng.normal(0, 0.1, 6).astype(np.float32)
    out = {"features": features, "fc.weight": weight, "fc.bias": bias}
    mean64 = features.astype(np.float64).mean(0)
    mean32 = features.mean(0)
    torch_features, torch_weight = torch.from_numpy(features), torch.from_numpy(weight)
    for p in PERCENTS:
        v = mean64[None, :] * weight
        out[f"official.{p}"] = (v > np.percentile(v, p)).astype(np.uint8)
        v = mean32[None, :] * weight
        out[f"openood.{p}"] = (v > np.percentile(v, p)).astype(np.uint8)
        v = torch_features.mean(0)[None, :] * torch_weight
        out[f"pytorch-ood.{p}"] = (v > torch.quantile(v.flatten(), p / 100)).numpy().astype(np.uint8)
    for q in (0, 25, 50, 90, 99, 100):
        out[f"activation_percentile.{q}"] = np.percentile(features.astype(np.float64), [q])
    save_file(out, HERE / "presets.safetensors")


def metrics():
    rng = np.random.default_rng(1)
    cases = {}
    for name, (n, m, digits) in {"fine": (400, 300, 6), "coarse": (300, 500, 1), "one": (1, 1, 6)}.items():
        known = np.round(rng.normal(1, 1, n), digits)
        novel = np.round(rng.normal(0, 1, m), digits)
        score = np.r_[known, novel]
        truth = np.r_[np.ones(n), np.zeros(m)]

        def both(positive, s):
            fpr, tpr, _ = roc_curve(positive, s, drop_intermediate=False)
            precision, recall, _ = precision_recall_curve(positive, s)
            return fpr[np.argmax(tpr >= 0.95)], average_precision_score(positive, s), auc(recall, precision)

        fpr, aupr, trapezoid = both(truth, score)
        fpr_ood, aupr_ood, trapezoid_ood = both(1 - truth, -score)
        cases[name] = {
            "id": known.tolist(), "ood": novel.tolist(), "auroc": roc_auc_score(truth, score),
            "fpr_at_tpr": fpr, "fpr_at_tpr_ood_positive": fpr_ood, "aupr_in": aupr, "aupr_out": aupr_ood,
            "aupr_in_trapezoid": trapezoid, "aupr_out_trapezoid": trapezoid_ood,
        }
    (HERE / "metrics.json").write_text(json.dumps(cases) + "\n")


class Malicious:
    """A pickle that would run a command when executed; the command makes a file that the tests look for."""

    def __reduce__(self):
        import os
        return os.system, ("touch dice-ood-was-fooled",)


def checkpoints():
    torch.manual_seed(0)
    # 4 classes of 3 units: weight [[0, 1, 2], [3, 4, 5], ...], bias [0.5, 1.5, ...].
    weight = torch.arange(12, dtype=torch.float32).reshape(4, 3)
    bias = torch.arange(4, dtype=torch.float32) + 0.5
    state = {"conv.weight": torch.zeros(2, 1, 3, 3), "module.fc.weight": weight, "module.fc.bias": bias}
    torch.save(state, HERE / "head_zip.pth")
    torch.save({"state_dict": state, "epoch": 3}, HERE / "head_legacy.pth", _use_new_zipfile_serialization=False)
    strided = {"fc.weight": weight.t().contiguous().t().to(torch.bfloat16), "fc.bias": bias.half()}
    torch.save(strided, HERE / "head_strided.pt")
    torch.save({"fc.weight": weight, "fc.bias": bias, "x": Malicious()}, HERE / "malicious.pt")


presets()
metrics()
checkpoints()
