#!/usr/bin/env python3
"""Golden outputs of scores that compare a feature with weights and class means, and of shapings, on small made-up data.

    pip install numpy torch safetensors
    python make_geometry.py     # rewrites geometry.safetensors and geometry_inputs.safetensors beside it

Scores follow the published formulas (OpenOOD's fDBD, NCI, SHE, ASH, SCALE and VRA, the authors' CARef and CADRef; ORA and RAS from their
papers), evaluated by torch in f32 as their authors do, ORA with its projections made. Higher = more in-distribution. Last run
with numpy 2.4.6, torch 2.15.0.
"""
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


def data():
    rng = np.random.default_rng(7)
    classes, units = 6, 24
    weight = rng.normal(0, 0.5, (classes, units))
    weight = (weight - weight.mean(1, keepdims=True)).astype(np.float32)
    bias = rng.normal(2, 0.1, classes).astype(np.float32)
    labels = rng.integers(0, classes, 400)
    # Above 0 everywhere, so that no two values tie.
    features = np.exp(rng.normal(-0.5, 0.5, (400, units)) + weight[labels]).astype(np.float32)
    inputs = np.exp(rng.normal(-0.4, 0.7, (80, units))).astype(np.float32)
    return weight, bias, labels.astype(np.int64), features, inputs


def scores(weight, bias, labels, features, inputs):
    w, b, h, train = (torch.from_numpy(x) for x in (weight, bias, inputs, features))
    labels = torch.from_numpy(labels)
    classes = len(b)
    f, train_f = F.linear(h, w, b), F.linear(train, w, b)
    y, train_y = f.argmax(1), train_f.argmax(1)
    assert all(((labels == c) & (train_y == c)).any() for c in range(classes))
    mean = train.mean(0)
    z = h - mean
    out = {"nci": (w[y] * z).sum(1) / z.norm(dim=1) + 1e-4 * h.norm(p=1, dim=1)}

    between = torch.cdist(w, w, compute_mode="donot_use_mm_for_euclid_dist")
    between.fill_diagonal_(1)
    boundaries = ((f - f.max(1, keepdim=True).values).abs() / between[y]).sum(1)
    out["fdbd"] = boundaries / z.norm(dim=1)
    out["fdbd(normalizer=length)"] = boundaries / h.norm(dim=1)

    right = torch.stack([train[(labels == c) & (train_y == c)].mean(0) for c in range(classes)])
    out["she"] = (h * right[y]).sum(1)
    out["she(similarity=euclidean)"] = -((h - right[y]) ** 2).sum(1).sqrt()
    out["she(similarity=cosine)"] = F.cosine_similarity(h, right[y], dim=1)
    out["max-cosine"] = F.cosine_similarity(h[:, None], w[None], dim=2).max(1).values

    predicted = torch.stack([train[train_y == c].mean(0) for c in range(classes)])
    error = h - predicted[y]
    out["caref"] = -error.norm(p=1, dim=1) / h.norm(p=1, dim=1)
    for base, of in (("energy", lambda f: f.logsumexp(1)), ("max-logit", lambda f: f.max(1).values),
                     ("msp", lambda f: f.softmax(1).max(1).values)):
        raising = (error * w[y].sign()).clamp(min=0).sum(1) / h.norm(p=1, dim=1)
        lowering = (-error * w[y].sign()).clamp(min=0).sum(1) / h.norm(p=1, dim=1)
        out[f"cadref(base={base})"] = -(raising / of(f) + lowering / of(train_f).mean())

    centre = torch.stack([train[labels == c].double().mean(0) for c in range(classes)]).mean(0)
    h64, w64 = h.double(), w.double()
    f64 = F.linear(h64, w64, b.double())
    angles = torch.zeros_like(f64)
    for n in range(len(h)):
        for c in range(classes):
            if c != y[n]:
                d = w64[y[n]] - w64[c]
                projected = h64[n] - (f64[n, y[n]] - f64[n, c]) / (d @ d) * d
                cosine = F.cosine_similarity(h64[n] - centre, projected - centre, dim=0)
                angles[n, c] = torch.arccos(cosine.clamp(-1, 1)) / torch.pi
    out["ora"] = angles.mean(1)
    out["ora(over=max)"] = angles.max(1).values

    def top(p):
        k = h.shape[1] - int(np.round(h.shape[1] * p))
        return h.topk(k, dim=1)

    def energy(shaped):
        return F.linear(shaped, w, b).logsumexp(1)

    values, places = top(0.6)
    out["ash-p(0.6) | energy"] = energy(torch.zeros_like(h).scatter(1, places, values))
    values, places = top(0.65)
    share = (h.sum(1, keepdim=True) / values.shape[1]).expand(values.shape)
    out["ash-b(0.65) | energy"] = energy(torch.zeros_like(h).scatter(1, places, share))
    values, _ = top(0.85)
    out["scale | energy"] = energy(h * torch.exp(h.sum(1) / values.sum(1))[:, None])
    profile = train.double().sort(dim=1).values.mean(0).float()
    out["ras | energy"] = energy(profile[h.argsort(dim=1).argsort(dim=1)])
    return {name: score.double().numpy() for name, score in out.items()}


weight, bias, labels, features, inputs = data()
save_file(
    {"features": features, "labels": labels, "fc.weight": weight, "fc.bias": bias,
     **scores(weight, bias, labels, features, inputs)},
    HERE / "geometry.safetensors",
)
save_file({"features": inputs}, HERE / "geometry_inputs.safetensors")
